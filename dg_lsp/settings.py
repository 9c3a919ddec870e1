"""Settings: what the client or the command line sent, resolved once and frozen.

Knows nothing of LSP messages or the engine's insides.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Which engine answers. `url` names a running one; empty means this user's own engine."""

    model: str = "smollm2-135m"
    device: str = "auto"
    url: str = ""
    token: str = ""
    start: bool = True
    start_timeout_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one language server session."""

    engine: EngineSettings = field(default_factory=EngineSettings)

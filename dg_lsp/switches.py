"""What the user has turned off, for how long, and how that is said.

Switches hold for one session and go over the settings: nothing is written anywhere. Knows nothing
of LSP, documents or the engine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from dg_lsp.settings import Settings

_MOST_MINUTES = 1_000_000
Scope = Literal["global", "workspace", "language"]


@dataclass(frozen=True, slots=True)
class Status:
    """What is happening, or why nothing is shown; `progress` is 0 to 1.

    Of the engine: starting, loading, ready, thinking, stopped, failed. Why nothing is shown: disabled,
    snoozed, excluded (this file, or this place in it).
    """

    state: str
    message: str = ""
    progress: float = 0.0

    @property
    def explains_silence(self) -> bool:
        """Whether it says why nothing is shown although the engine may be well."""
        return self.state in ("disabled", "snoozed", "excluded")


class Switches:
    """On and off: everything, a workspace folder, a language; and a pause."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._turned: dict[tuple[Scope, str], bool] = {}
        self._until = -math.inf

    def toggle(self, scope: Scope, name: str, settings: Settings) -> bool:
        """Turns over what is named (a language id, a folder's URI); returns whether it is on now.

        Turned back to what the settings say, it follows them again.
        """
        name = "" if scope == "global" else name
        on = not self._is_on(scope, name, settings)
        self._turned.pop((scope, name), None)
        if on != self._is_on(scope, name, settings):
            self._turned[scope, name] = on
        return on

    def snooze(self, minutes: float) -> None:
        """Nothing is shown unasked for so long; 0 ends that."""
        self._until = self._clock() + 60 * min(minutes, _MOST_MINUTES)

    def silence(
        self, settings: Settings, language: str, folder: str, automatic: bool = True
    ) -> Status | None:
        """Why nothing is shown; None if something may be.

        A command is no answer to what the user has turned off: everything, or a language. It goes
        over a workspace that is off and over a pause, which are about being disturbed.
        """
        if not self._is_on("global", "", settings):
            return Status("disabled", "completions are off")
        if not self._is_on("language", language, settings):
            return Status("disabled", f"completions are off in {language}")
        if not automatic:
            return None
        if not self._is_on("workspace", folder, settings):
            return Status("disabled", "completions are off in this workspace")
        left = self._until - self._clock()
        if left > 0:
            return Status("snoozed", f"completions pause for {math.ceil(left / 60)} min more")
        return None

    def _is_on(self, scope: Scope, name: str, settings: Settings) -> bool:
        default = {
            "global": settings.enabled,
            "workspace": True,
            "language": name not in settings.disabled_languages,
        }
        return self._turned.get((scope, name), default[scope])

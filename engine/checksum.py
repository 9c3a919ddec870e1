"""Whether a file is the one expected, by its SHA-256."""

from __future__ import annotations

import hashlib
from pathlib import Path

from engine.errors import EngineError


def check(path: Path, expected: str) -> None:
    """Raises EngineError unless the file's SHA-256 is the pinned one."""
    if (found := sha256(path)) != expected:
        raise EngineError(
            f"{path.name} is not the file expected: its SHA-256 is {found}, not {expected}; "
            "it is damaged or was replaced, fetch it again"
        )


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Local figures: how much was shown, accepted and kept, and how fast. Never text, never sent.

One file of JSON lines that its user may read, show and delete (`dg-lsp stats`). All servers of
a user append to it, each line in one piece. Knows nothing of what is counted or how it is summed up.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs

logger = logging.getLogger(__name__)

MAX_BYTES = 2_000_000  # some 20,000 lines; then the older half goes


def default_path() -> Path:
    """This user's file; DG_LSP_STATISTICS names another one."""
    named = os.environ.get("DG_LSP_STATISTICS")
    return Path(named) if named else platformdirs.user_state_path("dg-lsp") / "statistics.jsonl"


class Statistics:
    """The file. What cannot be written now is written with the next line, or lost: never an error."""

    def __init__(
        self,
        path: Path | None = None,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path or default_path()
        self._max_bytes = max_bytes
        self._clock = clock
        self._pending: list[str] = []

    def add(self, event: str, **figures: float | str) -> None:
        """Appends one event with its figures."""
        line = {"at": int(self._clock()), "event": event, **figures}
        self._pending = [*self._pending[-100:], json.dumps(line) + "\n"]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._append("".join(self._pending))
            self._pending = []
        except OSError as error:
            logger.debug("statistics are not written: %s", type(error).__name__)

    def read(self) -> list[dict[str, Any]]:
        """All lines, the oldest first; what is no line of ours is passed over."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        return [line for line in map(_parsed, text.splitlines()) if line]

    def delete(self) -> bool:
        """Deletes the file; returns whether there was one. Raises OSError."""
        try:
            self.path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def _append(self, lines: str) -> None:
        """Unbuffered, so that the system keeps the lines of several processes apart.

        What another one appends while the older half is taken out goes with it.
        """
        with self.path.open("ab", buffering=0) as file:
            file.write(lines.encode())
            size = file.tell()
        if size > self._max_bytes:
            data = self.path.read_bytes()
            start = data.find(b"\n", len(data) - self._max_bytes // 2) + 1
            shorter = self.path.with_suffix(".new")
            shorter.write_bytes(data[start:])
            shorter.replace(self.path)


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except ValueError:  # such as half a line after a crash
        return None
    known = isinstance(line, dict) and isinstance(line.get("at"), int) and "event" in line
    return line if known else None

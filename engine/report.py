"""Progress of a command on stderr. Knows nothing of what is done."""

from __future__ import annotations

import sys


class Report:
    """Shows progress on stderr: one moving line on a terminal, else a line for every quarter."""

    def __init__(self) -> None:
        self._shown: tuple[str, int] | None = None

    def __call__(self, fraction: float, what: str) -> None:
        """Shows that `what` is done to `fraction`, 0 to 1."""
        terminal = sys.stderr.isatty()
        percent = int(fraction * 100)
        now = (what, percent if terminal else percent // 25)
        if now == self._shown:
            return
        shown = f"{what}: {percent} %" if percent else f"{what} …"
        if terminal:
            start = "\r" if self._shown and self._shown[0] == what else "\n" * bool(self._shown)
            sys.stderr.write(f"{start}{shown}\x1b[K")
        else:
            sys.stderr.write(f"{shown}\n")
        sys.stderr.flush()
        self._shown = now

    @property
    def used(self) -> bool:
        """Whether there was anything to do."""
        return self._shown is not None

    def close(self) -> None:
        """Ends the moving line."""
        if self._shown and sys.stderr.isatty():
            sys.stderr.write("\n")

"""How the command line speaks: one-line errors, progress, and marks with or without colour."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import Self, TextIO


class CommandError(Exception):
    """What the user gave cannot be used; one line that says what to do. Exit code 2."""


class Progress:
    """One moving line on a terminal; elsewhere a line for each new state."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._moving = out.isatty()
        self._state = ""
        self._drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._erase()

    def show(self, state: str, message: str, fraction: float, always: bool = False) -> None:
        """Shows the newest state; `always` shows each message although the state is the same."""
        if state == "ready":
            self._erase()
            if message:
                self._out.write(f"note: {message}\n")
        elif self._moving:
            percent = f" {100 * fraction:.0f} %" if fraction else ""
            line = " ".join(f"{state}: {message}{percent}".split())[
                : shutil.get_terminal_size().columns - 1
            ]
            self._out.write(f"\r{line}\x1b[K")
            self._drawn = True
        elif always or state != self._state:
            self._out.write(f"{state}: {message}\n")
        self._state = state
        self._out.flush()

    def _erase(self) -> None:
        if self._drawn:
            self._out.write("\r\x1b[K")
            self._drawn = False


@dataclass(frozen=True, slots=True)
class Style:
    """Marks around a fill; colours on a terminal, brackets elsewhere."""

    coloured: bool

    @property
    def opening(self) -> str:
        """What stands before the fill."""
        return "" if self.coloured else "├"

    @property
    def closing(self) -> str:
        """What stands behind the fill."""
        return "" if self.coloured else "┤"

    def strong(self, text: str) -> str:
        """The fill."""
        return f"\x1b[1;32m{text}\x1b[0m" if self.coloured and text else text

    def dim(self, text: str) -> str:
        """What stood there before."""
        return f"\x1b[2m{text}\x1b[0m" if self.coloured and text else text


def style(out: TextIO) -> Style:
    """Colours on a terminal, unless NO_COLOR is set."""
    return Style(coloured=out.isatty() and not os.environ.get("NO_COLOR"))

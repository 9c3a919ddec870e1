"""Where written text ends: at a line's end, or where it begins to repeat the suffix.

Pure functions of text, for decoding that cannot see the suffix. Knows nothing of tokens.
"""

from __future__ import annotations

import re

from engine.request import StopReason

_SURE_CHARS = 4  # a shorter rest of line is only recognised at the end of a written line
_WORD_END = re.compile(r"\w(?!\w)|[)\]}\"'`]")


def find_end(text: str, suffix: str, *, single_line: bool) -> tuple[int, StopReason] | None:
    r"""The length to cut `text` to and why, or None while it may go on.

    >>> find_end("a + b)", ") * 2\n", single_line=True)
    >>> find_end("a + b) * 2", ") * 2\n", single_line=True)
    (5, <StopReason.SUFFIX: 'suffix'>)
    """
    rest, _, below = suffix.partition("\n")
    line_end = text.find("\n")
    first = text if line_end < 0 else text[:line_end]
    if rest.strip() and (line_end >= 0 or len(rest.strip()) >= _SURE_CHARS):
        written = first.rstrip()
        if written.endswith(rest.strip()):
            return len(written) - len(rest.strip()), StopReason.SUFFIX
    if single_line:
        return (line_end, StopReason.LINE) if line_end >= 0 else None
    return _repeated_line(text, below)


def first_line(text: str) -> str:
    r"""The text up to the end of the first line that says something.

    >>> first_line("\n  return x\n  y")
    '\n  return x'
    """
    blank = len(text) - len(text.lstrip())
    end = text.find("\n", blank)
    return text if end < 0 else text[:end]


def beginnings(text: str) -> list[str]:
    r"""What of the first line that says something could stand alone, the shortest first; all of it last.

    >>> beginnings("\n  return f(x) + 1\n  y")
    ['\n  return', '\n  return f', '\n  return f(x', '\n  return f(x)', '\n  return f(x) + 1']
    """
    line = first_line(text)
    ends = {found.end() for found in _WORD_END.finditer(line)} | {len(line)}
    return [line[:end] for end in sorted(ends)] if line.strip() else []


def _repeated_line(text: str, below: str) -> tuple[int, StopReason] | None:
    """Where a whole written line equals the first line with text on it below the hole."""
    wanted = next((line.rstrip() for line in below.split("\n") if line.strip()), None)
    start = 0
    for line in text.split("\n")[:-1]:
        if start > 0 and line.rstrip() == wanted:
            return len(text[:start].rstrip()), StopReason.SUFFIX
        start += len(line) + 1
    return None

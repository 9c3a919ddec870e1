"""Text that says again what is there: near copies of lines, and models caught in a loop."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dg_lsp.indentation import width

NEAR = 0.05  # share of characters that may differ in a copy
_TIMES = 3  # so often in a row is a loop
_LONGEST_PERIOD = 8  # lines
_LOOP_IN_LINE = re.compile(r"(.{3,40}?)\1{3,}(.{0,40})$")
_LOOKED_AT = 400  # characters at the end of a line


def is_near_copy(lines: Sequence[str], others: Sequence[str]) -> bool:
    """Whether at most NEAR of the characters have to be edited to make the lines the others.

    A single short line is a copy only if it is the same: in tables and the like neighbours differ
    by a character. Lines at another depth are others.
    """
    if any(width(line) != width(copy) for line, copy in zip(lines, others, strict=True)):
        return False
    one, other = ("\n".join(line.strip() for line in part) for part in (lines, others))
    if one == other:
        return True
    limit = int(NEAR * max(len(one), len(other)))
    return limit >= (1 if len(lines) > 1 else 2) and _edits(one, other, limit) <= limit


def loop_start(before: Sequence[str], lines: Sequence[str]) -> int | None:
    """The first of `lines` that is only a loop's next turn; None if there is no loop.

    A loop is a run of lines that comes three times in a row. The first turn may lie in the lines
    `before`, which are the document's; where it does not, one turn of the text stays.
    """
    every = [line.strip() for line in (*before[-_LONGEST_PERIOD:], *lines)]
    first = len(every) - len(lines)
    for start in range(len(every)):
        for period in range(1, _LONGEST_PERIOD + 1):
            end = start + _TIMES * period
            if end > len(every) or every[start] != every[start + period]:
                continue
            turn = every[start : start + period]
            again = first <= start + period and every[start + period : end] == turn * (_TIMES - 1)
            if again and _says_something(turn):
                return max(start + period, first) - first
    return None


def without_loop_in_line(line: str) -> str:
    """The line without what it says over and over at its end, but for the first time."""
    found = _LOOP_IN_LINE.search(line, max(0, len(line) - _LOOKED_AT))
    if found is None:
        return line
    turn, rest = found.groups()
    says = any(map(str.isalnum, turn)) and turn.startswith(rest)
    return line[: found.end(1)].rstrip() if says else line


def _says_something(turn: Sequence[str]) -> bool:
    """Closing brackets and blank lines may well come three times in a row."""
    return any(char.isalnum() for char in "".join(turn)) and any(
        len(line) > 3 and line != "end" for line in turn
    )


def _edits(one: str, other: str, limit: int) -> int:
    """The Levenshtein distance, or more than `limit` where it is larger than that."""
    if abs(len(one) - len(other)) > limit:
        return limit + 1
    row = list(range(len(other) + 1))
    for i, char in enumerate(one, 1):
        low, high = max(1, i - limit), min(len(other), i + limit)
        new = [limit + 1] * (len(other) + 1)
        new[0] = i
        for j in range(low, high + 1):
            new[j] = min(row[j] + 1, new[j - 1] + 1, row[j - 1] + (char != other[j - 1]))
        if min(new[low - 1 : high + 1]) > limit:
            return limit + 1
        row = new
    return row[-1]

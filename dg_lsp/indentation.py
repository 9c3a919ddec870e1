"""Indentation: how a text indents its blocks, and lines made to follow another text's way."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_LOOKED_AT = 2000  # characters at the end of a line
_OPENS = re.compile(
    r"""(?:[({\[:]|=>|->|\b(?:then|do|else|begin)|\|[^|]*\||\bfunction\b.*\))\s*$"""
    r"""|^\s*(?:def|class|module|if|unless|while|until|case|for)\b(?!.*[;}]|.*\bend\b)"""
)
_TAB = 4  # columns, where a completion mixes tabs into a document of blanks or the other way


def opens_block(line: str) -> bool:
    """Whether what follows `line` may be deeper indented."""
    return _OPENS.search(line[-_LOOKED_AT:]) is not None


def lead(line: str) -> str:
    """The blanks that a line begins with."""
    return line[: len(line) - len(line.lstrip(" \t"))]


def width(line: str) -> int:
    """How many columns a line is indented."""
    return len(lead(line).expandtabs(_TAB))


def unit(lines: Sequence[str], near: str = "") -> str:
    """What one more level adds, as most blocks of `lines` have it; empty if none says.

    Blocks that are not indented with what `near` consists of are another text's, such as a
    script in a string.
    """
    votes: Counter[str] = Counter()
    above = ""
    for line in lines:
        if not line.strip():
            continue
        own, outer = lead(line), lead(above)
        more = own[len(outer) :] if own.startswith(outer) else ""
        if more and opens_block(above) and (not near or more[0] == near[0]):
            votes[more] += 1
        above = line
    if votes:
        return votes.most_common(1)[0][0]
    return "\t" if near.startswith("\t") else ""


def adopt(lines: Sequence[str], base: str, document_unit: str) -> list[str]:
    """Completion `lines` that follow a line indented by `base`, in the document's unit.

    `lines[0]` is the rest of the cursor's line. Only a clear difference is mended: other blanks
    than the document's, or another depth of each block; lines aligned to something stay.
    """
    own_unit = unit([base + lines[0].lstrip(" \t"), *lines[1:]])
    if document_unit == "\t":
        columns = len(own_unit.expandtabs(_TAB)) or _TAB
        return [lines[0], *(_with_tabs(line, columns) for line in lines[1:])]
    if not document_unit.strip(" ") and document_unit:
        spaced = [lines[0], *(_with_blanks(line, document_unit) for line in lines[1:])]
        own_unit = own_unit.replace("\t", document_unit)
        return _rescaled(spaced, len(base), len(own_unit), len(document_unit))
    return list(lines)


def _with_tabs(line: str, columns: int) -> str:
    blanks = lead(line)
    if " " not in blanks:
        return line
    if not blanks.strip(" ") and len(blanks) < columns:
        return line
    wide = len(blanks.expandtabs(columns))
    return "\t" * (wide // columns) + " " * (wide % columns) + line[len(blanks) :]


def _with_blanks(line: str, document_unit: str) -> str:
    blanks = lead(line)
    return blanks.replace("\t", document_unit) + line[len(blanks) :]


def _rescaled(lines: list[str], base: int, own: int, wanted: int) -> list[str]:
    extras = [len(lead(line)) - base for line in lines[1:] if line.strip()]
    if not own or own == wanted or any(extra > 0 and extra % own for extra in extras):
        return lines
    return [lines[0], *(_scaled(line, base, own, wanted) for line in lines[1:])]


def _scaled(line: str, base: int, own: int, wanted: int) -> str:
    blanks = len(lead(line))
    if blanks <= base:
        return line
    return " " * (base + (blanks - base) // own * wanted) + line[blanks:]

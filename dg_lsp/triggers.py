"""WHEN to ask: what an editor wants to know, and whether that is worth the engine's time.

Pure and in plain data; knows nothing of LSP, of the engine or of what was asked before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dg_lsp import indentation
from dg_lsp.document import LINE_END, Edit, Position, Snapshot

MAX_CHARS = 1_000_000
MAX_LINE_CHARS = 10_000  # nobody types that; each answer would carry the line back
INDENT_FIRST = "the line is to be indented first"

_WORD_END = re.compile(r"\w\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A completion that an editor wants at a position, in its own code units.

    `automatic` if typing led to it and no command. `selected` is the item chosen in the editor's
    own list: what it would insert, and for what; only text that extends it can be shown beside it.
    `path` is relative to the workspace's `folder` (a URI), with forward slashes; empty where there
    is no file.
    """

    uri: str
    position: Position
    path: str = ""
    folder: str = ""
    automatic: bool = True
    selected: Edit | None = None
    read_only: bool = False


def exclusion(ask: Ask, size: int) -> str:
    """Why an automatic request gets no answer whatever stands at the cursor; empty if it does.

    `size` is the document's, in characters. A request by command always gets an answer.
    """
    if not ask.automatic:
        return ""
    if size > MAX_CHARS:
        return f"the file is larger than {MAX_CHARS:,} characters"
    return "the file is read-only" if ask.read_only else ""


def refusal(place: Snapshot, typing: bool) -> str:
    """Why the engine is not asked unasked at `place`; empty if it is. What is known is shown.

    `typing` says that the cursor stands behind what was typed last.
    """
    left = place.line_left
    if len(left) > MAX_LINE_CHARS:
        return f"the line is longer than {MAX_LINE_CHARS:,} characters"
    if place.mid_line:
        return "code follows on the line"
    if not left.strip() and (left or indentation.opens_block(_line_above(place))):
        return INDENT_FIRST
    if _WORD_END.search(left) and not typing:
        return "the cursor is at a word that is not being typed"
    return ""


def _line_above(place: Snapshot) -> str:
    above = place.text[max(0, place.offset - 10_000) : place.offset].rstrip()
    return LINE_END.split(above)[-1]

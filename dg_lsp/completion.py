"""WHERE a completion goes: the place in the text to complete, and the line that it replaces.

Plain data in the client's units on the one side, snapshots in code points on the other.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field

from dg_lsp.cache import Offer
from dg_lsp.document import (
    LINE_END,
    Document,
    Encoding,
    Position,
    Snapshot,
    code_points,
    units,
    whole_characters,
)
from dg_lsp.triggers import Ask

_WORD = re.compile(r"\w*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """Text that replaces what lies between two positions of one line, in the client's units.

    `id` is what clients call it by when they tell what became of it.
    """

    text: str
    start: Position
    end: Position
    id: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MenuEntry:
    """A completion for an editor's list: from the start of the word at the cursor on.

    Editors filter their lists by that word, so `text` begins with it.
    """

    label: str
    text: str
    start: Position
    end: Position


def menu_entry(completion: Completion, cursor: Position, encoding: Encoding) -> MenuEntry:
    """The completion, which goes from its line's start over the cursor, as a list shows it."""
    line = LINE_END.split(completion.text, maxsplit=1)[0]
    typed = line[: code_points(line, cursor.character, encoding)]
    word = _WORD.match(typed[::-1])  # from the right: a search would begin at each letter
    assert word is not None, "the pattern matches anything"
    before = typed[: len(typed) - word.end()]
    text = completion.text[len(before) :]
    first, *others = LINE_END.split(text)
    label = first.strip() or next((line.strip() for line in others if line.strip()), "")
    start = Position(cursor.line, units(before, encoding))
    return MenuEntry(label=label + " …" * bool(others), text=text, start=start, end=completion.end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A place to complete, on the line of number `line`.

    `typed` is that line up to the place; `left` is what stands there yet, which differs where an
    item is selected in the editor's list.
    """

    place: Snapshot
    line: int
    typed: str
    left: str

    def completion(self, offer: Offer, encoding: Encoding) -> Completion:
        """The line from its start, typed part included: so ghost text does not flicker."""
        replaced = self.left + self.place.line_right[: offer.covered]
        return Completion(
            text=self.typed + offer.text,
            start=Position(self.line, 0),
            end=Position(self.line, units(replaced, encoding)),
        )


def site(document: Document, ask: Ask) -> Site | None:
    """Where to complete; None if there is no such place.

    A selected item stands in the text as if it had been taken: what is shown beside it begins
    with it.
    """
    here = document.snapshot(ask.position, ask.path)
    if here is None:
        return None
    line, left = ask.position.line, here.line_left
    if ask.selected is None:
        return Site(place=here, line=line, typed=left, left=left)
    text, start, end = ask.selected
    if start is None or end is None or not start <= ask.position <= end or start.line != end.line:
        return None
    first, last = document.snapshot(start), document.snapshot(end)
    assert first is not None and last is not None, "they are on the cursor's line"
    text = whole_characters(text)
    place = dataclasses.replace(
        here, text=first.prefix + text + last.suffix, offset=first.offset + len(text)
    )
    return Site(place=place, line=line, typed=first.line_left + text, left=last.line_left)

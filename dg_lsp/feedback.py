"""What becomes of what was shown: taken whole, in part, typed by hand or left; and what stays of it.

Editors tell little of this, so it is seen in the edits: text that a completion wants next and that
comes in one edit was accepted, what comes character by character was typed. What an editor does
tell is believed. Counts characters and forgets the text with the document.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from dg_lsp.document import LINE_END, Document, Edit

RETAINED_AFTER_S = (15, 120, 600)
_TYPED = 8  # characters; what comes at once and is longer was pasted or put there by a tool

Record = Callable[..., None]
Later = Callable[[float, Callable[[], None]], object]


@dataclass(slots=True)
class _Item:
    """One completion on the screen: its text from the start of line number `line`."""

    id: str
    line: int
    text: str
    at: int  # characters of `text` that stood there when it was shown
    done: int  # characters of `text` that stand in the document
    accepted: int = 0
    typed: int = 0


@dataclass(slots=True)
class _Watch:
    """What is shown in one document; `counted` as soon as it counts as shown."""

    document: Document
    items: list[_Item]
    ms: float
    counted: bool = False


@dataclass(slots=True)
class Feedback:
    """Records `shown`, `outcome` and `retained`, each with what was `typed` by hand since the last.

    `later` calls back after so many seconds.
    """

    record: Record
    later: Later
    retained_after_s: Sequence[float] = RETAINED_AFTER_S
    _watched: dict[str, _Watch] = field(default_factory=dict)
    _ids: itertools.count[int] = field(default_factory=itertools.count)
    _client_reports: bool = False  # whether the client says itself what it shows
    _typed: int = 0

    def offered(self, document: Document, line: int, texts: Sequence[str], ms: float) -> list[str]:
        """Takes note of an answer, texts from the line's start on, and gives each its identity.

        The same texts once more are the same completions, typed on.
        """
        watch = self._watched.get(document.uri)
        if watch and [(item.line, item.text) for item in watch.items] == [(line, t) for t in texts]:
            return [item.id for item in watch.items]
        self._leave(document.uri)
        if not texts:
            return []
        items = [
            _Item(f"{os.getpid()}-{next(self._ids)}", line, text, done, done)
            for text in texts
            for done in [_standing(document, line, text)]
        ]
        watch = self._watched[document.uri] = _Watch(document, items, ms)
        if not self._client_reports:
            self._count(watch)
        return [item.id for item in items]

    def shown(self, id_: object) -> None:
        """The client shows the completion; from then on only what it reports counts as shown."""
        self._client_reports = True
        if found := self._find(id_):
            self._count(found[0])

    def changed(self, document: Document, edits: Sequence[Edit]) -> None:
        """Sees in a document's new text how far its completions have come."""
        inserted = sum(len(edit.text) for edit in edits)
        typing = inserted <= _TYPED and all(edit.start is not None for edit in edits)
        watch = self._watched.get(document.uri)
        if watch is None:
            self._typed += inserted if typing else 0
            return
        steps = [(self._advance(item, document, inserted), item) for item in watch.items]
        if not any(step for step, _ in steps):
            self._typed += inserted if typing else 0
        if finished := [item for _, item in steps if item.done == len(item.text)]:
            self._end(watch, finished[0], "full" if finished[0].accepted else "typed")
        elif all(item.done < item.at for item in watch.items) or not any(s for s, _ in steps):
            self._leave(document.uri)

    def accepted(self, id_: object) -> None:
        """The client says that the whole completion was taken."""
        if found := self._find(id_):
            watch, item = found
            item.accepted = len(item.text) - item.at - item.typed
            self._end(watch, item, "full")

    def accepted_in_part(self, id_: object, length: object) -> None:
        """The client says that `length` characters were taken so far, where it says how many."""
        if (found := self._find(id_)) and isinstance(length, int) and length > 0:
            item = found[1]
            item.accepted = max(item.accepted, min(length, len(item.text) - item.at) - item.typed)

    def rejected(self, id_: object) -> None:
        """The client says that the user did away with the completion."""
        if found := self._find(id_):
            watch, item = found
            self._end(watch, item, "partial" if item.accepted else "rejected")

    def closed(self, uri: str) -> None:
        """Forgets a document."""
        self._leave(uri)

    def _advance(self, item: _Item, document: Document, inserted: int) -> int:
        """How many more characters of the item stand in the document now."""
        before, item.done = item.done, _standing(document, item.line, item.text)
        step = item.done - before
        if step > 1 and inserted > 2:  # two at once may be a bracket with its partner
            item.accepted += step
        elif step > 0:
            item.typed += step
        return max(step, 0)

    def _find(self, id_: object) -> tuple[_Watch, _Item] | None:
        for watch in self._watched.values():
            for item in watch.items:
                if item.id == id_:
                    return watch, item
        return None

    def _count(self, watch: _Watch) -> None:
        if not watch.counted:
            watch.counted = True
            chars = max(len(item.text) - item.at for item in watch.items)
            language, ms = watch.document.language, round(watch.ms, 1)
            self._record("shown", language=language, ms=ms, chars=chars)

    def _leave(self, uri: str) -> None:
        """The completions go: what was taken of them counts."""
        watch = self._watched.get(uri)
        if watch is None:
            return
        item = max(watch.items, key=lambda item: item.accepted)
        if item.accepted:
            self._end(watch, item, "partial")
        else:
            self._typed += max(item.typed for item in watch.items)
            del self._watched[uri]

    def _end(self, watch: _Watch, item: _Item, how: str) -> None:
        """The one outcome of a watch."""
        del self._watched[watch.document.uri]
        self._count(watch)
        self._typed += item.typed
        language = watch.document.language
        self._record("outcome", how=how, language=language, accepted=item.accepted)
        taken = item.text[item.at : item.at + item.accepted + item.typed]
        if how in ("full", "partial") and taken.strip():
            for seconds in self.retained_after_s:
                self.later(seconds, partial(self._retained, watch.document, taken, seconds))

    def _retained(self, document: Document, taken: str, after_s: float) -> None:
        """How much of a text still stands in the document, by lines, wherever they have gone."""
        text = document.text
        lines = [line.strip() for line in LINE_END.split(taken) if line.strip()]
        kept = sum(len(line) for line in lines if line in text)
        self._record("retained", after_s=after_s, kept=kept, of=sum(map(len, lines)))

    def _record(self, event: str, **figures: float | str) -> None:
        typed, self._typed = self._typed, 0
        self.record(event, **figures, **({"typed": typed} if typed else {}))


def _standing(document: Document, line: int, text: str) -> int:
    """How many characters of `text` stand from the start of the line on."""
    there = document.lines(line, 1 + len(LINE_END.findall(text)))
    equal = (here == wanted for here, wanted in zip(there, text, strict=False))
    return sum(1 for _ in itertools.takewhile(bool, equal))

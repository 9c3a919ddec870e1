"""WHICH text from elsewhere helps to fill a hole: definitions, recent edits, places left.

Told where the cursor is and what was opened, saved and closed, in plain data; asked for chunks.
Knows nothing of tokens or templates, or of when it is good to look.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from dg_lsp.chunks import LINES, Chunk, Ring, around, similarity, tokens
from dg_lsp.context import Budget
from dg_lsp.definitions import definitions, imports
from dg_lsp.document import LINE_END, Snapshot
from dg_lsp.syntax import window
from dg_lsp.workspace import Found, Index
from engine.request import ContextChunk

JUMP_LINES = 32  # farther is somewhere else
BUDGET_S = 0.05

_EDITS = 8
_EDIT_LINES = 10  # around an edit
_PASTED_LINES = 4  # so many at once are not typed
_TOO_LIKE = 0.5  # the cursor's window
_COMMON = 4  # more definitions of a name than this say nothing
_NAME = re.compile(r"[^\W\d]\w+")
_NEAR_CHARS = 400  # the distance at which a name counts half
_HEAD_CHARS = 8000
_CHUNK_CHARS = 10_000  # on each side of the cursor
_MAX_LIVE_CHARS = 64_000  # of an open document that is parsed for its definitions


@dataclass(frozen=True, slots=True)
class _Place:
    snapshot: Snapshot
    line: int


class Retrieval:
    """One session's memory of where one has been, with the workspace's index."""

    def __init__(
        self,
        index: Index | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.index = index or Index()
        self._clock = clock
        self._ring = Ring()
        self._edits: list[Chunk] = []
        self._last: _Place | None = None

    def visit(self, snapshot: Snapshot) -> None:
        """Notes where the cursor is; it was edited there if the version is a new one."""
        line = snapshot.line_number
        last, self._last = self._last, _Place(snapshot, line)
        if last is None:
            return
        elsewhere = last.snapshot.uri != snapshot.uri
        if elsewhere or abs(last.line - line) > JUMP_LINES:
            self._keep(last)
            self._keep(self._last)
        elif last.snapshot.version != snapshot.version:
            self._edited(snapshot, line)

    def seen(self, snapshot: Snapshot) -> None:
        """Keeps what is on the screen beside the document that the cursor is in."""
        if self._last is None or self._last.snapshot.uri != snapshot.uri:
            self._keep(_Place(snapshot, snapshot.line_number))

    def update(self, path: str, language: str, text: str) -> None:
        """Takes a document's definitions: on opening, on saving, and when typing has paused."""
        if path and len(text) <= _MAX_LIVE_CHARS:
            self.index.put(path, definitions(LINE_END.sub("\n", text), language))

    def pasted(self, path: str, text: str) -> None:
        """Keeps what was inserted at once, if it is of several lines."""
        lines = LINE_END.split(text[: 2 * _CHUNK_CHARS])
        if len(lines) >= _PASTED_LINES:
            self._ring.add(Chunk(path, "\n".join(lines[:LINES])))

    def saved(self, uri: str) -> None:
        """Keeps the place one was at when saving."""
        if self._last is not None and self._last.snapshot.uri == uri:
            self._keep(self._last)

    def closed(self, uri: str) -> None:
        """Keeps the place one was at; what the document defines stays in the index."""
        self.saved(uri)
        if self._last is not None and self._last.snapshot.uri == uri:
            self._last = None

    def forget(self, path: str) -> None:
        """Forgets a file that is gone or must not be used any more."""
        self.index.remove(path)
        self._ring.forget(path)
        self._edits = [edit for edit in self._edits if edit.path != path]

    def settle(self) -> None:
        """Takes in the places left lately: when typing has paused."""
        self._ring.settle()

    def look(self, snapshot: Snapshot, budget: Budget) -> tuple[ContextChunk, ...]:
        """What may help at the snapshot's cursor, within `budget.retrieved`, the best last.

        Definitions are looked for first, then what one edited, then where one was; they stand in
        the order of stability. What is not found within BUDGET_S is left out.
        """
        end = self._clock() + BUDGET_S
        chars = budget.retrieved
        parts: list[list[ContextChunk]] = []
        said = _lines(_within(snapshot, budget))
        for part in (self._definitions, self._recent_edits, self._places):
            if self._clock() > end:
                break
            found = part(snapshot, said, chars)
            chars -= sum(len(chunk.text) + 2 for chunk in found)
            parts.append(found)
        return tuple(chunk for part in reversed(parts) for chunk in part)

    def _definitions(
        self, snapshot: Snapshot, said: frozenset[str], chars: int
    ) -> list[ContextChunk]:
        """Of the names used near the cursor, one chunk for each file, in its order."""
        ranked = sorted(self._candidates(snapshot), key=lambda scored: -scored[0])
        chosen: dict[str, list[Found]] = {}
        for _, found in ranked:
            text = found.definition.text
            lines = _lines(text)
            if len(text) + 2 <= chars and not lines <= said:
                said |= lines
                chars -= len(text) + 2
                chosen.setdefault(found.path, []).append(found)
        return [
            ContextChunk(path, "\n".join(found.definition.text for found in _in_order(group)))
            for path, group in sorted(chosen.items())
        ]

    def _candidates(self, snapshot: Snapshot) -> Iterator[tuple[float, Found]]:
        imported = frozenset(_NAME.findall(imports(snapshot.text[:_HEAD_CHARS], snapshot.language)))
        folder = PurePosixPath(snapshot.path).parent
        for name, distance in _names(snapshot).items():
            if name not in self.index:
                continue
            every = [found for found in self.index.lookup(name) if found.path != snapshot.path]
            if len(every) > _COMMON and name not in imported:
                continue
            for found in every:
                score = 1 / (1 + distance / _NEAR_CHARS) + 2 * (name in imported)
                score += PurePosixPath(found.path).stem in imported
                score += 0.5 * (PurePosixPath(found.path).parent == folder)
                yield score * (0.7 if found.definition.member else 1) / len(every) ** 0.5, found

    def _recent_edits(
        self, snapshot: Snapshot, said: frozenset[str], chars: int
    ) -> list[ContextChunk]:
        return self._fitting(self._edits, said, chars)

    def _places(self, snapshot: Snapshot, said: frozenset[str], chars: int) -> list[ContextChunk]:
        here = tokens(window(snapshot).before[-4000:])
        unlike = [
            chunk for chunk in self._ring.chunks if similarity(chunk.tokens, here) <= _TOO_LIKE
        ]
        return self._fitting(unlike, said, chars)

    def _fitting(self, chunks: list[Chunk], said: frozenset[str], chars: int) -> list[ContextChunk]:
        """The newest that fit, in their order, without those of which most is `said` anyway."""
        kept: list[ContextChunk] = []
        for chunk in reversed(chunks):
            lines = _lines(chunk.text)
            new = len(lines - said) > len(lines) / 2
            if len(chunk.text) + 2 <= chars and new:
                said |= lines
                chars -= len(chunk.text) + 2
                kept.append(ContextChunk(chunk.path, chunk.text))
        return kept[::-1]

    def _keep(self, place: _Place) -> None:
        self._ring.add(_chunk(place.snapshot, place.line, LINES))

    def _edited(self, snapshot: Snapshot, line: int) -> None:
        chunk = _chunk(snapshot, line, _EDIT_LINES)
        others = [
            edit
            for edit in self._edits
            if edit.path != chunk.path or abs(edit.line - chunk.line) > _EDIT_LINES
        ]
        self._edits = [*others, chunk][-_EDITS:]


def _chunk(snapshot: Snapshot, line: int, most: int) -> Chunk:
    """The lines around the cursor; of very long lines a part."""
    start = max(0, snapshot.offset - _CHUNK_CHARS)
    above = LINE_END.split(snapshot.text[start : snapshot.offset])
    below = LINE_END.split(snapshot.text[snapshot.offset : snapshot.offset + _CHUNK_CHARS])
    first, lines = around([*above[:-1], above[-1] + below[0], *below[1:]], len(above) - 1, most)
    return Chunk(snapshot.path, "\n".join(lines), line - len(above) + 1 + first)


def _within(snapshot: Snapshot, budget: Budget) -> str:
    """The part of the document that is in the prompt anyway, or a little more."""
    start = max(0, snapshot.offset - budget.before)
    return LINE_END.sub("\n", snapshot.text[start : snapshot.offset + budget.suffix])


def _lines(text: str) -> frozenset[str]:
    """The lines of `text` that say something."""
    return frozenset(filter(None, map(str.strip, text.split("\n"))))


def _names(snapshot: Snapshot) -> dict[str, int]:
    """The names in the text near the cursor, with the distance of the nearest of each."""
    near = window(snapshot)
    names: dict[str, int] = {}
    for found in _NAME.finditer(near.before):
        names[found.group()] = len(near.before) - found.end()
    for found in _NAME.finditer(near.after[:1000]):
        names[found.group()] = min(names.get(found.group(), found.start()), found.start())
    return names


def _in_order(group: list[Found]) -> list[Found]:
    return sorted(group, key=lambda found: found.definition.line)

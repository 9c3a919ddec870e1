"""The text near the cursor, as brackets and as a syntax tree, without and with a completion.

Stateless: a window of some hundred lines is parsed instead of the file, so that a long file costs
what a short one does. The window starts at a line without indentation where there is one. Knows
nothing of what a filter does with the answers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from tree_sitter import Point, Tree

from dg_lsp import brackets, grammars
from dg_lsp.document import LINE_END, Snapshot

BEFORE_CHARS = 8000
AFTER_CHARS = 4000

_OUTER_LINE = re.compile(r"(?<=\n)(?=[^\s)\]}#])")
_DEFINITION = re.compile(
    r"(function|method|class|constructor|interface|struct|impl|enum|trait|decorated|template)"
    r"(_(definition|declaration|item|specifier))?"
)


@dataclass(frozen=True, slots=True)
class Window:
    """The text on both sides of the cursor, with LF only; `whole` if the document ends with it."""

    before: str
    after: str
    language: str
    whole: bool = True

    @property
    def line_left(self) -> str:
        """The cursor's line up to the cursor."""
        return self.before[self.before.rfind("\n") + 1 :]

    def state(self, text: str = "") -> brackets.State:
        """What is open at the cursor, or behind `text` inserted there."""
        return brackets.scan(text, self.language, _state(self.before, self.language))

    def imbalance(self, text: str = "") -> int:
        """How many brackets and strings lack a partner, with `text` inserted."""
        return _imbalance(self.after, self.language, self.state(text))

    def closes_earlier(self, text: str) -> list[int]:
        """The places in `text` of what closes something that is open at the cursor, or nothing."""
        return brackets.closers_of_earlier(text, self.language, self.state())

    def breaks(self, text: str) -> bool:
        """Whether the inserted `text` brings errors into the tree.

        Not known, and so no, without a tree and where there are other errors near: macros and
        dialects are beyond a grammar.
        """
        tree = self._tree(text)
        return tree is not None and tree.root_node.has_error and not _has_errors(self)

    def starts_definition(self, text: str, place: int) -> bool:
        """Whether a function, method or class begins at `place` in the inserted `text`."""
        tree = self._tree(text)
        if tree is None:
            return False
        start = len((self.before + text[:place]).encode())
        node = tree.root_node.descendant_for_byte_range(start, start + 1)
        while node is not None and node.start_byte == start:
            if _DEFINITION.fullmatch(node.type):
                return True
            node = node.parent
        return False

    def _tree(self, text: str) -> Tree | None:
        base = _tree(self.before, self.after, self.language)
        if base is None or not text:
            return base
        return _inserted(base, self, text)


@lru_cache(maxsize=2)
def window(snapshot: Snapshot) -> Window:
    """What lies near the snapshot's cursor."""
    text, offset = snapshot.text, snapshot.offset
    before = LINE_END.sub("\n", text[max(0, offset - BEFORE_CHARS) : offset])
    if offset > BEFORE_CHARS:
        outer = _OUTER_LINE.search(before) or re.search(r"(?<=\n)", before)
        before = before[outer.start() :] if outer else before
    after = LINE_END.sub("\n", text[offset : offset + AFTER_CHARS])
    whole = offset + AFTER_CHARS >= len(text)
    if not whole:
        outer_lines = [found.start() for found in _OUTER_LINE.finditer(after)]
        after = after[: outer_lines[-1] if outer_lines else after.rfind("\n") + 1] or after
    return Window(before, after, snapshot.language, whole)


@lru_cache(maxsize=4)
def _state(before: str, language: str) -> brackets.State:
    return brackets.scan(before, language)


@lru_cache(maxsize=4)
def _tree(before: str, after: str, language: str) -> Tree | None:
    return grammars.parse((before + after).encode(), language)


@lru_cache(maxsize=64)
def _imbalance(after: str, language: str, state: brackets.State) -> int:
    return brackets.scan(after, language, state).imbalance


@lru_cache(maxsize=4)
def _has_errors(window: Window) -> bool:
    """Whether the user's text has errors that a completion is not there to mend.

    A line that one is typing is such an error, unless it opens a bracket that the user may
    close later.
    """
    tree = _tree(window.before, window.after, window.language)
    if tree is None or not tree.root_node.has_error:
        return tree is None
    left, right = window.line_left, window.after.partition("\n")[0]
    line = brackets.scan(left + right, window.language)
    if line.stack or line.inside:
        return True
    above = window.before[: len(window.before) - len(left)]
    rest = grammars.parse((above + window.after[len(right) :]).encode(), window.language)
    return rest is None or rest.root_node.has_error


def _inserted(base: Tree, window: Window, text: str) -> Tree | None:
    before, new = window.before.encode(), text.encode()
    start = _point(before)
    tree = base.copy()
    tree.edit(
        start_byte=len(before),
        old_end_byte=len(before),
        new_end_byte=len(before) + len(new),
        start_point=start,
        old_end_point=start,
        new_end_point=_point(before + new),
    )
    return grammars.parse(before + new + window.after.encode(), window.language, tree)


def _point(source: bytes) -> Point:
    """Where `source` ends: row, and column in bytes."""
    return Point(source.count(b"\n"), len(source) - source.rfind(b"\n") - 1)

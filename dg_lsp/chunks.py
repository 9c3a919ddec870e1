"""Pieces of text one has been at, kept in a stable order for the prompt.

The order is that of coming, and changes wait until one does not type: the engine keeps what it
has encoded only as long as a prompt begins with it. Pure data; knows nothing of documents.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

LINES = 64
_MOST = 16
_SAME = 0.9
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Chunk:
    """Some lines of a file; `line` is the number of the first, counted from 0."""

    path: str
    text: str
    line: int = 0

    @cached_property
    def tokens(self) -> frozenset[str]:
        """The words and signs in the text."""
        return tokens(self.text)


class Ring:
    """The newest chunks, no two of them alike; what comes in waits until `settle`."""

    def __init__(self) -> None:
        self.chunks: tuple[Chunk, ...] = ()
        self._waiting: list[Chunk] = []

    def add(self, chunk: Chunk) -> None:
        """Puts a chunk in line, in place of one like it that waits there too."""
        if chunk.text.strip():
            self._waiting = [old for old in self._waiting if not alike(old, chunk)][1 - _MOST :]
            self._waiting.append(chunk)

    def settle(self) -> bool:
        """Takes in what waits; the oldest go. Says whether anything is different now."""
        before = self.chunks
        for chunk in self._waiting:
            if not any(old.text == chunk.text for old in self.chunks):
                kept = tuple(old for old in self.chunks if not alike(old, chunk))
                self.chunks = (*kept, chunk)[-_MOST:]
        self._waiting = []
        return self.chunks != before

    def forget(self, path: str) -> None:
        """Drops a file's chunks."""
        self.chunks = tuple(chunk for chunk in self.chunks if chunk.path != path)
        self._waiting = [chunk for chunk in self._waiting if chunk.path != path]


def alike(one: Chunk, other: Chunk) -> bool:
    """Whether two chunks say so much the same that one is enough."""
    return similarity(one.tokens, other.tokens) > _SAME


def similarity(one: frozenset[str], other: frozenset[str]) -> float:
    """The share of tokens that both have, 0 to 1."""
    return len(one & other) / (len(one | other) or 1)


def tokens(text: str) -> frozenset[str]:
    """The words and signs in `text`."""
    return frozenset(_WORD.findall(text))


def around(lines: list[str], line: int, most: int = LINES) -> tuple[int, list[str]]:
    """The `most` lines around `line` and the number of the first of them."""
    first = max(0, min(line - most // 2, len(lines) - most))
    return first, lines[first : first + most]

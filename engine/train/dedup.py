"""Duplicates across the whole corpus, and what the evaluation must not find in it.

Texts in, verdicts out, in a fixed order: the earlier text wins. Exact (normalised text), near
(MinHash over token shingles) and by windows of lines; a text that touches an evaluation set goes
as a whole. Every hash is stable across runs. Knows nothing of packages.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

WINDOW = 10  # non-trivial lines that two files may not share
LEAK_WINDOW = 5  # lines of code that no file may share with an evaluation set
_SHINGLE, _BINS, _BANDS, _SIMILAR = 5, 128, 16, 0.8
_SHORTEST_PIECE = 15  # non-trivial lines left between two cuts
_LONGEST_COPY = 0.5  # of a file; what has more copied lines goes as a whole
_TOKEN = re.compile(r"\w+|[^\w\s]")
# Comments and imports of all our languages, which many files share.
_COMMON = re.compile(
    r"#|//|/\*|\* |import |from |export (?:\*|\{.*\}) from |(?:const|let|var) .*\brequire\("
)
_U64 = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Lines:
    """The non-trivial lines of a text: their hashes, and where they stand (from 0)."""

    hashes: _U64
    numbers: NDArray[np.int64]

    @classmethod
    def of(cls, text: str, *, code_only: bool = False) -> Lines:
        """With `code_only`, comments and imports, which all files share, are trivial too."""
        kept = [
            (_line_hash(line), number)
            for number, raw in enumerate(text.split("\n"))
            if sum(map(str.isalnum, line := " ".join(raw.split()))) > 4
            and not (code_only and _COMMON.match(line))
        ]
        hashes, numbers = zip(*kept, strict=True) if kept else ((), ())
        return cls(np.array(hashes, np.uint64), np.array(numbers, np.int64))

    def windows(self, size: int) -> _U64:
        """One hash for each `size` lines in a row."""
        return _rolling(self.hashes, size)


@dataclass(frozen=True, slots=True)
class Forbidden:
    """What stands in the evaluation sets: windows of code lines, and single lines that name a problem."""

    windows: set[int] = field(default_factory=set)
    lines: set[int] = field(default_factory=set)

    def add(self, text: str, signature: str = "") -> None:
        """Forbids `text`, and the one line `signature` wherever it stands."""
        lines = Lines.of(text, code_only=True)
        size = min(LEAK_WINDOW, max(3, len(lines.hashes)))  # the shortest problems have few lines
        self.windows.update(lines.windows(size).tolist())
        if signature:
            self.lines.add(_line_hash(" ".join(signature.split())))

    def touches(self, text: str) -> bool:
        """Whether `text` shares anything with an evaluation set."""
        lines = Lines.of(text, code_only=True)
        if not self.lines.isdisjoint(lines.hashes.tolist()):
            return True
        sizes = range(3, LEAK_WINDOW + 1)
        return any(not self.windows.isdisjoint(lines.windows(size).tolist()) for size in sizes)


def near_or_exact(
    texts: Sequence[str], progress: Callable[[float], None] = lambda fraction: None
) -> list[str]:
    """For each text "", or why it is a copy: "exact duplicate" or "near duplicate"."""
    seen: set[bytes] = set()
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    signatures: dict[int, _U64] = {}
    verdicts = []
    for number, text in enumerate(texts):
        progress(number / len(texts))
        digest = hashlib.blake2b("\n".join(text.split()).encode(), digest_size=16).digest()
        if digest in seen:
            verdicts.append("exact duplicate")
            continue
        seen.add(digest)
        signature = minhash(text)
        bands = [(i, row.tobytes()) for i, row in enumerate(signature.reshape(_BANDS, -1))]
        others = {other for band in bands for other in buckets.get(band, ())}
        if any(np.mean(signature == signatures[other]) >= _SIMILAR for other in others):
            verdicts.append("near duplicate")
            continue
        signatures[number] = signature
        for band in bands:
            buckets[band].append(number)
        verdicts.append("")
    return verdicts


def minhash(text: str) -> _U64:
    """One-permutation MinHash: each bin keeps the least hash that falls into it.

    Empty bins take the next full one's, so that short texts can be compared too.
    """
    tokens = np.fromiter(map(_token_hash, _TOKEN.findall(text)), np.uint64)
    hashes = _rolling(tokens, min(_SHINGLE, max(1, len(tokens))))
    empty = np.uint64(2**64 - 1)
    signature = np.full(_BINS, empty, np.uint64)
    np.minimum.at(signature, (hashes >> np.uint64(57)).astype(np.int64), hashes)
    while len(hashes) and (holes := signature == empty).any():
        signature[holes] = np.roll(signature, -1)[holes]
    return signature


def pieces(texts: Sequence[str]) -> list[list[tuple[int, int]]]:
    """For each text the line ranges that stay once windows of an earlier text are cut out.

    An empty list means that most of the text is copied, or that nothing of use is left.
    """
    found = [Lines.of(text) for text in texts]
    windows = [lines.windows(WINDOW) for lines in found]
    owners = np.repeat(np.arange(len(texts)), [len(window) for window in windows])
    every = np.concatenate([*windows, np.empty(0, np.uint64)])
    _, first, inverse = np.unique(every, return_index=True, return_inverse=True)
    copied = owners[first[inverse]] != owners  # np.unique gives the first: the earliest text's
    ends = np.cumsum([len(window) for window in windows])
    return [
        _uncopied(text.count("\n") + 1, lines, copied[end - len(window) : end])
        for text, lines, window, end in zip(texts, found, windows, ends, strict=True)
    ]


def _uncopied(total: int, lines: Lines, copied: NDArray[np.bool_]) -> list[tuple[int, int]]:
    if not copied.any():
        return [(0, total)]
    changes = np.zeros(len(lines.numbers) + 1, np.int64)
    np.add.at(changes, np.flatnonzero(copied), 1)
    np.add.at(changes, np.flatnonzero(copied) + WINDOW, -1)
    bad = np.cumsum(changes)[:-1] > 0  # whether a line stands in any copied window
    if bad.mean() > _LONGEST_COPY:
        return []
    edges = np.flatnonzero(np.diff(np.concatenate([[True], bad, [True]]).astype(np.int8)))
    ranges = []
    for start, end in edges.reshape(-1, 2).tolist():
        if end - start >= _SHORTEST_PIECE:
            last = total if end == len(bad) else int(lines.numbers[end - 1]) + 1
            ranges.append((int(lines.numbers[start]) if start else 0, last))
    return ranges


def _rolling(values: _U64, size: int) -> _U64:
    """A hash of each `size` values in a row, well mixed."""
    if len(values) < size:
        return np.empty(0, np.uint64)
    powers = np.array([pow(0x9E3779B97F4A7C15, i, 2**64) for i in range(size)], np.uint64)
    mixed: _U64 = (sliding_window_view(values, size) * powers).sum(axis=1, dtype=np.uint64)
    mixed ^= mixed >> np.uint64(31)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(29)
    return mixed


def _line_hash(line: str) -> int:
    digest = hashlib.blake2b(line.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


@cache
def _token_hash(token: str) -> int:
    return zlib.crc32(token.encode("utf-8", "replace")) * 0x2545F4914F6CDD1D % 2**64

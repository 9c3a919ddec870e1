"""The corpus on disk: compressed shards of token ids, and the reader the trainer uses.

Documents are stored as ids, because encoding is the slow part and a byte-level tokenizer loses
nothing: `Tokenizer.decode` gives the exact text back, so a trainer can cut spans by syntax and
encode only the few tokens at a cut anew. Knows nothing of where documents come from.
"""

from __future__ import annotations

import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import hf_config
from engine.checksum import sha256
from engine.errors import EngineError

MANIFEST = "manifest.json"
NAME = re.compile(r"[0-9a-f]{12}-\d{4}\.(npz|part)")  # of a shard, whole or torn
SHARD_BYTES = 28_000_000  # of ids before compression, so that a shard is never above 30 MB
_HELD_OUT = 100  # one file in so many is not learnt from
Ids = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a document comes from; `line` is its first line in the file, from 1."""

    package: str
    path: str
    line: int
    language: str = "python"


@dataclass(frozen=True, slots=True)
class Document:
    """A whole file, or what is left of one between two cuts."""

    origin: Origin
    ids: Ids


def iterate(folder: Path, seed: int, epoch: int) -> Iterator[Document]:
    """Every document once, in an order that `seed` and `epoch` fix; one shard in memory at a time.

    Raises EngineError when there is no finished corpus in `folder`, or a shard is not as written.
    """
    if not (folder / MANIFEST).is_file():
        raise EngineError(
            f"no finished corpus in {folder}; run `python -m engine.train.corpus --out {folder}`"
        )
    shards = hf_config.read_json(folder / MANIFEST)["shards"]
    draw = np.random.default_rng([seed, epoch])
    for index in draw.permutation(len(shards)).tolist():
        path = folder / shards[index]["file"]
        if not path.is_file() or sha256(path) != shards[index]["sha256"]:
            raise EngineError(f"{path} is missing or damaged; build the corpus again")
        documents = read_shard(path)
        for number in draw.permutation(len(documents)).tolist():
            yield documents[number]


def windows(
    folder: Path, length: int, separator: int, seed: int
) -> Callable[[int], Iterator[NDArray[np.int64]]]:
    """The corpus as one stream of documents with separators, cut into windows; epochs go on.

    What it returns gives the windows from the n-th on. Held-out files are not in it.
    """

    def documents() -> Iterator[Document]:
        for epoch in itertools.count():
            empty = True
            for document in iterate(folder, seed, epoch):
                if not is_held_out(document.origin):
                    empty = False
                    yield document
            if empty:
                raise EngineError(f"{folder} has no text to learn from; build a larger corpus")

    return lambda skip: itertools.islice(_cut(documents(), length, separator), skip, None)


def held_out(folder: Path, length: int, separator: int, count: int) -> list[NDArray[np.int64]]:
    """The first `count` windows of the held-out files; fewer where these are too short."""
    files = (each for each in iterate(folder, seed=0, epoch=0) if is_held_out(each.origin))
    return list(itertools.islice(_cut(files, length, separator), count))


def is_held_out(origin: Origin) -> bool:
    """Whether a file is kept for probes: one in _HELD_OUT, by its name, all pieces of it alike."""
    return zlib.crc32(f"{origin.package}/{origin.path}".encode()) % _HELD_OUT == 0


def _cut(documents: Iterable[Document], length: int, separator: int) -> Iterator[NDArray[np.int64]]:
    """[separator | document | separator | document ...] in windows of `length`."""
    rest = np.empty(0, np.int64)
    for document in documents:
        rest = np.concatenate((rest, [separator], document.ids.astype(np.int64)))
        while len(rest) >= length:
            yield rest[:length]
            rest = rest[length:]


def read_shard(path: Path) -> list[Document]:
    """The documents of one shard, as written."""
    with np.load(path, allow_pickle=False) as stored:
        ids, ends = stored["ids"], stored["ends"]
        origins = json.loads(stored["origins"].tobytes())
    return [
        Document(Origin(**origin), part)
        for origin, part in zip(origins, np.split(ids, ends[:-1]), strict=True)
    ]


def write(
    documents: Iterable[tuple[Origin, list[int]]], folder: Path, name: str, *, vocab_size: int,
    shard_bytes: int = SHARD_BYTES, first: int = 0,
) -> Iterator[Path]:  # fmt: skip
    """Writes `folder/NAME-0000.npz` and so on, each whole or not at all; yields each when written."""
    kind = np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)
    batch: list[tuple[Origin, list[int]]] = []
    size = 0
    for origin, ids in documents:
        if batch and (size + len(ids)) * kind.itemsize > shard_bytes:
            yield _write_shard(folder / f"{name}-{first:04d}.npz", batch, kind)
            first, batch, size = first + 1, [], 0
        batch.append((origin, ids))
        size += len(ids)
    if batch:
        yield _write_shard(folder / f"{name}-{first:04d}.npz", batch, kind)


def _write_shard(path: Path, batch: list[tuple[Origin, list[int]]], kind: np.dtype[Any]) -> Path:
    origins = json.dumps([asdict(origin) for origin, _ in batch]).encode()
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez_compressed(
            file,
            ids=np.concatenate([np.array(ids, kind) for _, ids in batch]),
            ends=np.cumsum([len(ids) for _, ids in batch]),
            origins=np.frombuffer(origins, np.uint8),
        )
    part.replace(path)
    return path

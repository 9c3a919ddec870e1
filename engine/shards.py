"""The safetensors shards of a directory: headers and open files; damaged and hostile ones refused.

Knows nothing of what the tensors are. Opens no pickle: one can run code.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from engine import hf_config
from engine.errors import CheckpointError, ConfigError

INDEX = "model.safetensors.index.json"
_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2}  # all others: 1


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor as a shard's header describes it; `name` is the model's."""

    shard: Path
    stored: str
    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        """What it takes in the file."""
        return _BYTES.get(self.dtype, 1) * math.prod(self.shape)


def headers(directory: Path, rename: Callable[[str], str | None]) -> list[Stored]:
    """What all shards hold, without the tensors for which `rename` has no name."""
    found = []
    for shard, listed in _shards(directory).items():
        with open_shard(shard) as file:
            held = set(file.keys())
            if listed is not None and (wrong := sorted(held ^ listed)):
                where = "in" if wrong[0] in held else "not in"
                raise CheckpointError(
                    f"{directory}: {INDEX} and the shards disagree on {len(wrong)} tensors; "
                    f"{wrong[0]} is {where} {shard.name}. Fetch the model again"
                )
            for stored in sorted(held):
                if (name := rename(stored)) is not None:
                    piece = file.get_slice(stored)
                    shape = tuple(piece.get_shape())
                    found.append(Stored(shard, stored, name, shape, piece.get_dtype()))
    return found


def _shards(directory: Path) -> dict[Path, set[str] | None]:
    """Each shard and, where there is an index, the tensors listed for it."""
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is not a directory; a model is a directory of files")
    if (directory / "model.safetensors").is_file():
        return {_inside(directory, "model.safetensors"): None}
    if not (directory / INDEX).exists():
        raise CheckpointError(_no_weights(directory))
    weight_map = _json(directory / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{directory / INDEX}: weight_map must map tensor names to files")
    listed: dict[str, set[str]] = {}
    for name, file in weight_map.items():
        listed.setdefault(str(file), set()).add(name)
    return {_inside(directory, file): names for file, names in listed.items()}


def _no_weights(directory: Path) -> str:
    pickles = sorted(
        p.name for p in directory.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt")
    )
    if pickles:
        return (
            f"{directory} has only pickled weights ({pickles[0]}), which can run code when they are "
            "loaded; convert them to safetensors"
        )
    return f"{directory} has neither model.safetensors nor {INDEX}"


def _inside(directory: Path, file: str) -> Path:
    """The shard `file` of an index; raises when it is not a plain file of this directory."""
    if not re.fullmatch(r"[\w.-]+\.safetensors", file):
        raise CheckpointError(
            f"{directory / INDEX}: {file!r} is not the name of a safetensors file beside it"
        )
    path, root = directory / file, directory.resolve()
    # The Hugging Face cache keeps a snapshot's files as links into the blobs folder beside it.
    homes = {root, root.parent.parent / "blobs"} if root.parent.name == "snapshots" else {root}
    if not path.is_file():
        raise CheckpointError(f"{path} is missing or no plain file; fetch the model again")
    if path.resolve().parent not in homes:
        raise CheckpointError(f"{path} is a link out of the model's directory; copy the file there")
    return path


def _json(path: Path) -> dict[str, Any]:
    try:
        return hf_config.read_json(path)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


@contextmanager
def open_shard(shard: Path) -> Iterator[Any]:
    """The shard's safetensors handle; what its reader finds wrong becomes a CheckpointError."""
    try:
        with safe_open(shard, framework="pt", device="cpu") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{shard} is damaged ({error}); fetch it again") from None

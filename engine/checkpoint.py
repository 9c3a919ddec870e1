"""A directory of safetensors shards -> the tensors a model asks for, streamed and checked.

All headers are read and held against the model's names and shapes before any weight is; then one
tensor after the other moves to the dtype and device asked for, unpacked where it is stored in few
bits. Knows the stored names of each family, nothing of the model class. Reads safetensors only: a
pickle can run code.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from engine import packed
from engine.config import read_json
from engine.errors import CheckpointError, ConfigError
from engine.packed import Packed

# Per family, first match wins: the pattern of stored names and the model's name (None: skipped).
# What matches nothing keeps its name, which no model has: it is reported as unexpected.
_NAMES: dict[str, tuple[tuple[str, str | None], ...]] = {
    "diffusion_gemma": (
        (r"model\.encoder\.(vision_tower|embed_vision)\..+", None),
        (
            r"model\.encoder\.language_model\.(layers\.\d+)\.layer_scalar",
            r"\1.encoder_layer_scalar",
        ),
        (r"model\.decoder\.(.+)", r"\1"),
    ),
    "llama": (
        (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq", None),
        # Llama names this norm after what it follows, Gemma has another one there.
        (
            r"model\.(layers\.\d+)\.post_attention_layernorm\.(.+)",
            r"\1.pre_feedforward_layernorm.\2",
        ),
        (r"model\.(.+)", r"\1"),
    ),
}
_FLOAT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_INDEX = "model.safetensors.index.json"
_PACKED = "packed"  # stands for a dtype
_SHARD_BYTES = 44_000_000  # of tensors written into one file


@dataclass(frozen=True, slots=True)
class _Stored:
    """One tensor as a shard's header describes it; `name` is the model's.

    A packed one is named and shaped as what it unpacks to; its `parts` are what is stored.
    """

    shard: Path
    stored: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    parts: tuple[_Stored, ...] = ()

    @property
    def bytes(self) -> int:
        if self.parts:
            return sum(part.bytes for part in self.parts)
        return {"U8": 1, **_FLOAT_BYTES}[self.dtype] * math.prod(self.shape)

    def read(self, file: Any, dtype: torch.dtype | None, device: torch.device) -> Tensor:
        """The tensor out of its open shard; without a `dtype` still in the file's pages."""
        if not self.parts:
            tensor: Tensor = file.get_tensor(self.stored)
            if dtype is None:
                return tensor
            # A copy always: the file's pages must not outlive the shard, nor shrink under us.
            return tensor.to(device, dtype, copy=True)
        try:
            parts = (file.get_tensor(part.stored).to(device) for part in self.parts)
            return Packed(*parts).unpack(dtype or torch.float16)
        except CheckpointError as error:
            raise CheckpointError(f"{self.shard}: {self.stored}: {error}; fetch it again") from None


def load_tensors(
    directory: Path,
    family: str,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    dtype: torch.dtype | None,
    device: torch.device,
    progress: Callable[[float, str], None] | None = None,
) -> dict[str, torch.Tensor]:
    """The tensors named in `shapes`, one shard open at a time, each moved before the next is read.

    `dtype` None gives them as they are stored, still in the file's pages: for who turns them into
    something else at once; packed ones as float16. Raises CheckpointError when the directory's
    tensors are not exactly those, or are damaged.
    """
    stored = _headers(directory, family)
    if _is_packed(directory):
        stored = _packed_together(stored)
    found = _match(stored, shapes, directory)
    total = sum(item.bytes for item in found) or 1
    done = 0
    tensors: dict[str, torch.Tensor] = {}
    for shard, items in groupby(found, key=lambda item: item.shard):
        with _open(shard) as file:
            for item in items:
                tensors[item.name] = item.read(file, dtype, device)
                done += item.bytes
                if progress:
                    progress(done / total, f"loading weights: {done >> 20} of {total >> 20} MiB")
    for name in shapes:
        if name not in tensors:  # only the encoder's scalars may be left to the decoder's
            tensors[name] = tensors[_decoder_twin(name)].clone()
    return tensors


def save_shards(weights: Mapping[str, Tensor | Packed], directory: Path) -> None:
    """Writes weights under the names given, the same bytes for the same weights, and an index."""
    shards: list[dict[str, Tensor]] = [{}]
    room = _SHARD_BYTES
    for name, value in sorted(weights.items()):
        if shards[-1] and value.nbytes > room:
            shards.append({})
            room = _SHARD_BYTES
        room -= value.nbytes
        named = {name: value} if isinstance(value, Tensor) else value.named(name)
        shards[-1] |= {key: part.contiguous() for key, part in named.items()}
    for number, tensors in enumerate(shards, start=1):
        path = directory / f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_safetensors(tensors, path)
    write_index(directory)


def save_safetensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes one file of tensors, marked as torch's."""
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:  # its way to say that the disk is full
        raise CheckpointError(f"cannot write {path}: {error}") from None


def write_index(directory: Path) -> None:
    """Writes which of the directory's shards holds each tensor."""
    weight_map: dict[str, str] = {}
    for shard in sorted(directory.glob("*.safetensors")):
        with _open(shard) as file:
            weight_map |= dict.fromkeys(sorted(file.keys()), shard.name)
    (directory / _INDEX).write_text(json.dumps({"weight_map": weight_map}, indent=2) + "\n")


def model_name(stored: str, family: str) -> str | None:
    """The model's name of a stored tensor; None when the model has no use for it."""
    for pattern, name in _NAMES[family]:
        if match := re.fullmatch(pattern, stored):
            return None if name is None else match.expand(name)
    return stored


def _match(
    stored: list[_Stored], shapes: Mapping[str, tuple[int, ...]], directory: Path
) -> list[_Stored]:
    """The stored tensors the model takes; raises unless they are exactly those in `shapes`."""
    if "lm_head.weight" not in shapes:  # a tied head may be stored all the same
        stored = [item for item in stored if item.name != "lm_head.weight"]
    given: dict[str, _Stored] = {}
    for item in stored:
        if twin := given.get(item.name):
            raise CheckpointError(
                f"{directory}: {item.name} is stored twice, as {twin.stored} in {twin.shard.name} "
                f"and as {item.stored} in {item.shard.name}"
            )
        given[item.name] = item
    missing = [n for n in shapes if n not in given and _decoder_twin(n) not in given]
    _refuse(missing, "missing, the model has no weights without them", directory)
    unexpected = [item.stored for item in stored if item.name not in shapes]
    _refuse(unexpected, "unexpected, config.json describes another model", directory)
    misshapen = [
        f"{item.stored} is {list(item.shape)} but must be {list(shapes[item.name])}"
        for item in stored
        if item.shape != tuple(shapes[item.name])
    ]
    _refuse(misshapen, "misshapen, config.json describes another model", directory)
    known = {*_FLOAT_BYTES, _PACKED}
    strange = [f"{item.stored} is {item.dtype}" for item in stored if item.dtype not in known]
    _refuse(strange, f"not of a dtype this engine reads ({', '.join(_FLOAT_BYTES)})", directory)
    return stored


def _refuse(names: list[str], what: str, directory: Path) -> None:
    if names:
        first = "; ".join(names[:4]) + (f"; and {len(names) - 4} more" if len(names) > 4 else "")
        raise CheckpointError(f"{directory}: {len(names)} tensors are {what}: {first}")


def _decoder_twin(name: str) -> str:
    return name.replace(".encoder_layer_scalar", ".layer_scalar")


def _headers(directory: Path, family: str) -> list[_Stored]:
    """What all shards hold, without the tensors the model skips."""
    found = []
    for shard, listed in _shards(directory).items():
        with _open(shard) as file:
            held = set(file.keys())
            if listed is not None and (wrong := sorted(held ^ listed)):
                where = "in" if wrong[0] in held else "not in"
                raise CheckpointError(
                    f"{directory}: {_INDEX} and the shards disagree on {len(wrong)} tensors; "
                    f"{wrong[0]} is {where} {shard.name}. Fetch the model again"
                )
            for stored in sorted(held):
                if (name := model_name(stored, family)) is not None:
                    piece = file.get_slice(stored)
                    shape = tuple(piece.get_shape())
                    found.append(_Stored(shard, stored, name, shape, piece.get_dtype()))
    return found


def _shards(directory: Path) -> dict[Path, set[str] | None]:
    """Each shard and, where there is an index, the tensors listed for it."""
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is not a directory; a model is a directory of files")
    if (directory / "model.safetensors").is_file():
        return {_inside(directory, "model.safetensors"): None}
    if not (directory / _INDEX).exists():
        raise CheckpointError(_no_weights(directory))
    weight_map = _json(directory / _INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{directory / _INDEX}: weight_map must map tensor names to files")
    shards: dict[Path, set[str]] = {}
    for name, file in weight_map.items():
        shards.setdefault(_inside(directory, file), set()).add(name)
    return dict(shards)


def _no_weights(directory: Path) -> str:
    pickles = sorted(
        p.name for p in directory.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt")
    )
    if pickles:
        return (
            f"{directory} has only pickled weights ({pickles[0]}), which can run code when they are "
            "loaded; convert them to safetensors"
        )
    return f"{directory} has neither model.safetensors nor {_INDEX}"


def _inside(directory: Path, file: object) -> Path:
    """The shard `file` of an index; raises when it is not a plain file of this directory."""
    if not isinstance(file, str) or not re.fullmatch(r"[\w.-]+\.safetensors", file):
        raise CheckpointError(
            f"{directory / _INDEX}: {file!r} is not the name of a safetensors file beside it"
        )
    path, root = directory / file, directory.resolve()
    # The Hugging Face cache keeps a snapshot's files as links into the blobs folder beside it.
    homes = {root, root.parent.parent / "blobs"} if root.parent.name == "snapshots" else {root}
    if not path.is_file():
        raise CheckpointError(f"{path} is missing or no plain file; fetch the model again")
    if path.resolve().parent not in homes:
        raise CheckpointError(f"{path} is a link out of the model's directory; copy the file there")
    return path


def _is_packed(directory: Path) -> bool:
    """Whether matrices are stored in our packed form; raises when they are quantised otherwise."""
    config = _json(directory / "config.json") if (directory / "config.json").is_file() else {}
    scheme = "modelopt" if (directory / "hf_quant_config.json").is_file() else None
    theirs, ours = config.get("quantization_config"), config.get("quantization")
    if isinstance(theirs, dict):
        scheme = theirs.get("quant_method") or theirs.get("quant_algo") or "unknown"
    elif isinstance(ours, dict) and ours.get("format") != packed.FORMAT:
        scheme = ours.get("format") or "unknown"
    if scheme:
        raise CheckpointError(
            f"{directory} is quantised ({scheme}), which this engine does not read yet; "
            "take the bfloat16 release"
        )
    return isinstance(ours, dict)


def _packed_together(stored: list[_Stored]) -> list[_Stored]:
    """The parts of each packed matrix as one tensor; raises when they do not belong together."""
    whole, parts = [], dict[tuple[Path, str], dict[str, _Stored]]()
    for item in stored:
        stem, _, part = item.stored.rpartition(".")
        if part in packed.PARTS:
            parts.setdefault((item.shard, stem), {})[part] = item
        else:
            whole.append(item)
    for (shard, stem), found in parts.items():
        if {part: item.dtype for part, item in found.items()} != packed.PARTS:
            held = ", ".join(f"{part} {item.dtype}" for part, item in sorted(found.items()))
            raise CheckpointError(f"{shard}: {stem} is packed in parts it cannot have: {held}")
        ordered = tuple(found[part] for part in packed.PARTS)
        try:
            shape = packed.packed_shape(*(item.shape for item in ordered))
        except CheckpointError as error:
            raise CheckpointError(f"{shard}: {stem}: {error}") from None
        name = ordered[0].name.removesuffix(".codes")
        whole.append(_Stored(shard, stem, name, shape, _PACKED, ordered))
    return sorted(whole, key=lambda item: (item.shard, item.stored))


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


@contextmanager
def _open(shard: Path) -> Iterator[Any]:
    """The shard's safetensors handle; what its reader finds wrong becomes a CheckpointError."""
    try:
        with safe_open(shard, framework="pt", device="cpu") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{shard} is damaged ({error}); fetch it again") from None

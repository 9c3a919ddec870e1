"""A directory of safetensors shards -> the tensors a model asks for, streamed and checked.

All headers are read and held against the model's names and shapes before any weight is; then one
tensor after the other moves to the dtype and device asked for. What is stored in few bits stays so
where there is a kernel for it (`weights`), else it is unpacked (`packed`); experts stored one by one
are stacked. Knows the stored names of each family, nothing of the model class. Reads safetensors
only: a pickle can run code.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from engine import layouts
from engine.errors import CheckpointError
from engine.layouts import FLOATS, Layout
from engine.packed import Packed
from engine.shards import INDEX, Stored, headers, open_shard
from engine.weights import PackedWeight

Weight = Tensor | PackedWeight
Progress = Callable[[float, str], None]

# Per family, first match wins: the pattern of stored names and the model's name (None: skipped).
# What matches nothing keeps its name: the model's own in what `quantize` writes, else unexpected.
_NAMES: dict[str, tuple[tuple[str, str | None], ...]] = {
    "diffusion_gemma": (
        (r"model\.encoder\.(vision_tower|embed_vision)\..+", None),
        (
            r"model\.encoder\.language_model\.(layers\.\d+)\.layer_scalar",
            r"\1.encoder_layer_scalar",
        ),
        # Experts one by one: where each belongs in the stacked weight.
        (
            r"model\.decoder\.(layers\.\d+\.experts)\.(\d+)\.(gate|up)_proj\.(.+)",
            r"\1.gate_up_proj[\2,\3].\4",
        ),
        (
            r"model\.decoder\.(layers\.\d+\.experts)\.(\d+)\.down_proj\.(.+)",
            r"\1.down_proj[\2].\3",
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
_HALVES = {"gate": 0, "up": 1}  # of the rows of a stacked weight
_SHARD_BYTES = 44_000_000  # of tensors written into one file


@dataclass(frozen=True, slots=True)
class _Piece:
    """A tensor, or one expert's share of it, and the stored parts it is made of.

    `name` is the model's, with a place such as [3,gate] in a stacked one. A plain tensor has one
    part and no form.
    """

    name: str
    shape: tuple[int, ...]
    parts: Mapping[str, Stored]
    form: layouts.Form | None = None
    kind: type = Tensor

    @property
    def first(self) -> Stored:
        return next(iter(self.parts.values()))

    @property
    def stored(self) -> str:
        """What the files call it."""
        return self.first.stored if self.form is None else self.first.stored.rpartition(".")[0]

    @property
    def bytes(self) -> int:
        return sum(part.bytes for part in self.parts.values())

    def read(
        self, parts: Mapping[str, Tensor], dtype: torch.dtype | None, device: torch.device
    ) -> Weight:
        """The weight of its parts, still in the file's pages where it is plain and has no `dtype`."""
        if self.form is None:
            (tensor,) = parts.values()
            # A copy always: the file's pages must not outlive the shard, nor shrink under us.
            return tensor if dtype is None else tensor.to(device, dtype, copy=True)
        try:
            made = self.form.make({name: part.to(device) for name, part in parts.items()})
            if isinstance(made, Packed):
                return made.unpack(dtype or torch.float16)
        except CheckpointError as error:
            raise CheckpointError(
                f"{self.first.shard}: {self.stored}: {error}; fetch it again"
            ) from None
        return made


class Checkpoint:
    """The weights of a directory that are a model's; `shapes` are those it must have.

    Raises CheckpointError when they are not exactly those. A head in few bits is one of them even
    where the model's is tied.
    """

    def __init__(self, directory: Path, family: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
        layout = layouts.of_directory(directory)
        pieces = _pieces(headers(directory, lambda stored: model_name(stored, family)), layout)
        self._pieces = _match(pieces, shapes, directory)
        self._twins = {
            _decoder_twin(name): name
            for name in set(shapes) - {piece.name for piece in pieces}
            if _decoder_twin(name) != name
        }
        self._shapes = shapes
        self.sizes: dict[str, int] = {}  # bytes stored of each weight
        for piece in self._pieces:
            name = piece.name.partition("[")[0]
            self.sizes[name] = self.sizes.get(name, 0) + piece.bytes

    def stream(
        self,
        *,
        dtype: torch.dtype | None,
        device: torch.device,
        only: Collection[str] | None = None,
        progress: Progress | None = None,
    ) -> Iterator[tuple[str, Weight]]:
        """Names and weights, one shard open at a time, each moved before the next is read.

        `dtype` None gives plain tensors as they are stored, still in the file's pages: for who turns
        them into something else at once. `only` these names. Damaged ones raise CheckpointError.
        """
        pieces = [p for p in self._pieces if only is None or p.name.partition("[")[0] in only]
        total = sum(piece.bytes for piece in pieces) or 1
        done = 0
        stacks: dict[str, _Stack] = {}
        for piece, parts in _read(pieces):
            name, _, place = piece.name.partition("[")
            weight = piece.read(parts, dtype, device)
            del parts
            done += piece.bytes
            if progress:
                progress(done / total, f"loading weights: {done >> 20} of {total >> 20} MiB")
            if place:
                stack = stacks.setdefault(name, _Stack(self._shapes[name], piece.kind))
                stack.put(place, weight)
                if not stack.is_full:
                    continue
                weight = stacks.pop(name).weight()
            yield name, weight
            if isinstance(weight, Tensor) and name in self._twins:
                yield self._twins[name], weight.clone()
            del weight


class _Stack:
    """A stacked weight [E, N, K] that is filled share by share."""

    def __init__(self, shape: tuple[int, ...], kind: type) -> None:
        self._shape = shape
        self._kind: Callable[..., PackedWeight] = kind
        self._left = math.prod(shape)
        self._parts: dict[str, Tensor] = {}

    def put(self, place: str, share: Weight) -> None:
        """Takes the share of `place`, such as "3]" or "3,gate]"."""
        expert, _, half = place.removesuffix("]").partition(",")
        parts = share.parts() if isinstance(share, PackedWeight) else {"": share}
        for name, part in parts.items():
            if name not in self._parts:
                shape = (*self._shape[:2], *part.shape[1:])
                self._parts[name] = torch.empty(shape, dtype=part.dtype, device=part.device)
            first = _HALVES.get(half, 0) * len(part)
            self._parts[name][int(expert), first : first + len(part)] = part
        self._left -= math.prod(share.shape)

    @property
    def is_full(self) -> bool:
        return self._left == 0

    def weight(self) -> Weight:
        """The whole."""
        return self._parts[""] if "" in self._parts else self._kind(**self._parts)


def load_tensors(
    directory: Path,
    family: str,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    dtype: torch.dtype | None,
    device: torch.device,
    progress: Progress | None = None,
) -> dict[str, Weight]:
    """All weights of a `Checkpoint` at once."""
    checkpoint = Checkpoint(directory, family, shapes)
    return dict(checkpoint.stream(dtype=dtype, device=device, progress=progress))


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
        with open_shard(shard) as file:
            weight_map |= dict.fromkeys(sorted(file.keys()), shard.name)
    (directory / INDEX).write_text(json.dumps({"weight_map": weight_map}, indent=2) + "\n")


def model_name(stored: str, family: str) -> str | None:
    """The model's name of a stored tensor; None when the model has no use for it."""
    for pattern, name in _NAMES[family]:
        if match := re.fullmatch(pattern, stored):
            return None if name is None else match.expand(name)
    return stored


def _pieces(stored: list[Stored], layout: Layout) -> list[_Piece]:
    """What the stored tensors are parts of; raises when parts do not belong together."""
    pieces, groups = [], dict[str, dict[str, Stored]]()
    for item in stored:
        stem, _, part = item.name.rpartition(".")
        if part in layout.parts:
            twin = groups.setdefault(stem, {}).setdefault(part, item)
            if twin is not item:
                raise _twice(item.name, twin, item)
        elif part not in layout.unused:
            pieces.append(_plain(item))
    for stem, parts in groups.items():
        first = next(iter(parts.values()))
        if len(parts) == 1 and first.dtype in FLOATS:
            pieces.append(_plain(first))
            continue
        where = first.stored.rpartition(".")[0]
        dtypes = {part: item.dtype for part, item in parts.items()}
        form = layout.form(where, dtypes)
        try:
            made = layouts.make(form, {part: item.shape for part, item in parts.items()}, dtypes)
        except CheckpointError as error:
            raise CheckpointError(f"{first.shard}: {where} {error}") from None
        name = stem if stem.endswith("]") else stem + layout.suffix
        pieces.append(_Piece(name, tuple(made.shape), parts, form, type(made)))
    return pieces


def _plain(item: Stored) -> _Piece:
    # An expert's place stands for the whole name of its weight.
    name = item.name.removesuffix(".weight") if "].weight" in item.name else item.name
    return _Piece(name, item.shape, {"": item})


def _read(pieces: list[_Piece]) -> Iterator[tuple[_Piece, dict[str, Tensor]]]:
    """Each piece with its parts, in the order of the files."""
    items = [(item, part, piece) for piece in pieces for part, item in piece.parts.items()]
    items.sort(key=lambda item: (item[0].shard, item[0].stored))
    read: dict[str, dict[str, Tensor]] = {}
    for shard, held in groupby(items, key=lambda item: item[0].shard):
        with open_shard(shard) as file:
            for item, part, piece in held:
                parts = read.setdefault(piece.name, {})
                tensor = file.get_tensor(item.stored)
                # Parts may lie in several shards: they are held until the last one is read.
                parts[part] = tensor if piece.form is None else tensor.clone()
                del tensor
                if len(parts) == len(piece.parts):
                    del parts
                    yield piece, read.pop(piece.name)


def _match(
    pieces: list[_Piece], shapes: Mapping[str, tuple[int, ...]], directory: Path
) -> list[_Piece]:
    """The pieces the model takes; raises unless they make exactly the weights in `shapes`."""
    if "lm_head.weight" not in shapes:  # a tied head may be stored all the same
        heads = [p for p in pieces if p.name == "lm_head.weight"]
        if heads and issubclass(heads[0].kind, PackedWeight):
            shapes = {**shapes, "lm_head.weight": shapes["embed_tokens.weight"]}
        else:
            pieces = [piece for piece in pieces if piece not in heads]
    given: dict[str, _Piece] = {}
    for piece in pieces:
        if twin := given.get(piece.name):
            raise _twice(piece.name, twin.first, piece.first)
        given[piece.name] = piece
    shapes = _shares(shapes, given)
    missing = [n for n in shapes if n not in given and _decoder_twin(n) not in given]
    _refuse(missing, "missing, the model has no weights without them", directory)
    unexpected = [piece.stored for piece in pieces if piece.name not in shapes]
    _refuse(unexpected, "unexpected, config.json describes another model", directory)
    misshapen = [
        f"{piece.stored} is {list(piece.shape)} but must be {list(shapes[piece.name])}"
        for piece in pieces
        if piece.shape != tuple(shapes[piece.name])
    ]
    _refuse(misshapen, "misshapen, config.json describes another model", directory)
    plain = [piece.first for piece in pieces if piece.form is None]
    strange = [f"{item.stored} is {item.dtype}" for item in plain if item.dtype not in FLOATS]
    _refuse(strange, f"not of a dtype this engine reads ({', '.join(FLOATS)})", directory)
    kinds: dict[str, type] = {}
    mixed = [
        piece.stored
        for piece in pieces
        if kinds.setdefault(piece.name.partition("[")[0], piece.kind) is not piece.kind
    ]
    _refuse(mixed, "stored in another way than the other experts of their layer", directory)
    return pieces


def _twice(name: str, one: Stored, other: Stored) -> CheckpointError:
    return CheckpointError(
        f"{one.shard.parent}: {name} is stored twice, as {one.stored} in {one.shard.name} "
        f"and as {other.stored} in {other.shard.name}"
    )


def _shares(
    shapes: Mapping[str, tuple[int, ...]], given: Collection[str]
) -> Mapping[str, tuple[int, ...]]:
    """The shapes with every weight that is stored expert by expert taken apart."""
    stacked = {name.partition("[")[0] for name in given if "[" in name}
    found = {name: shape for name, shape in shapes.items() if name not in stacked}
    for name in stacked & shapes.keys():
        experts, rows, *inner = shapes[name]
        halves = [f",{half}" for half in _HALVES] if "gate_up" in name else [""]
        for expert in range(experts):
            for half in halves:
                found[f"{name}[{expert}{half}]"] = (rows // len(halves), *inner)
    return found


def _refuse(names: list[str], what: str, directory: Path) -> None:
    if names:
        first = "; ".join(names[:4]) + (f"; and {len(names) - 4} more" if len(names) > 4 else "")
        raise CheckpointError(f"{directory}: {len(names)} tensors are {what}: {first}")


def _decoder_twin(name: str) -> str:
    return name.replace(".encoder_layer_scalar", ".layer_scalar")

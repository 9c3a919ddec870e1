"""What each kind of weight may be kept as, and what each precision makes of it: one table.

Embedding and router stay plain in all of them: rounding the first stalls convergence, rounding the
second sends rows to other experts. Knows the model's names, nothing of files and of products.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from engine.errors import CheckpointError, ConfigError
from engine.weights import Fp4Weight, Fp8Weight, Int4Weight, PackedWeight, to_fp8, to_int4

Weight = Tensor | PackedWeight
Kept = Literal["plain", "fp8", "int4", "fp4"]
Precision = Literal["bf16", "fp8", "int4"]

_ANY: tuple[Kept, ...] = ("plain", "fp8", "int4", "fp4")
_KEPT: dict[type, Kept] = {Fp8Weight: "fp8", Int4Weight: "int4", Fp4Weight: "fp4"}
# What is left of 2 bytes a value, without the scales of rows.
SHARE: dict[Kept, float] = {"plain": 1.0, "fp8": 0.5, "int4": 0.25 + 1 / 64, "fp4": 0.25 + 1 / 32}
_WORST = {"fp8": 0.04, "int4": 0.15}  # relative errors; real weights reach 0.026 and 0.09
_AT_ONCE = 1 << 22  # values compared together


@dataclass(frozen=True, slots=True)
class WeightClass:
    """Weights of one use: the names they have, what they may be, and what a precision makes of them.

    The precision "bf16" leaves all of them plain, in whatever float dtype the device likes.
    """

    name: str
    names: str
    may_be: tuple[Kept, ...]
    fp8: Kept
    int4: Kept


CLASSES = (
    #           class                names                                      may be  fp8     int4
    WeightClass(
        "attention", r"layers\.\d+\.self_attn\.(qkv|[qkvo])_proj\.weight", _ANY, "fp8", "fp8"
    ),
    WeightClass("dense MLP", r"layers\.\d+\.mlp\.\w+_proj\.weight", _ANY, "fp8", "fp8"),
    WeightClass("experts", r"layers\.\d+\.experts\.\w+_proj", _ANY, "fp8", "int4"),
    WeightClass("self-conditioning", r"self_conditioning\.\w+_proj\.weight", _ANY, "fp8", "fp8"),
    WeightClass("embedding", r"embed_tokens\.weight", ("plain",), "plain", "plain"),
    WeightClass("router", r"layers\.\d+\.router\..+", ("plain",), "plain", "plain"),
    # For logits only: a tied head in few bits is a copy, the embedding stays plain.
    WeightClass("head", r"lm_head\.weight", _ANY, "fp8", "fp8"),
    WeightClass("norms and others", r".+", ("plain",), "plain", "plain"),
)


def class_of(name: str) -> WeightClass:
    """The class of a weight with the model's name; the last one takes what no other does."""
    return next(c for c in CLASSES if re.fullmatch(c.names, name))


def kept(weight: Weight) -> Kept:
    """How a weight is kept."""
    return _KEPT.get(type(weight), "plain")


def target(name: str, precision: Precision) -> Kept:
    """What `precision` makes of the weight `name`."""
    made: dict[Precision, Kept] = {
        "bf16": "plain",
        "fp8": class_of(name).fp8,
        "int4": class_of(name).int4,
    }
    return made[precision]


def converted(
    weights: Iterable[tuple[str, Weight]],
    precision: Precision,
    *,
    tied_head: bool,
    dtype: torch.dtype = torch.bfloat16,
) -> Iterator[tuple[str, Weight]]:
    """The weights as `precision` wants them, one after the other; a tied head comes in addition.

    What is in few bits already stays so, unless its class must be plain: then it gets its values in
    `dtype`. Raises ConfigError for a weight that cannot be rounded like this.
    """
    for name, weight in weights:
        if isinstance(weight, PackedWeight):
            may_be = kept(weight) in class_of(name).may_be
            yield name, weight if may_be else weight.dequantize(dtype)
            continue
        yield name, _rounded(name, weight, precision)
        if tied_head and name == "embed_tokens.weight":
            head = _rounded("lm_head.weight", weight, precision)
            if isinstance(head, PackedWeight):
                yield "lm_head.weight", head
            del head
        del weight  # the next one is read while this generator waits


class Errors:
    """Relative errors of rounded weights, class by class."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = {}

    def add(self, name: str, weight: Tensor, rounded: Weight) -> None:
        """Counts one weight; CheckpointError when it is no number or worse than the bits explain."""
        if not isinstance(rounded, PackedWeight):
            return
        off, size = 0.0, 0.0
        step = max(1, _AT_ONCE // max(1, weight[0].numel()))
        for start in range(0, len(weight), step):
            some = slice(start, start + step)
            wanted = weight[some].float()
            off += float((rounded[some].dequantize(torch.float32) - wanted).square().sum())
            size += float(wanted.square().sum())
        error = (off / size) ** 0.5 if size else 0.0
        if not error <= _WORST[kept(rounded)]:
            raise CheckpointError(
                f"{name} would be off by {error:.3f} of its size in {kept(rounded)}; "
                "its values are damaged or not those of a weight"
            )
        sums = self.sums.setdefault(f"{class_of(name).name} ({kept(rounded)})", [0.0, 0.0])
        sums[0] += off
        sums[1] += size

    def table(self) -> str:
        """One line a class."""
        lines = [
            f"{name:<28}{(off / size) ** 0.5 if size else 0.0:.4f}"
            for name, (off, size) in sorted(self.sums.items())
        ]
        return "\n".join([f"{'class':<28}relative error", *lines])


def _rounded(name: str, weight: Tensor, precision: Precision) -> Weight:
    wanted = target(name, precision)
    if wanted == "plain":
        return weight
    try:
        return to_fp8(weight) if wanted == "fp8" else to_int4(weight)
    except CheckpointError as error:
        raise ConfigError(f"{name} cannot be kept in {wanted}: {error}") from None

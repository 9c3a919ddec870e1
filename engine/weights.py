"""Weights kept in few bits: codes and scales as frozen values, and how a tensor is rounded to them.

A packed weight stands for a tensor [..., N, K] that multiplies K inputs into N outputs; experts are
stacked in front. Its parts lie on any one device; CheckpointError when they do not fit. Knows nothing of names, files or products: the
products are in `engine.kernels`, what is kept in which form is said in `engine.formats`.

Source: NVFP4 as in NVIDIA's ModelOpt and compressed-tensors; the signed 4-bit scale as in GGUF's Q4_0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Self, TypeVar

import torch
from torch import Tensor

from engine.errors import CheckpointError

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0
FP4_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # e2m1, by the three bits behind the sign
FP4_GROUP = 16
INT4_GROUPS = (32, 64)
_AT_ONCE = 1 << 18  # values rounded together on a CPU: what fits its cache

_W = TypeVar("_W", bound="PackedWeight")


class PackedWeight(ABC):
    """What the packed forms share; each is a frozen dataclass of tensors on one device."""

    __slots__ = ()
    codes: Tensor

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """That of the tensor it stands for, [..., N, K]."""

    @abstractmethod
    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """The tensor it stands for, computed in float32."""

    def parts(self) -> dict[str, Tensor]:
        """Its tensors by name."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return {name: part for name, part in named.items() if part is not None}

    def each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The weight with every part changed."""
        return type(self)(**{name: change(part) for name, part in self.parts().items()})

    def to(self, device: torch.device) -> Self:
        """The same weight on `device`."""
        return self.each(lambda part: part.to(device))

    def __getitem__(self, index: int | slice) -> Self:
        """One or some of the stacked weights, or of the outputs where nothing is stacked; a view."""
        return self.each(lambda part: part[index])

    @property
    def device(self) -> torch.device:
        """Where all parts lie."""
        return self.codes.device

    @property
    def nbytes(self) -> int:
        """What it takes in memory and on disk."""
        return sum(part.nbytes for part in self.parts().values())


@dataclass(frozen=True, slots=True, eq=False)
class Fp8Weight(PackedWeight):
    """value = code · scale of its output.

    `codes` float8_e4m3fn [..., N, K], `scale` float32 [..., N].
    """

    codes: Tensor
    scale: Tensor

    def __post_init__(self) -> None:
        _require(self.codes, FP8)
        _require(self.scale, torch.float32, self.codes.shape[:-1])

    @property
    def shape(self) -> tuple[int, ...]:
        """See `PackedWeight.shape`."""
        return tuple(self.codes.shape)

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """See `PackedWeight.dequantize`."""
        return (self.codes.float() * self.scale[..., None]).to(dtype)


@dataclass(frozen=True, slots=True, eq=False)
class Int4Weight(PackedWeight):
    """value = (code − 8) · scale of its group · factor of its output.

    `codes` uint8 [..., N, K / 2], the even k in the low nibble; `scale` [..., N, K / group] with
    groups of 32 or 64 along K, of either sign: bfloat16, or float8_e4m3fn with `factor` float32
    [..., N]. Without a factor it counts as 1.
    """

    codes: Tensor
    scale: Tensor
    factor: Tensor | None = None

    def __post_init__(self) -> None:
        _require(self.codes, torch.uint8)
        groups = self.scale.shape[-1] if self.scale.ndim else 0
        if groups == 0 or self.shape[-1] / groups not in INT4_GROUPS:
            raise CheckpointError(
                f"{groups} groups of {self.shape[-1]} values: take 32 or 64 in each"
            )
        kind = torch.bfloat16 if self.factor is None else FP8
        _require(self.scale, kind, (*self.shape[:-1], groups))
        if self.factor is not None:
            _require(self.factor, torch.float32, self.codes.shape[:-1])

    @property
    def shape(self) -> tuple[int, ...]:
        """See `PackedWeight.shape`."""
        return _nibbles_shape(self.codes)

    @property
    def group(self) -> int:
        """How many values share a scale."""
        return self.shape[-1] // self.scale.shape[-1]

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """See `PackedWeight.dequantize`."""
        values = _nibbles(self.codes).float() - 8
        return _scaled(values, self.scale, self.factor).to(dtype)


@dataclass(frozen=True, slots=True, eq=False)
class Fp4Weight(PackedWeight):
    """NVFP4: value = e2m1 code · scale of its group · factor of its output.

    `codes` uint8 [..., N, K / 2], the even k in the low nibble; `scale` float8_e4m3fn
    [..., N, K / 16]; `factor` float32 [..., N].
    """

    codes: Tensor
    scale: Tensor
    factor: Tensor

    def __post_init__(self) -> None:
        _require(self.codes, torch.uint8)
        _require(self.scale, FP8, (*self.shape[:-1], self.shape[-1] // FP4_GROUP))
        _require(self.factor, torch.float32, self.codes.shape[:-1])

    @property
    def shape(self) -> tuple[int, ...]:
        """See `PackedWeight.shape`."""
        return _nibbles_shape(self.codes)

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """See `PackedWeight.dequantize`."""
        values = _fp4_table(self.device)[_nibbles(self.codes)]
        return _scaled(values, self.scale, self.factor).to(dtype)


def stacked(weights: Sequence[_W]) -> _W:
    """Weights [N, K] of one form as one, their outputs in order."""
    parts = [weight.parts() for weight in weights]
    return type(weights[0])(**{name: torch.cat([own[name] for own in parts]) for name in parts[0]})


def to_fp8(weight: Tensor) -> Fp8Weight:
    """The float tensor [..., N, K] with the largest value of each output at the end of e4m3."""

    def rounded(some: Tensor) -> Fp8Weight:
        scale = _nonzero(some.abs().amax(-1) / FP8_MAX)
        return Fp8Weight(fp8(some / scale[..., None]), scale)

    return _by_rows(weight, rounded)


def to_int4(weight: Tensor, group: int = 32, scale_dtype: torch.dtype = FP8) -> Int4Weight:
    """The float tensor [..., N, K] in groups of 32 or 64, each with the best of a few scales."""
    if weight.shape[-1] % group:
        raise CheckpointError(
            f"rows of {weight.shape[-1]} values cannot be cut into groups of {group}"
        )

    def rounded(some: Tensor) -> Int4Weight:
        grouped = some.view(len(some), -1, group)
        furthest = grouped.gather(-1, grouped.abs().argmax(-1, keepdim=True)).squeeze(-1)
        factor = None
        if scale_dtype is FP8:
            factor = _nonzero(furthest.abs().amax(-1) / (8 * FP8_MAX))
        codes, scale = _best_int4(grouped, furthest, factor)
        return Int4Weight(_from_nibbles(codes.flatten(-2)), scale, factor)

    return _by_rows(weight, rounded)


def to_fp4(weight: Tensor) -> Fp4Weight:
    """The float tensor [..., N, K] in NVFP4, one factor for all outputs of a matrix."""
    grouped = weight.float().reshape(*weight.shape[:-1], -1, FP4_GROUP)
    most = grouped.abs().amax(-1)
    factor = _nonzero(most.amax((-2, -1), keepdim=True) / (FP4_VALUES[-1] * FP8_MAX))
    scale = fp8(most / FP4_VALUES[-1] / factor)
    values = grouped / _nonzero(scale.float() * factor)[..., None]
    table = torch.tensor(FP4_VALUES, device=weight.device)
    nearest = torch.bucketize(values.abs(), (table[1:] + table[:-1]) / 2)
    codes = (nearest + 8 * (values < 0)).to(torch.uint8).flatten(-2)
    return Fp4Weight(
        _from_nibbles(codes), scale, factor[..., 0].expand(scale.shape[:-1]).contiguous()
    )


def fp8(values: Tensor) -> Tensor:
    """`values` rounded to e4m3; what is larger than its largest number becomes that."""
    return values.clamp(-FP8_MAX, FP8_MAX).to(FP8)


def _best_int4(grouped: Tensor, furthest: Tensor, factor: Tensor | None) -> tuple[Tensor, Tensor]:
    """Codes [..., N, G, group] and stored scales [..., N, G] of the least squared error.

    The value `furthest` from 0 may become code 0, which reaches further than 15; a smaller scale
    cuts it off and is finer for the rest.
    """
    best_scale = best_error = None
    for steps in (-8.0, -7.5, -7.0, -8.5, -9.0, 7.5):
        wanted = furthest / steps
        scale = wanted.bfloat16() if factor is None else fp8(wanted / factor[..., None])
        error = _int4_steps(grouped, scale, factor).mul_(_unit(scale, factor)[..., None])
        error = error.sub_(grouped).square_().sum(-1)
        if best_scale is None or best_error is None:
            best_scale, best_error = scale, error
        else:
            better = error < best_error
            best_error = torch.where(better, error, best_error)
            best_scale = torch.where(better, scale.float(), best_scale.float()).to(scale.dtype)
    assert best_scale is not None
    return _int4_steps(grouped, best_scale, factor).add_(8).to(torch.uint8), best_scale


def _int4_steps(grouped: Tensor, scale: Tensor, factor: Tensor | None) -> Tensor:
    """How many of its group's steps each value is, −8 to 7."""
    unit = _unit(scale, factor)
    inverse = torch.where(unit == 0, 0, 1 / unit)[..., None]
    return (grouped * inverse).round_().clamp_(-8, 7)


def _by_rows(weight: Tensor, rounded: Callable[[Tensor], _W]) -> _W:
    """`weight` rounded some rows at a time: for speed, and its float32 copy stays small."""
    rows = weight.flatten(0, -2)
    at_once = _AT_ONCE << 6 if weight.is_cuda else _AT_ONCE
    some = max(1, at_once // rows.shape[-1])
    chunks = [rounded(chunk.float()) for chunk in torch.split(rows, some)]
    whole = {
        name: torch.cat([chunk.parts()[name] for chunk in chunks]) for name in chunks[0].parts()
    }
    return type(chunks[0])(
        **{name: part.view(*weight.shape[:-1], *part.shape[1:]) for name, part in whole.items()}
    )


def _require(part: Tensor, dtype: torch.dtype, shape: tuple[int, ...] | None = None) -> None:
    if part.dtype is not dtype:
        raise CheckpointError(f"a part of a packed weight is {part.dtype}, not {dtype}")
    if shape is not None and part.shape != shape:
        raise CheckpointError(f"a part of a packed weight is {list(part.shape)}, not {list(shape)}")


def _nonzero(values: Tensor) -> Tensor:
    """A scale for zeros: any will do."""
    return torch.where(values == 0, 1, values)


def _nibbles_shape(codes: Tensor) -> tuple[int, ...]:
    return (*codes.shape[:-1], 2 * codes.shape[-1])


def _nibbles(codes: Tensor) -> Tensor:
    """The nibbles of bytes [..., K / 2] as integers [..., K]."""
    return torch.stack((codes & 15, codes >> 4), -1).flatten(-2).int()


def _from_nibbles(nibbles: Tensor) -> Tensor:
    """Bytes [..., K / 2] of nibbles [..., K] (uint8)."""
    return nibbles[..., ::2] | nibbles[..., 1::2] << 4


def _scaled(values: Tensor, scale: Tensor, factor: Tensor | None) -> Tensor:
    """Values [..., K] times the scale [..., G] of their group and the factor [...] of their row."""
    grouped = values.view(*scale.shape, -1)
    return (grouped * _unit(scale, factor)[..., None]).flatten(-2)


def _unit(scale: Tensor, factor: Tensor | None) -> Tensor:
    """What one step of each group [..., G] is worth."""
    return scale.float() if factor is None else scale.float() * factor[..., None]


def _fp4_table(device: torch.device) -> Tensor:
    """The value of each of the 16 codes; the highest bit is the sign."""
    values = torch.tensor(FP4_VALUES, device=device)
    return torch.cat((values, -values))

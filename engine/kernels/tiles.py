"""What all matrix products share: one tile of x · Wᵀ over weights in any stored form.

A weight [N, K], or a stack of them, reaches a kernel as codes, a scale for each group along K, and a
factor for each output; the last two only where its form has them. 4-bit codes become numbers of the
activations' dtype by placing their bits in a float, without a conversion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels import launch
from engine.weights import FP4_GROUP, FP8, FP8_MAX, Fp4Weight, Fp8Weight, Int4Weight, PackedWeight

Weight: TypeAlias = Tensor | PackedWeight


@dataclass(frozen=True, slots=True)
class Parts:
    """A weight as kernels take it: `form` says how codes are read ("whole", "int4", "fp4")."""

    codes: Tensor
    scale: Tensor | None
    factor: Tensor | None
    form: str
    group: int


def parts_of(weight: Weight) -> Parts:
    """The parts of `weight` [..., N, K], which must be contiguous, K a multiple of 32."""
    match weight:
        case Tensor():
            parts = Parts(weight, None, None, "whole", 0)
        case Fp8Weight():
            parts = Parts(weight.codes, None, weight.scale, "whole", 0)
        case Int4Weight():
            parts = Parts(weight.codes, weight.scale, weight.factor, "int4", weight.group)
        case Fp4Weight():
            parts = Parts(weight.codes, weight.scale, weight.factor, "fp4", FP4_GROUP)
        case _:
            raise AssertionError(f"no kernel multiplies by a {type(weight).__name__}")
    assert weight.shape[-1] % 32 == 0, f"K must be a multiple of 32, got {weight.shape[-1]}"
    for part in (parts.codes, parts.scale, parts.factor):
        assert part is None or part.is_contiguous(), f"weight of strides {part.stride()}"
    return parts


def block_k(inputs: int) -> int:
    """How far along K a tile reaches: 704 is 11 · 64, 2816 is 22 · 128."""
    return next(size for size in (128, 64, 32) if inputs % size == 0)


def operand(x: Tensor, weight: Weight) -> tuple[Tensor, Tensor | None]:
    """Rows x [T, K] as they are multiplied by `weight`: for FP8 rounded, with a scale each [T]."""
    assert x.is_contiguous(), f"rows of strides {x.stride()} must be contiguous"
    assert x.shape[-1] == weight.shape[-1], f"{x.shape[-1]} inputs for a weight of {weight.shape}"
    if not isinstance(weight, Fp8Weight):
        return x, None
    rows, width = x.shape
    codes = torch.empty(x.shape, dtype=FP8, device=x.device)
    scale = torch.empty(rows, dtype=torch.float32, device=x.device)
    block = launch.power_of_two(width)
    warps = 8 if block > 1024 else 2
    launch.run(
        _fp8_rows, (rows,), x, codes, scale, WIDTH=width, MOST=FP8_MAX, BLOCK=block, num_warps=warps
    )
    return codes, scale


def gated_operand(both: Tensor, weight: Fp8Weight, activation: str) -> tuple[Tensor, Tensor]:
    """`operand` of activation(gate) · up, whose halves [T, K] are `both` [T, 2 · K]."""
    assert activation in ("gelu_tanh", "silu"), f"unknown activation {activation!r}"
    assert both.is_contiguous(), f"rows of strides {both.stride()} must be contiguous"
    rows, width = len(both), weight.shape[-1]
    assert both.shape[-1] == 2 * width, f"{both.shape[-1]} for gate and up of {width}"
    codes = torch.empty(rows, width, dtype=FP8, device=both.device)
    scale = torch.empty(rows, dtype=torch.float32, device=both.device)
    launch.run(
        _fp8_gated_rows,
        (rows,),
        *(both, codes, scale),
        SILU=activation == "silu",
        WIDTH=width,
        MOST=FP8_MAX,
        BLOCK=launch.power_of_two(width),
        num_warps=8,
    )
    return codes, scale


@triton.jit
def product(
    x: tl.tensor,
    x_inside: tl.tensor,
    codes: tl.tensor,
    scale: tl.tensor,
    output: tl.tensor,
    output_inside: tl.tensor,
    first: tl.tensor,
    steps: tl.tensor,
    INPUTS: tl.constexpr,
    FORM: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> tl.tensor:
    """Σ over K, from `first` on for `steps` blocks: fp32 [M, N] of rows `x` [M] by outputs [N].

    `x` are pointers to rows of INPUTS numbers; `output` numbers rows of the matrix at `codes`,
    which has less than 2^31 numbers.
    """
    k = first + tl.arange(0, BLOCK_K)
    x_at = x[:, None] + k[None, :]
    total = tl.zeros((x.shape[0], output.shape[0]), tl.float32)
    if FORM == "whole":
        at = codes + output[None, :] * INPUTS + k[:, None]
        for _ in range(steps):
            rows = tl.load(x_at, x_inside[:, None], 0.0)
            values = tl.load(at, output_inside[None, :], 0.0)
            # Left alone, Hopper sums FP8 products in some 14 bits over the whole of K.
            total = tl.dot(
                rows, values, total, input_precision="ieee", max_num_imprecise_acc=BLOCK_K
            )
            x_at += BLOCK_K
            at += BLOCK_K
    else:
        half = first // 2 + tl.arange(0, BLOCK_K // 2)
        at = codes + output[None, :] * (INPUTS // 2) + half[:, None]
        group = first // GROUP + tl.arange(0, BLOCK_K // GROUP)
        scale_at = scale + output[None, :] * (INPUTS // GROUP) + group[:, None]
        for _ in range(steps):
            rows = tl.load(x_at, x_inside[:, None], 0.0)
            pairs = tl.load(at, output_inside[None, :], 0)
            units = tl.load(scale_at, output_inside[None, :], 0.0).to(rows.dtype)
            even, odd = tl.split(tl.reshape(rows, (x.shape[0], BLOCK_K // 2, 2)))
            low = _numbers(pairs & 15, units, rows.dtype, FORM, GROUP)
            high = _numbers(pairs >> 4, units, rows.dtype, FORM, GROUP)
            total = tl.dot(even, low, total, input_precision="ieee")
            total = tl.dot(odd, high, total, input_precision="ieee")
            x_at += BLOCK_K
            at += BLOCK_K // 2
            scale_at += BLOCK_K // GROUP
    return total


@triton.jit
def _numbers(
    codes: tl.tensor,
    units: tl.tensor,
    dtype: tl.constexpr,
    FORM: tl.constexpr,
    GROUP: tl.constexpr,
) -> tl.tensor:
    """4-bit codes [K / 2, N] times the unit of their group [K / GROUP, N], as `dtype`."""
    bits = codes.to(tl.uint16)
    if FORM == "int4":
        # The code fills the last bits of 128 (bfloat16) or 1024 (float16), where a step is 1.
        if dtype == tl.bfloat16:
            values = (bits | 0x4300).to(tl.bfloat16, bitcast=True) - 136.0
        else:
            values = (bits | 0x6400).to(tl.float16, bitcast=True) - 1032.0
    else:
        # e2m1's bits are the first of a float16 whose exponent is 14 larger, zero and 0.5 too.
        half = (((bits & 8) << 12) | ((bits & 7) << 9)).to(tl.float16, bitcast=True)
        values = half * 16384.0
    each = tl.broadcast_to(units[:, None, :], (units.shape[0], GROUP // 2, units.shape[1]))
    return values.to(dtype) * tl.reshape(each, (codes.shape[0], codes.shape[1]))


@triton.jit
def _fp8_rows(
    x: tl.tensor,
    codes: tl.tensor,
    scale: tl.tensor,
    WIDTH: tl.constexpr,
    MOST: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < WIDTH
    values = tl.load(x + row * WIDTH + column, inside, 0.0).to(tl.float32)
    _store_codes(values, codes + row * WIDTH + column, inside, scale + row, MOST)


@triton.jit
def _fp8_gated_rows(
    both: tl.tensor,
    codes: tl.tensor,
    scale: tl.tensor,
    SILU: tl.constexpr,
    WIDTH: tl.constexpr,
    MOST: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < WIDTH
    at = both + row * 2 * WIDTH + column
    gate = activated(tl.load(at, inside, 0.0).to(tl.float32), SILU)
    values = gate * tl.load(at + WIDTH, inside, 0.0).to(tl.float32)
    values = values.to(both.dtype.element_ty).to(tl.float32)
    _store_codes(values, codes + row * WIDTH + column, inside, scale + row, MOST)


@triton.jit
def activated(gate: tl.tensor, SILU: tl.constexpr) -> tl.tensor:
    """SiLU or tanh-approximated GELU of fp32 numbers."""
    if SILU:
        gate *= tl.sigmoid(gate)
    else:
        # 0.5 · (1 + tanh z) is sigmoid(2z).
        gate *= tl.sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate))
    return gate


@triton.jit
def _store_codes(
    values: tl.tensor, codes: tl.tensor, inside: tl.tensor, scale: tl.tensor, MOST: tl.constexpr
) -> None:
    """One row's fp32 values at `codes`, and what they are multiplied by at `scale`."""
    largest = tl.max(tl.abs(values), 0)
    unit = tl.where(largest == 0, 1.0, largest / MOST)
    tl.store(scale, unit)
    values = tl.clamp(values / unit, -MOST, MOST)
    # Rounded to a code here, half to even: the conversion in Triton's interpreter cuts off.
    power = (values.to(tl.int32, bitcast=True) & 0x7F800000).to(tl.float32, bitcast=True)
    step = tl.maximum(power, 0.015625) / 8  # 2^-6 is the least normal number
    rounded = ((values / step + 12582912.0) - 12582912.0) * step
    rounded = rounded.to(codes.dtype.element_ty)
    tl.store(codes, rounded, inside)

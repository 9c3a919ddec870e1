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
LIFT = tl.constexpr(100)  # units in bfloat16 are raised by 2^LIFT: those below 2^27 have room


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
            eights = weight.codes.view(torch.int32)
            parts = Parts(eights, weight.scale, weight.factor, "int4", weight.group)
        case Fp4Weight():
            eights = weight.codes.view(torch.int32)
            parts = Parts(eights, weight.scale, weight.factor, "fp4", FP4_GROUP)
        case _:
            raise AssertionError(f"no kernel multiplies by a {type(weight).__name__}")
    assert weight.shape[-1] % 32 == 0, f"K must be a multiple of 32, got {weight.shape[-1]}"
    for part in (parts.codes, parts.scale, parts.factor):
        assert part is None or part.is_contiguous(), f"weight of strides {part.stride()}"
    return parts


def block_k(inputs: int, form: str) -> int:
    """How far along K a tile reaches: 704 is 11 · 64, 2816 is 22 · 128.

    In 4 bits a tile is multiplied in four parts, none of which may be shorter than 16.
    """
    sizes = (128, 64, 32) if form == "whole" else (128, 64)
    return next((size for size in sizes if inputs % size == 0), 64)


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
    """`operand` of activation(gate) · up; their sums over S are the halves of `both` [S, T, 2 · K]."""
    assert activation in ("gelu_tanh", "silu"), f"unknown activation {activation!r}"
    assert both.is_contiguous(), f"rows of strides {both.stride()} must be contiguous"
    parts, rows, _ = both.shape
    width = weight.shape[-1]
    assert both.shape[-1] == 2 * width, f"{both.shape[-1]} for gate and up of {width}"
    codes = torch.empty(rows, width, dtype=FP8, device=both.device)
    scale = torch.empty(rows, dtype=torch.float32, device=both.device)
    launch.run(
        _fp8_gated_rows,
        (rows,),
        *(both, codes, scale, rows),
        PARTS=parts,
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
        dtype: tl.constexpr = x.dtype.element_ty
        size: tl.constexpr = scale.dtype.element_ty.primitive_bitwidth // 8
        whole: tl.constexpr = INPUTS % BLOCK_K == 0
        # Fewer bytes than four in a row are not copied ahead like the rest: ask for them a step early.
        early: tl.constexpr = whole and (
            BLOCK_K // GROUP * size < 4 or INPUTS // GROUP * size % 4 != 0
        )
        word = first // 8 + tl.arange(0, BLOCK_K // 8)
        group = first // GROUP + tl.arange(0, BLOCK_K // GROUP)
        at = codes + output[None, :] * (INPUTS // 8) + word[:, None]
        scale_at = scale + output[None, :] * (INPUTS // GROUP) + group[:, None]
        x_mask, mask, scale_mask = x_inside[:, None], output_inside[None, :], output_inside[None, :]
        following = scale_at
        if early:
            following = tl.load(scale_at, scale_mask, 0.0)
        for step in range(steps):
            if not whole:
                done = step * BLOCK_K
                x_mask = x_inside[:, None] & (k < INPUTS - done)[None, :]
                mask = output_inside[None, :] & (word < (INPUTS - done) // 8)[:, None]
                left = (INPUTS - done) // GROUP
                scale_mask = output_inside[None, :] & (group < left)[:, None]
            rows = tl.load(x_at, x_mask, 0.0)
            eights = tl.load(at, mask, 0)
            if early:
                units = following.to(tl.float32)
                more = scale_mask & (step + 1 < steps)
                following = tl.load(scale_at + (step + 1) * (BLOCK_K // GROUP), more, 0.0)
            else:
                units = tl.load(scale_at + step * (BLOCK_K // GROUP), scale_mask, 0.0).to(
                    tl.float32
                )
            # `_numbers` gives a fourth of the weight: of each eight k, one and the fourth behind it.
            even, odd = tl.split(tl.reshape(rows, (x.shape[0], BLOCK_K // 4, 2, 2)))
            x_0, x_2 = tl.split(even)
            x_1, x_3 = tl.split(odd)
            for plane in tl.static_range(4):
                part = x_0 if plane == 0 else x_1 if plane == 1 else x_2 if plane == 2 else x_3
                numbers = _numbers(eights, units, plane, dtype, FORM, GROUP)
                total = tl.dot(part, numbers, total, input_precision="ieee")
            x_at += BLOCK_K
            at += BLOCK_K // 8
        if dtype == tl.bfloat16:
            total *= 2.0 ** (133 - LIFT) if FORM == "int4" else 2.0 ** (126 - LIFT)
    return total


@triton.jit
def _numbers(
    eights: tl.tensor,
    units: tl.tensor,
    plane: tl.constexpr,
    dtype: tl.constexpr,
    FORM: tl.constexpr,
    GROUP: tl.constexpr,
) -> tl.tensor:
    """Codes `plane` and `plane` + 4 of eight in an int32 [K / 8, N], times their units: [K / 4, N].

    The bits of a code are made the last ones of a float, where floats lie evenly, so that one fused
    product makes two weights of two codes: (n · 2^-133) · unit − 8 · unit · 2^-133 in bfloat16, all of
    it times 2^LIFT. In other dtypes the code is a float16, and the product in fp32.
    """
    short: tl.constexpr = dtype == tl.bfloat16
    kept: tl.constexpr = tl.bfloat16 if short else tl.float32
    if FORM == "int4":
        # Every other plane stays four bits further up, where its codes count sixteen times as much.
        bits = (eights >> 8 if plane >= 2 else eights) & (0x00F000F0 if plane % 2 else 0x000F000F)
    else:
        # e2m1's bits are a sign and the first ones of what has an exponent in its last.
        bits = eights << (12 - 4 * plane)
        rest = bits >> 6 & 0x01C001C0 if short else bits >> 3 & 0x0E000E00
        bits = bits & -0x7FFF8000 | rest
    low, high = bits.to(tl.uint16), (bits >> 16).to(tl.uint16)
    if short:
        low, high = low.to(kept, bitcast=True), high.to(kept, bitcast=True)
    else:
        low = low.to(tl.float16, bitcast=True).to(kept)
        high = high.to(tl.float16, bitcast=True).to(kept)
    power: tl.constexpr = LIFT if short else 24 if FORM == "int4" else 14
    further: tl.constexpr = 4 * (plane % 2) if FORM == "int4" else 0
    unit = _spread((units * 2.0 ** (power - further)).to(kept), GROUP // 8)
    # High before low: the other way round ptxas pairs them crosswise, and swaps each pair twice.
    if FORM == "int4":
        zero: tl.constexpr = -8.0 * 2.0 ** (LIFT - 133) if short else -8.0
        zeros = _spread((units * zero).to(kept), GROUP // 8)
        high = high * unit + zeros
        low = low * unit + zeros
    else:
        high *= unit
        low *= unit
    pairs = tl.trans(tl.join(low, high), (0, 2, 1))
    return tl.reshape(pairs, (2 * bits.shape[0], bits.shape[1])).to(dtype)


@triton.jit
def _spread(units: tl.tensor, times: tl.constexpr) -> tl.tensor:
    """Each row of [G, N] so many times: [G · times, N]."""
    each = tl.broadcast_to(units[:, None, :], (units.shape[0], times, units.shape[1]))
    return tl.reshape(each, (units.shape[0] * times, units.shape[1]))


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
    rows: tl.tensor,
    PARTS: tl.constexpr,
    SILU: tl.constexpr,
    WIDTH: tl.constexpr,
    MOST: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < WIDTH
    gate, up = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for part in tl.static_range(PARTS):
        at = both + (part * rows + row) * 2 * WIDTH + column
        gate += tl.load(at, inside, 0.0).to(tl.float32)
        up += tl.load(at + WIDTH, inside, 0.0).to(tl.float32)
    values = activated(gate, SILU) * up
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

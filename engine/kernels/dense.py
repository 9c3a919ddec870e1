"""Linear layers over packed weights for 1 to 256 rows: bound by how fast the weights are read.

Few rows make few tiles, so K is split among programs until all processors have some; the parts are
summed in a fixed order, so that the same rows always give the same numbers.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels import launch, tiles
from engine.weights import Fp8Weight, PackedWeight

_BLOCK_N = 64
_BLOCK_SUM = 1024


def linear(x: Tensor, weight: PackedWeight) -> Tensor:
    """See `reference.linear`."""
    assert len(weight.shape) == 2, f"a linear layer has one matrix, got {weight.shape}"
    operand, row_scale = tiles.operand(x.reshape(-1, weight.shape[1]).contiguous(), weight)
    return _product(operand, row_scale, weight, x.dtype).view(*x.shape[:-1], weight.shape[0])


def gated_mlp(x: Tensor, gate_up: PackedWeight, down: Fp8Weight, activation: str) -> Tensor:
    """See `reference.gated_mlp`. The parts of gate and up are summed by what rounds their product."""
    operand, row_scale = tiles.operand(x.reshape(-1, gate_up.shape[1]).contiguous(), gate_up)
    both = _parts(operand, row_scale, gate_up, x.dtype)
    operand, row_scale = tiles.gated_operand(both, down, activation)
    return _product(operand, row_scale, down, x.dtype).view(*x.shape[:-1], down.shape[0])


def _product(
    operand: Tensor, row_scale: Tensor | None, weight: PackedWeight, dtype: torch.dtype
) -> Tensor:
    """Rows as `tiles.operand` gives them [T, K] by `weight` [N, K], as `dtype`."""
    partial = _parts(operand, row_scale, weight, dtype)
    if len(partial) == 1:
        return partial[0]
    out = torch.empty(partial.shape[1:], dtype=dtype, device=partial.device)
    count, splits = out.numel(), len(partial)
    grid = (triton.cdiv(count, _BLOCK_SUM),)
    launch.run(_sum, grid, partial, out, count, SPLITS=splits, BLOCK=_BLOCK_SUM)
    return out


def _parts(
    operand: Tensor, row_scale: Tensor | None, weight: PackedWeight, dtype: torch.dtype
) -> Tensor:
    """`_product` in summands [S, T, N]: several in fp32, or one as `dtype`."""
    rows, (outputs, inputs) = len(operand), weight.shape
    parts = tiles.parts_of(weight)
    block_m = min(64, max(16, launch.power_of_two(rows)))
    block_k = tiles.block_k(inputs, parts.form)
    if block_m == 64 and parts.form != "whole":
        block_k = min(block_k, 64)  # more numbers than that do not fit the registers
    grid = (triton.cdiv(outputs, _BLOCK_N), triton.cdiv(rows, block_m))
    splits = _splits(
        grid[0] * grid[1], triton.cdiv(inputs, block_k), launch.device_of(operand).processors
    )
    kept = dtype if splits == 1 else torch.float32
    partial = torch.empty(splits, rows, outputs, dtype=kept, device=operand.device)
    launch.run(
        _linear,
        (*grid, splits),
        *(operand, row_scale, parts.codes, parts.scale, parts.factor, partial),
        *(rows, outputs, splits),  # no constants: a model has many shapes to compile for
        INPUTS=inputs,
        FORM=parts.form,
        GROUP=parts.group,
        BLOCK_M=block_m,
        BLOCK_N=_BLOCK_N,
        BLOCK_K=block_k,
        num_warps=4,
        num_stages=4,
    )
    return partial


def _splits(programs: int, steps: int, processors: int) -> int:
    """Into how many parts K is split: two programs for each processor, four steps for each part.

    Where half the processors have a program, summing the parts would cost more than it gains.
    """
    if 2 * programs > processors:
        return 1
    wanted = min(max(1, 2 * processors // programs), max(1, steps // 4))
    return 1 << (wanted.bit_length() - 1)


@triton.jit
def _linear(
    x: tl.tensor,
    row_scale: tl.tensor,
    codes: tl.tensor,
    scale: tl.tensor,
    factor: tl.tensor,
    out: tl.tensor,
    rows: tl.tensor,
    outputs: tl.tensor,
    splits: tl.tensor,
    INPUTS: tl.constexpr,
    FORM: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    output = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    split = tl.program_id(2)
    steps: tl.constexpr = tl.cdiv(INPUTS, BLOCK_K)
    first, last = split * steps // splits, (split + 1) * steps // splits
    total = tiles.product(
        x + row * INPUTS,
        row < rows,
        codes,
        scale,
        output,
        output < outputs,
        first * BLOCK_K,
        last - first,
        INPUTS,
        FORM,
        GROUP,
        BLOCK_K,
    )
    if factor is not None:
        total *= tl.load(factor + output, output < outputs, 0.0)[None, :]
    if row_scale is not None:
        total *= tl.load(row_scale + row, row < rows, 0.0)[:, None]
    at = (split * rows + row[:, None]) * outputs + output[None, :]
    tl.store(out + at, total, (row < rows)[:, None] & (output < outputs)[None, :])


@triton.jit
def _sum(
    partial: tl.tensor, out: tl.tensor, count: tl.tensor, SPLITS: tl.constexpr, BLOCK: tl.constexpr
) -> None:
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for split in tl.static_range(SPLITS):
        total += tl.load(partial + split * count + at, at < count, 0.0)
    tl.store(out + at, total, at < count)

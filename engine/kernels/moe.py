"""The experts' grouped products for 1 to 256 rows.

A program multiplies one tile of slots, all of one expert (see `routing`), by a strip of that expert's
weights. Experts that nobody chose are never read. The grids depend on the number of rows only.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels import launch, tiles
from engine.kernels.routing import sort_slots
from engine.kernels.tiles import Weight


def experts(
    x: Tensor, weights: Tensor, indices: Tensor, gate_up: Weight, down: Weight, activation: str
) -> Tensor:
    """See `reference.experts`."""
    rows, width = x.shape
    count, both, inner = gate_up.shape[0], gate_up.shape[1], down.shape[2]
    assert tuple(gate_up.shape) == (count, 2 * inner, width), (
        f"gate and up {tuple(gate_up.shape)} with down {tuple(down.shape)} for {width} inputs"
    )
    assert tuple(down.shape) == (count, width, inner), f"down {tuple(down.shape)}, {both} outputs"
    assert weights.shape == indices.shape and len(indices) == rows, (
        f"{rows} rows, weights {tuple(weights.shape)}, indices {tuple(indices.shape)}"
    )
    assert activation in ("gelu_tanh", "silu"), f"unknown activation {activation!r}"
    top = indices.shape[1]
    # Above 128 rows an expert has more than 16 on average, if they choose evenly.
    tile_rows = 16 if rows <= 128 else 32
    order, bounds = sort_slots(indices.contiguous(), count, tile_rows)

    def grouped(
        kernel: triton.JITFunction, x: Tensor, weight: Weight, outputs: int, *more: Any
    ) -> Tensor:
        """One grouped product of x by all of `weight`; [slots, outputs]."""
        parts = tiles.parts_of(weight)
        operand, row_scale = tiles.operand(x, weight)
        # Unpacked for 128 outputs, each warp reads the rows for 32 of them: half as often as for 16.
        block_n = 64 if parts.form == "whole" else 128
        out = torch.empty(indices.numel(), outputs, dtype=x.dtype, device=x.device)
        launch.run(
            kernel,
            (triton.cdiv(weight.shape[1], block_n), bounds.shape[1]),
            *(operand, row_scale, parts.codes, parts.scale, parts.factor, out),
            *(order, bounds, bounds.shape[1], *more),
            OUTPUTS=outputs,
            INPUTS=x.shape[-1],
            FORM=parts.form,
            GROUP=parts.group,
            BLOCK_M=tile_rows,
            BLOCK_N=block_n,
            BLOCK_K=tiles.block_k(x.shape[-1], parts.form),
            num_warps=4,
            num_stages=4,
        )
        return out

    hidden = grouped(_gate_up, x, gate_up, inner, top, activation == "silu")
    out = grouped(_down, hidden, down, width, weights.contiguous())
    return out.view(rows, top, width)


@triton.jit
def _gate_up(
    x: tl.tensor,
    row_scale: tl.tensor,
    codes: tl.tensor,
    scale: tl.tensor,
    factor: tl.tensor,
    out: tl.tensor,
    order: tl.tensor,
    bounds: tl.tensor,
    most: tl.tensor,
    top: tl.tensor,
    SILU: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    FORM: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """activation(gate) · up of one tile. Weight rows of gate and up alternate in its strip."""
    expert = tl.load(bounds + tl.program_id(1))
    if expert >= 0:
        slot, inside = _slots_of_tile(order, bounds, most, BLOCK_M)
        row = slot // top
        strip = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
        output = strip // 2 + (strip % 2) * OUTPUTS
        total = _expert_product(
            x + row * INPUTS,
            inside,
            codes,
            scale,
            factor,
            expert,
            output,
            strip < 2 * OUTPUTS,
            2 * OUTPUTS,
            INPUTS,
            FORM,
            GROUP,
            BLOCK_K,
        )
        if row_scale is not None:
            total *= tl.load(row_scale + row, inside, 0.0)[:, None]
        gate, up = tl.split(tl.reshape(total, (BLOCK_M, BLOCK_N // 2, 2)))
        gate = tiles.activated(gate, SILU)
        column = tl.program_id(0) * (BLOCK_N // 2) + tl.arange(0, BLOCK_N // 2)
        at = out + slot[:, None] * OUTPUTS + column[None, :]
        tl.store(at, gate * up, inside[:, None] & (column < OUTPUTS)[None, :])


@triton.jit
def _down(
    x: tl.tensor,
    row_scale: tl.tensor,
    codes: tl.tensor,
    scale: tl.tensor,
    factor: tl.tensor,
    out: tl.tensor,
    order: tl.tensor,
    bounds: tl.tensor,
    most: tl.tensor,
    weights: tl.tensor,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    FORM: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """down(x) · the router's weight, slot by slot."""
    expert = tl.load(bounds + tl.program_id(1))
    if expert >= 0:
        slot, inside = _slots_of_tile(order, bounds, most, BLOCK_M)
        output = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
        total = _expert_product(
            x + slot * INPUTS,
            inside,
            codes,
            scale,
            factor,
            expert,
            output,
            output < OUTPUTS,
            OUTPUTS,
            INPUTS,
            FORM,
            GROUP,
            BLOCK_K,
        )
        weight = tl.load(weights + slot, inside, 0.0).to(tl.float32)
        if row_scale is not None:
            weight *= tl.load(row_scale + slot, inside, 0.0)
        at = out + slot[:, None] * OUTPUTS + output[None, :]
        tl.store(at, total * weight[:, None], inside[:, None] & (output < OUTPUTS)[None, :])


@triton.jit
def _slots_of_tile(
    order: tl.tensor, bounds: tl.tensor, most: tl.tensor, BLOCK_M: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    tile = tl.program_id(1)
    place = tl.load(bounds + most + tile) + tl.arange(0, BLOCK_M)
    inside = place < tl.load(bounds + 2 * most + tile)
    return tl.load(order + place, inside, 0), inside


@triton.jit
def _expert_product(
    x: tl.tensor,
    x_inside: tl.tensor,
    codes: tl.tensor,
    scale: tl.tensor,
    factor: tl.tensor,
    expert: tl.tensor,
    output: tl.tensor,
    output_inside: tl.tensor,
    ALL_OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    FORM: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> tl.tensor:
    """Rows by some outputs of one expert, its factors applied."""
    first = expert.to(tl.int64) * ALL_OUTPUTS
    if FORM == "whole":
        codes += first * INPUTS
    else:
        codes += first * (INPUTS // 8)
        scale += first * (INPUTS // GROUP)
    total = tiles.product(
        x,
        x_inside,
        codes,
        scale,
        output,
        output_inside,
        0,
        tl.cdiv(INPUTS, BLOCK_K),
        INPUTS,
        FORM,
        GROUP,
        BLOCK_K,
    )
    if factor is not None:
        total *= tl.load(factor + first + output, output_inside, 0.0)[None, :]
    return total

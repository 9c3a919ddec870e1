"""The mixture of experts for 1 to 256 rows: choice, sorting, and the experts' grouped products.

A row's choice of an expert is a *slot*, numbered row · K + k. Slots are sorted by expert and cut into
tiles of one expert each; a program multiplies one tile by a strip of that expert's weights. Experts
that nobody chose are never read. The grids depend on the number of rows only, not on the choice.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels import launch, tiles
from engine.kernels.tiles import Weight

_ROUTER_ROWS = 16
_ROUTER_K = 64
_BLOCK_N = 64


def route(
    x: Tensor, scale: Tensor, proj: Tensor, per_expert_scale: Tensor, top_k: int, eps: float
) -> tuple[Tensor, Tensor]:
    """See `reference.route`; scores are fp32 throughout."""
    rows, width = x.shape
    count = proj.shape[0]
    assert proj.shape == (count, width), f"a router {tuple(proj.shape)} for {width} inputs"
    assert scale.shape == (width,) and per_expert_scale.shape == (count,), "scales do not match"
    assert 0 < top_k <= count, f"top {top_k} of {count} experts"
    assert x.is_contiguous() and proj.is_contiguous(), "rows and router must be contiguous"
    chunk = 4 * _ROUTER_K
    splits = triton.cdiv(width, chunk)
    scores = torch.empty(splits, rows, count, dtype=torch.float32, device=x.device)
    squares = torch.empty(splits, rows, dtype=torch.float32, device=x.device)
    block = launch.power_of_two(max(16, count))
    launch.run(
        _scores,
        (triton.cdiv(rows, _ROUTER_ROWS), splits),
        *(x, scale, proj, scores, squares, rows),
        WIDTH=width,
        COUNT=count,
        BLOCK_M=_ROUTER_ROWS,
        BLOCK_N=block,
        BLOCK_K=_ROUTER_K,
        CHUNK=chunk,
        num_warps=4,
    )
    weights = torch.empty(rows, top_k, dtype=torch.float32, device=x.device)
    indices = torch.empty(rows, top_k, dtype=torch.int64, device=x.device)
    launch.run(
        _choose,
        (rows,),
        *(scores, squares, per_expert_scale, weights, indices, rows, eps),
        WIDTH=width,
        COUNT=count,
        SPLITS=splits,
        TOP=top_k,
        BLOCK=block,
        BLOCK_TOP=launch.power_of_two(top_k),
        num_warps=1,
    )
    return weights, indices


def sort_slots(indices: Tensor, count: int, rows: int) -> tuple[Tensor, Tensor]:
    """See `reference.sort_slots`: one program for each of `count` experts.

    Bounds have room for the most tiles there can be; those that are not needed are -1 throughout.
    """
    assert indices.is_contiguous(), f"indices of strides {indices.stride()} must be contiguous"
    slots = indices.numel()
    assert 0 < slots <= 4096, f"{slots} slots; sort at most 4096 at once, such as 512 rows by 8"
    most = min(slots, count + slots // rows)
    order = torch.empty(slots, dtype=torch.int32, device=indices.device)
    bounds = torch.empty(3, most, dtype=torch.int32, device=indices.device)
    launch.run(
        _sort_slots,
        (count,),
        *(indices, order, bounds, slots, most),
        COUNT=count,
        ROWS=rows,
        BLOCK=launch.power_of_two(max(16, slots)),
        BINS=launch.power_of_two(count + 1),
        BLOCK_TILES=launch.power_of_two(most),
        num_warps=4,
    )
    return order, bounds


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
        kernel: triton.JITFunction, x: Tensor, weight: Weight, outputs: int, strips: int, *more: Any
    ) -> Tensor:
        """One grouped product of x by `strips` strips of `weight`; [slots, outputs]."""
        parts = tiles.parts_of(weight)
        operand, row_scale = tiles.operand(x, weight)
        out = torch.empty(indices.numel(), outputs, dtype=x.dtype, device=x.device)
        launch.run(
            kernel,
            (strips, bounds.shape[1]),
            *(operand, row_scale, parts.codes, parts.scale, parts.factor, out),
            *(order, bounds, bounds.shape[1], *more),
            OUTPUTS=outputs,
            INPUTS=x.shape[-1],
            FORM=parts.form,
            GROUP=parts.group,
            BLOCK_M=tile_rows,
            BLOCK_N=_BLOCK_N,
            BLOCK_K=tiles.block_k(x.shape[-1]),
            num_warps=4,
            num_stages=4,
        )
        return out

    strips = triton.cdiv(both, _BLOCK_N), triton.cdiv(width, _BLOCK_N)
    hidden = grouped(_gate_up, x, gate_up, inner, strips[0], top, activation == "silu")
    out = grouped(_down, hidden, down, width, strips[1], weights.contiguous())
    combined = torch.empty_like(x)
    block = launch.power_of_two(width)
    launch.run(_combine, (rows,), out, combined, WIDTH=width, TOP=top, BLOCK=block, num_warps=8)
    return combined


@triton.jit
def _scores(
    x: tl.tensor,
    scale: tl.tensor,
    proj: tl.tensor,
    scores: tl.tensor,
    squares: tl.tensor,
    rows: tl.tensor,
    WIDTH: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    CHUNK: tl.constexpr,
) -> None:
    """A chunk of K of every expert's score, before the norm, and of the norm's mean square."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    split = tl.program_id(1)
    expert = tl.arange(0, BLOCK_N)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    square = tl.zeros((BLOCK_M,), tl.float32)
    for step in range(CHUNK // BLOCK_K):
        k = split * CHUNK + step * BLOCK_K + tl.arange(0, BLOCK_K)
        inside = (row < rows)[:, None] & (k < WIDTH)[None, :]
        values = tl.load(x + row[:, None] * WIDTH + k[None, :], inside, 0.0).to(tl.float32)
        square += tl.sum(values * values, 1)
        scaled = values * tl.load(scale + k, k < WIDTH, 0.0).to(tl.float32)[None, :]
        to_expert = proj + expert[None, :] * WIDTH + k[:, None]
        weight = tl.load(to_expert, (expert < COUNT)[None, :] & (k < WIDTH)[:, None], 0.0)
        total = tl.dot(scaled.to(weight.dtype), weight, total, input_precision="ieee")
    place = split * rows + row
    tl.store(squares + place, square, row < rows)
    out = scores + place[:, None] * COUNT + expert[None, :]
    tl.store(out, total, (row < rows)[:, None] & (expert < COUNT)[None, :])


@triton.jit
def _choose(
    scores: tl.tensor,
    squares: tl.tensor,
    per_expert_scale: tl.tensor,
    weights: tl.tensor,
    indices: tl.tensor,
    rows: tl.tensor,
    eps: tl.tensor,
    WIDTH: tl.constexpr,
    COUNT: tl.constexpr,
    SPLITS: tl.constexpr,
    TOP: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_TOP: tl.constexpr,
) -> None:
    row = tl.program_id(0)
    expert = tl.arange(0, BLOCK)
    score = tl.zeros((BLOCK,), tl.float32)
    square = 0.0
    for split in range(SPLITS):
        place = split * rows + row
        score += tl.load(scores + place * COUNT + expert, expert < COUNT, 0.0)
        square += tl.load(squares + place)
    score *= tl.rsqrt(square / WIDTH + eps) * WIDTH**-0.5
    score = tl.where(expert < COUNT, score, -float("inf"))
    # Renormalised over the chosen, so the sum over all experts cancels.
    share = tl.exp(score - tl.max(score, 0))
    rank = tl.arange(0, BLOCK_TOP)
    chosen = tl.zeros((BLOCK_TOP,), tl.int32)
    chosen_share = tl.zeros((BLOCK_TOP,), tl.float32)
    for k in tl.static_range(TOP):
        best = tl.argmax(score, 0)
        chosen = tl.where(rank == k, best, chosen)
        its_share = tl.sum(tl.where(expert == best, share, 0.0), 0)
        chosen_share = tl.where(rank == k, its_share, chosen_share)
        score = tl.where(expert == best, -float("inf"), score)
    factor = tl.load(per_expert_scale + chosen).to(tl.float32)
    out = row * TOP + rank
    tl.store(weights + out, chosen_share / tl.sum(chosen_share, 0) * factor, rank < TOP)
    tl.store(indices + out, chosen.to(tl.int64), rank < TOP)


@triton.jit
def _sort_slots(
    indices: tl.tensor,
    order: tl.tensor,
    bounds: tl.tensor,
    slots: tl.tensor,
    most: tl.tensor,
    COUNT: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    BINS: tl.constexpr,
    BLOCK_TILES: tl.constexpr,
) -> None:
    """Every program reads all choices, and places the slots and tiles of one expert."""
    expert = tl.program_id(0)
    slot = tl.arange(0, BLOCK)
    # What is no slot falls into the last bin, which no expert has.
    choice = tl.load(indices + slot, slot < slots, BINS - 1).to(tl.int32)
    first = tl.sum((choice < expert).to(tl.int32), 0)
    mine = (choice == expert).to(tl.int32)
    count = tl.sum(mine, 0)
    tl.store(order + first + tl.cumsum(mine, 0) - 1, slot, mine != 0)

    full = (tl.histogram(choice, BINS) + ROWS - 1) // ROWS
    other = tl.arange(0, BINS)
    first_tile = tl.sum(tl.where(other < expert, full, 0), 0)
    tile = tl.arange(0, BLOCK_TILES)
    own = tile < (count + ROWS - 1) // ROWS
    tl.store(bounds + first_tile + tile, expert, own)
    tl.store(bounds + most + first_tile + tile, first + tile * ROWS, own)
    tl.store(bounds + 2 * most + first_tile + tile, first + count, own)
    if expert == COUNT - 1:
        used = tl.sum(tl.where(other < COUNT, full, 0), 0)
        spare = (tile >= used) & (tile < most)
        for row in tl.static_range(3):
            tl.store(bounds + row * most + tile, -1, spare)


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
        if SILU:
            gate *= tl.sigmoid(gate)
        else:
            # 0.5 · (1 + tanh z) is sigmoid(2z).
            gate *= tl.sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate))
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
        codes += first * (INPUTS // 2)
        scale += first * (INPUTS // GROUP)
    total = tiles.product(
        x,
        x_inside,
        codes,
        scale,
        output,
        output_inside,
        0,
        INPUTS // BLOCK_K,
        INPUTS,
        FORM,
        GROUP,
        BLOCK_K,
    )
    if factor is not None:
        total *= tl.load(factor + first + output, output_inside, 0.0)[None, :]
    return total


@triton.jit
def _combine(
    slots: tl.tensor, out: tl.tensor, WIDTH: tl.constexpr, TOP: tl.constexpr, BLOCK: tl.constexpr
) -> None:
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for k in tl.static_range(TOP):
        at = slots + (row * TOP + k) * WIDTH + column
        total += tl.load(at, column < WIDTH, 0.0).to(tl.float32)
    tl.store(out + row * WIDTH + column, total, column < WIDTH)

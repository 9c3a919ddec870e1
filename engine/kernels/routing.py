"""Which experts each row asks for, and their choices sorted by expert, for 1 to 256 rows.

A row's choice of an expert is a *slot*, numbered row · K + k. Slots are sorted by expert and cut into
tiles of one expert each. The grids depend on the number of rows only, not on the choice.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels import launch

_ROUTER_ROWS = 16
_ROUTER_K = 64


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

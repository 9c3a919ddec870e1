"""What sums over groups of tokens say of a row, and which groups of it are worth a closer look.

`engine.kernels.head` makes the sums. A row has thousands of groups; one program reads them all.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels import launch

_BLOCK_GROUPS = 2048  # summed at once, which the registers have room for


def chosen_groups(
    sums: Tensor, uniform: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What `sums` [3, rows, groups] say of each row, and which of its groups are scored again.

    Entropy, log-probability of the best token, highest score, each [rows]; groups [rows, count + 1],
    that of the draw last; at what mass within it the draw falls [rows].
    """
    _, rows, groups = sums.shape
    entropy, log_best, highest, target = torch.empty(
        (4, rows), dtype=torch.float32, device=sums.device
    )
    chosen = torch.empty((rows, count + 1), dtype=torch.int32, device=sums.device)
    block = launch.power_of_two(max(16, groups))
    launch.run(
        _choose_highest,
        (rows,),
        *(sums, chosen, highest),
        GROUPS=groups,
        COUNT=count,
        BLOCK=block,
        num_warps=8,
    )
    launch.run(
        _choose_draw,
        (rows,),
        *(sums, uniform.contiguous(), highest, chosen, entropy, log_best, target, rows),
        GROUPS=groups,
        COUNT=count,
        BLOCK=min(_BLOCK_GROUPS, block),
        num_warps=4,
    )
    return entropy, log_best, highest, chosen, target


@triton.jit
def _choose_highest(
    sums: tl.tensor,
    chosen: tl.tensor,
    highest: tl.tensor,
    GROUPS: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """The COUNT groups of a row's highest scores, which hold its likeliest tokens; -1 for none."""
    row = tl.program_id(0)
    group = tl.arange(0, BLOCK)
    left = tl.load(sums + row * GROUPS + group, group < GROUPS, -float("inf"))
    tl.store(highest + row, tl.max(left, 0))
    for place in range(COUNT):
        value, best = tl.max(left, 0, return_indices=True)
        tl.store(chosen + row * (COUNT + 1) + place, tl.where(value == -float("inf"), -1, best))
        left = tl.where(group == best, -float("inf"), left)


@triton.jit
def _choose_draw(
    sums: tl.tensor,
    uniform: tl.tensor,
    highest: tl.tensor,
    chosen: tl.tensor,
    entropy: tl.tensor,
    log_best: tl.tensor,
    target: tl.tensor,
    rows: tl.tensor,
    GROUPS: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """One row's entropy, and the group its draw falls in, behind the COUNT others in `chosen`.

    `target` is the mass within that group at which it falls, in units of the group's highest share.
    """
    row = tl.program_id(0)
    sums += row * GROUPS
    most = tl.load(highest + row)
    total, moment = 0.0, 0.0
    for start in range(0, GROUPS, BLOCK):
        part, below, unit, at, inside = _parts(sums, most, start, rows, GROUPS, BLOCK)
        own = tl.load(at + 2 * rows * GROUPS, inside, 0.0)
        moment += tl.sum(own * unit + part * below, 0)
        total += tl.sum(part, 0)
    tl.store(entropy + row, tl.log(total) - moment / total)
    tl.store(log_best + row, -tl.log(total))

    value = (1.0 - tl.load(uniform + row)) * total
    drawn, before, passed = -1, 0.0, 0.0
    for start in range(0, GROUPS, BLOCK):
        part, _, _, _, _ = _parts(sums, most, start, rows, GROUPS, BLOCK)
        group = start + tl.arange(0, BLOCK)
        first = tl.min(
            tl.where((passed + tl.cumsum(part, 0) >= value) & (part > 0), group, GROUPS), 0
        )
        # Sums are rounded: should none reach the value, it is the last group that can come.
        first = tl.minimum(first, tl.max(tl.where(part > 0, group, -1), 0))
        open = (passed < value) & (first >= 0)
        drawn = tl.where(open, first, drawn)
        before = tl.where(open, passed + tl.sum(tl.where(group < first, part, 0.0), 0), before)
        passed += tl.sum(part, 0)
    its_unit = tl.exp(tl.load(sums + drawn) - most)
    tl.store(target + row, (value - before) / its_unit)
    tl.store(chosen + row * (COUNT + 1) + COUNT, drawn)


@triton.jit
def _parts(
    sums: tl.tensor,
    most: tl.tensor,
    start: tl.tensor,
    rows: tl.tensor,
    GROUPS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Of a block of groups: mass, distance to the row's highest score, its exponential, and where."""
    group = start + tl.arange(0, BLOCK)
    at, inside = sums + group, group < GROUPS
    below = tl.maximum(tl.load(at, inside, -float("inf")) - most, -1e4)
    unit = tl.exp(below)
    return tl.load(at + rows * GROUPS, inside, 0.0) * unit, below, unit, at, inside

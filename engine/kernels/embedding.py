"""Self-conditioning under a few tokens only: the mean of some rows of the embedding table."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels import launch


def soft_embedding(table: Tensor, ids: Tensor, shares: Tensor, scale: float) -> Tensor:
    """See `reference.soft_embedding`; sums are in fp32, rounded once."""
    *_, count = ids.shape
    assert ids.shape == shares.shape, f"{tuple(ids.shape)} ids, {tuple(shares.shape)} shares"
    assert ids.is_contiguous() and shares.is_contiguous() and table.is_contiguous()
    width, rows = table.shape[1], ids.numel() // count
    out = torch.empty(*ids.shape[:-1], width, dtype=table.dtype, device=table.device)
    block = min(512, launch.power_of_two(width))
    launch.run(
        _mix,
        (rows, triton.cdiv(width, block)),
        *(table, ids, shares, out, scale),
        WIDTH=width,
        COUNT=count,
        BLOCK=block,
        num_warps=4,
    )
    return out


@triton.jit
def _mix(
    table: tl.tensor,
    ids: tl.tensor,
    shares: tl.tensor,
    out: tl.tensor,
    scale: tl.tensor,
    WIDTH: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < WIDTH
    total, whole = tl.zeros((BLOCK,), tl.float32), 0.0
    for place in range(COUNT):
        share = tl.load(shares + row * COUNT + place)
        token = tl.load(ids + row * COUNT + place)
        total += share * tl.load(table + token * WIDTH + column, inside, 0.0).to(tl.float32)
        whole += share
    tl.store(out + row * WIDTH + column, total * (scale / whole), inside)

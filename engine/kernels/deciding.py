"""What a denoising step keeps of a hole: the acceptance by entropy and the next canvas, one launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels import launch


def accept_and_renoise(
    entropy: Tensor, drawn: Tensor, noise: Tensor, bound: float
) -> tuple[Tensor, Tensor]:
    """See `reference.accept_and_renoise`. Each position sums what stands before it in the order."""
    batch, hole = entropy.shape
    assert drawn.shape == noise.shape == (batch, hole), (
        f"entropies {(batch, hole)}, drawn {tuple(drawn.shape)}, noise {tuple(noise.shape)}"
    )
    assert hole <= 256, f"a canvas has 256 positions at most, got {hole}"
    assert entropy.is_contiguous() and drawn.is_contiguous() and noise.is_contiguous()
    assert drawn.dtype is noise.dtype, f"ids are {drawn.dtype} and {noise.dtype}"
    canvas = torch.empty_like(drawn)
    accepted = torch.empty(entropy.shape, dtype=torch.int32, device=entropy.device)
    block = launch.power_of_two(max(16, hole))
    launch.run(
        _accept_and_renoise,
        (batch,),
        *(entropy, drawn, noise, canvas, accepted, hole, bound),
        BLOCK=block,
        num_warps=8,
    )
    return canvas, accepted.bool()


@triton.jit
def _accept_and_renoise(
    entropy: tl.tensor,
    drawn: tl.tensor,
    noise: tl.tensor,
    canvas: tl.tensor,
    accepted: tl.tensor,
    hole: tl.tensor,
    bound: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    first = tl.program_id(0) * hole
    place = tl.arange(0, BLOCK)
    inside = place < hole
    own = tl.load(entropy + first + place, inside, float("inf"))
    sums = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, BLOCK, 16):
        at = start + tl.arange(0, 16)
        other = tl.load(entropy + first + at, at < hole, float("inf"))
        # Lower entropies come first, equal ones in the order of their places.
        before = other[None, :] < own[:, None]
        before |= (other[None, :] == own[:, None]) & (at[None, :] < place[:, None])
        sums += tl.sum(tl.where(before & (at < hole)[None, :], other[None, :], 0.0), 1)
    keep = sums <= bound
    ids = tl.where(
        keep,
        tl.load(drawn + first + place, inside, 0),
        tl.load(noise + first + place, inside, 0),
    )
    tl.store(canvas + first + place, ids, inside)
    tl.store(accepted + first + place, keep.to(tl.int32), inside)

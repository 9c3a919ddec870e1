"""RMS norms with what stands around them in a layer: residual sums, rotation of heads.

Each kernel reads a row once, computes in fp32 and rounds once; the plain twins in
`engine.kernels.reference` round to the row's dtype after each operation.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels import launch


def join_attention(
    x: Tensor, attended: Tensor, post: Tensor, dense: Tensor, experts: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """See `reference.join_attention`."""
    width = x.shape[-1]
    _check_rows(x, attended)
    _check_weights(width, post, dense, experts)
    total, dense_in, experts_in = (torch.empty_like(x) for _ in range(3))
    launch.run(
        _join_attention,
        (x.numel() // width,),
        *(x, attended, post, dense, experts),
        *(total, dense_in, experts_in, eps),
        WIDTH=width,
        BLOCK=launch.power_of_two(width),
        num_warps=8,
    )
    return total, dense_in, experts_in


def join_feedforward(
    x: Tensor,
    dense: Tensor,
    routed: Tensor,
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    scalar: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """See `reference.join_feedforward`."""
    width = x.shape[-1]
    _check_rows(x, dense)
    top = routed.shape[-2]
    assert routed.shape == (*x.shape[:-1], top, width) and routed.is_contiguous(), (
        f"{tuple(routed.shape)} of experts for rows {tuple(x.shape)}"
    )
    _check_weights(width, *weights)
    assert scalar.numel() == 1, f"a layer has one scalar, got {scalar.numel()}"
    total, following = torch.empty_like(x), torch.empty_like(x)
    launch.run(
        _join_feedforward,
        (x.numel() // width,),
        *(x, dense, routed, *weights, scalar),
        *(total, following, eps),
        TOP=top,
        WIDTH=width,
        BLOCK=launch.power_of_two(width),
        num_warps=8,
    )
    return total, following


def prepare_heads(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    cos: Tensor,
    sin: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `reference.prepare_heads`. The heads of a row lie side by side in q, k and v."""
    *_, heads, dim = q.shape
    rows, kv_heads = q.numel() // (heads * dim), k.shape[-2]
    assert k.shape == v.shape, f"keys {tuple(k.shape)} and values {tuple(v.shape)} differ"
    assert k.shape[-1] == dim and dim % 2 == 0, f"heads of {dim} and {k.shape[-1]} dims"
    _check_weights(dim, q_weight, k_weight)
    positions = cos.numel() * 2 // dim
    assert cos.shape == sin.shape and cos.shape[-1] == dim // 2, (
        f"angles {tuple(cos.shape)} and {tuple(sin.shape)} for {dim} dims"
    )
    assert rows % positions == 0, f"{rows} rows, angles for {positions}"
    assert cos.is_contiguous() and sin.is_contiguous(), "angles must be contiguous"
    out = tuple(torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q, k, v))
    launch.run(
        _prepare_heads,
        (rows, heads + 2 * kv_heads),
        *(q, k, v, q_weight, k_weight, cos, sin, *out),
        *(_row_stride(q), _row_stride(k), _row_stride(v), positions, eps),
        HEADS=heads,
        KV_HEADS=kv_heads,
        HALF=dim // 2,
        BLOCK=launch.power_of_two(dim // 2),
        num_warps=1,
    )
    q, k, v = out
    return q, k, v


def _check_rows(x: Tensor, *others: Tensor) -> None:
    for other in others:
        assert other.shape == x.shape, f"rows {tuple(x.shape)} and {tuple(other.shape)} differ"
        assert other.is_contiguous(), f"rows of strides {other.stride()} must be contiguous"
    assert x.is_contiguous(), f"rows of strides {x.stride()} must be contiguous"


def _check_weights(width: int, *weights: Tensor) -> None:
    for weight in weights:
        assert weight.shape == (width,), f"a norm of {width} dims has weight {tuple(weight.shape)}"
        assert weight.is_contiguous(), "norm weights must be contiguous"


def _row_stride(x: Tensor) -> int:
    """Elements from one row [heads, dim] of x to the next."""
    assert x.stride()[-2:] == (x.shape[-1], 1), (
        f"heads of strides {x.stride()} must lie side by side"
    )
    flat = x.flatten(0, -3)  # fails where rows are not evenly spaced, unless it copies
    assert flat.data_ptr() == x.data_ptr(), f"rows of strides {x.stride()} are unevenly spaced"
    return flat.stride(0)


@triton.jit
def _scaled(x: tl.tensor, size: tl.tensor, eps: tl.tensor) -> tl.tensor:
    """x over the root of its mean square; masked lanes of x are zero."""
    return x * tl.rsqrt(tl.sum(x * x, 0) / size + eps)


@triton.jit
def _join_attention(
    x: tl.tensor,
    attended: tl.tensor,
    post: tl.tensor,
    dense: tl.tensor,
    experts: tl.tensor,
    total_out: tl.tensor,
    dense_out: tl.tensor,
    experts_out: tl.tensor,
    eps: tl.tensor,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    column = tl.arange(0, BLOCK)
    inside = column < WIDTH
    at = tl.program_id(0) * WIDTH + column
    branch = tl.load(attended + at, inside, 0.0).to(tl.float32)
    branch = _scaled(branch, WIDTH, eps) * tl.load(post + column, inside, 0.0).to(tl.float32)
    total = tl.load(x + at, inside, 0.0).to(tl.float32) + branch
    tl.store(total_out + at, total, inside)
    # What follows reads the sum as it is stored, like whoever adds to it next.
    scaled = _scaled(total.to(x.dtype.element_ty).to(tl.float32), WIDTH, eps)
    tl.store(dense_out + at, scaled * tl.load(dense + column, inside, 0.0), inside)
    tl.store(experts_out + at, scaled * tl.load(experts + column, inside, 0.0), inside)


@triton.jit
def _join_feedforward(
    x: tl.tensor,
    dense: tl.tensor,
    routed: tl.tensor,
    dense_weight: tl.tensor,
    routed_weight: tl.tensor,
    post: tl.tensor,
    following: tl.tensor,
    scalar: tl.tensor,
    total_out: tl.tensor,
    following_out: tl.tensor,
    eps: tl.tensor,
    TOP: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    column = tl.arange(0, BLOCK)
    inside = column < WIDTH
    at = tl.program_id(0) * WIDTH + column
    first = _scaled(tl.load(dense + at, inside, 0.0).to(tl.float32), WIDTH, eps)
    second = tl.zeros((BLOCK,), tl.float32)
    routed += tl.program_id(0) * TOP * WIDTH + column
    for _ in tl.static_range(TOP):
        second += tl.load(routed, inside, 0.0).to(tl.float32)
        routed += WIDTH
    second = _scaled(second, WIDTH, eps)
    both = first * tl.load(dense_weight + column, inside, 0.0)
    both += second * tl.load(routed_weight + column, inside, 0.0)
    branch = _scaled(both, WIDTH, eps) * tl.load(post + column, inside, 0.0)
    total = (tl.load(x + at, inside, 0.0).to(tl.float32) + branch) * tl.load(scalar)
    tl.store(total_out + at, total, inside)
    scaled = _scaled(total.to(x.dtype.element_ty).to(tl.float32), WIDTH, eps)
    tl.store(following_out + at, scaled * tl.load(following + column, inside, 0.0), inside)


@triton.jit
def _prepare_heads(
    q: tl.tensor,
    k: tl.tensor,
    v: tl.tensor,
    q_weight: tl.tensor,
    k_weight: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    q_out: tl.tensor,
    k_out: tl.tensor,
    v_out: tl.tensor,
    q_stride: tl.tensor,
    k_stride: tl.tensor,
    v_stride: tl.tensor,
    positions: tl.tensor,
    eps: tl.tensor,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row, head = tl.program_id(0), tl.program_id(1)
    column = tl.arange(0, BLOCK)
    inside = column < HALF
    angle = (row % positions) * HALF + column
    if head < HEADS:
        source = q + row * q_stride + head * 2 * HALF
        target = q_out + (row * HEADS + head) * 2 * HALF
        first, second = _normed_halves(source, q_weight, column, inside, HALF, eps)
        _store_turned(target, first, second, cos + angle, sin + angle, column, inside, HALF)
    elif head < HEADS + KV_HEADS:
        source = k + row * k_stride + (head - HEADS) * 2 * HALF
        target = k_out + (row * KV_HEADS + head - HEADS) * 2 * HALF
        first, second = _normed_halves(source, k_weight, column, inside, HALF, eps)
        _store_turned(target, first, second, cos + angle, sin + angle, column, inside, HALF)
    else:
        kv_head = head - HEADS - KV_HEADS
        source = v + row * v_stride + kv_head * 2 * HALF
        target = v_out + (row * KV_HEADS + kv_head) * 2 * HALF
        first, second = _normed_halves(source, None, column, inside, HALF, eps)
        tl.store(target + column, first, inside)
        tl.store(target + HALF + column, second, inside)


@triton.jit
def _normed_halves(
    source: tl.tensor,
    weight: tl.tensor,
    column: tl.tensor,
    inside: tl.tensor,
    HALF: tl.constexpr,
    eps: tl.tensor,
) -> tuple[tl.tensor, tl.tensor]:
    """Both halves of one head after its norm; `weight` None means all ones."""
    first = tl.load(source + column, inside, 0.0).to(tl.float32)
    second = tl.load(source + HALF + column, inside, 0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(first * first + second * second, 0) / (2 * HALF) + eps)
    first, second = first * scale, second * scale
    if weight is not None:
        first *= tl.load(weight + column, inside, 0.0)
        second *= tl.load(weight + HALF + column, inside, 0.0)
    return first, second


@triton.jit
def _store_turned(
    target: tl.tensor,
    first: tl.tensor,
    second: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    column: tl.tensor,
    inside: tl.tensor,
    HALF: tl.constexpr,
) -> None:
    c, s = tl.load(cos, inside, 0.0).to(tl.float32), tl.load(sin, inside, 0.0).to(tl.float32)
    tl.store(target + column, first * c - second * s, inside)
    tl.store(target + HALF + column, second * c + first * s, inside)

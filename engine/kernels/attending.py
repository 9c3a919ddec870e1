"""Attention of canvases over [shared prefix ; own canvas]: every row sees all it is given.

The query heads of one KV head are rows of one tile, so that keys are read once for all of them. The
keys are split among programs, whose parts are merged by their log-sum-exp. Where the prefix lies, in
pages, is read from memory: the same launch serves any prefix.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels import launch

_SPLITS = 8


def canvas_attention(
    q: Tensor,
    prefix_k: Tensor,
    prefix_v: Tensor,
    table: Tensor,
    bounds: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float | None,
    seen: Tensor | None = None,
) -> Tensor:
    """See `reference.canvas_attention`."""
    batch, rows, heads, dim = q.shape
    kv_heads, pages, page, _ = prefix_k.shape
    assert heads % kv_heads == 0, f"{heads} query heads for {kv_heads} KV heads"
    assert prefix_k.shape == prefix_v.shape == (kv_heads, pages, page, dim), (
        f"prefix {tuple(prefix_k.shape)}, {tuple(prefix_v.shape)} for heads of {dim} dims"
    )
    assert k.shape == v.shape == (batch, kv_heads, rows, dim), (
        f"canvas {tuple(k.shape)}, {tuple(v.shape)} for {batch} · {rows} rows, {kv_heads} heads"
    )
    assert dim == launch.power_of_two(dim) and dim >= 16, f"heads must have 2^n dims, got {dim}"
    assert (
        table.ndim == 1 and table.dtype is bounds.dtype is torch.int32 and bounds.shape == (2,)
    ), (
        f"table {tuple(table.shape)} of {table.dtype}, bounds {tuple(bounds.shape)} of {bounds.dtype}"
    )
    tensors = (q, prefix_k, prefix_v, k, v)
    assert all(t.stride(-1) == 1 for t in tensors), "the dims of a head must lie side by side"
    assert prefix_k.stride() == prefix_v.stride() and k.stride() == v.stride(), (
        "keys and values must be laid out alike"
    )
    assert seen is None or (seen.shape == (batch, 2, 2) and seen.dtype is torch.int32), (
        f"two stretches of each canvas are seen, not {tuple(seen.shape)} of {seen.dtype}"
    )
    assert seen is None or seen.is_contiguous(), f"stretches of strides {seen.stride()}"
    group = heads // kv_heads
    block_m = min(64 if dim <= 256 else 32, max(16, launch.power_of_two(rows * group)))
    block_n = 32 if dim <= 256 else 16
    assert page % block_n == 0, f"pages of {page} positions are no whole blocks of {block_n}"
    part = torch.empty(_SPLITS, batch, rows, heads, dim, dtype=torch.float32, device=q.device)
    weight = torch.empty(_SPLITS, batch, rows, heads, dtype=torch.float32, device=q.device)
    blocks = triton.cdiv(rows * group, block_m)
    launch.run(
        _attend,
        (blocks * kv_heads, _SPLITS, batch),
        *(q, prefix_k, prefix_v, table, bounds, k, v, seen, part, weight),
        *(dim**-0.5 if scale is None else scale, rows, batch),
        *(*q.stride()[:3], *prefix_k.stride()[:3], *k.stride()[:3]),
        HEADS=heads,
        KV_HEADS=kv_heads,
        DIM=dim,
        PAGE=page,
        SPLITS=_SPLITS,
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        num_warps=8,
        num_stages=2,
    )
    out = torch.empty(batch, rows, heads, dim, dtype=q.dtype, device=q.device)
    count = batch * rows * heads
    launch.run(_merge, (count,), part, weight, out, count, DIM=dim, SPLITS=_SPLITS, num_warps=1)
    return out


@triton.jit
def _attend(
    q: tl.tensor,
    prefix_k: tl.tensor,
    prefix_v: tl.tensor,
    table: tl.tensor,
    bounds: tl.tensor,
    k: tl.tensor,
    v: tl.tensor,
    seen: tl.tensor,
    part: tl.tensor,
    weight: tl.tensor,
    scale: tl.tensor,
    rows: tl.tensor,
    batch: tl.tensor,
    q_batch: tl.tensor,
    q_row: tl.tensor,
    q_head: tl.tensor,
    prefix_head: tl.tensor,
    prefix_page: tl.tensor,
    prefix_row: tl.tensor,
    k_batch: tl.tensor,
    k_head: tl.tensor,
    k_row: tl.tensor,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    PAGE: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
) -> None:
    """One split of the keys for one tile of (row, query head) pairs of a KV head."""
    group: tl.constexpr = HEADS // KV_HEADS
    kv_head, split, canvas = tl.program_id(0) % KV_HEADS, tl.program_id(1), tl.program_id(2)
    pair = tl.program_id(0) // KV_HEADS * BLOCK_M + tl.arange(0, BLOCK_M)
    row, head = pair // group, kv_head * group + pair % group
    inside = row < rows
    dim = tl.arange(0, DIM)
    at = q + canvas * q_batch + row * q_row + head * q_head
    query = tl.load(at[:, None] + dim[None, :], inside[:, None], 0.0)

    start, end = tl.load(bounds), tl.load(bounds + 1)
    # Blocks begin at multiples of their size, so that each lies in one page.
    skipped = start // BLOCK_N
    prefix_blocks = (end + BLOCK_N - 1) // BLOCK_N - skipped
    blocks = prefix_blocks + (rows + BLOCK_N - 1) // BLOCK_N
    first, last = split * blocks // SPLITS, (split + 1) * blocks // SPLITS

    most = tl.full((BLOCK_M,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    mixed = tl.zeros((BLOCK_M, DIM), tl.float32)
    prefix_start = kv_head.to(tl.int64) * prefix_head
    keys, values = prefix_k + prefix_start, prefix_v + prefix_start
    for block in range(first, tl.minimum(last, prefix_blocks)):
        place = (skipped + block) * BLOCK_N + tl.arange(0, BLOCK_N)
        there = (place >= start) & (place < end)
        page = tl.load(table + (skipped + block) * BLOCK_N // PAGE).to(tl.int64)
        key_at = page * prefix_page + place % PAGE * prefix_row
        most, total, mixed = _see(
            query, keys, values, key_at, there, scale, most, total, mixed, DIM
        )
    if seen is not None:
        seen += 4 * canvas
        first_0, end_0 = tl.load(seen), tl.load(seen + 1)
        first_1, end_1 = tl.load(seen + 2), tl.load(seen + 3)
    keys = k + canvas * k_batch + kv_head * k_head
    values = v + canvas * k_batch + kv_head * k_head
    for block in range(tl.maximum(first, prefix_blocks), last):
        place = (block - prefix_blocks) * BLOCK_N + tl.arange(0, BLOCK_N)
        there = place < rows
        if seen is not None:
            there = (place >= first_0) & (place < end_0) | (place >= first_1) & (place < end_1)
        key_at = place.to(tl.int64) * k_row
        most, total, mixed = _see(
            query, keys, values, key_at, there, scale, most, total, mixed, DIM
        )
    # A split may have no keys: its weight is then zero.
    some = tl.where(total == 0, 1.0, total)
    out = ((split * batch + canvas) * rows + row) * HEADS + head
    tl.store(weight + out, tl.where(total == 0, -float("inf"), most + tl.log(some)), inside)
    at = part + out.to(tl.int64)[:, None] * DIM + dim[None, :]
    tl.store(at, mixed / some[:, None], inside[:, None])


@triton.jit
def _see(
    query: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    at: tl.tensor,
    there: tl.tensor,
    scale: tl.tensor,
    most: tl.tensor,
    total: tl.tensor,
    mixed: tl.tensor,
    DIM: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """The running softmax after the keys that begin `at` some places, those that are `there`."""
    dim = tl.arange(0, DIM)
    key = tl.load(keys + at[None, :] + dim[:, None], there[None, :], 0.0)
    score = tl.dot(query, key, input_precision="ieee") * scale
    score = tl.where(there[None, :], score, -float("inf"))
    higher = tl.maximum(most, tl.max(score, 1))
    above = tl.where(higher == -float("inf"), 0.0, higher)  # none was there so far
    share, kept = tl.exp(score - above[:, None]), tl.exp(most - above)
    value = tl.load(values + at[:, None] + dim[None, :], there[:, None], 0.0)
    mixed = tl.dot(share.to(value.dtype), value, mixed * kept[:, None], input_precision="ieee")
    return higher, total * kept + tl.sum(share, 1), mixed


@triton.jit
def _merge(
    part: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    count: tl.tensor,
    DIM: tl.constexpr,
    SPLITS: tl.constexpr,
) -> None:
    head = tl.program_id(0)
    split, dim = tl.arange(0, SPLITS), tl.arange(0, DIM)
    weights = tl.load(weight + split * count + head)
    weights = tl.exp(weights - tl.max(weights, 0))
    weights /= tl.sum(weights, 0)
    at = (split * count + head).to(tl.int64)[:, None] * DIM + dim[None, :]
    tl.store(out + head * DIM + dim, tl.sum(tl.load(part + at) * weights[:, None], 0))

"""The head of a denoising step without its logits: only what the sampler and self-conditioning ask for.

262,144 logits for each of 256 rows would be written once and read several times. Here a tile of them
lives in registers and leaves three numbers for each group of 16 tokens: the highest score, and mass
and first moment below it. From those come log Z, the entropy, the groups that hold the likeliest
tokens and the one in which the draw falls; the scores of these few groups are then computed again.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels import choosing, launch, tiles
from engine.kernels.reference import Belief
from engine.kernels.tiles import Weight

_GROUP = 16
_BLOCK_N = 128
_FLOATS = {
    torch.float32: tl.float32,
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
}


def believe(
    hidden: Tensor,
    weight: Weight,
    cap: float | None,
    temperature: Tensor,
    uniform: Tensor,
    first_bias: Tensor | None,
    count: int,
) -> Belief:
    """See `reference.believe`."""
    canvases, hole, inputs = hidden.shape
    rows, vocabulary = canvases * hole, weight.shape[0]
    groups, kept = triton.cdiv(vocabulary, _GROUP), count + 1
    assert 0 < count <= vocabulary, f"the likeliest {count} of {vocabulary} tokens"
    assert uniform.shape == (canvases, hole), (
        f"{tuple(uniform.shape)} draws for {canvases} · {hole} rows"
    )
    assert temperature.numel() == 1, f"one temperature, got {tuple(temperature.shape)}"
    assert first_bias is None or first_bias.shape == (vocabulary,), f"bias of {first_bias.shape}"
    parts = tiles.parts_of(weight)
    x, row_scale = tiles.operand(hidden.reshape(rows, inputs).contiguous(), weight)
    weights = (parts.codes, parts.scale, parts.factor)
    scored = (x, row_scale, *weights, temperature, first_bias, rows, hole)
    constants = {
        "VOCABULARY": vocabulary,
        "INPUTS": inputs,
        "CAP": cap,
        "DTYPE": _FLOATS[hidden.dtype],
        "FORM": parts.form,
        "SCALED": parts.group,
        "GROUP": _GROUP,
        "BLOCK_K": min(tiles.block_k(inputs, parts.form), 128 // x.element_size()),
    }

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=hidden.device)

    sums = empty(3, rows, groups)
    few_bits = parts.form != "whole"
    most = 64 if few_bits else 128  # numbers from 4 bits need registers
    block_m = min(most, max(16, launch.power_of_two(rows)))
    launch.run(
        _sum_groups,
        # Programs side by side take the same strip of the weight: it is read from memory once.
        (triton.cdiv(rows, block_m), triton.cdiv(vocabulary, _BLOCK_N)),
        *(*scored, sums),
        **constants,
        BLOCK_M=block_m,
        BLOCK_N=_BLOCK_N,
        num_warps=8 if block_m == most or (few_bits and block_m == 16) else 4,  # 32 of them spill
        num_stages=3,
    )
    entropy, log_best, highest, chosen, target = choosing.chosen_groups(sums, uniform, count)
    scores = empty(rows, kept, _GROUP)
    launch.run(
        _score_again,
        (kept, rows),
        *(*scored, chosen, scores),
        **constants,
        num_warps=2 if few_bits else 4,
        num_stages=3,
    )
    likely, drawn = empty(rows, count, dtype=torch.int64), empty(rows, dtype=torch.int64)
    shares = empty(rows, count)
    launch.run(
        _choose_tokens,
        (rows,),
        *(scores, chosen, log_best, highest, target, likely, shares, drawn),
        COUNT=count,
        GROUP=_GROUP,
        BLOCK=launch.power_of_two(count) * _GROUP,
        num_warps=4,
    )
    shape = (canvases, hole)
    return Belief(
        entropy=entropy.view(shape),
        best=likely[:, 0].view(shape),
        log_best=log_best.view(shape),
        drawn=drawn.view(shape),
        likely=likely.view(*shape, count),
        shares=shares.view(*shape, count),
    )


@triton.jit
def _scores(
    x: tl.tensor,
    row_scale: tl.tensor,
    codes: tl.tensor,
    scale: tl.tensor,
    factor: tl.tensor,
    temperature: tl.tensor,
    first_bias: tl.tensor,
    row: tl.tensor,
    row_inside: tl.tensor,
    hole: tl.tensor,
    token: tl.tensor,
    token_inside: tl.tensor,
    INPUTS: tl.constexpr,
    CAP: tl.constexpr,
    DTYPE: tl.constexpr,
    FORM: tl.constexpr,
    SCALED: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> tl.tensor:
    """Logits over the temperature, fp32 [M, N]; -inf for what is no token."""
    total = tiles.product(
        x + row * INPUTS,
        row_inside,
        codes,
        scale,
        token,
        token_inside,
        0,
        tl.cdiv(INPUTS, BLOCK_K),
        INPUTS,
        FORM,
        SCALED,
        BLOCK_K,
    )
    if factor is not None:
        total *= tl.load(factor + token, token_inside, 0.0)[None, :]
    if row_scale is not None:
        total *= tl.load(row_scale + row, row_inside, 0.0)[:, None]
    logits = total.to(DTYPE).to(tl.float32)  # as a linear layer returns them
    if CAP is not None:
        logits = CAP * (2.0 * tl.sigmoid(logits * (2.0 / CAP)) - 1.0)
    if first_bias is not None:
        bias = tl.load(first_bias + token, token_inside, 0.0)
        logits += tl.where((row % hole == 0)[:, None], bias[None, :], 0.0)
    return tl.where(token_inside[None, :], logits / tl.load(temperature), -float("inf"))


@triton.jit
def _sum_groups(
    x: tl.tensor,
    row_scale: tl.tensor,
    codes: tl.tensor,
    scale: tl.tensor,
    factor: tl.tensor,
    temperature: tl.tensor,
    first_bias: tl.tensor,
    rows: tl.tensor,
    hole: tl.tensor,
    sums: tl.tensor,
    VOCABULARY: tl.constexpr,
    INPUTS: tl.constexpr,
    CAP: tl.constexpr,
    DTYPE: tl.constexpr,
    FORM: tl.constexpr,
    SCALED: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
) -> None:
    """Highest score, mass and first moment of each group, one tile: `sums` [3, rows, groups]."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    token = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    score = _scores(
        x,
        row_scale,
        codes,
        scale,
        factor,
        temperature,
        first_bias,
        row,
        row < rows,
        hole,
        token,
        token < VOCABULARY,
        INPUTS,
        CAP,
        DTYPE,
        FORM,
        SCALED,
        BLOCK_K,
    )
    groups: tl.constexpr = (VOCABULARY + GROUP - 1) // GROUP
    score = tl.reshape(score, (BLOCK_M, BLOCK_N // GROUP, GROUP))
    highest = tl.max(score, 2)
    below = score - tl.where(highest == -float("inf"), 0.0, highest)[:, :, None]
    below = tl.maximum(below, -1e4)  # 0 · -inf would be NaN: what cannot come adds nothing
    share = tl.exp(below)
    group = tl.program_id(1) * (BLOCK_N // GROUP) + tl.arange(0, BLOCK_N // GROUP)
    inside = (row < rows)[:, None] & (group < groups)[None, :]
    at = sums + row[:, None] * groups + group[None, :]
    tl.store(at, highest, inside)
    tl.store(at + rows * groups, tl.sum(share, 2), inside)
    tl.store(at + 2 * rows * groups, tl.sum(share * below, 2), inside)


@triton.jit
def _score_again(
    x: tl.tensor,
    row_scale: tl.tensor,
    codes: tl.tensor,
    scale: tl.tensor,
    factor: tl.tensor,
    temperature: tl.tensor,
    first_bias: tl.tensor,
    rows: tl.tensor,
    hole: tl.tensor,
    chosen: tl.tensor,
    scores: tl.tensor,
    VOCABULARY: tl.constexpr,
    INPUTS: tl.constexpr,
    CAP: tl.constexpr,
    DTYPE: tl.constexpr,
    FORM: tl.constexpr,
    SCALED: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """The scores of one chosen group of one row, which stands alone in a tile of 16."""
    row = tl.program_id(1)
    place = row * tl.num_programs(0) + tl.program_id(0)
    group = tl.load(chosen + place)
    token = group * GROUP + tl.arange(0, GROUP)
    line = tl.arange(0, 16)
    score = _scores(
        x,
        row_scale,
        codes,
        scale,
        factor,
        temperature,
        first_bias,
        row + line,
        line == 0,
        hole,
        token,
        (group >= 0) & (token < VOCABULARY),
        INPUTS,
        CAP,
        DTYPE,
        FORM,
        SCALED,
        BLOCK_K,
    )
    score = tl.sum(tl.where((line == 0)[:, None], score, 0.0), 0)
    tl.store(scores + place * GROUP + tl.arange(0, GROUP), score)


@triton.jit
def _choose_tokens(
    scores: tl.tensor,
    chosen: tl.tensor,
    log_best: tl.tensor,
    highest: tl.tensor,
    target: tl.tensor,
    likely: tl.tensor,
    shares: tl.tensor,
    drawn: tl.tensor,
    COUNT: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """One row's likeliest tokens with their probabilities, and the token drawn."""
    row = tl.program_id(0)
    most, log_share = tl.load(highest + row), tl.load(log_best + row)
    scores += row * (COUNT + 1) * GROUP
    chosen += row * (COUNT + 1)
    place = tl.arange(0, BLOCK)
    score = tl.load(scores + place, place < COUNT * GROUP, -float("inf"))
    for rank in range(COUNT):
        value, best = tl.max(score, 0, return_indices=True)
        token = tl.load(chosen + best // GROUP) * GROUP + best % GROUP
        # There may be fewer tokens that can come at all.
        token = tl.where(value == -float("inf"), 0, token)
        tl.store(likely + row * COUNT + rank, token.to(tl.int64))
        tl.store(shares + row * COUNT + rank, tl.exp(value - most + log_share))
        score = tl.where(place == best, -float("inf"), score)

    slot = tl.arange(0, GROUP)
    own = tl.load(scores + COUNT * GROUP + slot)
    share = tl.exp(own - tl.max(own, 0))
    up_to, some = tl.cumsum(share, 0), share > 0
    first = tl.min(tl.where((up_to >= tl.load(target + row)) & some, slot, GROUP), 0)
    first = tl.minimum(first, tl.max(tl.where(some, slot, 0), 0))
    tl.store(drawn + row, (tl.load(chosen + COUNT) * GROUP + first).to(tl.int64))

"""The operations of the model in plain torch: the definition every kernel is tested against.

Each function is pure and works on any device and float dtype. Knows nothing of layers,
weights files or caches.

Source: transformers `models/diffusion_gemma/modeling_diffusion_gemma.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from engine import sampler
from engine.weights import FP8_MAX, Fp8Weight, PackedWeight, fp8

_SCORES = 1 << 24  # of all heads; fp32 with their softmax eight bytes each


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """x · (mean(x²) + eps)^-½ · weight over the last dim, in fp32, returned in x's dtype."""
    return F.rms_norm(x, x.shape[-1:], weight, eps)


def rotary_table(
    positions: Tensor, head_dim: int, rotary_dim: int, theta: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosines and sines [..., head_dim / 2] of `positions`; dims beyond rotary_dim stand still."""
    exponent = torch.arange(0, rotary_dim, 2, device=positions.device).float() / head_dim
    frequencies = F.pad(1.0 / theta**exponent, (0, (head_dim - rotary_dim) // 2))
    angles = positions[..., None].float() * frequencies
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns dims i and i + D / 2 of x [B, N, H, D] by the angles of `rotary_table`."""
    cos, sin = cos[..., None, :], sin[..., None, :]  # one angle for all heads
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def join_attention(
    x: Tensor, attended: Tensor, post: Tensor, dense: Tensor, experts: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The residual x [..., D] with what attention adds, and that sum as both MLPs read it.

    x + norm(attended), its norm for the dense MLP, its norm for the experts; `post`, `dense` and
    `experts` [D] are those norms' weights.
    """
    x = x + rms_norm(attended, post, eps)
    return x, rms_norm(x, dense, eps), rms_norm(x, experts, eps)


def join_feedforward(
    x: Tensor,
    dense: Tensor,
    routed: Tensor,
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    scalar: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """A layer's output, and that output as the next layer's attention reads it: both [..., D].

    (x + norm(norm(dense) + norm(Σ_k routed))) · scalar; `routed` [..., K, D] is of `experts`. `weights`
    [D] are those of the norms of `dense`, of that sum, of both together and of the next layer's input;
    `scalar` [1].
    """
    dense_weight, routed_weight, post, following = weights
    both = rms_norm(dense, dense_weight, eps) + rms_norm(routed.sum(-2), routed_weight, eps)
    x = (x + rms_norm(both, post, eps)) * scalar
    return x, rms_norm(x, following, eps)


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
    """Projections q [B, N, H, D], k, v [B, N, KV, D] as attention takes them: normed, q, k turned.

    The norm of values has no weight. `cos`, `sin` [N, D / 2] or [B, N, D / 2] are of `rotary_table`.
    """
    q, k = rms_norm(q, q_weight, eps), rms_norm(k, k_weight, eps)
    return rotate(q, cos, sin), rotate(k, cos, sin), rms_norm(v, None, eps)


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float | None, mask: Tensor | None) -> Tensor:
    """Softmax attention of q [B, N, H, D] over k, v [B, KV, L, D]; returns [B, N, H, D].

    Query head h reads KV head h // (H / KV). `mask` [N, L] or [B, N, L] is true where a query
    may look, or is added to the scores; None means everywhere. `scale` None means D^-½.
    """
    batch, length, heads, dim = q.shape
    at_once = attention_rows(heads, k.shape[2])
    if batch == 1 and length > at_once and mask is not None:
        parts = zip(torch.split(q, at_once, 1), torch.split(mask, at_once, -2), strict=True)
        return torch.cat([attention(some, k, v, scale, own) for some, own in parts], 1)
    kv_heads = k.shape[1]
    group = heads // kv_heads
    # The query heads of one KV head become rows of one matrix: K and V are read once, not copied.
    rows = q.view(batch, length, kv_heads, group, dim).permute(0, 2, 3, 1, 4)
    rows = rows.reshape(batch, kv_heads, group * length, dim)
    if mask is not None:
        mask = mask.repeat(group, 1) if mask.ndim == 2 else mask.repeat(1, group, 1)[:, None]
    out = F.scaled_dot_product_attention(rows, k, v, attn_mask=mask, scale=scale)
    out = out.view(batch, kv_heads, group, length, dim).permute(0, 3, 1, 2, 4)
    return out.reshape(batch, length, heads, dim)


def attention_rows(heads: int, keys: int) -> int:
    """How many rows `attention` takes at once: where scores are written, they stay within a bound."""
    return max(16, _SCORES // max(1, heads * keys))


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
    """Attention of canvases q [B, N, H, D] over a shared prefix and each canvas's own keys.

    prefix_k, prefix_v [KV, pages, page, D] hold pages, of which `table` (int32 [P]) names the prefix's
    in order; of their P · page positions those from the first of `bounds` (int32 [2]) up to the second
    are seen by all rows. So is the whole canvas, k, v [B, KV, N, D], or where `seen` (int32 [B, 2, 2])
    is given only the rows of two stretches, each from a first one up to one behind the last. `scale`
    None means D^-½. Returns [B, N, H, D].
    """
    rows, page = q.shape[1], prefix_k.shape[2]
    place = torch.arange(len(table) * page, device=q.device)
    visible = (place >= bounds[0]) & (place < bounds[1])
    pages = (prefix.index_select(1, table).flatten(1, 2) for prefix in (prefix_k, prefix_v))
    # What lies out of bounds may be anything, and 0 times NaN is NaN.
    keys, values = (
        torch.cat((prefix.where(visible[:, None], 0).expand(len(q), -1, -1, -1), own), 2)
        for prefix, own in zip(pages, (k, v), strict=True)
    )
    own_seen = visible.new_ones(len(q), rows)
    if seen is not None:
        row = torch.arange(rows, device=q.device)[:, None]
        own_seen = ((row >= seen[:, None, :, 0]) & (row < seen[:, None, :, 1])).any(-1)
    mask = torch.cat((visible.expand(len(q), -1), own_seen), 1)[:, None]
    return attention(q, keys, values, scale, mask.expand(-1, rows, -1))


def attention_by_products(
    q: Tensor, k: Tensor, v: Tensor, scale: float | None, mask: Tensor
) -> Tensor:
    """`attention` without the fused operation, whose backward pass is slow for few rows on a CPU.

    q [B, N, H, D], k, v [B, KV, L, D], mask [N, L].
    """
    batch, length, heads, dim = q.shape
    kv_heads = k.shape[1]
    group = heads // kv_heads
    rows = q.view(batch, length, kv_heads, group, dim).permute(0, 2, 3, 1, 4)
    rows = rows.reshape(batch, kv_heads, group * length, dim) * (scale or dim**-0.5)
    bias = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill(~mask, -torch.inf)
    weights = (rows @ k.mT + bias.repeat(group, 1)).softmax(-1)
    out = (weights @ v).view(batch, kv_heads, group, length, dim).permute(0, 3, 1, 2, 4)
    return out.reshape(batch, length, heads, dim)


def gated(gate: Tensor, up: Tensor, activation: str) -> Tensor:
    """activation(gate) · up, with tanh-approximated GELU or SiLU."""
    if activation == "silu":
        return F.silu(gate) * up
    return F.gelu(gate, approximate="tanh") * up


def route(
    x: Tensor, scale: Tensor, proj: Tensor, per_expert_scale: Tensor, top_k: int, eps: float
) -> tuple[Tensor, Tensor]:
    """The experts of each row of x [T, D]: weights [T, top_k] (fp32) and indices [T, top_k]."""
    scores = F.linear(rms_norm(x, None, eps) * scale * x.shape[-1] ** -0.5, proj)
    probabilities = scores.float().softmax(-1)
    weights, indices = probabilities.topk(top_k, dim=-1)
    weights = weights / weights.sum(-1, keepdim=True)
    return weights * per_expert_scale[indices], indices


def linear(x: Tensor, weight: Tensor | PackedWeight) -> Tensor:
    """x [..., K] times `weight` [N, K], in any of its forms; returns [..., N] in x's dtype.

    With FP8 weights each row of x is rounded to e4m3 as it comes, and sums are in fp32.
    """
    if isinstance(weight, Fp8Weight):
        rows, unit = fp8_rows(x)
        out = F.linear(rows.float(), weight.codes.float())
        return (out * unit * weight.scale).to(x.dtype)
    if isinstance(weight, PackedWeight):
        weight = weight.dequantize(x.dtype)
    return F.linear(x, weight)


def gated_mlp(x: Tensor, gate_up: PackedWeight, down: PackedWeight, activation: str) -> Tensor:
    """down(activation(gate) · up) of x [..., D]; gate_up [2I, D] (gate rows first), down [D, I]."""
    gate, up = linear(x, gate_up).chunk(2, -1)
    return linear(gated(gate, up, activation), down)


def fp8_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [..., K] in e4m3 and what each row's codes are multiplied by, [..., 1] in fp32."""
    rows = x.float()
    unit = rows.abs().amax(-1, keepdim=True) / FP8_MAX
    unit = torch.where(unit == 0, 1, unit)  # a row of zeros has no scale; any will do
    return fp8(rows / unit), unit


def experts(
    x: Tensor,
    weights: Tensor,
    indices: Tensor,
    gate_up: Tensor | PackedWeight,
    down: Tensor | PackedWeight,
    activation: str,
) -> Tensor:
    """weights · expert(x) of each row's chosen experts, one by one: whoever reads them sums them.

    x [T, D], weights and indices [T, K], gate_up [E, 2I, D] (gate rows first), down [E, D, I]; returns
    [T, K, D].
    """
    order = indices.flatten().argsort()
    rows = order // indices.shape[1]
    counts = indices.flatten().bincount(minlength=gate_up.shape[0]).tolist()
    gathered = x[rows]
    chunks = []
    for expert, chunk in enumerate(torch.split(gathered, counts)):
        if chunk.shape[0]:
            gate, up = linear(chunk, gate_up[expert]).chunk(2, dim=-1)
            chunks.append(linear(gated(gate, up, activation), down[expert]))
    out = (torch.cat(chunks) * weights.flatten()[order, None]).to(x.dtype)
    return out[order.argsort()].view(*indices.shape, -1)


def sort_slots(indices: Tensor, count: int, rows: int) -> tuple[Tensor, Tensor]:
    """Choices [T, K] of `count` experts, sorted by expert and cut into tiles of one expert each.

    A choice is a slot, numbered row · K + k. Returns the slots in order [T · K] and the tiles' bounds
    [3, tiles]: expert, first place in that order, place behind the last one of that expert. A tile
    has `rows` slots, an expert's last one may have fewer. All int32.
    """
    order = indices.flatten().argsort(stable=True)
    first, bounds = 0, []
    for expert, chosen in enumerate(indices.flatten().bincount(minlength=count).tolist()):
        bounds += [(expert, place, first + chosen) for place in range(first, first + chosen, rows)]
        first += chosen
    table = torch.tensor(bounds, dtype=torch.int32, device=indices.device)
    return order.int(), table.t()


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [..., D] as int8 and what one step is worth in each row [..., 1]."""
    # A row of zeros has no scale; any will do.
    unit = x.abs().amax(-1, keepdim=True).mul_(1 / 127).clamp_min_(torch.finfo(x.dtype).tiny)
    return (x / unit).round_().to(torch.int8), unit


def int8_linear(x: Tensor, weight: Tensor, scale: Tensor, eps: float | None = None) -> Tensor:
    """x [..., I] with each row rounded to int8, times int8 `weight` [O, I] · `scale` [O].

    With `eps` the rows are those of `rms_norm(x, None, eps)`.
    """
    if eps is not None:
        x = rms_norm(x, None, eps)
    rows, unit = quantize_rows(x)
    return F.linear(rows.to(x.dtype), weight.to(x.dtype)) * scale * unit


def softcap(logits: Tensor, cap: float | None) -> Tensor:
    """cap · tanh(logits / cap) in fp32; no cap returns the logits in fp32."""
    if cap is None:
        return logits.float()
    # What is already fp32 may be the caller's own.
    scaled = logits / cap if logits.dtype is torch.float32 else logits.float().div_(cap)
    return scaled.tanh_().mul_(cap)


def accept_and_renoise(
    entropy: Tensor, drawn: Tensor, noise: Tensor, bound: float
) -> tuple[Tensor, Tensor]:
    """The next hole [B, H] and the mask of what it keeps of `drawn`; elsewhere it is `noise`.

    Lowest entropies first, a position is kept while those before it sum to at most `bound` nats.
    """
    ordered, order = entropy.sort(dim=-1, stable=True)
    within = ordered.cumsum(-1) - ordered <= bound
    accepted = torch.zeros_like(within).scatter(-1, order, within)
    return torch.where(accepted, drawn, noise), accepted


@dataclass(frozen=True, slots=True)
class Belief:
    """What a step asks of each hole position's distribution over the vocabulary, and no more."""

    entropy: Tensor  # [B, H] nats
    best: Tensor  # [B, H] argmax ids
    log_best: Tensor  # [B, H] log-probability of `best`
    drawn: Tensor  # [B, H] one id from each distribution
    likely: Tensor  # [B, H, K] the likeliest ids, in order
    shares: Tensor  # [B, H, K] fp32, their probabilities


def believe(
    hidden: Tensor,
    weight: Tensor | PackedWeight,
    cap: float | None,
    temperature: Tensor,
    uniform: Tensor,
    first_bias: Tensor | None,
    count: int,
) -> Belief:
    """The head `weight` [V, D] over final hidden states [B, H, D], as far as `Belief` goes.

    Logits are capped, then divided by `temperature` (fp32 [1]); `first_bias` [V] is added to those of
    the first position of each hole; `count` is how many of the likeliest ids are wanted. Draws invert
    the cumulative sum in the order of ids at `uniform` [B, H].
    """
    logits = softcap(linear(hidden, weight), cap)
    if first_bias is not None:
        logits[:, 0] += first_bias
    belief = sampler.predict(logits, temperature)
    drawn = sampler.draw(belief.probabilities.flatten(0, 1), uniform.flatten())
    shares, likely = belief.probabilities.topk(count, dim=-1)
    return Belief(
        entropy=belief.entropy,
        best=belief.best,
        log_best=belief.log_best,
        drawn=drawn.view(uniform.shape),
        likely=likely,
        shares=shares,
    )


def soft_embedding(table: Tensor, ids: Tensor, shares: Tensor, scale: float) -> Tensor:
    """The mean row of `table` [V, D] under `ids` and `shares` [..., K], times `scale`; [..., D].

    Shares are positive weights; they need not sum to 1.
    """
    weights = (shares / shares.sum(-1, keepdim=True)).to(table.dtype)
    mean: Tensor = weights[..., None, :] @ (F.embedding(ids, table) * scale)
    return mean.squeeze(-2)

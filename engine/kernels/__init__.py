"""The operations of the model. Which implementation runs is decided here and nowhere else.

On a CUDA device Triton's kernels run where they cover the shapes; the environment variable
DG_LSP_KERNELS=plain keeps to plain torch everywhere.
"""

import logging
import os
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from engine.kernels import int8, reference
from engine.kernels.int8 import cpu_multiplies_bytes
from engine.kernels.reference import (
    Belief,
    attention,
    attention_by_products,
    gated,
    quantize_rows,
    rms_norm,
    rotary_table,
    rotate,
    softcap,
)
from engine.weights import Fp8Weight, PackedWeight

_MOST_SLOTS = 4096  # rows times experts chosen that the sorting kernel takes at once

int8_linear = int8.int8_linear if cpu_multiplies_bytes() else reference.int8_linear


def route(
    x: Tensor, scale: Tensor, proj: Tensor, per_expert_scale: Tensor, top_k: int, eps: float
) -> tuple[Tensor, Tensor]:
    """See `reference.route`."""
    if _takes_triton(x, scale, proj, per_expert_scale):
        from engine.kernels import routing

        return routing.route(x, scale, proj, per_expert_scale, top_k, eps)
    return reference.route(x, scale, proj, per_expert_scale, top_k, eps)


def experts(
    x: Tensor,
    weights: Tensor,
    indices: Tensor,
    gate_up: Tensor | PackedWeight,
    down: Tensor | PackedWeight,
    activation: str,
) -> Tensor:
    """See `reference.experts`."""
    covered = gate_up.shape[-1] % 32 == down.shape[-1] % 32 == 0 and indices.numel() <= _MOST_SLOTS
    if covered and _takes_triton(x, weights, gate_up, down):
        from engine.kernels import moe

        return moe.experts(x, weights, indices, gate_up, down, activation)
    return reference.experts(x, weights, indices, gate_up, down, activation)


def linear(x: Tensor, weight: Tensor | PackedWeight) -> Tensor:
    """See `reference.linear`; whole matrices are left to torch."""
    if isinstance(weight, PackedWeight) and weight.shape[-1] % 32 == 0 and _takes_triton(x, weight):
        from engine.kernels import dense

        return dense.linear(x, weight)
    return reference.linear(x, weight)


def gated_mlp(x: Tensor, gate_up: PackedWeight, down: PackedWeight, activation: str) -> Tensor:
    """See `reference.gated_mlp`."""
    covered = gate_up.shape[-1] % 32 == down.shape[-1] % 32 == 0
    if covered and isinstance(down, Fp8Weight) and _takes_triton(x, gate_up, down):
        from engine.kernels import dense

        return dense.gated_mlp(x, gate_up, down, activation)
    return reference.gated_mlp(x, gate_up, down, activation)


def join_attention(
    x: Tensor, attended: Tensor, post: Tensor, dense: Tensor, experts: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """See `reference.join_attention`."""
    if _takes_triton(x, attended, post, dense, experts):
        from engine.kernels import norms

        return norms.join_attention(x, attended, post, dense, experts, eps)
    return reference.join_attention(x, attended, post, dense, experts, eps)


def join_feedforward(
    x: Tensor,
    dense: Tensor,
    routed: Tensor,
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    scalar: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """See `reference.join_feedforward`."""
    if _takes_triton(x, dense, routed, *weights, scalar):
        from engine.kernels import norms

        return norms.join_feedforward(x, dense, routed, weights, scalar, eps)
    return reference.join_feedforward(x, dense, routed, weights, scalar, eps)


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
    """See `reference.prepare_heads`."""
    if _takes_triton(q, k, v, q_weight, k_weight):
        from engine.kernels import norms

        return norms.prepare_heads(q, k, v, q_weight, k_weight, cos, sin, eps)
    return reference.prepare_heads(q, k, v, q_weight, k_weight, cos, sin, eps)


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
    dim = q.shape[-1]
    covered = dim & (dim - 1) == 0 and dim >= 16 and k.stride() == v.stride()
    if covered and _takes_triton(q, k, v, prefix_k, prefix_v):
        from engine.kernels import attending

        return attending.canvas_attention(q, prefix_k, prefix_v, table, bounds, k, v, scale, seen)
    return reference.canvas_attention(q, prefix_k, prefix_v, table, bounds, k, v, scale, seen)


def believe(
    hidden: Tensor,
    weight: Tensor | PackedWeight,
    cap: float | None,
    temperature: Tensor,
    uniform: Tensor,
    first_bias: Tensor | None,
    count: int,
) -> Belief:
    """See `reference.believe`; the kernels write no logits."""
    if weight.shape[-1] % 32 == 0 and _takes_triton(hidden, weight):
        from engine.kernels import head

        return head.believe(hidden, weight, cap, temperature, uniform, first_bias, count)
    return reference.believe(hidden, weight, cap, temperature, uniform, first_bias, count)


def soft_embedding(table: Tensor, ids: Tensor, shares: Tensor, scale: float) -> Tensor:
    """See `reference.soft_embedding`."""
    if _takes_triton(shares, table):
        from engine.kernels import embedding

        return embedding.soft_embedding(table, ids, shares, scale)
    return reference.soft_embedding(table, ids, shares, scale)


def accept_and_renoise(
    entropy: Tensor, drawn: Tensor, noise: Tensor, bound: float
) -> tuple[Tensor, Tensor]:
    """See `reference.accept_and_renoise`."""
    if _takes_triton(entropy):
        from engine.kernels import deciding

        return deciding.accept_and_renoise(entropy, drawn, noise, bound)
    return reference.accept_and_renoise(entropy, drawn, noise, bound)


def _takes_triton(x: Tensor, *weights: Tensor | PackedWeight) -> bool:
    """Whether kernels run on `x` with these weights: on a GPU, where nothing asks for a gradient."""
    return _is_on_gpu(x) and not _is_learned(x, *weights) and _triton_is_wanted()


def _is_on_gpu(x: Tensor) -> bool:
    return x.is_cuda


def _is_learned(*tensors: Tensor | PackedWeight) -> bool:
    given = (t for t in tensors if isinstance(t, Tensor))  # codes are never learned
    return torch.is_grad_enabled() and any(t.requires_grad for t in given)


@cache
def _triton_is_wanted() -> bool:
    """Whether kernels run on CUDA devices; says so once in the log."""
    wanted = os.environ.get("DG_LSP_KERNELS") != "plain" and find_spec("triton") is not None
    name = "Triton's kernels" if wanted else "plain torch"
    logging.getLogger(__name__).info("operations on the GPU: %s", name)
    return wanted


__all__ = [
    "Belief",
    "accept_and_renoise",
    "attention",
    "attention_by_products",
    "believe",
    "canvas_attention",
    "cpu_multiplies_bytes",
    "experts",
    "gated",
    "gated_mlp",
    "int8_linear",
    "join_attention",
    "join_feedforward",
    "linear",
    "prepare_heads",
    "quantize_rows",
    "rms_norm",
    "rotary_table",
    "rotate",
    "route",
    "soft_embedding",
    "softcap",
]

"""The operations of the model. Which implementation runs is decided here and nowhere else.

On a CUDA device Triton's kernels run where they cover the shapes; the environment variable
DG_LSP_KERNELS=plain keeps to plain torch everywhere.
"""

import logging
import os
from functools import cache
from importlib.util import find_spec

from torch import Tensor

from engine.kernels import int8, reference
from engine.kernels.int8 import cpu_multiplies_bytes
from engine.kernels.reference import (
    attention,
    attention_by_products,
    gated,
    quantize_rows,
    rms_norm,
    rotary_table,
    rotate,
    softcap,
)
from engine.weights import PackedWeight

_MOST_SLOTS = 4096  # rows times experts chosen that the sorting kernel takes at once

int8_linear = int8.int8_linear if cpu_multiplies_bytes() else reference.int8_linear


def route(
    x: Tensor, scale: Tensor, proj: Tensor, per_expert_scale: Tensor, top_k: int, eps: float
) -> tuple[Tensor, Tensor]:
    """See `reference.route`."""
    if _takes_triton(x):
        from engine.kernels import moe

        return moe.route(x, scale, proj, per_expert_scale, top_k, eps)
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
    if covered and _takes_triton(x):
        from engine.kernels import moe

        return moe.experts(x, weights, indices, gate_up, down, activation)
    return reference.experts(x, weights, indices, gate_up, down, activation)


def linear(x: Tensor, weight: Tensor | PackedWeight) -> Tensor:
    """See `reference.linear`; whole matrices are left to torch."""
    if isinstance(weight, PackedWeight) and weight.shape[-1] % 32 == 0 and _takes_triton(x):
        from engine.kernels import dense

        return dense.linear(x, weight)
    return reference.linear(x, weight)


def join_attention(
    x: Tensor, attended: Tensor, post: Tensor, dense: Tensor, experts: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """See `reference.join_attention`."""
    if _takes_triton(x):
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
    if _takes_triton(x):
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
    """See `reference.prepare_heads`; angles that differ between batch rows are left to torch."""
    if cos.ndim == 2 and _takes_triton(q):
        from engine.kernels import norms

        return norms.prepare_heads(q, k, v, q_weight, k_weight, cos, sin, eps)
    return reference.prepare_heads(q, k, v, q_weight, k_weight, cos, sin, eps)


def canvas_attention(
    q: Tensor,
    prefix_k: Tensor,
    prefix_v: Tensor,
    length: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float | None,
    window: int | None,
    seen: Tensor | None = None,
) -> Tensor:
    """See `reference.canvas_attention`."""
    dim = q.shape[-1]
    covered = dim & (dim - 1) == 0 and dim >= 16 and k.stride() == v.stride()
    if covered and _takes_triton(q):
        from engine.kernels import attending

        return attending.canvas_attention(q, prefix_k, prefix_v, length, k, v, scale, window, seen)
    return reference.canvas_attention(q, prefix_k, prefix_v, length, k, v, scale, window, seen)


def accept_and_renoise(
    entropy: Tensor, drawn: Tensor, noise: Tensor, bound: float
) -> tuple[Tensor, Tensor]:
    """See `reference.accept_and_renoise`."""
    if _takes_triton(entropy):
        from engine.kernels import deciding

        return deciding.accept_and_renoise(entropy, drawn, noise, bound)
    return reference.accept_and_renoise(entropy, drawn, noise, bound)


def _takes_triton(x: Tensor) -> bool:
    return x.is_cuda and not x.requires_grad and _triton_is_wanted()


@cache
def _triton_is_wanted() -> bool:
    """Whether kernels run on CUDA devices; says so once in the log."""
    wanted = os.environ.get("DG_LSP_KERNELS") != "plain" and find_spec("triton") is not None
    name = "Triton's kernels" if wanted else "plain torch"
    logging.getLogger(__name__).info("operations on the GPU: %s", name)
    return wanted


__all__ = [
    "accept_and_renoise",
    "attention",
    "attention_by_products",
    "canvas_attention",
    "cpu_multiplies_bytes",
    "experts",
    "gated",
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
    "softcap",
]

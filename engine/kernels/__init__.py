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
    "attention",
    "attention_by_products",
    "cpu_multiplies_bytes",
    "experts",
    "gated",
    "int8_linear",
    "linear",
    "quantize_rows",
    "rms_norm",
    "rotary_table",
    "rotate",
    "route",
    "softcap",
]

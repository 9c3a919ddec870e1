"""Linear layers on 8 bits for a CPU that multiplies bytes (VNNI or AMX).

torch's own dynamic quantisation (`torch.ops.quantized.linear_dynamic`) is deprecated, and has one
scale for all rows: the first token's huge activations then leave the others a few steps each.
`torch._int_mm` takes plain int8 matrices, so each row has a scale of its own; it is as fast.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.kernels.reference import quantize_rows


def int8_linear(x: Tensor, weight: Tensor, scale: Tensor, eps: float | None = None) -> Tensor:
    """The fast twin of `reference.int8_linear`; its integer sums are exact."""
    flat = x.flatten(0, -2)
    rows, unit = quantize_rows(flat)
    if eps is not None:
        # Rounding does not see a row's size, so the norm is a factor of the result.
        size = torch.linalg.vector_norm(flat, dim=-1, keepdim=True)
        unit *= torch.rsqrt_(size.square_().mul_(1 / x.shape[-1]).add_(eps))
    out = torch._int_mm(rows, weight.t()).mul(scale).mul_(unit)
    return out.view(*x.shape[:-1], -1)


def cpu_multiplies_bytes() -> bool:
    """Whether int8 products are summed in 32 bits by one instruction, without saturation before."""
    # Older releases of torch cannot tell.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))

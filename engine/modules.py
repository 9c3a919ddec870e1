"""What layers are made of: linear layers, norms, dense and routed MLPs, self-conditioning.

Parameter names are those of DiffusionGemma's decoder. Knows nothing of who sees whom, caches or order;
arithmetic goes through `engine.kernels`.

Source: transformers `models/diffusion_gemma/modeling_diffusion_gemma.py`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine import kernels
from engine.config import ModelConfig
from engine.weights import PackedWeight

Rows = slice  # of a forward, from a first one on: those of canvases, on which adapters work
ALL = slice(0, None)


class Projection(nn.Linear):
    """A linear layer without bias; on a canvas plus a low-rank adapter, where the model has them.

    With adapters the encoder stays the causal model they were trained on, to the last bit.
    `weight` is a PackedWeight where `Transformer.load` was given one.
    Source: LoRA (arXiv:2106.09685), its scale folded into `adapter_up`.
    """

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__(inputs, outputs, bias=False)
        if rank:
            self.adapter_down = nn.Parameter(torch.empty(rank, inputs))
            self.adapter_up = nn.Parameter(torch.zeros(outputs, rank))
        self.rank = rank

    def forward(self, x: Tensor, adapted: Rows | None = None) -> Tensor:
        """x [..., inputs] -> [..., outputs]."""
        out = kernels.linear(x, self.weight)
        if self.rank and adapted:
            down, up = self.adapter_down.to(x.dtype), self.adapter_up.to(x.dtype)
            out[..., adapted, :] += F.linear(F.linear(x[..., adapted, :], down), up)
        return out


class Norm(nn.Module):
    """RMSNorm with weight (x · w, not 1 + w)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., size] -> [..., size]."""
        return kernels.rms_norm(x, self.weight, self.eps)


class GatedMLP(nn.Module):
    """down(activation(gate(x)) · up(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = config.activation
        rank = config.canvas.adapter_rank if config.canvas else 0
        self.gate_proj = Projection(config.hidden_size, config.intermediate_size, rank)
        self.up_proj = Projection(config.hidden_size, config.intermediate_size, rank)
        self.down_proj = Projection(config.intermediate_size, config.hidden_size, rank)
        self.gate_up_proj: nn.Module | None = None  # the first two as one, in few bits

    def forward(self, x: Tensor, adapted: Rows | None) -> Tensor:
        """x [..., D] -> [..., D]."""
        if self.gate_up_proj is None:
            gate, up = self.gate_proj(x, adapted), self.up_proj(x, adapted)
        else:
            gate_up: Any = self.gate_up_proj.weight
            down: Any = self.down_proj.weight
            if isinstance(down, PackedWeight) and not self.down_proj.rank:
                return kernels.gated_mlp(x, gate_up, down, self.activation)
            gate, up = self.gate_up_proj(x, adapted).chunk(2, -1)
        out: Tensor = self.down_proj(kernels.gated(gate, up, self.activation), adapted)
        return out


class Router(nn.Module):
    """Chooses the experts of each row."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.experts
        self.top_k = config.experts.top_k
        self.eps = config.norm_eps
        self.proj = nn.Linear(config.hidden_size, config.experts.count, bias=False)
        self.scale = nn.Parameter(torch.ones(config.hidden_size))
        self.per_expert_scale = nn.Parameter(torch.ones(config.experts.count))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [T, D] -> weights and indices [T, K]."""
        weight = self.proj.weight
        return kernels.route(x, self.scale, weight, self.per_expert_scale, self.top_k, self.eps)


class Experts(nn.Module):
    """The experts' weights, stacked."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.experts
        count, width = config.experts.count, config.experts.intermediate_size
        self.activation = config.activation
        gate_up = torch.empty(count, 2 * width, config.hidden_size)
        self.gate_up_proj: Tensor | PackedWeight = nn.Parameter(gate_up)
        down = torch.empty(count, config.hidden_size, width)
        self.down_proj: Tensor | PackedWeight = nn.Parameter(down)

    def forward(self, x: Tensor, weights: Tensor, indices: Tensor) -> Tensor:
        """x [T, D], weights and indices [T, K] -> [T, K, D], what each chosen expert adds."""
        return kernels.experts(
            x, weights, indices, self.gate_up_proj, self.down_proj, self.activation
        )


class SelfConditioning(GatedMLP):
    """Adds what the previous step believed to the canvas embeddings.

    DiffusionGemma normalises the sum; a causal model that was taught to denoise keeps its own scale.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.pre_norm = Norm(config.hidden_size, config.norm_eps)
        self.normalised = config.family == "diffusion_gemma"

    def forward(self, embedded: Tensor, soft: Tensor) -> Tensor:  # type: ignore[override]
        """embedded, soft [B, C, D] -> [B, C, D]."""
        # Where frozen weights are in bfloat16, these may be trained in float32.
        soft = soft.to(self.pre_norm.weight.dtype)
        signal = super().forward(self.pre_norm(soft), ALL)
        total = embedded + signal.to(embedded.dtype)
        return kernels.rms_norm(total, None, self.pre_norm.eps) if self.normalised else total

"""Linear layers in few bits that read the same rows, as one: a GPU then starts a third as many kernels.

Queries, keys and values of a layer, gate and up of an MLP. Each output keeps its own codes and scales,
so that nothing is rounded anew. Layers in plain floats stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from engine.attention import Attention
from engine.model import Transformer
from engine.modules import GatedMLP, Projection
from engine.weights import PackedWeight, stacked


def join(model: Transformer) -> None:
    """Joins what can be joined, layer by layer: for a moment one layer is held twice."""
    for module in model.modules():
        if isinstance(module, Attention):
            names = [name for name in ("q_proj", "k_proj", "v_proj") if hasattr(module, name)]
            module.qkv_proj = _joined(module, names)
        elif isinstance(module, GatedMLP):
            module.gate_up_proj = _joined(module, ["gate_proj", "up_proj"])


def _joined(parent: nn.Module, names: Sequence[str]) -> Projection | None:
    """One layer in place of those named; None where they stay."""
    layers = [getattr(parent, name) for name in names]
    weights = [layer.weight for layer in layers]
    packed = [weight for weight in weights if isinstance(weight, PackedWeight)]
    forms = {
        (type(weight), *((name, part.shape[1:]) for name, part in weight.parts().items()))
        for weight in packed
    }
    if len(packed) < len(weights) or len(forms) > 1 or any(layer.rank for layer in layers):
        return None
    whole = stacked(packed)
    with torch.device("meta"):
        joined = Projection(whole.shape[1], whole.shape[0], 0)
    delattr(joined, "weight")  # a parameter, which only a tensor can be
    setattr(joined, "weight", whole)  # noqa: B010
    for name in names:
        delattr(parent, name)
    return joined

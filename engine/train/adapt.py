"""A causal model becomes one with a canvas: same weights, two special tokens put to use.

Knows nothing of how it is trained.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engine.config import CanvasConfig
from engine.loading import load_model
from engine.model import Transformer
from engine.tokenizer import Tokenizer
from engine.train.objective import Recipe

# Special tokens that code never contains. EMPTY is predicted, and the embedding may be frozen: it must
# not be one of those that were never trained, whose rows are all the same (MASK's is one).
MASK, EMPTY, DOCUMENT = "<jupyter_script>", "<|im_end|>", "<|endoftext|>"


def adapt(
    base: Path,
    recipe: Recipe,
    device: torch.device,
    *,
    rank: int = 0,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[Transformer, Tokenizer]:
    """The causal model in `base` with the canvas that `recipe` trains.

    With a `rank` it gets adapters for canvases, in float32, and where the recipe has
    self-conditioning the block that reads a step's beliefs; at first they change nothing.
    """
    tokenizer = Tokenizer.from_directory(base)
    causal = load_model(base, dtype=dtype, device=device)
    canvas = canvas_config(tokenizer, recipe, rank)
    with torch.device("meta"):
        model = Transformer(replace(causal.config, canvas=canvas))
    weights = causal.state_dict()
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        if name.endswith("adapter_down"):
            drawn = torch.randn(value.shape, generator=generator) * value.shape[1] ** -0.5
            weights[name] = drawn.to(device)
        elif name.endswith("adapter_up") or name == "self_conditioning.down_proj.weight":
            weights[name] = torch.zeros(value.shape, device=device)
        elif name == "self_conditioning.pre_norm.weight":
            weights[name] = torch.ones(value.shape, device=device)
        elif name.startswith("self_conditioning."):
            drawn = torch.randn(value.shape, generator=generator) * value.shape[1] ** -0.5
            weights[name] = drawn.to(device)
    model.load_state_dict(weights, strict=True, assign=True)
    return model, tokenizer


def canvas_config(tokenizer: Tokenizer, recipe: Recipe, rank: int) -> CanvasConfig:
    """The canvases that `recipe` trains on."""
    conditioned = recipe.self_conditioning > 0
    return CanvasConfig(
        length=recipe.canvas,
        noise="mask",
        mask_id=tokenizer.special(MASK),
        empty_id=tokenizer.special(EMPTY),
        shifted=recipe.shifted,
        self_conditioning=conditioned,
        soft_tokens=8 if conditioned else None,
        sealed_suffix=True,
        adapter_rank=rank,
    )


def newline_table(tokenizer: Tokenizer, vocab_size: int) -> NDArray[np.bool_]:
    """Of each id, whether its text has a line end."""
    known = min(vocab_size, tokenizer.vocab_size)
    table = np.zeros(vocab_size, np.bool_)
    table[:known] = ["\n" in tokenizer.decode([token]) for token in range(known)]
    return table


def stored_name(name: str) -> str:
    """As a Llama checkpoint names it: the inverse of `checkpoint.model_name`."""
    if name == "lm_head.weight":
        return name
    return "model." + name.replace("pre_feedforward_layernorm", "post_attention_layernorm")

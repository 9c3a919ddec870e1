"""A DiffusionGemma with random weights, made where it is to run, weight by weight.

No checkpoint, no disk and no copy in the host's memory: each weight is drawn on the device and
rounded there before the next one comes. The reference of transformers is laid over the same tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from engine import formats, joining
from engine.config import ModelConfig
from engine.model import Transformer

# What each block adds is scaled down, so that rounding does not grow from layer to layer.
GAIN = 0.35
_TINY_VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 16,
}


def random_model(
    config: ModelConfig,
    precision: formats.Precision,
    *,
    dtype: torch.dtype,
    device: torch.device,
    head_copy: bool = True,
    seed: int = 0,
) -> Transformer:
    """The model with the same random weights for the same seed, kept as `precision` says."""
    with torch.device("meta"):
        model = Transformer(config)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    drawn = _drawn(shapes, dtype, device, seed)
    copied = config.tied_head and head_copy
    model.load(dict(formats.converted(drawn, precision, tied_head=copied, dtype=dtype)))
    joining.join(model)  # as a GPU has it
    return model.eval().requires_grad_(False)


def reference(model: Transformer, description: Mapping[str, Any]) -> Any:
    """transformers' model of the Hugging Face `description`, on the tensors of `model` (bf16 form).

    Its vision part stays without memory: text alone never reaches it.
    """
    from transformers import DiffusionGemmaForBlockDiffusion
    from transformers.models.diffusion_gemma import DiffusionGemmaConfig, DiffusionGemmaTextConfig
    from transformers.models.gemma4 import Gemma4VisionConfig

    config: Any = DiffusionGemmaConfig(
        text_config=DiffusionGemmaTextConfig(**description["text_config"]),
        vision_config=Gemma4VisionConfig(**_TINY_VISION),
        canvas_length=description["canvas_length"],
    )
    with torch.device("meta"):
        theirs: Any = DiffusionGemmaForBlockDiffusion(config)
    ours = model.state_dict()
    shared = {name: ours[own] for name in theirs.state_dict() if (own := _own_name(name)) in ours}
    theirs.load_state_dict(shared, strict=False, assign=True)
    device = model.embed_tokens.weight.device
    for name, module in theirs.named_modules():
        if "vision" in name:
            continue
        if "Rotary" in type(module).__name__:
            fresh = type(module)(config.text_config).to(device)
            for key, value in fresh.named_buffers():
                setattr(module, key, value)
        elif hasattr(module, "embed_scale"):
            module.embed_scale = torch.tensor(config.text_config.hidden_size**0.5, device=device)
    return theirs.eval()


def _own_name(stored: str) -> str:
    """Our name of a tensor of the reference's; an encoder shares the decoder's, but its scalars."""
    if stored == "lm_head.weight":
        return "embed_tokens.weight"
    own = stored.removeprefix("model.decoder.")
    if own == stored:
        own = stored.removeprefix("model.encoder.language_model.")
        own = own.replace(".layer_scalar", ".encoder_layer_scalar")
    return own


def _drawn(
    shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, device: torch.device, seed: int
) -> Iterator[tuple[str, Tensor]]:
    generator = torch.Generator(device).manual_seed(seed)
    for name, shape in shapes.items():
        weight = torch.empty(shape, dtype=dtype, device=device)
        gain = GAIN if "post_" in name or "self_conditioning.down" in name else 1.0
        if len(shape) > 1:
            # Embeddings are multiplied by the root of their size, and logits are sums of as many.
            std = 0.3 if "embed" in name else shape[-1] ** -0.5
            weight.normal_(0, gain * std, generator=generator)
        else:
            weight.uniform_(0.6 * gain, 1.4 * gain, generator=generator)
        yield name, weight
        del weight  # the next one is drawn while this generator waits

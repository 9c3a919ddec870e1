"""The released checkpoint's tensors, on the meta device: each is claimed exactly once."""

from collections.abc import Iterator

import pytest
import torch

from engine import checkpoint, hf_config
from engine.model import Transformer
from engine.released import CONFIG, GENERATION

HIDDEN, DENSE, EXPERT, EXPERTS, VOCAB = 2816, 2112, 704, 128, 262_144
FULL = (5, 11, 17, 23, 29)


def stored_text_tensors() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the release, vision left out."""
    for index in range(30):
        yield from stored_layer(index)
    yield "model.decoder.embed_tokens.weight", (VOCAB, HIDDEN)
    yield "model.decoder.norm.weight", (HIDDEN,)
    yield "model.decoder.self_conditioning.pre_norm.weight", (HIDDEN,)
    for name, shape in gated(DENSE):
        yield f"model.decoder.self_conditioning.{name}", shape


def stored_layer(index: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    full = index in FULL
    head, kv_heads = (512, 2) if full else (256, 8)
    layer = f"model.decoder.layers.{index}"
    yield f"{layer}.self_attn.q_proj.weight", (16 * head, HIDDEN)
    yield f"{layer}.self_attn.k_proj.weight", (kv_heads * head, HIDDEN)
    if not full:
        yield f"{layer}.self_attn.v_proj.weight", (kv_heads * head, HIDDEN)
    yield f"{layer}.self_attn.o_proj.weight", (HIDDEN, 16 * head)
    yield f"{layer}.self_attn.q_norm.weight", (head,)
    yield f"{layer}.self_attn.k_norm.weight", (head,)
    for norm in (
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "pre_feedforward_layernorm_2",
        "post_feedforward_layernorm",
        "post_feedforward_layernorm_1",
        "post_feedforward_layernorm_2",
    ):
        yield f"{layer}.{norm}.weight", (HIDDEN,)
    for name, shape in gated(DENSE):
        yield f"{layer}.mlp.{name}", shape
    yield f"{layer}.router.proj.weight", (EXPERTS, HIDDEN)
    yield f"{layer}.router.scale", (HIDDEN,)
    yield f"{layer}.router.per_expert_scale", (EXPERTS,)
    yield f"{layer}.experts.gate_up_proj", (EXPERTS, 2 * EXPERT, HIDDEN)
    yield f"{layer}.experts.down_proj", (EXPERTS, HIDDEN, EXPERT)
    yield f"{layer}.layer_scalar", (1,)
    yield f"model.encoder.language_model.layers.{index}.layer_scalar", (1,)


def gated(width: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return (
        ("gate_proj.weight", (width, HIDDEN)),
        ("up_proj.weight", (width, HIDDEN)),
        ("down_proj.weight", (HIDDEN, width)),
    )


@pytest.fixture(scope="module")
def model() -> Transformer:
    with torch.device("meta"):
        return Transformer(hf_config.model_config(CONFIG, GENERATION))


def test_every_stored_tensor_is_claimed_exactly_once_with_its_shape(model):
    stored = dict(stored_text_tensors())
    layers = [name for name in stored if name.startswith("model.decoder.layers.")]
    assert len(layers) + 2 == 657, "text layers, embedding and final norm, as published"
    claimed = [checkpoint.model_name(name, "diffusion_gemma") for name in stored]
    ours = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert len(set(claimed)) == len(claimed)
    assert dict(zip(claimed, stored.values(), strict=True)) == ours


def test_vision_is_skipped():
    for name in (
        "model.encoder.vision_tower.patch_embedder.input_proj.weight",
        "model.encoder.embed_vision.embedding_projection.weight",
    ):
        assert checkpoint.model_name(name, "diffusion_gemma") is None


def test_parameter_counts_are_the_published_ones(model):
    def billions(part: str) -> float:
        return sum(p.numel() for n, p in model.named_parameters() if part in n) / 1e9

    assert billions(".experts.") == pytest.approx(22.84, abs=0.005)
    assert billions("self_attn") == pytest.approx(1.11, abs=0.005)
    assert billions("embed_tokens") == pytest.approx(0.738, abs=0.001)
    assert billions(".mlp.") == pytest.approx(0.535, abs=0.001)
    assert billions("") == pytest.approx(25.25, abs=0.01)


def test_the_released_configuration_is_read_as_documented():
    config = hf_config.model_config(CONFIG, GENERATION)
    assert [i for i, layer in enumerate(config.layers) if layer.window is None] == list(FULL)
    sliding, full = config.layers[0], config.layers[5]
    assert (sliding.kv_heads, sliding.head_dim, sliding.window) == (8, 256, 1024)
    assert (sliding.rotary_dim, sliding.rope_theta, sliding.value_is_key) == (256, 1e4, False)
    assert (full.kv_heads, full.head_dim, full.rotary_dim, full.rope_theta) == (2, 512, 128, 1e6)
    assert full.value_is_key
    assert config.eos_ids == (1, 106, 50)
    assert config.attention_scale == 1.0

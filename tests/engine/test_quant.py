"""Models in int8 against the same in fp32: turning changes nothing, rounding changes little."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from engine import kernels, quant
from engine.cache import PrefixCache
from engine.config import CanvasConfig, EngineConfig
from engine.errors import ConfigError
from engine.kernels import reference
from engine.model import Transformer
from engine.request import InfillRequest
from engine.runtime import Engine
from tests.engine import tiny

CPU = torch.device("cpu")
IDS = torch.randint(5, tiny.VOCAB, (24,), generator=torch.Generator().manual_seed(1)).tolist()


def adapted(model: Transformer, seed: int) -> Transformer:
    """The model with random adapters for canvases."""
    canvas = CanvasConfig(
        length=16, noise="mask", mask_id=3, shifted=True, self_conditioning=False, adapter_rank=4
    )
    with torch.device("meta"):
        larger = Transformer(replace(model.config, canvas=canvas))
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: 0.2 * torch.randn(value.shape, generator=generator)
        for name, value in larger.named_parameters()
        if "adapter_" in name
    }
    larger.load_state_dict(weights | model.state_dict(), strict=True, assign=True)
    return larger.requires_grad_(False)


@torch.inference_mode()
def everything(model: Transformer) -> torch.Tensor:
    """Logits of a causal pass, and of all kinds of canvas rows where there are any."""
    cache = PrefixCache(model.config, CPU, model.dtype)
    found = [model.encode(IDS[:10], cache)[0], model.encode(IDS[10:], cache)[0]]
    if model.config.canvas:
        found.append(model.canvas(torch.tensor([IDS[:9]]), cache, None)[0])
        found.append(model.encode(IDS[:7], cache, shift=3, on_canvas=True)[0])
        place = range(7), cache, cache.length, torch.ones(7, 7).tril().bool()
        found.append(model.tree(IDS[:7], *place, on_canvas=True, plain=3, hidden=2))
    return model.logits(torch.cat(found))


@pytest.fixture(params=["tied", "untied", "adapters"])
def model(request, tmp_path) -> Transformer:
    ours = tiny.llama(tmp_path, seed=8, tie_word_embeddings=request.param != "untied").ours
    return adapted(ours, seed=9) if request.param == "adapters" else ours


def test_turning_alone_changes_nothing(model, monkeypatch):
    expected = everything(model)
    monkeypatch.setattr(kernels, "quantize_rows", lambda w: (w.clone(), torch.ones_like(w[:, :1])))

    def exact(x, weight, scale, eps):
        return F.linear(x if eps is None else kernels.rms_norm(x, None, eps), weight)

    monkeypatch.setattr(kernels, "int8_linear", exact)
    monkeypatch.setattr(torch.Tensor, "half", torch.Tensor.float)  # of adapters
    quant.quantize(model)
    torch.testing.assert_close(everything(model), expected, rtol=1e-3, atol=2e-4)


def test_rounding_changes_little(model):
    expected = everything(model)
    quant.quantize(model)
    assert model.dtype is torch.float32
    kept = {
        p.dtype
        for name, p in model.named_parameters()
        if p.ndim == 2 and ".ups." not in name and "turn" not in name
    }
    assert kept == {torch.int8}, "a weight was left behind"
    logits = everything(model)
    assert F.cosine_similarity(logits, expected).min() > 0.995
    assert float((logits - expected).norm() / expected.norm()) < 0.06


def test_adapters_are_kept_beside_one_set_of_weights(tmp_path):
    plain = tiny.llama(tmp_path, seed=8).ours
    with_adapters = adapted(plain, seed=9)
    sizes = []
    for model in (with_adapters, plain):
        quant.quantize(model)
        sizes.append(sum(p.numel() for p in model.layers.parameters() if p.dtype is torch.int8))
    inputs = 0
    for layer in plain.layers:
        inputs += 3 * layer.self_attn.qkv_proj.weight.shape[1]
        inputs += 2 * layer.mlp.gate_up_proj.weight.shape[1]
        inputs += layer.self_attn.o_proj.weight.shape[1] + layer.mlp.down_proj.weight.shape[1]
    assert sizes[0] - sizes[1] == 4 * inputs, "more than one half of the adapters"


def test_a_channel_far_larger_than_the_others_does_not_hide_them(tmp_path):
    model = tiny.llama(tmp_path, seed=8).ours
    model.embed_tokens.weight[:, 7] *= 40
    expected = everything(model)
    quant.quantize(model)
    logits = everything(model)
    assert float((logits - expected).norm() / expected.norm()) < 0.06


@pytest.mark.parametrize("size", [1, 2, 64])
def test_hadamard_is_orthogonal_and_even(size):
    matrix = quant.hadamard(size)
    torch.testing.assert_close(matrix @ matrix.t(), torch.eye(size))
    torch.testing.assert_close(matrix.abs(), torch.full((size, size), size**-0.5))


def test_the_plain_kernel_gives_the_same_model(model, monkeypatch):
    quant.quantize(model)
    logits = everything(model)
    monkeypatch.setattr(kernels, "int8_linear", reference.int8_linear)
    torch.testing.assert_close(everything(model), logits, rtol=1e-2, atol=2e-2)


def test_an_engine_says_that_it_runs_in_int8(tmp_path):
    tiny.llama(tmp_path, seed=4, bos_token_id=2)
    engine = Engine.load(EngineConfig(model=tmp_path, device="cpu", dtype="int8"))
    result = engine.infill(InfillRequest(prefix="a = ", max_tokens=5), cancelled=lambda: False)
    assert result.tokens > 0
    assert engine.describe()["dtype"] == "int8"
    assert engine.describe()["weight_bytes"] < 2 * engine.describe()["parameters"]


def test_an_engine_of_experts_refuses_int8(tmp_path):
    tiny.diffusion_gemma(tmp_path, seed=4)
    with pytest.raises(ConfigError, match="'int8' is not supported for diffusion_gemma"):
        Engine.load(EngineConfig(model=tmp_path, device="cpu", dtype="int8"))

"""Layers that read the same rows, as one: the same numbers, fewer products."""

import pytest
import torch

from engine import formats, joining
from engine.cache import PrefixCache
from engine.model import Transformer, shapes
from engine.weights import Fp8Weight, Int4Weight, stacked, to_fp4, to_fp8, to_int4
from tests.engine import tiny
from tests.engine.test_model import random_ids


def model(tmp_path, precision):
    """A tiny DiffusionGemma whose widths are multiples of 32."""
    text = {"intermediate_size": 96, "moe_intermediate_size": 32}
    plain = tiny.diffusion_gemma(tmp_path, seed=3, gain=0.35, **text).ours
    with torch.device("meta"):
        packed = Transformer(plain.config)
    weights = formats.converted(plain.state_dict().items(), precision, tied_head=True)
    packed.load(dict(weights))
    return packed.eval().requires_grad_(False)


def computed(model):
    cache = PrefixCache(model.config, torch.device("cpu"), torch.float32)
    with torch.inference_mode():
        hidden = model.encode(random_ids(20, seed=1), cache)
        canvas = torch.tensor([random_ids(tiny.CANVAS, seed=2)])
        return hidden, model.canvas(canvas, cache, torch.ones(1, tiny.CANVAS, 64))


@pytest.mark.parametrize("precision", ["fp8", "int4"])
def test_a_joined_model_computes_the_same(tmp_path, precision):
    whole = model(tmp_path, precision)
    expected = computed(whole)
    outputs = sum(shape[0] for name, shape in shapes(whole.config).items() if "_proj.w" in name)
    joining.join(whole)
    for ours, theirs in zip(computed(whole), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    names = {name for name, _ in whole.weights() if "_proj.weight" in name}
    assert {name.split(".")[-2] for name in names} == {
        *("qkv_proj", "o_proj"),
        *("gate_up_proj", "down_proj"),
    }
    weights = dict(whole.weights())
    assert sum(weights[name].shape[0] for name in names) == outputs
    kinds = {formats.class_of(name).name for name in names}
    assert kinds == {"attention", "dense MLP", "self-conditioning"}


def test_plain_layers_and_layers_of_several_forms_stay(tmp_path):
    plain = tiny.diffusion_gemma(tmp_path, seed=3).ours
    before = dict(plain.weights()).keys()
    joining.join(plain)
    assert dict(plain.weights()).keys() == before
    attention = plain.layers[0].self_attn
    forms = {"q_proj": to_fp8, "k_proj": to_int4, "v_proj": to_int4}
    for name, form in forms.items():
        projection = getattr(attention, name)
        packed = form(projection.weight.detach())
        delattr(projection, "weight")
        projection.weight = packed
    joining.join(plain)
    assert isinstance(attention.q_proj.weight, Fp8Weight) and attention.qkv_proj is None
    assert isinstance(attention.k_proj.weight, Int4Weight)


@pytest.mark.parametrize("form", [to_fp8, to_int4, to_fp4])
def test_stacked_weights_keep_all_their_numbers(form):
    parts = [form(torch.randn(rows, 64)) for rows in (3, 5)]
    whole = torch.cat([part.dequantize(torch.float32) for part in parts])
    assert torch.equal(stacked(parts).dequantize(torch.float32), whole)

"""Whole denoising steps of a tiny DiffusionGemma through every kernel that is wired, against plain torch."""

import itertools
from dataclasses import replace

import pytest
import torch

from engine import kernels, noise, static_steps, steps, storage
from engine.cache import PrefixCache
from engine.config import SamplerConfig
from engine.graphs import Graphs
from engine.kernels import launch
from engine.steps import Canvas
from tests.engine import tiny
from tests.engine.test_model import random_ids

SAMPLER = SamplerConfig(max_steps=2, entropy_bound=2.0, confidence=3.0)
WIRED = {
    "_join_attention",
    "_join_feedforward",
    "_prepare_heads",
    "_attend",
    "_merge",
    "_accept_and_renoise",
}
HEAD = {
    "_sum_groups",
    "_choose_draw",
    "_choose_highest",
    "_score_again",
    "_choose_tokens",
    "_mix",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Two layers, a sliding and a full one; weights under which rounding differences do not grow."""
    directory = tmp_path_factory.mktemp("gemma")
    text = {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]}
    text |= {"num_experts": 4, "moe_intermediate_size": 32}
    pair = tiny.diffusion_gemma(directory, 3, gain=0.5, **text)
    return pair.ours


@pytest.fixture
def started(monkeypatch):
    """The names of the kernels that ran."""
    names = set()
    run = launch.run

    def recorded(kernel, *args, **constants):
        names.add(kernel.fn.__name__)
        run(kernel, *args, **constants)

    monkeypatch.setattr(launch, "run", recorded)
    return names


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(static_steps, "HOLES", (8,))
    monkeypatch.setattr(static_steps, "SUFFIXES", (0, 4))
    monkeypatch.setattr(storage, "PAGE", 32)


@pytest.mark.skipif(torch.cuda.is_available(), reason="make gpu-check compares whole steps there")
@pytest.mark.parametrize(("soft_tokens", "count"), [(None, 1), (3, 1), (3, 2)])
def test_every_step_equals_the_plain_one(model, small, started, monkeypatch, soft_tokens, count):
    own = replace(model.config.canvas, soft_tokens=soft_tokens)
    monkeypatch.setattr(model, "config", replace(model.config, canvas=own))
    canvases = [Canvas(hole=5, clamped=(9, 30)), Canvas(hole=2, clamped=(9,))][:count]
    drawn = noise.draw(7, SAMPLER.max_steps, 5, tiny.VOCAB, torch.device("cpu"))
    cache = PrefixCache(
        model.config, torch.device("cpu"), torch.float32, pools=tiny.pools(model, 45)
    )
    with torch.inference_mode():
        model.encode(random_ids(37, seed=1), cache)
        plain = list(steps.plain(model, cache, canvases, SAMPLER, drawn))
        assert not started
        monkeypatch.setattr(kernels, "_takes_triton", lambda *tensors: True)
        fast = list(Graphs(model, cache.pools)(model, cache, canvases, SAMPLER, drawn))
    assert started >= WIRED
    assert started & HEAD == (HEAD if soft_tokens else set())
    assert len(fast) == len(plain) == SAMPLER.max_steps
    for step, row in itertools.product(range(SAMPLER.max_steps), range(count)):
        seen, expected = fast[step][row], plain[step][row]
        assert seen.best.tolist() == expected.best.tolist()
        torch.testing.assert_close(seen.log_best, expected.log_best, rtol=1e-3, atol=1e-3)

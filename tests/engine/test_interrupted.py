"""Cancelled before any forward, or out of time after any: what comes next is as if nothing had been.

On tiny random models, through the engine, in every way a hole is filled.
"""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest

from engine import filling, infill
from engine.config import EngineConfig, InfillConfig, LongHoleConfig, SamplerConfig
from engine.errors import Cancelled
from engine.model import Transformer
from engine.request import InfillRequest, Mode, StopReason
from engine.runtime import Engine
from engine.tokenizer import Tokenizer
from tests.engine import tiny

SHORT = InfillRequest(
    prefix="def f(a):\n  ret", suffix="\n\nx = f(1)\n", max_tokens=6, single_line=True
)
LONG = replace(SHORT, max_tokens=12, single_line=False)
SEARCH = InfillConfig(
    probe=True, lengths=(1, 2, 4), kept=1, neighbours=(1,), max_steps=3, repairs=1, surprise=0.0
)
SETUP = {
    "prefill_chunk": 16,
    "suffix_tokens": 8,
    "sampler": SamplerConfig(max_steps=3),
    "infill": SEARCH,
    "long_holes": LongHoleConfig(above=8, steps=1, judged=4),
}
WAYS = {
    "searched": ("gemma", SHORT),
    "length known": ("gemma", replace(SHORT, hole_tokens=3)),
    "long hole": ("gemma", LONG),
    "canvas by canvas": ("gemma", replace(LONG, suffix="", max_tokens=40)),
    "searched, sealed": ("sealed", replace(SHORT, mode=Mode.DIFFUSION)),
    "written with the suffix in view": ("sealed", SHORT),
    "written on": ("sealed", replace(SHORT, mode=Mode.CAUSAL)),
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Configuration, weights and tokenizer of both kinds of models."""
    models = {}
    for name, make in (("gemma", tiny.diffusion_gemma), ("sealed", tiny.llama)):
        directory = tmp_path_factory.mktemp(name)
        make(directory, seed=4, bos_token_id=2, num_hidden_layers=2)
        config = EngineConfig(model=directory, device="cpu", **SETUP)
        models[name] = config, tiny.load_ours(directory), Tokenizer.from_directory(directory)
    config, causal, tokenizer = models["sealed"]
    models["sealed"] = config, tiny.sealed(causal, length=48), tokenizer
    return models


@pytest.fixture(params=WAYS)
def way(request, loaded):
    """A new engine each time it is called, and the request."""
    kind, asked = WAYS[request.param]
    config, model, tokenizer = loaded[kind]
    return lambda: Engine("tiny", config, model, tokenizer), asked


def said(result):
    return result.text, result.stop, round(result.confidence, 5)


def test_after_a_cancel_at_any_moment_the_next_answer_is_that_of_a_new_engine(way):
    """What was encoded before a cancel stays, so each round is asked at later moments."""
    make, asked = way
    whole = make().infill(asked, cancelled=lambda: False)
    engine, cancels = make(), 0
    for moment in itertools.count():
        left = iter(range(moment))
        try:
            result = engine.infill(asked, cancelled=lambda left=left: next(left, None) is None)
        except Cancelled:
            cancels += 1
        else:
            break
    assert cancels > 2
    assert said(result) == said(whole)


def test_at_a_deadline_after_any_forward_there_is_an_answer_and_the_next_is_whole(way, monkeypatch):
    """Moments are numbers of forwards."""
    make, asked = way
    made = []
    layers = Transformer._layers

    def counted(self, *given):
        made.append(1)
        return layers(self, *given)

    monkeypatch.setattr(Transformer, "_layers", counted)
    for module in (filling, infill):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: float(len(made))))
    engine = make()
    whole = engine.infill(asked, cancelled=lambda: False)
    needed, late = len(made), 0
    for moment in range(1, needed):
        made.clear()
        timed = replace(asked, deadline_ms=1000.0 * moment)
        result = make().infill(timed, cancelled=lambda: False)
        late += result.stop is StopReason.DEADLINE
        assert 0 <= result.confidence <= 1
        assert result.tokens <= (asked.hole_tokens or asked.max_tokens) + 4, "what is healed"
        assert not (asked.single_line and "\n" in result.text)
    assert late > 1
    assert said(engine.infill(asked, cancelled=lambda: False)) == said(whole)

"""The denoising loop: the whole trajectory against transformers, clamping, cancel, deadline."""

import time
from dataclasses import replace

import pytest
import torch
from transformers.models.diffusion_gemma.generation_diffusion_gemma import (
    EntropyBoundSamplerConfig,
)

from engine import infill, noise, sampler
from engine.cache import PrefixCache
from engine.config import SamplerConfig
from engine.errors import Cancelled
from engine.infill import Control
from engine.model import Transformer
from engine.request import StopReason
from engine.steps import Canvas
from tests.engine import tiny
from tests.engine.test_model import fresh_cache, random_ids

FEW_STEPS = SamplerConfig(max_steps=6)


@pytest.fixture(scope="module")
def gemma(tmp_path_factory) -> tiny.Pair:
    return tiny.diffusion_gemma(tmp_path_factory.mktemp("gemma"), seed=3)


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> tiny.Pair:
    """Weights under which rounding differences do not grow from step to step."""
    return tiny.diffusion_gemma(
        tmp_path_factory.mktemp("calm"), seed=3, gain=0.35, eos_token_id=None
    )


class Recorder:
    """A streamer for the reference's `generate` that keeps every draft."""

    def __init__(self):
        self.drafts = []

    def put(self, value):
        pass

    def put_draft(self, value):
        self.drafts.append(value[0].tolist())

    def end(self):
        pass


class SameDraws:
    """Gives the reference the numbers that ours draws, canvas by canvas."""

    def __init__(self, seed: int, steps: int):
        cpu = torch.device("cpu")
        self.noises = [
            noise.draw(seed, steps, tiny.CANVAS, tiny.VOCAB, cpu, canvas=n) for n in range(3)
        ]
        self.canvas, self.step, self.drawn = -1, 0, False

    def multinomial(self, probabilities, num_samples):
        self.step, self.drawn = self.step + 1, True
        uniform = self.noises[self.canvas].uniform[self.step - 1]
        return sampler.draw(probabilities, uniform)[:, None]

    def randint(self, *args, **kwargs):
        if not self.drawn:  # no step has gone before: a new canvas
            self.canvas, self.step = self.canvas + 1, 0
        self.drawn = False
        return self.noises[self.canvas].ids[self.step][None].clone()


def encoded(model: Transformer, ids: list[int]) -> PrefixCache:
    cache = fresh_cache(model)
    with torch.inference_mode():
        model.encode(ids, cache)
    return cache


@pytest.mark.parametrize(
    ("prompt", "canvases", "stop"),
    [
        (5, 1, {}),
        (23, 1, {"stability_threshold": 1, "confidence_threshold": 5.0}),
        (23, 3, {"stability_threshold": 0, "confidence_threshold": 3.5}),
        (tiny.WINDOW, 2, {"stability_threshold": 2, "confidence_threshold": 5.0}),
    ],
)
def test_generate_walks_the_references_trajectory_step_by_step(
    calm, prompt, canvases, stop, monkeypatch
):
    ids = random_ids(prompt, seed=prompt)
    draws = SameDraws(seed=77, steps=10)
    monkeypatch.setattr(torch, "multinomial", draws.multinomial)
    monkeypatch.setattr(torch, "randint", draws.randint)
    config = SamplerConfig(
        max_steps=10,
        entropy_bound=2.0,
        stability=stop.get("stability_threshold", 1),
        confidence=stop.get("confidence_threshold", 0.005),
    )
    recorder = Recorder()
    with torch.no_grad():
        theirs = calm.reference.generate(
            torch.tensor([ids]),
            streamer=recorder,
            max_new_tokens=canvases * tiny.CANVAS,
            max_denoising_steps=10,
            sampler_config=EntropyBoundSamplerConfig(entropy_bound=2.0),
            eos_token_id=None,
            **stop,
        ).sequences[0, prompt:]
    drafts: list[list[int]] = []
    filled = infill.generate(
        calm.ours,
        encoded(calm.ours, ids),
        canvases * tiny.CANVAS,
        config,
        77,
        Control(on_draft=lambda ids, step: drafts.append(list(ids[-tiny.CANVAS :]))),
    )
    steps = len(recorder.drafts)
    assert drafts == recorder.drafts
    assert list(filled.ids) == theirs.tolist()
    assert filled.forwards == steps + canvases - 1, "one commit pass between canvases"
    if stop:
        assert steps < 10 * canvases, "the stop rule must have fired for this test to mean much"


def test_generate_cuts_at_the_end_token(calm):
    ids = random_ids(9, seed=1)
    free = infill.generate(calm.ours, encoded(calm.ours, ids), tiny.CANVAS, FEW_STEPS, 1)
    end = free.ids[7]
    model = Transformer(replace(calm.config, eos_ids=(end,)))
    model.load_state_dict(calm.ours.state_dict())
    cut = infill.generate(model, encoded(model, ids), tiny.CANVAS, FEW_STEPS, 1)
    assert cut.ids == free.ids[: free.ids.index(end)]
    assert cut.stop is StopReason.COMPLETE


def test_infill_shows_the_suffix_at_every_step_and_never_changes_it(gemma, monkeypatch):
    suffix = random_ids(6, seed=2)
    shown = []
    canvas = Transformer.canvas

    def spy(self, ids, cache, soft, **place):
        shown.append(ids[0].tolist())
        return canvas(self, ids, cache, soft, **place)

    monkeypatch.setattr(Transformer, "canvas", spy)
    cache = encoded(gemma.ours, random_ids(11, seed=3))
    filled = infill.infill(gemma.ours, cache, Canvas(hole=8, clamped=tuple(suffix)), FEW_STEPS, 4)
    assert len(shown) == filled.forwards == 6
    assert all(ids[8:] == suffix for ids in shown)
    assert len({tuple(ids[:8]) for ids in shown}) > 1
    assert len(filled.ids) == 8
    assert cache.length == 11


def test_the_suffix_takes_no_part_in_budget_or_logits(gemma, monkeypatch):
    widths = []
    predict = sampler.predict
    monkeypatch.setattr(
        sampler, "predict", lambda logits, t: widths.append(logits.shape[1]) or predict(logits, t)
    )
    cache = encoded(gemma.ours, random_ids(5, seed=3))
    infill.infill(
        gemma.ours,
        cache,
        Canvas(hole=3, clamped=tuple(random_ids(20, seed=2))),
        FEW_STEPS,
        4,
    )
    assert set(widths) == {3}


def test_self_conditioning_holds_beliefs_on_the_hole_and_the_known_token_on_the_suffix(
    gemma, monkeypatch
):
    suffix = random_ids(6, seed=2)
    softs = []
    canvas = Transformer.canvas

    def spy(self, ids, cache, soft, **place):
        softs.append(soft)
        return canvas(self, ids, cache, soft, **place)

    monkeypatch.setattr(Transformer, "canvas", spy)
    cache = encoded(gemma.ours, random_ids(5, seed=3))
    infill.infill(gemma.ours, cache, Canvas(hole=4, clamped=tuple(suffix)), FEW_STEPS, 4)
    assert softs[0] is None
    for soft in softs[1:]:
        assert soft.shape[1] == 10
        torch.testing.assert_close(soft[0, 4:], gemma.ours.embed(torch.tensor(suffix)))


def test_the_suffix_changes_the_answer(gemma):
    cache = encoded(gemma.ours, random_ids(11, seed=3))
    answers = {
        infill.infill(
            gemma.ours,
            cache,
            Canvas(hole=8, clamped=tuple(random_ids(6, seed=s))),
            FEW_STEPS,
            4,
        ).ids
        for s in range(3)
    }
    assert len(answers) == 3


def test_the_same_seed_gives_the_same_answer(gemma):
    cache = encoded(gemma.ours, random_ids(11, seed=3))
    first, second = (
        infill.infill(gemma.ours, cache, Canvas(hole=8, clamped=(5,)), FEW_STEPS, 4)
        for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("after", [0, 1, 4])
def test_cancel_is_seen_before_the_next_step(gemma, after):
    cache = encoded(gemma.ours, random_ids(11, seed=3))
    steps = []
    control = Control(
        cancelled=lambda: len(steps) >= after, on_draft=lambda ids, step: steps.append(step)
    )
    with pytest.raises(Cancelled):
        infill.infill(
            gemma.ours,
            cache,
            Canvas(hole=8, clamped=(5,)),
            SamplerConfig(),
            4,
            control,
        )
    assert len(steps) == after
    assert cache.length == 11


def test_a_passed_deadline_still_gives_one_steps_answer(gemma):
    cache = encoded(gemma.ours, random_ids(11, seed=3))
    control = Control(deadline=time.monotonic() - 1)
    filled = infill.infill(
        gemma.ours, cache, Canvas(hole=8, clamped=(5,)), SamplerConfig(), 4, control
    )
    assert filled.stop is StopReason.DEADLINE
    assert filled.forwards == 1
    assert len(filled.ids) == 8


def test_drafts_end_with_the_answer(gemma):
    cache = encoded(gemma.ours, random_ids(11, seed=3))
    drafts = []
    control = Control(on_draft=lambda ids, step: drafts.append((tuple(ids), step)))
    filled = infill.infill(gemma.ours, cache, Canvas(hole=8, clamped=(5,)), FEW_STEPS, 4, control)
    assert [step for _, step in drafts] == [1, 2, 3, 4, 5, 6]
    assert drafts[-1][0] == filled.ids
    assert filled.stop is StopReason.STEPS


def test_a_hole_that_does_not_fit_the_canvas_is_refused(gemma):
    with pytest.raises(AssertionError, match=r"hole 30 \+ suffix 6 must fit the canvas of 32"):
        infill.infill(
            gemma.ours,
            fresh_cache(gemma.ours),
            Canvas(hole=30, clamped=(1,) * 6),
            FEW_STEPS,
            1,
        )

"""The few-step stage on a tiny model: what it asks for is what filling writes and shows."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine import causal, infill
from engine.cache import PrefixCache
from engine.config import SamplerConfig
from engine.errors import EngineError
from engine.infill import Canvas, Control
from engine.model import Transformer
from engine.train import distil, objective, trainer
from engine.train.objective import CANVAS, NO_TARGET, WRITTEN
from engine.train.passes import Passes
from engine.train.shards import Document, Origin
from tests.engine.train.test_trainer import (
    CPU,
    RECIPE,
    base,
    make_options,
    make_trainer,
    periodic_windows,
)

__all__ = ["base"]  # the fixture
FEW = replace(RECIPE, few_steps=3)


@pytest.fixture(scope="module", params=["all weights", "adapters", "aligned, self-conditioned"])
def learnt(request, base, tmp_path_factory):
    """A trainer after a few steps of the usual training, when it writes better than it denoises."""
    recipe = RECIPE
    if request.param.startswith("aligned"):
        recipe = replace(RECIPE, shifted=False, self_conditioning=0.5)
    rank = 0 if request.param == "all weights" else 8
    options = make_options(
        tmp_path_factory.mktemp("run"), recipe=recipe, steps=40, rate=1e-2 if rank else 3e-3
    )
    made = make_trainer(base, options, rank)
    made.run(periodic_windows, lambda figures: None)
    return made


def holes_in(model, windows, recipe=FEW, seed=0):
    """Holes of each window, and the same in the order in which they are written."""
    newline = np.zeros(model.config.vocab_size, np.bool_)
    draw = np.random.default_rng(seed)
    every = [objective.cut(w, newline, model.config.canvas, recipe, draw) for w in windows]
    return every, [(row, hole) for row, some in enumerate(every) for hole in some]


def as_filling_has_it(model, hole):
    """The cache and canvas of a request for `hole`."""
    cache = PrefixCache(model.config, CPU, torch.float32)
    with torch.inference_mode():
        model.encode(hole.window[: hole.start - 1].tolist(), cache)
    suffix = hole.window[hole.end : hole.end + hole.known]
    canvas = Canvas(
        hole=len(hole.slots),
        clamped=tuple(suffix.tolist()),
        lead=(int(hole.window[hole.start - 1]),),
    )
    return cache, canvas


def written(model, hole):
    cache, canvas = as_filling_has_it(model, hole)
    return list(causal.fill(model, cache, canvas, lambda ids: None, Control()).ids)


def filled(model, hole, forwards):
    cache, canvas = as_filling_has_it(model, hole)
    sampler = SamplerConfig(max_steps=forwards)
    return list(infill.infill(model, cache, canvas, sampler, 0).ids)


def test_all_holes_are_written_at_once_as_filling_writes_each(learnt, monkeypatch):
    """Their ends, too: here they stand before every fifth token, since it has learnt few."""
    model = learnt.model
    logits_of = Transformer.logits

    def with_ends(self, hidden):
        logits = logits_of(self, hidden)
        logits[..., model.config.canvas.empty_id] = 1e3 * (logits.argmax(-1) % 5 == 0) - 500
        return logits

    monkeypatch.setattr(Transformer, "logits", with_ends)
    windows = [next(periodic_windows(n)) for n in range(4)]
    passes = Passes(model, windows)
    _, places = holes_in(model, windows)
    ended = 0
    for (_, hole), text in zip(places, distil.write(passes, places), strict=True):
        expected = written(model, hole)
        slots = expected + [passes.empty_id] * (len(hole.slots) - len(expected))
        assert text.tolist() == slots
        ended += len(expected) < len(slots)
    assert 2 < ended < len(places), ended


def test_canvases_are_shown_as_filling_shows_them(learnt, monkeypatch):
    """Forward by forward, as long as the canvas decides what was written."""
    model = learnt.model
    windows = [next(periodic_windows(n)) for n in range(8)]
    passes = Passes(model, windows)
    _, places = holes_in(model, windows)
    texts = distil.write(passes, places)
    shown = distil.show(passes, places, texts, FEW)
    seen = []
    canvas_pass = Transformer.canvas

    def spy(self, ids, cache, soft, **place):
        seen.append(ids[0, 1:].numpy().copy())
        return canvas_pass(self, ids, cache, soft, **place)

    monkeypatch.setattr(Transformer, "canvas", spy)
    compared = [0, 0, 0]
    for (_, hole), text, canvases in zip(places, texts, shown, strict=True):
        seen.clear()
        filled(model, hole, FEW.few_steps)
        for number, ours in enumerate(canvases):
            assert np.array_equal(ours.slots, text)
            assert np.array_equal(ours.hidden, ours.shown == passes.mask_id)
            if number == len(seen):
                pytest.fail("a canvas that filling has done with")
            if not np.array_equal(seen[number], ours.shown):
                decided = seen[number] != passes.mask_id
                assert np.array_equal(decided, ~ours.hidden), "the same slots"
                break  # what it decided is not what was written
            compared[number] += 1
    assert min(compared) > 1, compared


def test_an_example_asks_its_canvases_for_what_was_written_and_writing_for_the_text(learnt):
    model = learnt.model
    windows = [next(periodic_windows(n)) for n in range(3)]
    passes = Passes(model, windows)
    recipe = replace(FEW, buckets=(4, 8, 16), longest_canvas=8)
    every, places = holes_in(model, windows, recipe)
    short = [place for place in places if place[1].has_canvases(recipe)]
    assert 0 < len(short) < len(places)
    texts = {
        id(hole): text for (_, hole), text in zip(short, distil.write(passes, short), strict=True)
    }
    for made, holes in zip(distil.examples(passes, every, recipe), every, strict=True):
        for hole in holes:
            rows = made.segment == hole.number
            middle = made.targets[rows & (made.part == WRITTEN)]
            assert middle[: hole.end - hole.start].tolist() == list(
                hole.window[hole.start : hole.end]
            )
            canvas = rows & (made.part == CANVAS)
            if id(hole) in texts:
                asked = made.targets[canvas][made.targets[canvas] != NO_TARGET]
                assert asked.tolist() == texts[id(hole)].tolist()
                later = made.part[rows].max()
                hidden = [
                    made.noised[rows & (made.part == p)].sum() for p in range(CANVAS, later + 1)
                ]
                assert hidden == sorted(hidden, reverse=True) and len(set(hidden)) == len(hidden)
            else:
                assert not canvas.any()


def test_windows_without_short_holes_have_no_canvases(learnt):
    recipe = replace(FEW, longest_canvas=1, exact=0.0, no_suffix=0.0)
    windows = [next(periodic_windows(0))]
    every, _ = holes_in(learnt.model, windows, recipe)
    made = distil.examples(Passes(learnt.model, windows), every, recipe)[0]
    assert made.part.max() == WRITTEN


@pytest.mark.parametrize("learnt", ["all weights"], indirect=True)
def test_after_the_stage_two_forwards_give_more_often_what_is_written(learnt, base, tmp_path):
    options = learnt.options
    recipe = replace(options.recipe, few_steps=3)
    rank = learnt.model.config.canvas.adapter_rank
    stage = make_trainer(base, replace(options, out=tmp_path, recipe=recipe, steps=30), rank)
    stage.start_from(learnt.average)
    _, places = holes_in(stage.model, [next(periodic_windows(n)) for n in range(900, 910)], seed=7)

    def share(model):
        same = [filled(model, hole, 2) == written(model, hole) for _, hole in places]
        return np.mean(same)

    before = share(stage.model)
    stage.run(periodic_windows, lambda figures: None)
    after = share(stage.model)
    assert after > before + 0.15, (before, after)


@pytest.mark.parametrize("rank", [0, 4])
def test_a_resumed_stage_equals_an_unbroken_one(base, tmp_path, rank):
    def stage(out):
        return make_trainer(base, make_options(tmp_path / out, steps=4, recipe=FEW), rank)

    whole, first, second = stage("whole"), stage("parts"), stage("parts")
    whole.run(periodic_windows, lambda figures: None)
    windows = list(itertools.islice(periodic_windows(0), 8))
    first.advance(windows[:4])
    first.advance(windows[4:])
    first.save()
    assert second.resume()
    second.run(periodic_windows, lambda figures: None)
    for name, value in whole.average.items():
        assert torch.equal(second.average[name], value), name


def test_the_command_takes_weights_recipe_and_rank_from_a_run_or_weights_from_a_model(
    base, tmp_path, monkeypatch, capsys
):
    made = []

    class Spied(trainer.Trainer):
        def run(self, *given):
            made.append({name: value.clone() for name, value in self.average.items()})
            return super().run(*given)

    def documents(folder, seed, epoch):
        ids = np.concatenate(list(itertools.islice(periodic_windows(0), 30)))
        yield Document(Origin("package", "a.py", 1), ids.astype(np.uint16))

    monkeypatch.setattr("engine.train.shards.iterate", documents)
    known = {"smollm2-135m": base, "first": tmp_path / "first" / "model", "base": base}
    monkeypatch.setattr(trainer, "resolve_model", known.__getitem__)
    monkeypatch.setattr(trainer, "Trainer", Spied)
    monkeypatch.setattr(trainer, "ADAPTER_RECIPE", replace(RECIPE, holes=3))
    line = ["--corpus", "corpus", "--steps", "2", "--seed", "3"]
    first = [*line, "--lora", "4", "--out", str(tmp_path / "first")]
    assert trainer.main(first) == 0
    assert "corpus is too small to hold files out: no probe" in capsys.readouterr().err
    stage = [*line, "--distil", str(tmp_path / "first"), "--out", str(tmp_path / "stage")]
    assert trainer.main(stage) == 0
    run = trainer.runs.require(tmp_path / "first")
    assert all(torch.equal(made[1][name], value) for name, value in run.average.items())
    ours = trainer.runs.require(tmp_path / "stage")
    assert ours.recipe == replace(run.recipe, few_steps=trainer.FEW_STEPS)
    assert ours.rank == 4
    assert (tmp_path / "stage" / "model" / "model.safetensors").is_file()
    assert trainer.main([*stage[:-1], str(tmp_path / "x"), "--distil", str(tmp_path)]) == 1
    assert "is no training run" in capsys.readouterr().err
    onward = [*line, "--lora", "4", "--out", str(tmp_path / "onward")]
    assert trainer.main([*onward, "--start", "first"]) == 0
    assert all(torch.equal(made[2][name], value.half()) for name, value in run.average.items())
    assert trainer.main([*onward[:-1], str(tmp_path / "y"), "--start", "base"]) == 1
    assert "trained in other weights" in capsys.readouterr().err


def test_a_run_that_trained_other_weights_is_no_start(base, tmp_path):
    adapters = make_trainer(base, make_options(tmp_path), rank=4)
    with pytest.raises(EngineError, match="trained in other weights"):
        adapters.start_from(make_trainer(base, make_options(tmp_path)).average)

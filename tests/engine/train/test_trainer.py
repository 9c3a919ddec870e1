"""The trainer on a tiny random model: it learns, resumes exactly, pauses, exports."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.cache import PrefixCache
from engine.config import EngineConfig, SamplerConfig
from engine.errors import EngineError
from engine.infill import encoded_suffix, sealed
from engine.loading import load_model
from engine.modules import SelfConditioning
from engine.request import InfillRequest, Mode
from engine.runtime import Engine
from engine.steps import Canvas
from engine.train import objective
from engine.train.adapt import DOCUMENT, EMPTY, MASK, adapt, newline_table
from engine.train.objective import Recipe
from engine.train.passes import Batch, Passes, may_see
from engine.train.probe import Probe
from engine.train.trainer import Options, Trainer
from tests.engine import tiny

RECIPE = Recipe(
    window=48,
    holes=4,
    buckets=(4, 8),
    longest_canvas=8,
    suffix=(3, 6),
    min_prefix=4,
    random_noise=0.0,
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny causal model whose tokenizer has the special tokens the trainer puts to use."""
    directory = tmp_path_factory.mktemp("base")
    tiny.llama(directory, seed=4, bos_token_id=2)
    for name, special in (
        ("<|turn>", MASK), ("<turn|>", EMPTY), ("<|channel>", DOCUMENT),
    ):  # fmt: skip
        path = directory / "tokenizer.json"
        path.write_text(path.read_text().replace(name, special))
    (directory / "generation_config.json").write_text('{"eos_token_id": 1}')
    return directory


def make_options(out, **changes) -> Options:
    options = Options(
        out=out, steps=60, batch=4, rate=3e-3, warmup=5, seed=1, save_every=1000, recipe=RECIPE
    )
    return replace(options, **changes)


def make_trainer(base, options, rank: int = 0) -> Trainer:
    model, tokenizer = adapt(base, options.recipe, CPU, rank=rank)
    return Trainer(model, newline_table(tokenizer, model.config.vocab_size), options)


def periodic_windows(skip: int):
    """Text in which everything can be told from what stands around it."""
    for number in itertools.count(skip):
        start = np.random.default_rng(number).integers(0, 12)
        yield (np.arange(RECIPE.window) + start) % 12 + 60


@pytest.mark.parametrize("shifted", [True, False])
def test_one_masked_pass_equals_encoder_and_canvas_passes(base, shifted):
    """What training sees is what filling computes: prefix, sealed suffix, then the hole."""
    model, _ = adapt(base, replace(RECIPE, shifted=shifted), CPU)
    made = objective.example(
        next(periodic_windows(0)),
        np.zeros(model.config.vocab_size, np.bool_),
        model.config.vocab_size,
        model.config.canvas,
        RECIPE,
        np.random.default_rng(0),
    )
    batch = {
        name: torch.tensor(getattr(made, name))[None]
        for name in ("tokens", "positions", "segment", "part", "sees")
    }
    mask = may_see(batch["segment"], batch["part"], batch["sees"])
    with torch.inference_mode():
        together = model(batch["tokens"], batch["positions"], mask)[0]
        cache = PrefixCache(model.config, CPU, torch.float32)
        encoded = model.encode(made.tokens[: RECIPE.window].tolist(), cache)
        torch.testing.assert_close(together[: RECIPE.window], encoded[0], rtol=1e-4, atol=1e-4)
        for segment in range(1, RECIPE.holes + 1):
            rows = np.flatnonzero(made.segment == segment)
            suffix, written, *canvases = (
                rows[made.part[rows] == part] for part in range(made.part[rows].max() + 1)
            )
            prefix = cache.fork(int(made.sees[rows[0]]))
            for part, open_rows in ((written, False), *((canvas, True) for canvas in canvases)):
                known = tuple(made.tokens[suffix].tolist())
                lead, *inside = made.tokens[part].tolist()
                gap = int(made.positions[suffix[0]] - made.positions[part[0]]) if known else 1
                whole = Canvas(hole=gap - 1, clamped=known, lead=(lead,))
                if open_rows:
                    ids = torch.tensor([[lead, *inside]])
                    behind = encoded_suffix(model, prefix, whole) if known else None
                    alone = model.canvas(ids, prefix, None, suffixes=[behind])
                else:
                    with sealed(model, prefix, whole) as shift:
                        ids = [lead, *inside]
                        alone = model.encode(ids, prefix, shift=shift, on_canvas=True)
                torch.testing.assert_close(together[part], alone[0], rtol=1e-4, atol=1e-4)
                assert prefix.length == made.sees[rows[0]], "left as it was"


def test_the_loss_falls_and_slots_are_told_from_their_surroundings(base, tmp_path):
    logged = []
    trainer = make_trainer(base, make_options(tmp_path))
    assert trainer.run(periodic_windows, logged.append)
    first, last = logged[0], np.mean([line["loss"] for line in logged[-5:]])
    assert last < 0.4 * first["loss"]
    assert np.mean([line["noised_right"] for line in logged[-10:]]) > 0.3  # one in twelve by chance


def test_adapters_see_what_one_masked_pass_sees_and_leave_the_base_alone(base, tmp_path):
    """The loss of the canvases' rows is that of the pass that trains all weights."""
    losses = []
    for rank in (0, 4):
        trainer = make_trainer(base, make_options(tmp_path), rank)
        recipe = replace(RECIPE, causal_weight=0.0)
        trainer.options = replace(trainer.options, recipe=recipe)
        losses.append(trainer.advance([next(periodic_windows(n)) for n in range(4)])["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    before = adapt(base, RECIPE, CPU)[0].state_dict()
    after = trainer.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_adapters_learn_and_are_exported_beside_their_base(base, tmp_path):
    trainer = make_trainer(base, make_options(tmp_path, steps=80, rate=1e-2, batch=2), rank=8)
    logged = []
    assert trainer.run(periodic_windows, logged.append)
    assert np.mean([line["loss"] for line in logged[-5:]]) < 0.6 * logged[0]["loss"]
    trainer.export(tmp_path / "model", base)
    loaded = load_model(tmp_path / "model", dtype=torch.float32, device=CPU)
    plain = load_model(base, dtype=torch.float32, device=CPU)
    ids = next(periodic_windows(3)).tolist()
    caches = [PrefixCache(model.config, CPU, torch.float32) for model in (loaded, plain)]
    with torch.inference_mode():
        ours, theirs = loaded.encode(ids, caches[0]), plain.encode(ids, caches[1])
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-2)  # float16 on disk
        canvas = torch.tensor([ids[:12]])
        adapted = loaded.canvas(canvas, caches[0], None)
        for name, value in loaded.named_parameters():
            if name.endswith("adapter_up"):
                value.zero_()
        assert not torch.allclose(adapted, loaded.canvas(canvas, caches[0], None), atol=0.1)


@pytest.mark.parametrize("shifted", [True, False])
def test_what_a_pass_believed_of_a_slot_comes_from_the_row_that_predicts_it(base, shifted):
    recipe = replace(RECIPE, self_conditioning=1.0, shifted=shifted)
    model, _ = adapt(base, recipe, CPU)
    windows = [next(periodic_windows(0))]
    passes = Passes(model, windows)
    newline = np.zeros(model.config.vocab_size, np.bool_)
    draw = np.random.default_rng(0)
    made = objective.example(
        windows[0], newline, len(newline), passes.canvas, replace(recipe, clean_weight=1.0), draw
    )
    batch = Batch.of([made], CPU)
    with torch.no_grad():
        states = passes.states(batch)
        soft = passes.beliefs(states, batch)[0]
        for row in range(RECIPE.window, len(made.tokens)):
            first = row == 0 or made.part[row - 1] != made.part[row]
            if made.part[row] < objective.CANVAS:
                expected = torch.zeros(soft.shape[1])
            elif first:
                expected = model.embed(batch.tokens[0, row])
            else:
                said = model.logits(states[0, row - shifted]).softmax(-1)
                expected = model.soft_embedding(said)
            torch.testing.assert_close(soft[row], expected)


def test_frozen_weights_in_bfloat16_stand_beside_trained_ones_in_float32(base, tmp_path):
    recipe = replace(RECIPE, self_conditioning=1.0, causal_weight=0.0)
    model, tokenizer = adapt(base, recipe, CPU, rank=4, dtype=torch.bfloat16)
    options = make_options(tmp_path, recipe=recipe, steps=3, batch=1)
    trainer = Trainer(model, newline_table(tokenizer, model.config.vocab_size), options)
    logged = []
    trainer.run(periodic_windows, logged.append)
    assert all(np.isfinite(line["loss"]) for line in logged)
    assert {value.dtype for value in trainer.average.values()} == {torch.float32}


@pytest.mark.parametrize("rank", [0, 4])
def test_canvases_are_shown_what_a_first_pass_believed(base, tmp_path, monkeypatch, rank):
    """Slot by slot; nothing to the suffix and the written part."""
    recipe = replace(RECIPE, self_conditioning=1.0, causal_weight=0.0)
    trainer = make_trainer(base, make_options(tmp_path, recipe=recipe, batch=2), rank)
    shown = []
    conditioned = SelfConditioning.forward

    def spy(self, embedded, soft):
        shown.append(soft.reshape(-1, soft.shape[-1]).detach())
        return conditioned(self, embedded, soft)

    monkeypatch.setattr(SelfConditioning, "forward", spy)
    windows = [next(periodic_windows(n)) for n in range(2)]
    first = trainer.advance(windows)["loss"]
    soft = torch.cat(shown)
    assert 0.1 < (soft.abs().sum(-1) > 0).float().mean() < 0.9
    blind = make_trainer(
        base, make_options(tmp_path, batch=2, recipe=replace(RECIPE, causal_weight=0.0)), rank
    )
    assert blind.advance(windows)["loss"] == pytest.approx(first, rel=1e-5), "nothing at first"
    learnt = dict(trainer.model.named_parameters())["self_conditioning.down_proj.weight"]
    assert learnt.abs().sum() > 0
    trainer.export(tmp_path / "model", base)
    loaded = load_model(tmp_path / "model", dtype=torch.float32, device=CPU)
    assert loaded.config.canvas.soft_tokens == 8


@pytest.mark.parametrize("rank", [0, 4])
def test_a_resumed_run_equals_an_unbroken_one(base, tmp_path, rank):
    whole = make_trainer(base, make_options(tmp_path / "whole", steps=6), rank)
    whole.run(periodic_windows, lambda figures: None)

    out = tmp_path / "parts"
    first = make_trainer(base, make_options(out, steps=6), rank)
    stream = periodic_windows(0)
    for _ in range(3):
        first.advance([next(stream) for _ in range(4)])
    first.save()
    second = make_trainer(base, make_options(out, steps=6), rank)
    assert second.resume()
    assert second.step == 3
    second.run(periodic_windows, lambda figures: None)
    for (name, ours), (_, theirs) in zip(second._weights(), whole._weights(), strict=True):
        assert torch.equal(ours, theirs), name
        assert torch.equal(second.average[name], whole.average[name]), name


def test_when_the_minutes_are_over_the_run_pauses_with_its_state_saved(base, tmp_path):
    trainer = make_trainer(base, make_options(tmp_path, minutes=0.0))
    assert not trainer.run(periodic_windows, lambda figures: None)
    again = make_trainer(base, make_options(tmp_path))
    assert again.resume()
    assert again.step == 0


def test_what_a_probe_finds_is_logged_whenever_the_state_is_saved(base, tmp_path):
    trainer = make_trainer(base, make_options(tmp_path, steps=5, save_every=2))
    newline = np.zeros(trainer.model.config.vocab_size, np.bool_)
    probe = Probe([next(periodic_windows(700))], newline, RECIPE)
    logged = []
    trainer.run(periodic_windows, logged.append, probe)
    probed = [line for line in logged if "probe: written exact" in line]
    assert [line["step"] for line in probed] == [2, 4, 5]
    assert [line["step"] for line in logged if "loss" in line] == [1, 2, 3, 4, 5]


def test_a_state_of_another_run_is_refused(base, tmp_path):
    make_trainer(base, make_options(tmp_path)).save()
    with pytest.raises(EngineError, match="of a run with another rate"):
        make_trainer(base, make_options(tmp_path, rate=1e-4)).resume()


def test_without_a_state_there_is_nothing_to_resume(base, tmp_path):
    assert not make_trainer(base, make_options(tmp_path)).resume()


def test_a_kill_between_the_two_renames_loses_nothing(base, tmp_path):
    trainer = make_trainer(base, make_options(tmp_path))
    trainer.save()
    (tmp_path / "state").rename(tmp_path / "state.old")
    assert make_trainer(base, make_options(tmp_path)).resume()


@pytest.mark.parametrize("shifted", [True, False])
def test_the_exported_model_is_one_the_engine_fills_holes_with(base, tmp_path, shifted):
    recipe = replace(RECIPE, shifted=shifted)
    trainer = make_trainer(base, make_options(tmp_path, recipe=recipe))
    trainer.export(tmp_path / "model", base)
    config = EngineConfig(model=tmp_path / "model", sampler=SamplerConfig(max_steps=3))
    engine = Engine.load(config)
    assert engine.describe()["trained_for_diffusion"]
    request = InfillRequest(prefix="a = ", suffix="\nb", max_tokens=8)
    assert engine.infill(request, cancelled=lambda: False).mode is Mode.FIM
    for mode in (Mode.DIFFUSION, Mode.FIM, Mode.CAUSAL):
        result = engine.infill(replace(request, mode=mode), cancelled=lambda: False)
        assert result.mode is mode
        assert result.tokens <= 8 + 2
    stored = json.loads((tmp_path / "model" / "config.json").read_text())
    assert stored["canvas"]["length"] == RECIPE.canvas
    assert stored["canvas"]["shifted"] == shifted

"""Steps of fixed shapes equal the plain ones, whatever pads them; on a CPU they run uncaptured."""

from dataclasses import replace

import pytest
import torch

from engine import infill, kernels, noise, sampler, static_steps, steps, storage
from engine.cache import PrefixCache
from engine.config import SamplerConfig
from engine.graphs import Graphs, _divided
from engine.infill import Control
from engine.static_steps import Shape, Step
from engine.steps import Canvas
from tests.engine import tiny
from tests.engine.test_model import random_ids

CPU = torch.device("cpu")
SAMPLER = SamplerConfig(max_steps=10, entropy_bound=2.0, confidence=3.0)


@pytest.fixture(scope="module")
def gemma(tmp_path_factory) -> tiny.Pair:
    """Weights under which rounding differences do not grow from step to step."""
    return tiny.diffusion_gemma(tmp_path_factory.mktemp("gemma"), seed=3, gain=0.5)


@pytest.fixture
def small(monkeypatch):
    """Sizes as far apart from each other, beside a tiny model's."""
    monkeypatch.setattr(static_steps, "HOLES", (4, 16, 32))
    monkeypatch.setattr(static_steps, "SUFFIXES", (0, 8, 20))
    monkeypatch.setattr(storage, "PAGE", 4)


def encoded(model, ids, pools=None) -> PrefixCache:
    """The prefix `ids` in pages."""
    cache = PrefixCache(model.config, CPU, torch.float32, pools=pools or tiny.pools(model))
    with torch.inference_mode():
        model.encode(ids, cache)
    return cache


def walked(model, make, cache, canvas, config=SAMPLER, seed=7):
    drawn = noise.draw(seed, config.max_steps, canvas.hole, tiny.VOCAB, CPU)
    with torch.inference_mode():
        return [report[0] for report in make(model, cache, [canvas], config, drawn)]


CANVASES = {
    "a hole that fills its size": Canvas(hole=16, clamped=tuple(random_ids(8, seed=1))),
    "padded hole and suffix": Canvas(hole=9, clamped=tuple(random_ids(5, seed=2))),
    "a hole alone": Canvas(hole=5),
    "one slot": Canvas(hole=1, clamped=(7,)),
    "a guess and a beginning": Canvas(
        hole=6, clamped=(5, 9), guess=(11, 12), begin=(3, 40, 41, 200)
    ),
}


@pytest.mark.parametrize("prefix", [1, 6, tiny.WINDOW, 37])
@pytest.mark.parametrize("name", CANVASES)
def test_every_step_equals_the_plain_one_under_the_same_noise(gemma, small, name, prefix):
    cache, canvas = encoded(gemma.ours, random_ids(prefix, seed=prefix)), CANVASES[name]
    plain = walked(gemma.ours, steps.plain, cache, canvas)
    still = walked(gemma.ours, Graphs(gemma.ours, cache.pools), cache, canvas)
    assert len(plain) == len(still) == SAMPLER.max_steps
    for expected, seen in zip(plain, still, strict=True):
        assert seen.best.tolist() == expected.best.tolist()
        torch.testing.assert_close(seen.log_best, expected.log_best, rtol=1e-3, atol=1e-3)
        assert seen.done == expected.done
    different = {round(float(seen.log_best.sum()), 3) for seen in plain}
    assert len(different) > 5, "the canvas must change from step to step for this to mean much"


@pytest.mark.parametrize("few", [1, 4, 10 * tiny.VOCAB])
def test_steps_that_keep_no_logits_equal_the_plain_ones(gemma, small, monkeypatch, few):
    own = replace(gemma.ours.config.canvas, soft_tokens=few)
    monkeypatch.setattr(gemma.ours, "config", replace(gemma.ours.config, canvas=own))
    cache = encoded(gemma.ours, random_ids(9, seed=1))
    canvas = CANVASES["a guess and a beginning"]
    plain = walked(gemma.ours, steps.plain, cache, canvas)
    monkeypatch.setattr(gemma.ours, "logits", None)
    still = walked(gemma.ours, Graphs(gemma.ours, cache.pools), cache, canvas)
    assert [s.best.tolist() for s in still] == [s.best.tolist() for s in plain]


def test_the_stop_rule_fires_at_the_same_step(gemma, small):
    cache = encoded(gemma.ours, random_ids(23, seed=1))
    config = SamplerConfig(max_steps=30, entropy_bound=2.0, confidence=5.0)
    stops = []
    for hole in (1, 2, 3, 5):
        canvas = Canvas(hole=hole, clamped=(5, 6, 7))
        answers = [
            infill.infill(gemma.ours, cache, canvas, config, 3, Control(), steps=make)
            for make in (steps.plain, Graphs(gemma.ours, cache.pools))
        ]
        assert answers[0].ids == answers[1].ids
        assert answers[0].forwards == answers[1].forwards
        assert answers[0].stop == answers[1].stop
        assert answers[0].log_probability == pytest.approx(answers[1].log_probability, abs=1e-3)
        stops.append(answers[0].forwards)
    assert min(stops) < 30, "the rule must have fired for this test to mean much"


def test_padding_has_no_part_in_how_sure_the_hole_is(gemma, small, monkeypatch):
    means = []
    is_confident = sampler.is_confident

    def recorded(entropy, threshold):
        means.append(float(entropy.mean()))
        return is_confident(entropy, threshold)

    monkeypatch.setattr(sampler, "is_confident", recorded)
    cache = encoded(gemma.ours, random_ids(9, seed=1))
    for make in (steps.plain, Graphs(gemma.ours, cache.pools)):
        walked(gemma.ours, make, cache, Canvas(hole=9, clamped=(5, 9)))
    plain, still = means[: SAMPLER.max_steps], means[SAMPLER.max_steps :]
    assert still == pytest.approx(plain, rel=1e-4)


def test_buffers_used_before_leave_no_trace(gemma, small):
    pools = tiny.pools(gemma.ours)
    used = Graphs(gemma.ours, pools)
    long, short = (encoded(gemma.ours, random_ids(n, seed=n), pools) for n in (40, 5))
    for cache, canvas in ((long, Canvas(hole=16, clamped=(9,) * 8, begin=(1, 2))),) * 2:
        walked(gemma.ours, used, cache, canvas, seed=99)
    for cache in (short, long):
        canvas = Canvas(hole=7, clamped=(5, 9, 30))
        expected = walked(gemma.ours, Graphs(gemma.ours, cache.pools), cache, canvas)
        again = walked(gemma.ours, used, cache, canvas)
        assert [s.best.tolist() for s in again] == [s.best.tolist() for s in expected]


def test_padding_asks_for_no_expert_of_its_own(gemma, small, monkeypatch):
    chosen = []
    route = kernels.route
    monkeypatch.setattr(kernels, "route", lambda *args: chosen.append(route(*args)) or chosen[-1])
    cache = encoded(gemma.ours, random_ids(9, seed=1))
    chosen.clear()
    walked(gemma.ours, Graphs(gemma.ours, cache.pools), cache, Canvas(hole=5, clamped=(5, 9, 30)))
    for _, indices in chosen:
        hole, suffix = indices[:16].tolist(), indices[16:].tolist()
        assert len(suffix) == 8
        assert all(row == hole[4] for row in hole[5:])
        assert all(row == suffix[2] for row in suffix[3:])


def test_one_step_is_always_under_way(gemma, small, monkeypatch):
    runs = []
    run = Step.run
    monkeypatch.setattr(Step, "run", lambda self: runs.append(1) or run(self))
    cache = encoded(gemma.ours, random_ids(9, seed=1))
    drawn = noise.draw(1, SAMPLER.max_steps, 5, tiny.VOCAB, CPU)
    with torch.inference_mode():
        reports = Graphs(gemma.ours, cache.pools)(
            gemma.ours, cache, [Canvas(hole=5)], SAMPLER, drawn
        )
        for read, _ in enumerate(reports, start=1):
            assert len(runs) == min(read + 1, SAMPLER.max_steps)


def test_nothing_moves_between_steps(gemma, small):
    """What a captured graph needs: all that a step keeps stays where it is."""
    pools = tiny.pools(gemma.ours)
    caches = [encoded(gemma.ours, random_ids(n, seed=1), pools) for n in (9, 33)]
    step = Step(gemma.ours, SAMPLER, Shape.of(5, 3), pools)
    sight = step._sight

    def places():
        kept = {**vars(step), **vars(sight)}
        tensors = {name: value for name, value in kept.items() if isinstance(value, torch.Tensor)}
        tables = [table for pair in sight._tables.values() for table in pair]
        parts = [part for pool in pools.values() for part in pool.parts]
        rest = [*parts, *sight._page_tables.values(), *sight._bounds.values(), *tables]
        return [(t.data_ptr(), t.shape, t.stride()) for t in (*tensors.values(), *rest)]

    before = places()
    canvas = Canvas(hole=5, clamped=(1, 2, 3))
    with torch.inference_mode():
        for seed, cache in enumerate(caches):
            step.begin(cache, [canvas], noise.draw(seed, 10, 5, tiny.VOCAB, CPU))
            step.run()
            step.run()
    assert places() == before
    assert len(before) > 20


@pytest.mark.parametrize(
    ("tokens", "shape"),
    [
        ((1, 0), Shape(16, 0)),
        ((16, 1), Shape(16, 32)),
        ((17, 48), Shape(32, 64)),
        ((256, 128), Shape(256, 128)),
    ],
)
def test_the_smallest_shape_that_holds_it_is_taken(tokens, shape):
    assert Shape.of(*tokens) == shape


def test_what_has_no_shape_takes_plain_steps(gemma, small, monkeypatch):
    cache = encoded(gemma.ours, random_ids(9, seed=1))
    monkeypatch.setattr(Step, "run", None)
    walk = walked(
        gemma.ours, Graphs(gemma.ours, cache.pools), cache, Canvas(hole=5, clamped=(1,) * 21)
    )
    assert len(walk) == SAMPLER.max_steps


def test_a_prefix_that_lies_elsewhere_is_refused(gemma, small):
    cache = encoded(gemma.ours, random_ids(9, seed=1))
    with pytest.raises(AssertionError, match="does not lie in the pages that steps read"):
        walked(gemma.ours, Graphs(gemma.ours, tiny.pools(gemma.ours)), cache, Canvas(hole=5))


def test_pages_that_others_hold_or_nobody_are_not_read(gemma, small):
    """Behind a fork, after the rest of what it came from was cut and written anew."""
    origin = encoded(gemma.ours, random_ids(40, seed=1))
    cache, canvas = origin.fork(30), CANVASES["padded hole and suffix"]
    origin.truncate(27)
    with torch.inference_mode():
        gemma.ours.encode(random_ids(6, seed=9), origin)
        gemma.ours.encode(random_ids(5, seed=2), cache)
    expected = encoded(gemma.ours, random_ids(40, seed=1)[:30] + random_ids(5, seed=2))
    still = walked(gemma.ours, Graphs(gemma.ours, cache.pools), cache, canvas)
    plain = walked(gemma.ours, steps.plain, expected, canvas)
    assert [s.best.tolist() for s in still] == [s.best.tolist() for s in plain]


SEVERAL = {
    "two": [Canvas(hole=5, clamped=(7, 8)), Canvas(hole=3, clamped=(7,))],
    "three of different sizes, judged": [
        Canvas(hole=16, clamped=tuple(random_ids(8, seed=1)), judged=3),
        Canvas(hole=2, clamped=tuple(random_ids(5, seed=2)), guess=(11, 12), judged=3),
        Canvas(hole=9, clamped=tuple(random_ids(5, seed=2)), guess=(11,), judged=3),
    ],
    "without a hole, with one": [
        Canvas(hole=0, clamped=(5, 9, 30), judged=2),
        Canvas(hole=4, clamped=(5, 9, 30), judged=2),
    ],
    "one, judged": [Canvas(hole=5, clamped=(7, 9), judged=2)],
    "more than one step holds": [Canvas(hole=1 + n % 4, clamped=(7, n)) for n in range(11)],
}


@pytest.mark.parametrize("soft_tokens", [None, 4])
@pytest.mark.parametrize("name", SEVERAL)
def test_steps_over_several_canvases_equal_the_plain_ones(
    gemma, small, monkeypatch, name, soft_tokens
):
    own = replace(gemma.ours.config.canvas, soft_tokens=soft_tokens)
    monkeypatch.setattr(gemma.ours, "config", replace(gemma.ours.config, canvas=own))
    canvases, cache = SEVERAL[name], encoded(gemma.ours, random_ids(37, seed=1))
    longest = max(canvas.hole for canvas in canvases)
    drawn = noise.draw(7, SAMPLER.max_steps, longest, tiny.VOCAB, CPU)
    with torch.inference_mode():
        plain = list(steps.plain(gemma.ours, cache, canvases, SAMPLER, drawn))
        monkeypatch.setattr(steps, "plain", None)
        fast = list(Graphs(gemma.ours, cache.pools)(gemma.ours, cache, canvases, SAMPLER, drawn))
    assert len(plain) == len(fast) == SAMPLER.max_steps
    for expected, seen in zip(plain, fast, strict=True):
        assert set(seen) == set(expected) == set(range(len(canvases)))
        for row, own in seen.items():
            assert own.best.tolist() == expected[row].best.tolist()
            torch.testing.assert_close(own.log_best, expected[row].log_best, rtol=1e-3, atol=1e-3)
            assert own.done == expected[row].done
            assert own.entropy == pytest.approx(expected[row].entropy, rel=1e-3, abs=1e-4)
            wanted = expected[row].junction
            assert own.junction == (wanted and pytest.approx(wanted, rel=1e-3, abs=1e-3))


def test_a_canvas_that_is_wanted_no_more_is_not_reported(gemma, small):
    canvases, live = SEVERAL["two"], {0, 1}
    cache = encoded(gemma.ours, random_ids(9, seed=1))
    drawn = noise.draw(1, SAMPLER.max_steps, 5, tiny.VOCAB, CPU)
    reported = []
    with torch.inference_mode():
        make = Graphs(gemma.ours, cache.pools)
        for seen in make(gemma.ours, cache, canvases, SAMPLER, drawn, live.__contains__):
            reported.append(set(seen))
            live.discard(0 if len(reported) == 2 else 1 if len(reported) == 4 else -1)
    assert reported == [{0, 1}, {0, 1}, {1}, {1}]


def test_canvases_are_divided_among_steps_that_can_hold_them():
    probed = [Canvas(hole=n, clamped=(5,) * 48) for n in (0, 1, 2, 4, 8, 12, 16, 24, 32, 48, 64)]
    assert _divided(probed) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert _divided([Canvas(hole=3, clamped=(7,))] * 9) == [[*range(8)], [8]]


def test_a_group_that_nobody_wants_is_not_computed(gemma, small, monkeypatch):
    runs, live = [], set(range(9))
    run = Step.run
    monkeypatch.setattr(Step, "run", lambda self: runs.append(self.shape.count) or run(self))
    cache = encoded(gemma.ours, random_ids(9, seed=1))
    drawn = noise.draw(1, SAMPLER.max_steps, 3, tiny.VOCAB, CPU)
    canvases = [Canvas(hole=3, clamped=(7,))] * 9
    with torch.inference_mode():
        make = Graphs(gemma.ours, cache.pools)
        reports = make(gemma.ours, cache, canvases, SAMPLER, drawn, live.__contains__)
        for number, seen in enumerate(reports, start=1):
            assert set(seen) == live
            if number == 2:
                live.difference_update(range(8))
    # The third step was under way when the second was reported.
    assert runs == [8, 1] * 3 + [1] * (SAMPLER.max_steps - 3)


@pytest.mark.parametrize(
    "canvases",
    [
        [Canvas(hole=5, clamped=(7,), begin=(3,)), Canvas(hole=3, clamped=(7,))],
        [Canvas(hole=5, clamped=(7,), judged=1), Canvas(hole=3, clamped=(7,))],
    ],
    ids=["one begins otherwise", "one is judged"],
)
def test_canvases_that_cannot_share_a_step_take_plain_ones(gemma, small, canvases, monkeypatch):
    monkeypatch.setattr(Step, "run", None)
    cache = encoded(gemma.ours, random_ids(9, seed=1))
    drawn = noise.draw(1, SAMPLER.max_steps, 5, tiny.VOCAB, CPU)
    with torch.inference_mode():
        fast = Graphs(gemma.ours, cache.pools)(gemma.ours, cache, canvases, SAMPLER, drawn)
        assert set(next(iter(fast))) == set(range(len(canvases)))


def test_rows_of_several_canvases_are_bounded():
    """By what memory is planned for, and by what the sorting of experts takes at once."""
    some = Canvas(hole=32, clamped=(5,) * 32)
    assert Shape.holding([some] * 8) == Shape(32, 32, 8)
    assert Shape.holding([some] * 3) == Shape(32, 32, 4)
    assert Shape.holding([replace(some, hole=33)] * 8) is None, "8 · 64 rows of holes"
    assert Shape.holding([replace(some, clamped=(5,) * 33)] * 8) is None, "8 · 96 rows"
    assert Shape.holding([replace(some, hole=256)]) == Shape(256, 32)


def test_only_some_captured_steps_are_kept(gemma, small, monkeypatch):
    monkeypatch.setattr("engine.graphs._MOST_READY", 2)
    cache = encoded(gemma.ours, random_ids(9, seed=1))
    make = Graphs(gemma.ours, cache.pools)
    for hole in (3, 9, 3, 30, 3):
        walked(gemma.ours, make, cache, Canvas(hole=hole))
    assert [shape.hole for _, shape, _ in make._ready] == [32, 4]


def test_memory_that_runs_out_while_capturing_is_no_refusal(gemma, small, monkeypatch):
    def full(self, step):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Graphs, "_capture", full)
    cache = encoded(gemma.ours, random_ids(9, seed=1))
    make = Graphs(gemma.ours, cache.pools)
    with pytest.raises(torch.OutOfMemoryError):
        walked(gemma.ours, make, cache, Canvas(hole=5))
    assert not make.refused


def test_a_device_that_refuses_to_capture_gets_plain_steps(gemma, small, monkeypatch, caplog):
    def refuse(self, step):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(Graphs, "_capture", refuse)
    cache, canvas = encoded(gemma.ours, random_ids(9, seed=1)), Canvas(hole=5)
    make = Graphs(gemma.ours, cache.pools)
    for _ in range(2):
        seen = walked(gemma.ours, make, cache, canvas)
        expected = walked(gemma.ours, steps.plain, cache, canvas)
        assert [s.best.tolist() for s in seen] == [s.best.tolist() for s in expected]
    assert [r.getMessage() for r in caplog.records] == [
        "steps run without CUDA graphs: operation not permitted when stream is capturing"
    ]

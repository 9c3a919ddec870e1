"""The infill probe: it tells what filling would write, of holes that stay the same."""

from dataclasses import replace

import numpy as np
import pytest

from engine.train import objective
from engine.train.passes import Passes
from engine.train.probe import Probe, Tally
from tests.engine.train.test_distil import written
from tests.engine.train.test_trainer import (
    RECIPE,
    base,
    make_options,
    make_trainer,
    periodic_windows,
)

__all__ = ["base"]  # the fixture
EMPTY = 4
ASKED = replace(RECIPE, no_suffix=0.0)


@pytest.fixture(scope="module")
def learnt(base, tmp_path_factory):
    made = make_trainer(base, make_options(tmp_path_factory.mktemp("run"), steps=50))
    made.run(periodic_windows, lambda figures: None)
    return made.model


def probe(model, recipe=ASKED):
    newline = np.zeros(model.config.vocab_size, np.bool_)
    return Probe([next(periodic_windows(n)) for n in range(500, 506)], newline, recipe)


def test_a_written_hole_is_exact_where_filling_writes_its_text(learnt, monkeypatch):
    told, expected = [], []
    count = Tally.count

    def spy(self, kind, best, wanted, losses, empty):
        count(self, kind, best, wanted, losses, empty)
        if kind == "written":
            told.append(self.answers["written exact"][-1])

    monkeypatch.setattr(Tally, "count", spy)
    asked = probe(learnt)
    asked.figures(learnt)
    for number, window in enumerate(asked.windows):
        passes = Passes(learnt, [window])
        draw = np.random.default_rng([17, number])
        for hole in objective.cut(window, asked.newline, passes.canvas, ASKED, draw):
            text = hole.slots[hole.slots != passes.empty_id].tolist()
            expected.append(float(written(learnt, hole) == text))
    assert told == expected
    assert 2 < sum(told) < len(told)


def test_the_same_model_has_the_same_figures_and_a_trained_one_better_ones(base, learnt, tmp_path):
    fresh = make_trainer(base, make_options(tmp_path)).model
    before, after, again = (probe(m).figures(m) for m in (fresh, learnt, learnt))
    assert after == again
    assert after["written loss"] < before["written loss"]
    assert after["written exact"] > before["written exact"]


def test_holes_too_long_for_a_canvas_are_only_written(learnt):
    figures = probe(learnt, replace(ASKED, longest_canvas=1)).figures(learnt)
    assert set(figures) <= {f"written {name}" for name in ("loss", "right", "end right", "exact")}
    assert "written exact" in figures


@pytest.mark.parametrize(
    ("best", "right", "end", "exact"),
    [
        ([7, 8, EMPTY, EMPTY], 1, 1, 1),
        ([7, 8, EMPTY, 9], 1, 1, 1),  # nobody sees what stands behind the end
        ([7, 9, EMPTY, EMPTY], 0.5, 1, 0),
        ([7, EMPTY, EMPTY, EMPTY], 0.5, 0, 0),
        ([7, 8, 9, 9], 1, 0, 0),
    ],
)
def test_a_canvas_is_exact_up_to_its_end(best, right, end, exact):
    tally = Tally()
    wanted = np.array([7, 8, EMPTY, EMPTY])
    tally.count("all noised", np.array(best), wanted, np.zeros(4, np.float32), EMPTY)
    found = [
        np.mean(tally.answers[f"all noised: {name}"]) for name in ("right", "end right", "exact")
    ]
    assert found == [right, end, exact]

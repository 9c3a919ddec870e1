"""Ablations: one choice changed at a time, the same text to learn from, the same holes to fill."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from bench import ablation
from bench.ablation import RECIPE, VARIANTS, Tally, Variant
from engine.train import objective
from engine.train.shards import Document, Origin
from tests.engine.train.test_trainer import CPU, base

__all__ = ["base"]  # the fixture
EMPTY = 4


@pytest.fixture
def corpus(monkeypatch):
    """Text without end, and the first window of it that is held out."""

    def documents(folder, seed, epoch):
        for number in itertools.count():
            ids = np.random.default_rng(number).integers(8, 290, 700)
            yield Document(Origin("package", f"{number}.py", 1), ids.astype(np.uint16))

    monkeypatch.setattr("engine.train.shards.iterate", documents)
    monkeypatch.setattr(ablation, "HELD_OUT", 40)
    return ablation.Corpus("folder", 0, held_out=2)


def test_every_variant_but_the_first_changes_something():
    usual, *others = VARIANTS.values()
    assert usual == Variant(recipe=RECIPE)
    assert all(other != usual for other in others)
    assert len(set(others)) == len(others)


def test_no_run_learns_from_what_is_held_out(corpus):
    learnt = list(itertools.islice(corpus.training(), ablation.HELD_OUT))
    assert not any(np.array_equal(a, b) for a in learnt for b in corpus.held_out)
    again = itertools.islice(corpus.training(), 3)
    assert all(np.array_equal(a, b) for a, b in zip(again, learnt, strict=False))


def test_all_variants_fill_the_same_holes_with_the_same_noise(base, corpus, monkeypatch):
    laid_out = []
    original = objective.laid_out

    def spy(*given):
        made = original(*given)
        if given[-1] is ablation.ASKED:
            laid_out.append(made.tokens)
        return made

    monkeypatch.setattr(objective, "laid_out", spy)
    aligned = replace(RECIPE, shifted=False, self_conditioning=0.5, random_noise=0.5)
    for variant in (Variant(rank=4), Variant(recipe=aligned, rank=0, seed=1)):
        figures = ablation.measure("", variant, base, corpus, 2, CPU)
        assert figures["steps"] == 2
    first, second = laid_out[:2], laid_out[2:]
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


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


def test_the_command_prints_a_table_and_one_json_line(base, corpus, monkeypatch, capsys):
    monkeypatch.setattr(ablation, "resolve_model", lambda name: base)
    line = ["--corpus", "folder", "--steps", "1", "--held-out", "1", "--only", "as it is"]
    assert ablation.main(line) == 0
    *table, last = capsys.readouterr().out.splitlines()
    assert table[0].startswith("| run | written loss |")
    assert table[2].startswith("| as it is | ")
    assert len({row.count("|") for row in table}) == 1
    assert json.loads(last)["runs"].keys() == {"as it is"}


def test_runs_that_would_reach_the_held_out_text_are_refused(capsys):
    with pytest.raises(SystemExit):
        ablation.main(["--corpus", "folder", "--steps", str(ablation.HELD_OUT + 1)])
    assert "where the held-out text begins" in capsys.readouterr().err

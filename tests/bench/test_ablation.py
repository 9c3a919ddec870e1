"""Ablations: one choice changed at a time, the same text to learn from, the same holes to fill."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from bench import ablation
from bench.ablation import RECIPE, VARIANTS, Variant
from engine.train import objective, shards
from engine.train.shards import Document, Origin
from tests.engine.train.test_trainer import CPU, base

__all__ = ["base"]  # the fixture


@pytest.fixture
def corpus(monkeypatch):
    """Text without end in files of 700 tokens."""

    def documents(folder, seed, epoch):
        for number in itertools.count():
            ids = np.random.default_rng(number).integers(8, 290, 700)
            yield Document(Origin("package", f"{number}.py", 1), ids.astype(np.uint16))

    monkeypatch.setattr("engine.train.shards.iterate", documents)


@pytest.fixture
def text(corpus):
    return ablation.Text(
        windows=shards.windows("folder", RECIPE.window, 0, seed=0),
        held_out=shards.held_out("folder", RECIPE.window, 0, 2),
    )


def test_every_variant_but_the_first_changes_something():
    usual, *others = VARIANTS.values()
    assert usual == Variant(recipe=RECIPE)
    assert all(other != usual for other in others)
    assert len(set(others)) == len(others)


def test_all_variants_fill_the_same_holes_with_the_same_noise(base, text, monkeypatch):
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
        figures = ablation.measure("", variant, base, text, 2, CPU)
        assert figures["steps"] == 2
    first, second = laid_out[:2], laid_out[2:]
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_command_prints_a_table_and_one_json_line(base, corpus, monkeypatch, capsys):
    monkeypatch.setattr(ablation, "resolve_model", lambda name: base)
    line = ["--corpus", "folder", "--steps", "1", "--held-out", "1", "--only", "as it is"]
    assert ablation.main(line) == 0
    *table, last = capsys.readouterr().out.splitlines()
    assert table[0].startswith("| run | written loss |")
    assert table[2].startswith("| as it is | ")
    assert len({row.count("|") for row in table}) == 1
    assert json.loads(last)["runs"].keys() == {"as it is"}

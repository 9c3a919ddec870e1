"""What a training example shows, hides and asks for."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.config import CanvasConfig
from engine.train import objective
from engine.train.objective import NO_TARGET, Recipe
from engine.train.trainer import block_mask

VOCAB, MASK, EMPTY = 90, 88, 89
CANVAS = CanvasConfig(length=64, noise="mask", mask_id=MASK, empty_id=EMPTY, shifted=True)
RECIPE = Recipe(window=64, canvases=5, buckets=(4, 8, 16), suffix=6, min_prefix=4)
NEWLINE = np.arange(VOCAB) % 7 == 0
WINDOW = np.random.default_rng(2).integers(1, 80, RECIPE.window)


def make(seed: int, recipe: Recipe = RECIPE) -> objective.Example:
    return objective.example(WINDOW, NEWLINE, VOCAB, CANVAS, recipe, np.random.default_rng(seed))


def canvases(made: objective.Example):
    """Per canvas: its rows, the place of the token before the hole, and its hole's targets."""
    for segment in range(1, RECIPE.canvases + 1):
        rows = np.flatnonzero(made.segment == segment)
        before = int(made.sees[rows[0]])
        targets = made.targets[rows]
        text = []
        for target in targets:
            if target in (EMPTY, NO_TARGET):
                break
            text.append(int(target))
        yield rows, before, targets, text


@pytest.mark.parametrize("seed", range(30))
def test_targets_put_the_window_together_again(seed):
    made = make(seed)
    for rows, before, targets, _ in canvases(made):
        assert made.tokens[rows[0]] == WINDOW[before]
        written = [int(t) for t in targets if t not in (EMPTY, NO_TARGET)]
        assert written == WINDOW[before + 1 : before + 1 + len(written)].tolist()
        assert made.positions[rows].tolist() == list(range(before, before + len(rows)))


@pytest.mark.parametrize("seed", range(30))
def test_what_is_not_noised_is_shown_and_what_is_noised_is_hidden(seed):
    recipe = replace(RECIPE, random_noise=0.0)
    made = make(seed, recipe)
    for rows, _, targets, _ in canvases(made):
        for place, row in enumerate(rows[:-1]):
            shown = made.tokens[row + 1]
            if made.noised[row]:
                assert shown == MASK
            else:
                assert shown == targets[place]
                assert shown != EMPTY, "an empty slot would tell the length"


def test_a_canvas_sees_the_text_before_it_and_itself_only():
    made = make(3)
    mask = objective.block_mask(made.segment, made.sees, RECIPE.window)
    for rows, before, _, _ in canvases(made):
        expected = set(range(before)) | set(rows.tolist())
        for row in rows:
            assert set(np.flatnonzero(mask[row]).tolist()) == expected
    for row in range(RECIPE.window):
        assert np.flatnonzero(mask[row]).tolist() == list(range(row + 1))


def test_the_mask_on_the_device_is_the_definition():
    made = make(4)
    mask = block_mask(torch.tensor(made.segment)[None], torch.tensor(made.sees)[None])
    expected = objective.block_mask(made.segment, made.sees, RECIPE.window)
    assert np.array_equal(mask[0].numpy(), expected)
    assert expected.any(1).all(), "a row that sees nothing gives NaN"


def test_the_same_draws_give_the_same_example():
    first, second, other = make(5), make(5), make(6)
    assert np.array_equal(first.tokens, second.tokens)
    assert not np.array_equal(first.tokens, other.tokens)


def test_weights_are_one_for_the_text_one_for_the_holes_and_little_for_suffixes():
    made = make(7, replace(RECIPE, no_suffix=1.0))
    assert made.weights[: RECIPE.window].sum() == pytest.approx(1.0, abs=1e-5)
    assert made.weights[RECIPE.window :].sum() == pytest.approx(1.0, abs=1e-5)
    with_suffix = make(7, replace(RECIPE, no_suffix=0.0))
    holes = with_suffix.weights[RECIPE.window :].sum()
    assert 1.0 < holes <= 1.0 + RECIPE.suffix_weight + 1e-5


def test_the_kinds_of_holes_come_in_their_shares():
    lengths = []
    line_ends = 0
    for seed in range(120):
        for _, before, _, text in canvases(make(seed, replace(RECIPE, no_suffix=1.0))):
            lengths.append(len(text))
            following = before + 1 + len(text)
            line_ends += following < len(WINDOW) and bool(NEWLINE[WINDOW[following]])
    empty = np.mean(np.array(lengths) == 0)
    assert 0.08 < empty < 0.35, "empty middles, and cursors that stand at a line's end already"
    assert line_ends / len(lengths) > 0.45
    assert max(lengths) == 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shifted": False}, "shifts the logits"),
        ({"noise": "uniform", "mask_id": None}, "noises with a mask"),
        ({"empty_id": None}, "empty slots"),
    ],
)
def test_canvases_it_does_not_train_are_refused(change, message):
    with pytest.raises(AssertionError, match=message):
        objective.example(
            WINDOW, NEWLINE, VOCAB, replace(CANVAS, **change), RECIPE, np.random.default_rng(0)
        )


@pytest.mark.parametrize("seed", range(60))
def test_only_weighted_rows_have_targets_and_every_weight_is_finite(seed):
    """Also where all of a hole is shown, so that nothing in it is asked."""
    recipe = replace(
        RECIPE, clean_weight=0.0, suffix_weight=0.0, causal_weight=0.0, left_to_right=1.0
    )
    made = make(seed, recipe)
    assert np.isfinite(made.weights).all()
    assert ((made.weights > 0) == (made.targets != NO_TARGET)).all()
    assert (made.targets[made.noised] != NO_TARGET).all()

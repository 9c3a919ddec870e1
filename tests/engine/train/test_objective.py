"""What a training example shows, hides and asks for."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.config import CanvasConfig
from engine.train import objective, passes
from engine.train.objective import CANVAS, NO_TARGET, SUFFIX, WRITTEN, Recipe

VOCAB, MASK, EMPTY = 90, 88, 89
SETUP = CanvasConfig(
    length=64, noise="mask", mask_id=MASK, empty_id=EMPTY, shifted=True, sealed_suffix=True
)
RECIPE = Recipe(
    window=64, holes=5, buckets=(4, 8, 16), longest_canvas=16, suffix=(2, 6), min_prefix=4
)
NEWLINE = np.arange(VOCAB) % 7 == 0
WINDOW = np.random.default_rng(2).integers(1, 80, RECIPE.window)


def make(seed: int, recipe: Recipe = RECIPE, setup: CanvasConfig = SETUP) -> objective.Example:
    return objective.example(WINDOW, NEWLINE, VOCAB, setup, recipe, np.random.default_rng(seed))


def parts(made: objective.Example):
    """Per hole: the rows of each of its parts."""
    for segment in range(1, made.segment.max() + 1):
        rows = np.flatnonzero(made.segment == segment)
        yield {part: rows[made.part[rows] == part] for part in np.unique(made.part[rows])}


def text(targets) -> list[int]:
    return [int(t) for t in targets if t not in (EMPTY, NO_TARGET)]


@pytest.mark.parametrize("seed", range(30))
def test_written_and_suffix_put_the_window_together_again(seed):
    made = make(seed)
    for hole in parts(made):
        written = hole[WRITTEN]
        before = int(made.sees[written[0]])
        middle = text(made.targets[written])
        assert made.tokens[written].tolist() == [WINDOW[before], *middle]
        assert made.positions[written].tolist() == list(range(before, before + len(written)))
        assert middle == WINDOW[before + 1 : before + 1 + len(middle)].tolist()
        end = before + 1 + len(middle)
        suffix = hole.get(SUFFIX, np.zeros(0, int))
        assert made.tokens[suffix].tolist() == WINDOW[end : end + len(suffix)].tolist()
        assert (made.targets[suffix] == NO_TARGET).all()


@pytest.mark.parametrize("seed", range(30))
def test_a_canvas_has_the_same_middle_then_empty_slots_up_to_the_suffix(seed):
    made = make(seed, replace(RECIPE, clean_weight=0.1))
    for hole in parts(made):
        middle = text(made.targets[hole[WRITTEN]])
        for part in (CANVAS, CANVAS + 1):
            rows = hole[part]
            slots = made.targets[rows][:-1]
            assert slots.tolist() == middle + [EMPTY] * (len(slots) - len(middle))
            assert len(slots) in (4, 8, 16, len(middle))
            if SUFFIX in hole:
                assert made.positions[hole[SUFFIX][0]] == made.positions[rows[0]] + 1 + len(slots)


@pytest.mark.parametrize("seed", range(30))
def test_what_is_not_noised_is_shown_and_what_is_noised_is_hidden(seed):
    made = make(seed, replace(RECIPE, random_noise=0.0, clean_weight=0.1))
    for hole in parts(made):
        for part in (CANVAS, CANVAS + 1):
            for row in hole[part][:-1]:
                shown = made.tokens[row + 1]
                if made.noised[row]:
                    assert shown == MASK
                else:
                    assert shown == made.targets[row]
                    assert shown != EMPTY, "an empty slot would tell the length"


@pytest.mark.parametrize("seed", range(10))
def test_aligned_canvases_are_the_shifted_ones_with_each_slot_asked_in_its_own_row(seed):
    recipe = replace(RECIPE, clean_weight=0.1)
    shifted, aligned = make(seed, recipe), make(seed, recipe, replace(SETUP, shifted=False))
    for name in ("tokens", "positions", "segment", "part", "sees"):
        assert np.array_equal(getattr(aligned, name), getattr(shifted, name)), name
    canvas = shifted.part >= CANVAS
    for name in ("targets", "weights", "noised"):
        ours, theirs = getattr(aligned, name), getattr(shifted, name)
        assert np.allclose(ours[~canvas], theirs[~canvas]), f"{name} of what is written"
        for hole in parts(shifted):
            for part in (CANVAS, CANVAS + 1):
                rows = hole[part]
                assert np.allclose(ours[rows[1:]], theirs[rows[:-1]]), name
    first = [hole[part][0] for hole in parts(aligned) for part in (CANVAS, CANVAS + 1)]
    assert (aligned.targets[first] == NO_TARGET).all()
    shown = aligned.tokens[canvas & ~aligned.noised & (aligned.targets != NO_TARGET)]
    assert np.array_equal(
        shown, aligned.targets[canvas & ~aligned.noised & (aligned.targets != NO_TARGET)]
    )


def test_the_end_of_a_hole_is_asked_where_something_says_it():
    with_suffix = make(1, replace(RECIPE, no_suffix=0.0, exact=0.0))
    for hole in parts(with_suffix):
        full = len(text(with_suffix.targets[hole[WRITTEN]])) == len(hole[CANVAS]) - 1
        assert (with_suffix.targets[hole[WRITTEN][-1]] == EMPTY) != full
    for recipe in (replace(RECIPE, no_suffix=1.0), replace(RECIPE, exact=1.0, empty_middle=0.0)):
        without = make(1, recipe)
        for hole in parts(without):
            assert len(hole[WRITTEN]) == 1 or EMPTY not in without.targets[hole[WRITTEN]]


def test_who_sees_whom():
    """Everybody the text before the hole and its suffix; further only their own part."""
    made = make(3)
    mask = objective.may_see(made.segment, made.part, made.sees)
    for hole in parts(made):
        suffix = hole.get(SUFFIX, np.zeros(0, int)).tolist()
        for part, rows in hole.items():
            for number, row in enumerate(rows):
                own = rows if part >= CANVAS else rows[: number + 1]
                known = range(made.sees[row])
                expected = set(known) | set(own.tolist()) | (set(suffix) if part else set())
                assert set(np.flatnonzero(mask[row]).tolist()) == expected
    for row in range(RECIPE.window):
        assert np.flatnonzero(mask[row]).tolist() == list(range(row + 1))


def test_the_mask_on_the_device_is_the_definition():
    made = objective.padded(make(4), 400)
    names = ("segment", "part", "sees")
    mask = passes.may_see(*(torch.tensor(getattr(made, name))[None] for name in names))
    expected = objective.may_see(made.segment, made.part, made.sees)
    assert np.array_equal(mask[0].numpy(), expected)
    assert expected.any(1).all(), "a row that sees nothing gives NaN"
    assert (made.targets[made.segment < 0] == NO_TARGET).all()


def test_the_same_draws_give_the_same_example():
    first, second, other = make(5), make(5), make(6)
    assert np.array_equal(first.tokens, second.tokens)
    assert not np.array_equal(first.tokens, other.tokens)


@pytest.mark.parametrize("seed", range(10))
def test_the_window_and_all_holes_together_weigh_what_the_recipe_says(seed):
    made = make(seed, replace(RECIPE, causal_weight=1.5, hole_weight=2.5))
    assert made.weights[: RECIPE.window].sum() == pytest.approx(1.5, abs=1e-5)
    assert made.weights[RECIPE.window :].sum() == pytest.approx(2.5, abs=1e-5)
    written = made.weights[(made.part == WRITTEN) & (made.weights > 0)]
    assert np.allclose(written, written[0]), "one token is worth another's"


def test_a_hole_beyond_the_longest_canvas_is_only_written():
    made = make(2, replace(RECIPE, longest_canvas=1, exact=0.0))
    assert made.part.max() == WRITTEN


def test_the_kinds_of_holes_come_in_their_shares():
    lengths = []
    line_ends = 0
    for seed in range(120):
        for hole in parts(make(seed, replace(RECIPE, no_suffix=0.0))):
            made = make(seed, replace(RECIPE, no_suffix=0.0))
            rows = hole[WRITTEN]
            lengths.append(len(text(made.targets[rows])))
            following = int(made.sees[rows[0]]) + 1 + lengths[-1]
            line_ends += following < len(WINDOW) and bool(NEWLINE[WINDOW[following]])
    empty = np.mean(np.array(lengths) == 0)
    assert 0.04 < empty < 0.3, "empty middles, and cursors that stand at a line's end already"
    assert line_ends / len(lengths) > 0.5
    assert max(lengths) == 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sealed_suffix": False}, "seals suffixes"),
        ({"noise": "uniform", "mask_id": None}, "noises with a mask"),
        ({"empty_id": None}, "empty slots"),
    ],
)
def test_canvases_it_does_not_train_are_refused(change, message):
    with pytest.raises(AssertionError, match=message):
        objective.example(
            WINDOW, NEWLINE, VOCAB, replace(SETUP, **change), RECIPE, np.random.default_rng(0)
        )


@pytest.mark.parametrize("seed", range(60))
def test_only_weighted_rows_have_targets_and_every_weight_is_finite(seed):
    """Also where all of a hole is shown, so that nothing in it is asked."""
    made = make(seed, replace(RECIPE, causal_weight=0.0, left_to_right=1.0))
    assert np.isfinite(made.weights).all()
    assert ((made.weights > 0) == (made.targets != NO_TARGET)).all()
    assert (made.targets[made.noised] != NO_TARGET).all()

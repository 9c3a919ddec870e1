"""Which lengths are tried: pure decisions on figures."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import lengths
from engine.config import InfillConfig
from engine.errors import ConfigError
from engine.lengths import Tried

CONFIG = InfillConfig()
BOUNDS = range(65)


@given(st.floats(-3, 3), st.floats(-2, 2), st.sets(st.integers(1, 64), min_size=2))
def test_the_trend_over_lengths_is_found(start, slope, tried):
    certainty = {length: start + slope * math.log(length) for length in tried}
    assert lengths.trend(certainty) == pytest.approx((start, slope), abs=1e-6)


@pytest.mark.parametrize("certainty", [{}, {0: -1.0}, {8: -1.0}, {0: -1.0, 8: -1.0}])
def test_without_two_lengths_there_is_no_slope(certainty):
    assert lengths.trend(certainty)[1] == 0.0


def test_a_score_is_what_stands_out_of_the_trend():
    """Entropy grows with length; the one that is surer than that wins though it is not the surest."""
    tried = {n: Tried(entropy=0.3 * math.log(n)) for n in (1, 2, 4, 8, 16, 32)}
    tried[16] = Tried(entropy=0.3 * math.log(16) - 0.2)
    assert tried[16].entropy > tried[1].entropy
    scored = lengths.scores(tried, junction_weight=1.0)
    assert max(scored, key=scored.__getitem__) == 16


@pytest.mark.parametrize(("weight", "best"), [(0.0, 4), (0.05, 4), (1.0, 8)])
def test_the_junction_counts_with_its_weight(weight, best):
    tried = {4: Tried(0.1, -3.0), 8: Tried(0.4, -0.2), 16: Tried(0.6, -3.0), 2: Tried(0.6, -3.0)}
    scored = lengths.scores(tried, weight)
    assert max(scored, key=scored.__getitem__) == best


def test_an_empty_hole_stands_on_the_trend_and_is_told_by_its_junction():
    tried = {n: Tried(0.2 * math.log(n), -2.0) for n in (1, 2, 4, 8)} | {0: Tried(0.0, -1.0)}
    scored = lengths.scores(tried, 1.0)
    assert scored[0] == pytest.approx(scored[1] + 1.0)


@pytest.mark.parametrize(
    ("scored", "chosen"),
    [
        ({1: -3.0, 4: -1.0, 8: -0.1, 16: -2.0, 32: -4.0}, (8, 4, 16, 7, 9, 6, 10)),
        ({0: 0.0, 1: -1.0, 2: -2.0, 4: -3.0}, (0, 1, 2)),
        ({32: -1.0, 64: 0.0}, (64, 32, 63, 62)),
        ({8: 0.0}, (8, 7, 9, 6, 10)),
    ],
)
def test_the_best_and_the_neighbours_of_the_first_are_denoised(scored, chosen):
    assert lengths.chosen(scored, CONFIG, BOUNDS) == chosen


@given(st.lists(st.integers(0, 64)), st.integers(1, 256))
def test_batches_keep_the_order_and_hold_no_more_slots_than_there_is_memory_for(tried, slots):
    batches = lengths.batches(tried, slots)
    assert [length for batch in batches for length in batch] == tried
    assert all(batch for batch in batches)
    assert all(sum(batch) <= slots or len(batch) == 1 for batch in batches)
    pairs = itertools.pairwise(batches)
    assert all(sum(batch) + later[0] > slots for batch, later in pairs), "some were not filled"


@pytest.mark.parametrize(
    ("ids", "suffix", "shared"),
    [
        ([1, 2, 3], [2, 3, 4], 2),
        ([1, 2], [1, 2, 3], 2),
        ([5, 5, 5], [5, 5], 2),
        ([1], [2], 0),
        ([], [1], 0),
    ],
)
def test_what_an_end_and_a_beginning_share(ids, suffix, shared):
    assert lengths.overlap(ids, suffix) == shared


@pytest.mark.parametrize(
    ("ids", "kept"), [([7, 1, 2, 3], 1), ([1, 2, 3, 1, 2, 3], 0), ([7, 1, 2], 3), ([], 0)]
)
def test_a_repeated_head_of_the_suffix_is_cut_as_often_as_it_stands_there(ids, kept):
    assert lengths.trimmed(ids, [1, 2, 3, 4], CONFIG) == kept


SUFFIX = (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("ids", "junction", "repair", "wanted"),
    [
        ((7, 8, 1, 2, 3), -0.1, 0, 2),  # repeats the suffix, surprising or not
        ((7, 8, 1), -0.1, 0, None),  # one token may well be the same
        ((7, 8, 1), -9.0, 0, 2),  # not where the suffix surprises
        ((7, 8), -9.0, 0, 6),
        ((7, 8), -9.0, 2, 18),
        ((7, 8), -0.1, 0, None),
        ((7, 8), None, 0, None),
        ((7,) * 63, -9.0, 1, 64),  # no longer than there is room
        ((7,) * 64, -9.0, 1, None),
    ],
)
def test_an_answer_asks_for_another_length(ids, junction, repair, wanted):
    found = lengths.repaired(ids, SUFFIX, junction, {len(ids)}, BOUNDS, CONFIG, repair)
    assert found == wanted


def test_what_was_tried_is_not_tried_again():
    assert lengths.repaired((7, 8), SUFFIX, -9.0, {2, 6}, BOUNDS, CONFIG, 0) is None


@pytest.mark.parametrize("switch", ["overlap", "lengthen"])
def test_each_repair_can_be_switched_off(switch):
    config = InfillConfig(**{switch: 0})
    both = [
        lengths.repaired(ids, SUFFIX, -9.0, set(), BOUNDS, config, 0)
        for ids in ((7, 1, 2, 3), (7, 8))
    ]
    assert both == ([8, 6] if switch == "overlap" else [1, None])
    assert lengths.trimmed((7, 1, 2, 3), SUFFIX, config) == (4 if switch == "overlap" else 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lengths": ()}, "lengths must be some numbers from 0 on"),
        ({"lengths": (-1, 4)}, "lengths must be some numbers from 0 on"),
        ({"neighbours": (0,)}, "neighbours from 1 on"),
        ({"kept": 0}, "kept must be a number above 0"),
        ({"judged": -1}, "judged cannot be negative, got -1"),
        ({"drop_behind": 0}, "drop_behind must be above 0 or None, got 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        InfillConfig(**changes)

"""The place where a suffix fits best, against a loop that tries all of them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.alignment import alignment, meeting

VOCAB = 12


def sure_of(ids: list[int], nats: float = 8.0) -> torch.Tensor:
    """Logits of a model that means to write `ids`."""
    return nats * torch.eye(VOCAB)[ids]


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_each_length_scores_what_a_loop_over_the_suffix_gives(slots, count, seed):
    count = min(count, slots)
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(slots, VOCAB, generator=generator)
    suffix = torch.randint(VOCAB, (count,), generator=generator).tolist()
    beliefs = logits.log_softmax(-1)
    scores = alignment(logits, suffix)
    assert len(scores) == slots - count + 1
    for length, score in enumerate(scores):
        by_hand = sum(beliefs[length + j, token] for j, token in enumerate(suffix)) / count
        assert score == pytest.approx(float(by_hand), abs=1e-5)


@given(
    st.lists(st.integers(0, 3), max_size=20), st.lists(st.integers(4, 8), min_size=3, max_size=8)
)
def test_the_suffix_is_found_behind_a_hole_of_any_length(hole, suffix):
    canvas = [*hole, *suffix, 9, 9]
    assert meeting(alignment(sure_of(canvas), suffix), least=-1.0) == len(hole)


def test_of_a_suffix_that_stands_there_twice_the_first_place_counts():
    suffix = [4, 5, 6]
    canvas = [1, *suffix, 2, *suffix, 9]
    assert meeting(alignment(sure_of(canvas), suffix), least=-1.0) == 1


def test_one_wrong_token_in_the_suffix_does_not_hide_it():
    canvas = [1, 2, 3, 4, 5, 0, 7, 8, 9]
    scores = alignment(sure_of(canvas), [4, 5, 6, 7, 8])
    assert meeting(scores, least=-2.0) == 3
    assert meeting(scores, least=-1.0) is None


def test_a_canvas_without_the_suffix_meets_it_nowhere():
    assert meeting(alignment(sure_of([1, 2, 3, 1, 2, 3]), [4, 5]), least=-2.0) is None


def test_a_suffix_longer_than_the_canvas_is_refused():
    with pytest.raises(AssertionError, match="a suffix of 3 tokens cannot stand in 2 slots"):
        alignment(torch.zeros(2, VOCAB), [1, 2, 3])

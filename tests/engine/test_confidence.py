"""How likely a text is right, by the log-probabilities of its tokens."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import confidence
from engine.confidence import CALIBRATION, Calibration
from engine.infill import Filled
from engine.request import Evidence, StopReason

nats = st.floats(-20, 0)


def written(*logs: float, end: float | None = None) -> Filled:
    ids = tuple(range(len(logs)))
    return Filled(
        ids=ids, stop=StopReason.LINE, forwards=1, log_probabilities=logs, end=end, junction=-4.0
    )


def test_evidence_is_of_the_texts_own_tokens_and_of_what_ended_it():
    whole = written(-0.5, -2.0, -0.25, -3.0, end=-9.0)
    expected = Evidence(tokens=4, surprise=5.75, worst=-3.0, end=-9.0, junction=-4.0)
    assert confidence.evidence(whole) == expected
    beginning = confidence.evidence(whole.first(3))
    assert beginning == Evidence(tokens=3, surprise=2.75, worst=-2.0, end=-3.0, junction=-4.0)
    assert beginning.probability == pytest.approx(math.exp(-2.75 / 3))
    assert confidence.evidence(written(-1.0)).end is None


def test_of_an_empty_text_there_is_nothing_to_be_surprised_by():
    assert confidence.evidence(written(end=-1.0)) == Evidence(end=-1.0, junction=-4.0)
    assert Evidence().probability == 1.0


def test_the_curve_is_the_logistic_of_the_root_of_the_surprise():
    curve = Calibration(bias=1.0, slope=2.0)
    for surprise in (0.0, 0.25, 4.0):
        logit = 1.0 - 2.0 * surprise**0.5
        expected = math.exp(logit) / (1 + math.exp(logit))
        assert curve.of(Evidence(surprise=surprise)) == pytest.approx(expected)


@given(st.lists(nats, min_size=1), st.integers(0, 30))
def test_a_beginning_is_at_least_as_likely_right_as_the_whole(logs, count):
    whole = written(*logs)
    part, whole = (confidence.evidence(each) for each in (whole.first(count), whole))
    assert CALIBRATION.of(part) >= CALIBRATION.of(whole) - 1e-9
    assert 0 <= CALIBRATION.of(whole) <= 1

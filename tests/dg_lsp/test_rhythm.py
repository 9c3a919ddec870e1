import pytest

from dg_lsp.rhythm import RATE, Rhythm


def typist(gap, keys=50, latency=0.0):
    rhythm = Rhythm()
    for number in range(keys):
        rhythm.key(number * gap)
    if latency:
        rhythm.answered(latency)
    return rhythm, (keys - 1) * gap


def test_the_wait_is_the_gap_times_the_rate_less_what_the_engine_takes():
    rhythm, now = typist(gap=0.2, latency=0.1)
    assert rhythm.wait(now) == pytest.approx(0.2 * RATE - 0.1)


def test_what_the_client_has_waited_counts():
    rhythm, now = typist(gap=0.2)
    assert rhythm.wait(now + 0.1) == pytest.approx(0.2 * RATE - 0.1)


def test_the_wait_is_never_negative():
    rhythm, now = typist(gap=0.2, latency=5)
    assert rhythm.wait(now) == 0
    assert rhythm.wait(now + 60) == 0


def test_nothing_is_known_at_first():
    rhythm = Rhythm()
    assert rhythm.wait(0) == 0
    rhythm.key(0)
    assert rhythm.wait(0) == 0


def test_a_pause_is_no_typing():
    rhythm, now = typist(gap=0.2)
    rhythm.key(now + 30)
    assert rhythm.gap == pytest.approx(0.2)


def test_the_newest_counts_most():
    rhythm, now = typist(gap=0.1)
    for number in range(1, 30):
        rhythm.key(now + number * 0.3)
    assert rhythm.gap == pytest.approx(0.3, abs=0.01)

"""The replays of recorded typing, in simulated time: what they show does not depend on a machine."""

import pytest

from bench.replay import TARGETS_MS, replay_scripted
from bench.screen import together
from bench.scripted import LIKE_DG_MINI, Manner
from bench.typist import RECORDINGS, Recording, record

PATHS = sorted(RECORDINGS.glob("*.json"))
SOURCE = 'def f(a):\n    if a:\n        return g(a, ["b"])\n\n    return {"c": [1, 2]}\n\n\nx = f(\'d\')\n'


def recordings():
    return [Recording.load(path) for path in PATHS]


@pytest.fixture(scope="module")
def replayed():
    return {r.name: replay_scripted(r, Manner(), clock=lambda: 0.0) for r in recordings()}


def quantile(times, q):
    return sorted(times)[int(q * len(times))]


@pytest.mark.parametrize("seed", range(20))
def test_a_typist_types_the_source_with_errors_and_pauses(seed):
    recording = record("x", "python", SOURCE, 2, 8, seed)
    *_, final = recording.texts()
    assert final == SOURCE and recording.start == "def f(a):\n\n"
    assert all(key.gap_ms >= 0 for key in recording.keys)


def test_a_typist_errs_corrects_looks_elsewhere_and_has_brackets_closed():
    keys = [key for r in recordings() for key in r.keys]
    assert any(key.deleted and not key.inserted for key in keys)
    assert any(not key.deleted and not key.inserted for key in keys)
    assert any(key.cursor < key.at + len(key.inserted) for key in keys)
    assert max(key.gap_ms for key in keys) > 1000


def test_a_range_outside_of_the_source_is_refused():
    with pytest.raises(ValueError, match="lines must be within 1 to 9, got 3 to 99"):
        record("x", "python", SOURCE, 3, 99, 0)


def test_a_recording_is_read_as_it_was_written(tmp_path):
    recording = record("x", "python", SOURCE, 2, 8, 0)
    (tmp_path / "x.json").write_text(recording.dump())
    assert Recording.load(tmp_path / "x.json") == recording


def test_the_same_replay_has_the_same_figures(replayed):
    first = recordings()[0]
    again = replay_scripted(first, Manner(), clock=lambda: 0.0)
    assert again.summary() == replayed[first.name].summary()


def test_what_is_shown_never_changes_while_it_is_typed(replayed):
    assert [figures.flickers for figures in replayed.values()] == [0] * len(PATHS)


def test_the_targets_are_reached(replayed):
    times = together(list(replayed.values())).times
    for path, (half, most) in TARGETS_MS.items():
        assert len(times[path]) >= 10, path
        assert half is None or quantile(times[path], 0.5) < half, path
        assert most is None or quantile(times[path], 0.95) < most, path


def test_most_of_what_is_shown_is_known_before_the_engine_is_asked(replayed):
    figures = together(list(replayed.values())).summary()
    assert figures["known_share_of_shown"] > 0.8
    assert figures["known_share_of_keys"] > 0.6
    assert figures["accepted"] > 30


def test_asking_ahead_is_what_makes_the_next_one_quick():
    alone = [replay_scripted(r, Manner(), lambda: 0.0, ahead=False) for r in recordings()]
    assert quantile(together(alone).times["after tab"], 0.5) > TARGETS_MS["after tab"][0]


def test_of_an_engine_that_is_slow_and_mostly_wrong_one_sees_much_and_mostly_what_is_right():
    figures = replay_scripted(recordings()[0], LIKE_DG_MINI, clock=lambda: 0.0)
    assert figures.looked_at > 0.5 * figures.keys
    assert figures.as_shown > 0.8 * figures.looked_at


def test_every_request_is_answered(replayed):
    for figures in replayed.values():
        answered = sum(figures.replies.values())
        assert answered <= figures.asked
        cancelled = figures.asked - answered
        assert cancelled < figures.asked / 2, "those that the typist took back"

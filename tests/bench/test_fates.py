"""What is said of the requests of a replay."""

import pytest

from bench.fates import Fate, fate, fates, is_as_typed
from bench.scripted import Work
from engine.request import InfillRequest
from tests.answers import answer

FINAL = "x = f(abc)\ny = g(x)\n"


def work(prefix="x = ", said=None, draft="", **fields):
    asked = InfillRequest(prefix=prefix, suffix="\n", language="python", **fields)
    return Work(asked, seconds=0.5, draft=draft, result=None if said is None else answer(said))


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (work(prepare=True), "prepared"),
        (work(), "cancelled before a word"),
        (work(draft="f("), "cancelled while it wrote"),
        (work(said=""), "finished: nothing the filters left"),
        (work(said="f"), "finished: unlikely or short"),
        (work(said="f(abc)"), "finished: not shown"),
    ],
)
def test_a_request_is_named_by_how_far_it_came(asked, name):
    assert fate(asked, least=0.05) == name


def test_what_was_shown_was_not_in_vain():
    shown = work(said="f(abc)")
    shown.shown = True
    assert fate(shown, least=0.05) == "shown"


@pytest.mark.parametrize(
    ("asked", "right"),
    [
        (work(draft="f(ab"), True),
        (work(said="f(abd)"), True),
        (work(said="g(abc)"), False),
        (work(), False),
        (work(prefix="z = ", said="f(abc)"), False),
    ],
)
def test_four_characters_say_whether_it_wrote_what_was_typed(asked, right):
    assert is_as_typed(asked, FINAL) == right


def test_those_of_one_fate_are_counted_together():
    found = fates([work(draft="f("), work(draft="g("), work()], FINAL, least=0.05)
    assert found == {
        "cancelled before a word": Fate([0.5], 0),
        "cancelled while it wrote": Fate([0.5, 0.5], 1),
    }
    both = found["cancelled before a word"] + found["cancelled while it wrote"]
    assert both.row() == {"requests": 3, "s": 1.5, "median_ms": 500, "right": 1}

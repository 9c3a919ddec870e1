"""What is known of earlier answers when somebody types on, goes back, or types something else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.answers import Answers, Earlier

ABOVE = "def area(width, height):\n    "  # stands above the cursor's line


def known(*answers: tuple[str, str]) -> Answers:
    kept = Answers()
    for prefix, text in answers:
        kept.remember(prefix, text)
    return kept


@pytest.mark.parametrize(
    ("then", "now", "rest"),
    [
        ("ret║urn width * height", "return wi║", "dth * height"),  # typed as written
        ("ret║urn width * height", "ret║", "urn width * height"),  # an edit elsewhere
        ("ret║urn width * height", "r║", "eturn width * height"),  # taken back
        ("ret║urn width", "return width║", ""),  # all of it typed
        ("ret║urn width", "raise║", ""),
        ("ret║", "ret║", ""),
    ],
)
def test_the_rest_of_an_earlier_answer(then, now, rest):
    prefix, answer = then.split("║")
    found = known((ABOVE + prefix, answer)).find(ABOVE + now.split("║")[0])
    assert (found.rest if found else "") == rest


def test_text_typed_over_an_answer_leaves_what_stands_behind_it():
    found = known((ABOVE + "return ", "width * height")).find(ABOVE + "return depth")
    assert found == Earlier("width * height", "depth")
    assert (found.rest, found.left) == ("", " * height")


def test_the_newest_answer_counts_and_an_older_one_completes_it():
    cut_off = known((ABOVE, "return width * height"), (ABOVE + "ret", "urn wid"))
    assert cut_off.find(ABOVE + "retu").rest == "rn width * height"
    other = known((ABOVE, "return width * height"), (ABOVE + "ret", "urn 0"))
    assert other.find(ABOVE + "retu").rest == "rn 0"


def test_an_answer_as_it_grows_is_one_and_is_not_lost_when_it_is_begun_again():
    kept = Answers(most=2)
    kept.remember("x = ", "a")
    for text in ("f", "f(", "f(1)", "f("):
        kept.remember("y = ", text)
    assert kept.find("y = ").rest == "f(1)"
    assert kept.find("x = ").rest == "a"


def test_only_the_last_few_are_kept():
    kept = Answers(most=3)
    for number in range(9):
        kept.remember(f"v{number} = ", f"w{number}")
    assert [bool(kept.find(f"v{number} = ")) for number in range(9)] == [False] * 6 + [True] * 3


def test_another_place_is_not_taken_for_it():
    above = "x" * 200
    kept = known((above + "a = ", "1"), ("a = ", "2"))
    assert kept.find(above + "bc = ") is None
    assert kept.find("b\na = ") is None
    assert kept.find("") is None


@given(st.text("ab\n", max_size=200), st.text("ab\n", min_size=1, max_size=30), st.data())
def test_typing_an_answer_letter_by_letter_always_leaves_the_rest(prefix, answer, data):
    typed = data.draw(st.integers(0, len(answer) - 1))
    found = known((prefix, answer)).find(prefix + answer[:typed])
    assert found
    assert found.rest
    assert answer.endswith(found.rest)

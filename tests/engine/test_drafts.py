"""Copied drafts: the longest match against brute force, how many tokens are worth a forward."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.drafts import MOST_TOKENS, Copy, Drafter, Pace, bridge, find, rivals, worthwhile
from engine.request import StopReason
from engine.tokenizer import Tokenizer
from tests.engine import tiny

FEW_LETTERS = st.text("ab\n", max_size=40)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    directory = tmp_path_factory.mktemp("tokenizer")
    tiny.write_tokenizer(directory)
    return Tokenizer.from_directory(directory)


def brute_force(before: str, elsewhere: list[str]) -> Copy | None:
    """All that anything follows; the first text wins a tie, in it the one farthest right."""
    best = None
    for text in (before, *elsewhere):
        for end in range(len(text) - 1, 0, -1):
            length = 0
            while length < min(len(before), end) and before[-1 - length] == text[end - 1 - length]:
                length += 1
            if length >= 2 and (best is None or length > best.matched):
                best = Copy(text=text[end:], matched=length)
    return best


@given(FEW_LETTERS, st.lists(FEW_LETTERS, max_size=3))
@example("abab", ["ab", "xabab!"])
def test_the_longest_match_is_found_the_nearest_first(before, elsewhere):
    assert find(before, elsewhere) == brute_force(before, elsewhere)


@pytest.mark.parametrize(
    ("drawn", "copied"),
    [
        ("for key in keys:\n    use(key)\nfor key in ║", "keys:\n    use(key)\nfor key in "),
        ("total = 1\nprint(║)\nprint(total)\n", "total)\n"),
        ("alpha║\nbeta", None),
        ("║", None),
    ],
)
def test_what_stood_behind_the_match_is_copied(drawn, copied):
    before, after = drawn.split("║")
    found = find(before, [after])
    assert (found and found.text) == copied


def test_a_longer_match_is_trusted_more():
    trust = [Copy(text="x", matched=n).probability for n in (2, 8, 32, 128)]
    assert trust == sorted(trust)
    assert 0 < trust[0] < 0.2 < 0.7 < trust[-1] < 1


@given(
    st.floats(0, 0.99),
    st.integers(0, MOST_TOKENS),
    st.lists(st.floats(1, 20), min_size=MOST_TOKENS, max_size=MOST_TOKENS),
)
def test_the_expected_time_of_a_token_is_the_least_and_never_above_a_plain_forwards(
    probability, most, costs
):
    def pace(count: int) -> float:
        written = sum(probability**i for i in range(count + 1))
        return 1 if count == 0 else costs[count - 1] / written

    chosen = worthwhile(probability, most, lambda rows: costs[rows - 2])
    assert pace(chosen) == pytest.approx(min(pace(count) for count in range(most + 1)))


def test_drafts_are_shorter_where_rows_cost_and_none_where_each_costs_a_forward():
    lengths = [worthwhile(0.8, 15, lambda rows, c=c: 1 + c * (rows - 1)) for c in (0, 0.1, 0.3, 1)]
    assert lengths[0] == 15
    assert lengths == sorted(lengths, reverse=True)
    assert 0 < lengths[2] < lengths[1] < 15
    assert lengths[3] == 0


def test_the_pace_follows_what_was_measured_and_forgives_a_stall():
    pace = Pace(several_rows=2.3)
    assert (pace.cost(1), pace.cost(2), pace.cost(16)) == (1.0, 2.3, 2.3)
    for _ in range(60):
        pace.saw(1, 0.05)
        pace.saw(6, 0.07)
    assert pace.cost(1) == 1.0
    assert pace.cost(5) == pace.cost(8) == pytest.approx(1.4, rel=0.06)
    assert pace.cost(9) == 2.3, "nothing was seen of forwards this long"
    pace.saw(6, 7.0)
    assert pace.cost(6) < 1.6


def drafter(
    tokenizer, before, healed="", after="", stop_at=lambda ids: None, end=None, rows=1.1
) -> Drafter:
    pace = Pace(several_rows=rows)
    return Drafter(before, healed, after, [], tokenizer, stop_at, pace, single_line=False, end=end)


def test_a_draft_goes_on_as_the_text_that_matches(tokenizer):
    drafts = drafter(tokenizer, "first(alpha, beta)\nfirst(")
    proposed = drafts.propose([], 64)
    assert tokenizer.decode(proposed) == "alpha, beta)\nfi"
    assert len(proposed) == MOST_TOKENS
    written = tokenizer.encode("alpha, ")
    assert tokenizer.decode(drafts.propose(written, 6)) == "beta)\n"
    assert drafts.propose(written, 0) == []


def test_a_draft_spells_what_has_to_be_healed(tokenizer):
    drafts = drafter(tokenizer, "x\n return 1\ny\n", healed=" re")
    proposed = drafts.propose([], 64)
    assert tokenizer.decode(proposed).startswith(" return 1\n")
    assert proposed[0] == tokenizer.encode(" ret")[0], "not cut where the cursor stands"
    part = tokenizer.encode(" r")
    assert tokenizer.decode(drafts.propose(part, 64)).startswith("eturn 1\n")


def test_nothing_is_drafted_beyond_the_end_of_the_answer(tokenizer):
    def one_line(ids):
        return StopReason.LINE if "\n" in tokenizer.decode(ids) else None

    drafts = drafter(tokenizer, "call(a)\nb\ncall(", stop_at=one_line)
    assert tokenizer.decode(drafts.propose([], 64)) == "a)"
    assert drafts.propose(tokenizer.encode("a)"), 64) == []


def test_without_a_match_worth_its_time_nothing_is_drafted(tokenizer):
    assert drafter(tokenizer, "abc").propose([], 64) == []
    assert drafter(tokenizer, "ab, ab", rows=2.3).propose([], 64) == []


@pytest.mark.parametrize(
    ("drawn", "copied"),
    [
        (
            "def f():\n    a = g()\n    return a\n\ndef h():\n    a = g()║\n\ndef k",
            "\n    return a",
        ),
        ("print(key, end)\nprint(║, end)\n", "key"),
        ("print(║, end)\nprint(key, end)\n", "key"),
        ("call(a, b)\ncall(a║, b)\n", None),  # nothing stands between the two sides there
        ("total = 1\nprint(║)\nuse(total)\n", None),  # of the two sides one occurs
        ("one(\n  key,\n)\none(║\n)\n", "\n  key,"),
        ("if key:\n    go()\nif ║", None),
        ("║\nkey", None),
    ],
)
def test_what_stands_between_the_same_two_sides_is_a_bridge(drawn, copied):
    before, after = drawn.split("║")
    found = bridge(before, after, [after], single_line=False)
    assert (found and found.text) == copied


def test_of_a_single_line_no_bridge_has_two():
    before, after = "one(\n  key,\n)\none(", "\n)\n"
    assert bridge(before, after, [], single_line=False)
    assert bridge(before, after, [], single_line=True) is None


BLOCK = "def area_of_rectangle(width, height):\n    total = width * height\n    return total\n\n\n"


def test_a_bridge_and_a_copy_up_to_its_end_are_rivals_where_much_around_them_is_the_same():
    before, after = BLOCK + "def area_of_rectangle(width, height):\n    ", "\n    return total\n"
    assert rivals(before, after, [after], single_line=True) == ("total = width * height",)
    assert rivals("def a(b):\n    ", after, [after], single_line=True) == ()
    # What stands there goes on with another line than the text behind the hole.
    found = rivals(before, "\n    yield None\n", [], single_line=True)
    assert found == ("total = width * height",)
    assert rivals(before, "\n    yield None\n", [], single_line=False) == (), "of no known end"


@given(st.text("abc \n", max_size=30), st.text("abc", min_size=1, max_size=9), st.data())
def test_a_bridge_has_no_less_in_common_than_any_that_was_put_there(noise, middle, data):
    before = noise + data.draw(st.text("xyz(", min_size=5, max_size=12))
    after = data.draw(st.text("uvw)", min_size=5, max_size=12))
    shared = data.draw(st.integers(4, len(before)))
    other = noise + "|" + before[-shared:] + middle + after + "|"
    found = bridge(before, after, [other], single_line=False)
    assert found
    assert found.matched >= shared + len(after)
    assert (before[-4:] + found.text + after) in other


def test_a_copy_is_favoured_the_more_the_longer_the_match():
    bonuses = [Copy(text="x", matched=n).bonus for n in (3, 4, 12, 40, 80, 400)]
    assert bonuses[0] == 0.0
    assert bonuses[1] == bonuses[2] == 1.0
    assert bonuses == sorted(bonuses)
    assert bonuses[-1] == 6.0


def test_the_token_a_copy_goes_on_with_is_favoured(tokenizer):
    drafts = drafter(tokenizer, "first(alpha, beta)\nfirst(")
    favoured = drafts.favoured([])
    assert favoured == (tokenizer.encode("alpha, beta)\nfirst(")[0], 1.0)
    assert drafts.favoured(tokenizer.encode("gamma[")) is None, "that stands nowhere else"
    assert drafter(tokenizer, "ab, ab").favoured([]) is None, "two characters say nothing"


def test_nothing_is_favoured_while_text_has_to_be_healed(tokenizer):
    drafts = drafter(tokenizer, "x\n return 1\ny\n", healed=" return")
    assert drafts.favoured(tokenizer.encode(" ret")) is None
    favoured = drafts.favoured(tokenizer.encode(" return"))
    assert favoured and favoured[0] == tokenizer.encode(" 1\n")[0]


def test_where_a_bridge_ends_the_end_of_the_hole_is_favoured(tokenizer):
    before, after = "print(key, end)\nprint(", ", end)\n"
    drafts = drafter(tokenizer, before, after=after, end=7)
    favoured = drafts.favoured([])
    assert favoured and favoured[0] == tokenizer.encode("key")[0]
    assert drafts.favoured(tokenizer.encode("key")) == (7, pytest.approx(1 + 1 / 3, abs=0.4))
    assert tokenizer.decode(drafts.propose([], 64)) == "key"
    no_end = drafter(tokenizer, before, after=after)
    assert no_end.favoured(tokenizer.encode("key")) is None
    other = drafts.favoured(tokenizer.encode("value"))
    assert other is None or other[0] != 7, "the bridge was left"

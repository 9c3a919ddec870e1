"""Documents are drawn with their cursor (║)."""

import pytest

from dg_lsp.document import Position, Snapshot
from dg_lsp.triggers import MAX_CHARS, Ask, exclusion, refusal


def at(drawn):
    left, _, right = drawn.partition("║")
    return Snapshot(text=left + right, offset=len(left))


CLOSERS = ["", ")", "]", "}", ">", '"', "'", "`", ")]}", " )", ")  ", "):", ") {", ");", "),", ":", ";  ", " '] ,"]  # fmt: skip


@pytest.mark.parametrize("right", CLOSERS)
def test_the_engine_is_asked_before_closers(right):
    assert refusal(at(f"x = f(║{right}\nnext"), typing=True) == ""


@pytest.mark.parametrize("right", ["a", " a", ") + 1", "()", "= 1", "):a", ";;", "# comment"])
def test_the_engine_is_not_asked_before_code(right):
    assert refusal(at(f"x = f(║{right}\n"), typing=True) == "code follows on the line"


@pytest.mark.parametrize("drawn", ["  ║\n", "\t║", "a\n \t ║\nb", "def f():\n║\n", "{\r\n║"])
def test_tab_must_indent_where_there_are_only_blanks(drawn):
    assert refusal(at(drawn), typing=True) == "the line is to be indented first"


@pytest.mark.parametrize("drawn", ["║", "a = 1\n║", "a\n\n║\nb", "  a ║"])
def test_where_no_indentation_is_due_the_engine_is_asked(drawn):
    assert refusal(at(drawn), typing=True) == ""


@pytest.mark.parametrize("drawn", ["name║\n", "x = na║)\n", "é║", "a_║", "a1║"])
def test_at_a_word_the_engine_is_asked_only_while_it_is_typed(drawn):
    assert refusal(at(drawn), typing=True) == ""
    assert refusal(at(drawn), typing=False) == "the cursor is at a word that is not being typed"


@pytest.mark.parametrize("drawn", ["x = ║\n", "f(║)", "name.║", "# a comment, ║"])
def test_elsewhere_it_is_asked_even_if_one_only_came_by(drawn):
    assert refusal(at(drawn), typing=False) == ""


def excluded(size=1, **fields):
    ask = Ask(uri="a", position=Position(0, 0), **fields)
    return exclusion(ask, size)


REASONS = {
    "the file is larger than 1,000,000 characters": {"size": MAX_CHARS + 1},
    "the file is read-only": {"read_only": True},
}


@pytest.mark.parametrize(("reason", "fields"), list(REASONS.items()))
def test_where_nothing_is_shown_unasked(reason, fields):
    assert excluded(**fields) == reason


@pytest.mark.parametrize("fields", REASONS.values())
def test_a_request_by_command_is_always_answered(fields):
    assert excluded(**fields, automatic=False) == ""


def test_a_file_of_a_million_characters_is_not_too_large():
    assert excluded(size=MAX_CHARS) == ""


def test_in_a_line_that_nobody_types_the_engine_is_not_asked():
    assert refusal(at("x" * 10_000 + "║"), typing=True) == ""
    reason = "the line is longer than 10,000 characters"
    assert refusal(at("x" * 10_001 + "║"), typing=True) == reason

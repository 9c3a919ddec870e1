"""Which of an engine's texts is offered, and how likely each is right. ║ is the cursor."""

import pytest

from dg_lsp import choice
from tests.answers import answer
from tests.dg_lsp.drawn import at

LEAST = 0.2
ANSWERS = {
    "a block on an empty line": ("python", "║\n", "a = 1\nb = 2", ("a = 1\nb = 2", "a = 1")),
    "the line first, when it is begun": ("python", "a = ║\n", "1\nb = 2", ("1", "1\nb = 2")),
    "a block behind its header": (
        "python",
        "if a:║\n",
        "\n    b()\n    c()",
        ("\n    b()\n    c()", "\n    b()"),
    ),
    "a header that the text ends": (
        "python",
        "def f(║\n",
        "a):\n    return a",
        ("a):\n    return a", "a):"),
    ),
    "a call over several lines is one statement": (
        "python",
        "x = ║\n",
        "f(\n    a,\n)\ny = 1",
        ("f(\n    a,\n)", "f(\n    a,\n)\ny = 1"),
    ),
    "one line alone": ("python", "a = ║\n", "1", ("1",)),
    "nothing": ("python", "a = ║\n", "", ()),
    "a block that is one statement": ("javascript", "║\n", "if (a) {\n  b();\n}", None),
    "crlf": ("python", "║\r\n", "a = 1\r\nb = 2", ("a = 1\r\nb = 2", "a = 1")),
}


@pytest.mark.parametrize(("language", "drawn", "text", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_the_short_and_the_long_answer(language, drawn, text, expected):
    assert choice.answers(text, at(drawn, language)) == ((text,) if expected is None else expected)


def offered(drawn, *args, language="python", **how):
    """Texts, and how likely each is right."""
    found = choice.offers(answer(*args, **how), at(drawn, language), LEAST)
    return [(offer.text, pytest.approx(offer.confidence)) for offer in found]


def test_an_answer_of_one_line_is_as_sure_as_the_engine():
    assert offered("a = ║\n", "1", confidence=0.8) == [("1", 0.8)]


def test_the_first_line_is_as_sure_as_the_engine_is_of_it_alone():
    both = [("f(a)", 0.7), ("f(a)\nb = g(a)", 0.1)]
    assert offered("a = ║\n", "f(a)\nb = g(a)", confidence=0.1, line=0.7) == both
    block = [("\n    a()\n    b()", 0.1), ("\n    a()", 0.7)]
    assert offered("if a:║\n", "\n    a()\n    b()", confidence=0.1, line=0.7) == block


def test_a_statement_of_several_lines_is_no_surer_than_the_whole():
    text = "f(\n    a,\n)\ny = 1"
    both = [(text, 0.1), ("f(\n    a,\n)", 0.1)]
    assert offered("║\n", text, confidence=0.1, line=0.7) == both


def test_where_the_filters_leave_one_line_it_is_rated_as_one():
    assert offered("f(║, b)\n", "a\nc", confidence=0.1, line=0.7) == [("a", 0.7)]


def test_the_engines_first_text_is_offered_while_it_parses():
    others = [("uvwx", 0.6), ("wxyz", 0.3)]
    found = offered("a = ║\n", "abcd", confidence=0.4, others=others)
    assert found == [("abcd", 0.4), *others]


def test_a_few_others_follow_each_once_as_the_filters_leave_it():
    others = [("name) )", 0.4), ("b", 0.3), ("value", 0.25), ("again", 0.25), ("doubt", 0.1)]
    assert choice.OTHERS == 2
    found = offered("a = (║)\n", "abcd", confidence=0.5, others=others)
    assert found == [("abcd", 0.5), ("name)", 0.4)], "the second is too short"
    assert offered("a = ║\n", "abcd", others=others[-1:]) == [("abcd", 1.0)], "who typed it may ask"
    assert offered("a = ║\n", "", others=others) == []


def test_of_nearly_as_likely_texts_one_that_parses_is_offered():
    broken = "b + ) )"
    for others in ([("b", 0.48)], [("c", 0.3), ("b", 0.48)], [("c +", 0.5), ("b", 0.48)]):
        assert offered("a = ║\n", broken, confidence=0.5, others=others)[0] == ("b", 0.48)


def test_a_text_that_parses_is_not_offered_for_a_much_likelier_one():
    assert offered("a = ║\n", "b + ) )", confidence=0.5, others=[("b", 0.3)]) == []


def test_of_another_text_the_first_line_is_not_known_alone():
    found = offered("a = ║\n", ") )", confidence=0.1, line=0.9, others=[("c\nd = 2", 0.6)])
    assert found == [("c", 0.6), ("c\nd = 2", 0.6)]


def test_figures_are_logged_and_no_text(caplog):
    caplog.set_level("DEBUG", "dg_lsp.choice")
    choice.offers(answer("password"), at("a = ║\n", "python"), LEAST)
    assert "confidence 1.000" in caplog.text and "password" not in caplog.text


def test_of_a_doubtful_answer_the_longest_beginning_that_is_likely_follows():
    begun = [("self", 0.5), ("self.load", 0.4), ("self.load(path", 0.3), ("self.load(path)", 0.1)]
    found = offered("a = ║\n", "self.load(path)", confidence=0.1, begun=begun)
    assert found == [("self.load(path)", 0.1), ("self.load", 0.4)], (
        "one that leaves no bracket open"
    )
    assert offered("a = ║\n", "self.load", confidence=0.4, begun=begun[:2]) == [("self.load", 0.4)]
    assert offered("a = ║\n", "abc", confidence=0.1, begun=[("ab", 0.9), ("abc", 0.1)]) == [
        ("abc", 0.1)
    ]


@pytest.mark.parametrize(
    ("drawn", "draft", "shown"),
    [
        ("a = ║\n", "self.load(pa", "self.load"),
        ("a = ║\n", "self.load(path)", "self.load(path)"),
        ("a = ║\n", "self.load\nb", "self.load"),
        ("a = ║\n", "self.lo", "self"),
        ("a = ║\n", "abc", ""),
        ("a = ║\n", "", ""),
        ("if a:║\n", "\n    self.load()\n    sel", "\n    self.load()"),
    ],
)
def test_of_what_is_being_written_what_can_stand_as_it_is_is_shown(drawn, draft, shown):
    assert choice.so_far(draft, at(drawn, "python")) == shown


@pytest.mark.parametrize(("text", "short"), [("abcd", False), ("abc", True), ("a\n  b c", True)])
def test_less_than_four_characters_are_too_short(text, short):
    assert choice.too_short(text) == short

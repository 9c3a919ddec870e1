"""Where text that cannot see the suffix ends. ║ is the cursor, ┤ where the text must be cut."""

import doctest

import pytest

from engine import endings
from engine.request import StopReason

BLOCK = [
    # written so far                          suffix                       expected
    ("    x = 1\n    return x\n    y", "\n    return x\n", "    x = 1", "suffix"),
    ("x = 1\n\n    return x\n", "\n\n    return x\n", "x = 1", "suffix"),
    ("a()\n}\n", "\n}\n", "a()", "suffix"),
    ("a()\n  }\n", "\n}\n", None, None),  # another indentation is another brace
    ("a()\n}", "\n}\n", None, None),  # not a whole line yet
    ("return x\n", "\n    return x\n", None, None),  # the hole's own first line
    ("a\x0cb\nnext\n", "\nnext\n", "a\x0cb", "suffix"),  # only \n ends a line
    ("a\nb\nc\n", "", None, None),
    ("a\n\n\n", "\n\n\n", None, None),  # blank lines tell nothing
]
LINE = [
    ("x, y", ")\n", None, None),  # ")" may be an inner bracket
    ("f(x), y)\n", ")\n", "f(x), y", "suffix"),
    ("x, y\n    z", ")\n", "x, y", "line"),
    ("value) + offset", ") + offset\n", "value", "suffix"),
    ("value", "", None, None),
    ("value\nmore", "\nrest\n", "value", "line"),
    ("\nmore", "\nrest\n", "", "line"),
]


@pytest.mark.parametrize(("text", "suffix", "kept", "reason"), BLOCK)
def test_a_block_ends_where_the_next_line_of_the_file_is_written_again(text, suffix, kept, reason):
    check(text, suffix, kept, reason, single_line=False)


@pytest.mark.parametrize(("text", "suffix", "kept", "reason"), LINE)
def test_a_line_ends_at_its_end_or_at_the_rest_of_the_line(text, suffix, kept, reason):
    check(text, suffix, kept, reason, single_line=True)


def check(text, suffix, kept, reason, *, single_line):
    end = endings.find_end(text, suffix, single_line=single_line)
    if kept is None:
        assert end is None
    else:
        assert end is not None
        assert (text[: end[0]], end[1]) == (kept, StopReason(reason))


def test_the_examples_in_the_docstring():
    assert doctest.testmod(endings).failed == 0


@pytest.mark.parametrize("text", ["", "\n", " \n "])
def test_of_nothing_nothing_can_stand_alone(text):
    assert endings.beginnings(text) == []


def test_a_beginning_ends_with_a_word_a_closer_or_the_line():
    assert endings.beginnings("a_b.c = f(1) +\nd") == [
        *("a_b", "a_b.c", "a_b.c = f", "a_b.c = f(1", "a_b.c = f(1)", "a_b.c = f(1) +")
    ]

"""Ghost text in any language, and what holds of each; the tables of single filters stand beside."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dg_lsp import choice, ghost_text, grammars, indentation
from dg_lsp.document import Snapshot
from dg_lsp.syntax import AFTER_CHARS, BEFORE_CHARS, window
from tests.answers import answer
from tests.dg_lsp.drawn import at, check

SOURCES = sorted((Path(__file__).parents[2] / "dg_lsp").glob("*.py"))

CASES = {
    # as it is
    "end of line": ("x = ║\n", "├1┤", "x = ├1┤\n"),
    "several lines": ("def f():║\n", "├\n    a\n    b┤", "def f():├\n    a\n    b┤\n"),
    "leading blank": ("return║\n", "├ x┤", "return├ x┤\n"),
    "end of file": ("x = ║", "├1┤", "x = ├1┤"),
    "form feed stays": ("x = ║\n", "├a\fb┤", "x = ├a\fb┤\n"),
    # one line in the middle of a line
    "mid-line": ("f(║, b)\n", "├a\nmore┤", "f(├a┤, b)\n"),
    "mid-line, line first": ("f(║, b)\n", "├\na┤", "f(├┤, b)\n"),
    "mid-line, closers only": ("f(║)\n", "├a,\n  b┤", "f(├a,\n  b┤)\n"),
    # the rest of the line, again
    "own bracket": ("foo(║)\n", "├f(a)┤", "foo(├f(a)┤)\n"),
    "closed bracket": ("foo(║)\n", "├a, b)┤", "foo(├a, b┤)\n"),
    "own and closed bracket": ("foo(║)\n", "├f(a))┤", "foo(├f(a)┤)\n"),
    "quote and bracket": ('print("║")\n', '├hello")┤', 'print("├hello┤")\n'),
    "quote only": ('x = "║"\n', '├hello"┤', 'x = "├hello┤"\n'),
    "quotes within": ('f("║")\n', '├a", "b")┤', 'f("├a", "b┤")\n'),
    "closed, then a line end": ("foo(║)", "├a)\n┤", "foo(├a┤)"),
    "colon": ("def f(║):\n    a", "├a, b):┤", "def f(├a, b┤):\n    a"),
    "semicolon": ("f(║);\n", "├a);┤", "f(├a┤);\n"),
    "square bracket": ("x = [║]\n", "├1, 2]┤", "x = [├1, 2┤]\n"),
    "middle": ("f(║, b)\n", "├a, b)┤", "f(├a┤, b)\n"),
    "operator": ("x = ║ + 1\n", "├a + ┤", "x = ├a┤ + 1\n"),
    "blanks differ": ("f(║ , b )\n", "├a,b)┤", "f(├a┤ , b )\n"),
    "everything": ("return ║x + y\n", "├x + y┤", "return ├┤x + y\n"),
    "no word is cut": ("return ║x\n", "├max┤", "return ├max┤x\n"),
    "blank before code stays": ("a = ║b\n", "├x + ┤", "a = ├x + ┤b\n"),
    # closers that the text writes anew
    "goes on": ("foo(║)\n", "├a) + b┤", "foo(├a) + b┤\n"),
    "goes on below": ("foo(║)\n", "├a)\nbar()┤", "foo(├a)\nbar()┤\n"),
    "closes its own only": ("foo(║)\n", "├f(a)\n  + 1┤", "foo(├f(a)\n  + 1┤)\n"),
    "opens a block": ("if (║) {\n}\n", "├a) {\n  b┤", "if (├a) {\n  b┤\n}\n"),
    "colon and body": ("def f(║):\n", "├a):\n    b┤", "def f(├a):\n    b┤\n"),
    # the following lines, again
    "next line": ("a\n║\nb = 2\nc\n", "├x\nb = 2┤", "a\n├x┤\nb = 2\nc\n"),
    "next line, begun": ("║\nreturn x\n", "├a = 1\nret┤", "├a = 1┤\nreturn x\n"),
    "next lines": ("║\nb\nc\nd\n", "├a\nb\nc┤", "├a┤\nb\nc\nd\n"),
    "blank lines differ": ("  ║\n\ndef g():\n", "├a\n\n\ndef g():┤", "  ├a┤\n\ndef g():\n"),
    "all of the rest": ("  ║\n\ndef g():\n", "├a\n\ndef g():\n  b┤", "  ├a┤\n\ndef g():\n"),
    "tabs for blanks": ("\t║\n\treturn a\n", "├b\n    return a┤", "\t├b┤\n\treturn a\n"),
    "block's own end": ("{║\n}\n", "├\n  a\n}┤", "{├\n  a┤\n}\n"),
    "inner block's end": ("{\n  {║\n}\n", "├\n    a\n  }┤", "{\n  {├\n    a\n  }┤\n}\n"),
    "object": ("f({║\n})\nx", "├\n  a: 1\n})┤", "f({├\n  a: 1┤\n})\nx"),
    "other indentation": (
        "  if a:\n    ║\n  return x\n",
        "├b\n    return x┤",
        "  if a:\n    ├b\n    return x┤\n  return x\n",
    ),
    "rest and next line": ("foo(║)\nnext\n", "├a)\nnext┤", "foo(├a┤)\nnext\n"),
    "same end of line is no overlap": ("║\nx = 1\n", "├return index┤", "├return index┤\nx = 1\n"),
    "file's last line end": ("a = 1║\n", "├\nb = 2\n┤", "a = 1├\nb = 2┤\n"),
    # nothing to show
    "empty": ("a║\n", "├┤", "a├┤\n"),
    "blanks": ("a║\n", "├ \t┤", "a├┤\n"),
    "line ends": ("a║\n", "├\n\n  \n┤", "a├┤\n"),
    "invisible": ("a║\n", "├\u200b\u2060┤", "a├┤\n"),
    "next line alone": ("a║\nb\n", "├\nb┤", "a├┤\nb\n"),
    # line ends
    "crlf document": ("a║\r\nb\r\n", "├\nx\ny┤", "a├\r\nx\r\ny┤\r\nb\r\n"),
    "crlf answer": ("a║\nb\n", "├\r\nx\ry\r\n┤", "a├\nx\ny┤\nb\n"),
    "crlf overlap": ("a║\r\nb\r\n", "├\nx\nb┤", "a├\r\nx┤\r\nb\r\n"),
    "cr document": ("a║\rb\r", "├\nx┤", "a├\rx┤\rb\r"),
    # the end
    "trailing blanks": ("x = ║\n", "├1  \n\n┤", "x = ├1┤\n"),
    "trailing blanks before closers": ("f(║)\n", "├a ┤", "f(├a┤)\n"),
}


@pytest.mark.parametrize(("drawn", "completion", "expected"), CASES.values(), ids=CASES)
def test_ghost_text(drawn, completion, expected):
    check(drawn, completion, expected)


def test_the_filters_run_in_the_order_of_the_tuple(monkeypatch):
    def add(letter):
        return lambda text, snapshot: text + letter

    monkeypatch.setattr(ghost_text, "FILTERS", (add("a"), add("b"), add("c")))
    assert ghost_text.apply("", Snapshot(text="", offset=0)) == "abc"


def holes(rng, source):
    """A place in a line, and the text from there to the line's or the block's end."""
    lines = source.split("\n")
    while True:
        first = rng.randrange(len(lines) - 3)
        line = lines[first]
        indent = len(line) - len(line.lstrip())
        if len(line) < indent + 8:
            continue
        last = first
        if rng.random() < 0.5:
            while last + 1 < len(lines) and lines[last + 1].startswith(" " * (indent + 1)):
                last += 1
        start = sum(len(line) + 1 for line in lines[:first]) + rng.choice([indent, indent + 4])
        return start, sum(len(line) + 1 for line in lines[: last + 1]) - 1


def test_what_really_stood_there_is_shown_as_it_is():
    rng = random.Random(3)
    kept = ran_on = 0
    for _ in range(60):
        source = rng.choice(SOURCES).read_text(encoding="utf-8")
        start, end = holes(rng, source)
        left, truth, right = source[:start], source[start:end], source[end:]
        snapshot = Snapshot(text=left + right, offset=start, language="python")
        kept += ghost_text.apply(truth, snapshot) == truth.rstrip()
        ran_on += ghost_text.apply(truth + right[:90], snapshot) == truth.rstrip()
    assert kept >= 58
    assert ran_on >= 56


@settings(deadline=None)
@given(
    st.text("ab(){}[]\"'#:,. \n\t\r`", max_size=60),
    st.text("ab(){}[]\"'#:,. \n\t\r`", max_size=60),
    st.text("ab(){}[]\"'#:,. \n\t\r`", max_size=60),
    st.sampled_from(("", *grammars.LANGUAGES)),
)
def test_whatever_the_text_the_answer_fits_the_document(left, right, text, language):
    snapshot = Snapshot(text=left + right, offset=len(left), language=language)
    kept = ghost_text.apply(text, snapshot)
    assert not (snapshot.mid_line and ("\n" in kept or "\r" in kept))
    assert not kept or kept.strip()
    assert kept.count(snapshot.newline) == len(kept.splitlines()) - 1 or not kept
    assert 0 <= ghost_text.covered(kept, snapshot) <= len(snapshot.line_right)


MARKS = [
    *('"""', "'''", "`", "/*", "*/", "//", "--[[", "]]", "<!--", "-->", "${", "#{", "<<E\n"),
    *("\\", "\r\n", "\r", "\n  ", "\t", "\0", "\ufeff", "\u2028", "\x85", "{\n", "if a:", "end"),
]


def pieces(without=()):
    """Text of what opens and ends strings, comments, blocks and lines, and of any character."""
    characters = st.characters(exclude_categories=without)
    return st.lists(st.sampled_from(MARKS) | characters, max_size=30).map("".join)


@settings(deadline=None)  # grammars are loaded meanwhile
@given(
    pieces(without=("Cs",)),
    pieces(without=("Cs",)),
    pieces(),
    st.sampled_from(("", "no-language", *grammars.LANGUAGES)),
)
def test_no_text_makes_a_filter_raise(left, right, text, language):
    snapshot = Snapshot(text=left + right, offset=len(left), language=language)
    kept = ghost_text.apply(text, snapshot)
    kept.encode()
    for offered in (kept, *choice.answers(kept, snapshot)):
        assert 0 <= ghost_text.covered(offered, snapshot) <= len(snapshot.line_right)
        assert kept.startswith(offered)
    for offer in choice.offers(answer(text), snapshot, 0.0):
        assert offer.text in kept and offer.confidence == 1


def test_a_long_file_costs_what_a_short_one_does():
    """Not measured but shown: what is parsed does not grow with the file."""
    block = "def f(a):\n    return a\n\n\n"
    for times in (1_000, 10_000):
        here = window(at(block * times + "║\n" + block * times, "python"))
        assert len(here.before) <= BEFORE_CHARS
        assert len(here.after) <= AFTER_CHARS
        assert here.before.startswith("def") and here.after.endswith("\n")


def test_what_no_hole_holds_is_not_shown():
    assert ghost_text.apply("x = 1\n" * 1_000_000, at("║\n")) == ""


def test_a_line_without_end_opens_no_block_and_holds_nothing_up():
    line = "function f(a) {} " * 60_000
    assert not indentation.opens_block(line)
    assert indentation.opens_block(line + "{")

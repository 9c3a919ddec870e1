"""The document is drawn with its cursor (║), the engine's text as (├ ┤)."""

import pytest

from dg_lsp import ghost_text
from dg_lsp.document import Snapshot


def shown(drawn, completion):
    """The line or lines as they stand once the ghost text is accepted; ├ ┤ marks what is new."""
    left, _, right = drawn.partition("║")
    snapshot = Snapshot(text=left + right, offset=len(left))
    assert completion[0] + completion[-1] == "├┤"
    text = ghost_text.apply(completion[1:-1], snapshot)
    return f"{left}├{text}┤{right[ghost_text.covered(text, snapshot) :]}"


def check(drawn, completion, expected):
    assert shown(drawn, completion) == expected


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

"""Ghost text closes what it opens, in strings and comments too, and leaves what is closed; it parses."""

import pytest

from tests.dg_lsp.drawn import check

CASES = {
    # brackets that the text opens
    "close a call": ("python", "x = ║\n", "├f(a, b┤", "x = ├f(a, b)┤\n"),
    "close a list in a call": ("python", "x = ║\n", "├f([a, b┤", "x = ├f([a, b])┤\n"),
    "the user's open bracket stays open": ("python", "x = f(║\n", "├a, g(b┤", "x = f(├a, g(b)┤\n"),
    "nothing to close": ("python", "x = ║\n", "├f(a)┤", "x = ├f(a)┤\n"),
    "close a block": ("javascript", "║\n", "├if (a) {\n  b();┤", "├if (a) {\n  b();\n}┤\n"),
    "close an inner block": (
        "javascript",
        "function f() {\n  ║\n}\n",
        "├if (a) {\n    b();┤",
        "function f() {\n  ├if (a) {\n    b();\n  }┤\n}\n",
    ),
    "close a block on its own line's level": (
        "javascript",
        "function f() {\n  ║\n}\n",
        "├g({\n    a: 1,\n  });\n  if (a) {\n    if (b) {\n      c();┤",
        "function f() {\n  ├g({\n    a: 1,\n  });\n  if (a) {\n    if (b) {\n      c();\n    }\n  }┤\n}\n",
    ),
    "a closer too many": ("python", "x = ║\n", "├f(a))┤", "x = ├f(a)┤\n"),
    "a closer too many, then more": ("python", "x = ║\n", "├f(a)) + 1┤", "x = ├f(a)┤\n"),
    "a brace too many": (
        "javascript",
        "function f() {\n  ║\n}\n",
        "├a();\n  }\n  b();┤",
        "function f() {\n  ├a();┤\n}\n",
    ),
    "body is there already": (
        "javascript",
        "║\n  b();\n}\n",
        "├if (a) {┤",
        "├if (a) {┤\n  b();\n}\n",
    ),
    "brackets in strings do not count": ("python", "x = ║\n", '├")" + "("┤', 'x = ├")" + "("┤\n'),
    "brackets in comments do not count": (
        "python",
        "x = 1  ║\n",
        "├# :) and so on┤",
        "x = 1  ├# :) and so on┤\n",
    ),
    "closes what the user opened": ("python", "x = f(a, ║\n", "├b)┤", "x = f(a, ├b)┤\n"),
    "closes over lines": (
        "python",
        "x = f(\n    a,\n    ║\n",
        "├b,\n)┤",
        "x = f(\n    a,\n    ├b,\n)┤\n",
    ),
    # auto-closed brackets and quotes
    "partner above, own call": ("python", "foo(\n    ║)\n", "├bar(a)┤", "foo(\n    ├bar(a)┤)\n"),
    "partner above, closed by the text": (
        "python",
        "foo(\n    ║)\n",
        "├bar(a))┤",
        "foo(\n    ├bar(a)┤)\n",
    ),
    "partner above, goes on": (
        "python",
        "foo(\n    ║)\n",
        "├bar(a)) + 1┤",
        "foo(\n    ├bar(a)) + 1┤\n",
    ),
    "no partner, the fill opens it": ("python", "print║)\n", "├(a)┤", "print├(a┤)\n"),
    "no partner, and it goes on": ("python", "print║)\n", "├(a) or b┤", "print├(a) or b┤\n"),
    "single quote": ("python", "x = '║'\n", "├hello'┤", "x = '├hello┤'\n"),
    "double quote in brackets": ("python", 'f(["║"])\n', '├a"])┤', 'f(["├a┤"])\n'),
    "backtick": ("javascript", "const a = `║`;\n", "├b ${c}`;┤", "const a = `├b ${c}┤`;\n"),
    "quote, then more arguments": ("python", 'f("║")\n', '├a", b)┤', 'f("├a", b)┤\n'),
    "braces auto-closed": (
        "javascript",
        "const {║} = a;\n",
        "├ b, c } = a;┤",
        "const {├ b, c ┤} = a;\n",
    ),
    "all brackets": ("javascript", "f([{║}]);\n", "├a: 1 }]);┤", "f([{├a: 1┤}]);\n"),
    "triple quotes": (
        "python",
        'def f():\n    """║"""\n',
        '├Does a thing."""\n    return 1┤',
        'def f():\n    """├Does a thing."""\n    return 1┤\n',
    ),
    "angle brackets stay": ("html", "<p║></p>\n", '├ class="a"┤', '<p├ class="a"┤></p>\n'),
    # docstrings and comments
    "docstring": (
        "python",
        'def f():\n    """║\n',
        '├Does a thing."""\n    return 1\n\n\ndef g():┤',
        'def f():\n    """├Does a thing."""\n    return 1┤\n',
    ),
    "docstring, inside": (
        "python",
        'def f():\n    """Does.\n\n    ║\n    """\n',
        '├Takes nothing.\n    """┤',
        'def f():\n    """Does.\n\n    ├Takes nothing.┤\n    """\n',
    ),
    "comment goes on": (
        "python",
        "# This ║\nx = 1\n",
        "├sets x.\nx = 1┤",
        "# This ├sets x.┤\nx = 1\n",
    ),
    "comment with an apostrophe": (
        "python",
        "# It doesn't ║\nx = f(1)\n",
        "├matter (much).┤",
        "# It doesn't ├matter (much).┤\nx = f(1)\n",
    ),
    "jsdoc": (
        "javascript",
        "/**\n * ║\n */\nfunction f() {}\n",
        "├Does a thing.\n */\nfunction f() {}┤",
        "/**\n * ├Does a thing.┤\n */\nfunction f() {}\n",
    ),
    "comment, then code": (
        "go",
        "package a\n\n// f ║\nfunc f() {}\n",
        "├does a thing.\nfunc f() {}┤",
        "package a\n\n// f ├does a thing.┤\nfunc f() {}\n",
    ),
    # in the middle of a line and of a word
    "argument": ("python", "f(a, ║, c)\n", "├b, c)\ng()┤", "f(a, ├b┤, c)\n"),
    "word goes on": ("python", "ret║\n", "├urn a┤", "ret├urn a┤\n"),
    "word before a word": ("python", "x = self.║name\n", "├first_┤", "x = self.├first_┤name\n"),
    "condition": ("python", "if ║ and b:\n    pass\n", "├a and b:┤", "if ├a┤ and b:\n    pass\n"),
    "operator's right": (
        "javascript",
        "const a = b + ║ * d;\n",
        "├c * d;┤",
        "const a = b + ├c┤ * d;\n",
    ),
    "import list": ("python", "from a import (║, c)\n", "├b┤", "from a import (├b┤, c)\n"),
    # syntax
    "an unfinished line is dropped": (
        "python",
        "def f():\n    ║\n",
        "├a = 1\n    b = =┤",
        "def f():\n    ├a = 1┤\n",
    ),
    "nothing but errors": ("python", "x = 1\n║\n", "├) = ( ] def┤", "x = 1\n├┤\n"),
    "errors elsewhere are the user's": (
        "python",
        "def ((:\n\n║\n",
        "├x = ]┤",
        "def ((:\n\n├x =┤\n",
    ),
    "mends the line": (
        "javascript",
        "const a = ║\nconst b = 2;\n",
        "├[1, 2];┤",
        "const a = ├[1, 2];┤\nconst b = 2;\n",
    ),
}


@pytest.mark.parametrize(("language", "drawn", "completion", "expected"), CASES.values(), ids=CASES)
def test_brackets_and_quotes_fit(language, drawn, completion, expected):
    check(drawn, completion, expected, language)

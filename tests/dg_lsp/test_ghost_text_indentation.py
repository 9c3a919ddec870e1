"""Ghost text is indented, and its lines end, as the document's are."""

import pytest

from tests.dg_lsp.drawn import check

CASES = {
    # indentation
    "blanks in a file of tabs": (
        "python",
        "def f():\n\tif a:\n\t\t║\n\tb()\n",
        "├c()\n        d()┤",
        "def f():\n\tif a:\n\t\t├c()\n\t\td()┤\n\tb()\n",
    ),
    "blanks in go": (
        "go",
        "package a\n\nfunc f() {\n\t║\n}\n",
        "├if a {\n        b()\n    }┤",
        "package a\n\nfunc f() {\n\t├if a {\n\t\tb()\n\t}┤\n}\n",
    ),
    "tabs in a file of blanks": (
        "python",
        "def f():\n    if a:\n        b()\n    ║\n",
        "├if c:\n\t\td()┤",
        "def f():\n    if a:\n        b()\n    ├if c:\n        d()┤\n",
    ),
    "four blanks in a file of two": (
        "javascript",
        "function f() {\n  if (a) {\n    b();\n  }\n  ║\n}\n",
        "├if (c) {\n      d();\n  }┤",
        "function f() {\n  if (a) {\n    b();\n  }\n  ├if (c) {\n    d();\n  }┤\n}\n",
    ),
    "two blanks in a file of four": (
        "python",
        "def f():\n    if a:\n        b()\n    ║\n",
        "├if c:\n      d()┤",
        "def f():\n    if a:\n        b()\n    ├if c:\n        d()┤\n",
    ),
    "alignment stays": (
        "python",
        "def f():\n    if a:\n        b()\n    ║\n",
        "├x = g(a,\n          b)┤",
        "def f():\n    if a:\n        b()\n    ├x = g(a,\n          b)┤\n",
    ),
    "indented twice": (
        "python",
        "def f():\n    a = 1\n    ║\n",
        "├    return a┤",
        "def f():\n    a = 1\n    ├return a┤\n",
    ),
    "deeper behind an opener": (
        "python",
        "def f():\n║\n",
        "├    return 1┤",
        "def f():\n├    return 1┤\n",
    ),
    "a block that brings all of its indentation": (
        "python",
        "def f():\n    for a in b:\n        c = a\n║\n    return d\n",
        "├        if c:\n            d(c)┤",
        "def f():\n    for a in b:\n        c = a\n├        if c:\n            d(c)┤\n    return d\n",
    ),
    "the same, of two blanks in a file of four": (
        "python",
        "def f():\n    for a in b:\n        c = a\n║\n    return d\n",
        "├        if c:\n          d(c)┤",
        "def f():\n    for a in b:\n        c = a\n├        if c:\n            d(c)┤\n    return d\n",
    ),
    "a string's inside stays": (
        "python",
        'def f():\n\tx = """║\n',
        '├\n    a\n        b\n"""┤',
        'def f():\n\tx = """├\n    a\n        b\n"""┤\n',
    ),
    # line ends and the end of the file
    "crlf, block": (
        "python",
        "def f():\r\n    ║\r\n",
        "├a = 1\n    return a\n\n\ndef g():┤",
        "def f():\r\n    ├a = 1\r\n    return a┤\r\n",
    ),
    "crlf, tabs": (
        "go",
        "package a\r\n\r\nfunc f() {\r\n\t║\r\n}\r\n",
        "├a()\n\tb()\n}┤",
        "package a\r\n\r\nfunc f() {\r\n\t├a()\r\n\tb()┤\r\n}\r\n",
    ),
    "no line end, block": (
        "python",
        "def f():\n    ║",
        "├return 1\n\nf()┤",
        "def f():\n    ├return 1┤",
    ),
    "no line end, closers": ("javascript", "f(() => {║})", "├ a(); });┤", "f(() => {├ a(); });┤"),
    "first line of the file": ("python", "║", "├import os┤", "├import os┤"),
    "beyond ASCII": ("python", 'x = "é😀║"\n', '├ü"┤', 'x = "é😀├ü┤"\n'),
    "half a character": ("python", "x = ║\n", "├'\ud83d'┤", "x = ├'\ufffd'┤\n"),
    "beyond ASCII before the block": (
        "python",
        "# 😀😀😀\ndef f():\n    ║\n",
        "├return 'é'\n\n\ndef g():\n    pass┤",
        "# 😀😀😀\ndef f():\n    ├return 'é'┤\n",
    ),
}


@pytest.mark.parametrize(("language", "drawn", "completion", "expected"), CASES.values(), ids=CASES)
def test_the_text_looks_like_the_document(language, drawn, completion, expected):
    check(drawn, completion, expected, language)

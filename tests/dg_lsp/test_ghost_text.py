"""The document is drawn with its cursor (║), the engine's text as (├ ┤)."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dg_lsp import choice, ghost_text, grammars
from dg_lsp.document import Snapshot
from dg_lsp.syntax import AFTER_CHARS, BEFORE_CHARS, window
from tests.answers import answer

SOURCES = sorted((Path(__file__).parents[2] / "dg_lsp").glob("*.py"))


def at(drawn, language=""):
    left, _, right = drawn.partition("║")
    return Snapshot(text=left + right, offset=len(left), language=language)


def shown(drawn, completion, language=""):
    """The line or lines as they stand once the ghost text is accepted; ├ ┤ marks what is new."""
    left, _, right = drawn.partition("║")
    snapshot = at(drawn, language)
    assert completion[0] + completion[-1] == "├┤"
    text = ghost_text.apply(completion[1:-1], snapshot)
    return f"{left}├{text}┤{right[ghost_text.covered(text, snapshot) :]}"


def check(drawn, completion, expected, language=""):
    assert shown(drawn, completion, language) == expected


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

IN_LANGUAGE = {
    # the block's end, by indentation
    "python: function ends": (
        "python",
        "def f(a):\n    ║\n",
        "├return a\n\n\ndef g():\n    pass┤",
        "def f(a):\n    ├return a┤\n",
    ),
    "python: method ends": (
        "python",
        "class A:\n    def f(self):\n        ║\n",
        "├return 1\n\n    def g(self):\n        return 2┤",
        "class A:\n    def f(self):\n        ├return 1┤\n",
    ),
    "python: header and body, then another": (
        "python",
        "def f(║\n",
        "├a):\n    return a\n\ndef g(b):\n    return b┤",
        "def f(├a):\n    return a┤\n",
    ),
    "python: else belongs to if": (
        "python",
        "if a:║\n",
        "├\n    b()\nelse:\n    c()\nd()┤",
        "if a:├\n    b()\nelse:\n    c()┤\n",
    ),
    "python: try, except, finally": (
        "python",
        "try:║\n",
        "├\n    a()\nexcept E:\n    b()\nfinally:\n    c()\nd()┤",
        "try:├\n    a()\nexcept E:\n    b()\nfinally:\n    c()┤\n",
    ),
    "python: statements of one block stay": (
        "python",
        "def f():\n    ║\n",
        "├a = 1\n    b = 2\n\n    return a + b┤",
        "def f():\n    ├a = 1\n    b = 2\n\n    return a + b┤\n",
    ),
    "python: a loop and what follows it": (
        "python",
        "def f(x):\n    ║\n",
        "├for a in x:\n        b(a)\n\n    return x┤",
        "def f(x):\n    ├for a in x:\n        b(a)\n\n    return x┤\n",
    ),
    "python: one definition at a time": (
        "python",
        "import os\n\n║\n",
        "├def f():\n    return 1\n\n\ndef g():\n    return 2┤",
        "import os\n\n├def f():\n    return 1┤\n",
    ),
    "python: one method at a time": (
        "python",
        "class A:\n    ║\n",
        "├def f(self):\n        return 1\n\n    def g(self):\n        return 2┤",
        "class A:\n    ├def f(self):\n        return 1┤\n",
    ),
    "python: decorated method": (
        "python",
        "class A:\n    @property\n    ║\n",
        "├def f(self):\n        return 1\n\n    @property\n    def g(self):\n        return 2┤",
        "class A:\n    @property\n    ├def f(self):\n        return 1┤\n",
    ),
    "python: leaves at once": (
        "python",
        "def f():\n    return 1\n    ║\n",
        "├\n\nclass A:\n    pass┤",
        "def f():\n    return 1\n    ├┤\n",
    ),
    "python: string at column 0 stays": (
        "python",
        "def f():\n    ║\n",
        '├a = """\nb\n"""\n    return a\n\ng()┤',
        'def f():\n    ├a = """\nb\n"""\n    return a┤\n',
    ),
    "python: brackets hold the scope": (
        "python",
        "def f():\n    ║\n",
        "├return g(\n  a,\n)┤",
        "def f():\n    ├return g(\n  a,\n)┤\n",
    ),
    "python: empty line at column 0": (
        "python",
        "def f():\n    a = 1\n║\n",
        "├    return a\n\n\nf()┤",
        "def f():\n    a = 1\n├    return a┤\n",
    ),
    "python: dedent to the loop's outside": (
        "python",
        "for a in b:\n    if a:\n        ║\n",
        "├c()\n    d()┤",
        "for a in b:\n    if a:\n        ├c()┤\n",
    ),
    "javascript: block ends": (
        "javascript",
        "function f() {║\n}\n",
        "├\n  return 1;\n}\n\nfunction g() {\n  return 2;\n}┤",
        "function f() {├\n  return 1;┤\n}\n",
    ),
    "javascript: block without its end": (
        "javascript",
        "function f() {║\n",
        "├\n  return 1;\n}\n\nfunction g() {\n  return 2;\n}┤",
        "function f() {├\n  return 1;\n}┤\n",
    ),
    "javascript: else": (
        "javascript",
        "if (a) {║\n",
        "├\n  b();\n} else {\n  c();\n}\nd();┤",
        "if (a) {├\n  b();\n} else {\n  c();\n}┤\n",
    ),
    "javascript: callback's end": (
        "javascript",
        "f(() => {║\n});\n",
        "├\n  a();\n});\ng();┤",
        "f(() => {├\n  a();┤\n});\n",
    ),
    "javascript: method": (
        "javascript",
        "class A {\n  f() {\n    ║\n  }\n}\n",
        "├return 1;\n  }\n\n  g() {\n    return 2;\n  }┤",
        "class A {\n  f() {\n    ├return 1;┤\n  }\n}\n",
    ),
    "jsx": (
        "javascriptreact",
        "const a = (\n  <div>\n    ║\n  </div>\n);\n",
        "├<b>{c}</b>\n  </div>\n);┤",
        "const a = (\n  <div>\n    ├<b>{c}</b>┤\n  </div>\n);\n",
    ),
    "tsx: props": (
        "typescriptreact",
        "const a = <B ║ />;\n",
        "├c={d}┤",
        "const a = <B ├c={d}┤ />;\n",
    ),
    "typescript: interface": (
        "typescript",
        "interface A {\n  b: string;\n  ║\n}\n",
        "├c?: number;\n}\n\nconst x = 1;┤",
        "interface A {\n  b: string;\n  ├c?: number;┤\n}\n",
    ),
    "typescript: generic": (
        "typescript",
        "const a: Map<║> = b;\n",
        "├string, number┤",
        "const a: Map<├string, number┤> = b;\n",
    ),
    "go: function": (
        "go",
        "package a\n\nfunc f() int {\n\t║\n}\n",
        "├return 1\n}\n\nfunc g() int {\n\treturn 2\n}┤",
        "package a\n\nfunc f() int {\n\t├return 1┤\n}\n",
    ),
    "go: error check": (
        "go",
        "package a\n\nfunc f() error {\n\t║\n\treturn nil\n}\n",
        "├if err := g(); err != nil {\n\t\treturn err\n\t}\n\treturn nil┤",
        "package a\n\nfunc f() error {\n\t├if err := g(); err != nil {\n\t\treturn err\n\t}┤\n\treturn nil\n}\n",
    ),
    "go: case": (
        "go",
        "package a\n\nfunc f(a int) {\n\tswitch a {\n\tcase 1:║\n\t}\n}\n",
        "├\n\t\tg()\n\tcase 2:\n\t\th()\n\t}┤",
        "package a\n\nfunc f(a int) {\n\tswitch a {\n\tcase 1:├\n\t\tg()\n\tcase 2:\n\t\th()┤\n\t}\n}\n",
    ),
    "rust: match arm": (
        "rust",
        "fn f(a: u8) -> u8 {\n    match a {\n        0 => ║\n    }\n}\n",
        "├1,\n        _ => a,\n    }\n}┤",
        "fn f(a: u8) -> u8 {\n    match a {\n        0 => ├1,\n        _ => a,┤\n    }\n}\n",
    ),
    "rust: lifetimes are no quotes": (
        "rust",
        "fn f<'a>(x: &'a str) -> &'a str {\n    ║\n}\n",
        "├x.trim()\n}┤",
        "fn f<'a>(x: &'a str) -> &'a str {\n    ├x.trim()┤\n}\n",
    ),
    "rust: one fn at a time": (
        "rust",
        "impl A {\n    ║\n}\n",
        "├fn f(&self) -> u8 {\n        1\n    }\n\n    fn g(&self) -> u8 {\n        2\n    }┤",
        "impl A {\n    ├fn f(&self) -> u8 {\n        1\n    }┤\n}\n",
    ),
    "c: struct": (
        "c",
        "struct a {\n    int b;\n    ║\n};\n",
        "├int c;\n};┤",
        "struct a {\n    int b;\n    ├int c;┤\n};\n",
    ),
    "c: brace of its own line": (
        "c",
        "int f(void)\n{\n    ║\n}\n",
        "├return 1;\n}\n\nint g(void)\n{\n    return 2;\n}┤",
        "int f(void)\n{\n    ├return 1;┤\n}\n",
    ),
    "cpp: template": (
        "cpp",
        "template <class T>\nT f(T a) {\n  ║\n}\n",
        "├return a;\n}┤",
        "template <class T>\nT f(T a) {\n  ├return a;┤\n}\n",
    ),
    "java: one method at a time": (
        "java",
        "class A {\n    ║\n}\n",
        "├int f() {\n        return 1;\n    }\n\n    int g() {\n        return 2;\n    }\n}┤",
        "class A {\n    ├int f() {\n        return 1;\n    }┤\n}\n",
    ),
    "java: catch": (
        "java",
        "class A {\n    void f() {\n        try {║\n    }\n}\n",
        "├\n            g();\n        } catch (E e) {\n            h();\n        }┤",
        "class A {\n    void f() {\n        try {├\n            g();\n        } catch (E e) {\n            h();\n        }┤\n    }\n}\n",
    ),
    "ruby: body": (
        "ruby",
        "def f(a)\n  ║\nend\n",
        "├a + 1\nend\n\ndef g\n  2\nend┤",
        "def f(a)\n  ├a + 1┤\nend\n",
    ),
    "ruby: block without its end": (
        "ruby",
        "def f(a)║\n",
        "├\n  a + 1\nend\n\ndef g\nend┤",
        "def f(a)├\n  a + 1\nend┤\n",
    ),
    "ruby: else": (
        "ruby",
        "if a║\nend\n",
        "├\n  b\nelse\n  c\nend┤",
        "if a├\n  b\nelse\n  c┤\nend\n",
    ),
    "lua: function": (
        "lua",
        "local function f(a)\n  ║\nend\n",
        "├return a\nend\n\nlocal x = f(1)┤",
        "local function f(a)\n  ├return a┤\nend\n",
    ),
    "lua: without its end": (
        "lua",
        "local function f(a)║\n",
        "├\n  return a\nend\nf(1)┤",
        "local function f(a)├\n  return a\nend┤\n",
    ),
    "bash: if": (
        "shellscript",
        "if [ -f a ]; then║\nfi\n",
        "├\n  cat a\nfi\nls┤",
        "if [ -f a ]; then├\n  cat a┤\nfi\n",
    ),
    "bash: loop without its end": (
        "shellscript",
        "for a in *; do║\n",
        "├\n  cat $a\ndone\nls┤",
        "for a in *; do├\n  cat $a\ndone┤\n",
    ),
    "bash: case": (
        "shellscript",
        "case $1 in\n  ║\nesac\n",
        "├-h) usage ;;\n  *) run ;;\nesac┤",
        "case $1 in\n  ├-h) usage ;;\n  *) run ;;┤\nesac\n",
    ),
    "html: inner": (
        "html",
        "<ul>\n  ║\n</ul>\n",
        "├<li>a</li>\n  <li>b</li>\n</ul>┤",
        "<ul>\n  ├<li>a</li>\n  <li>b</li>┤\n</ul>\n",
    ),
    "css: rule": (
        "css",
        "p {\n  ║\n}\n",
        "├color: red;\n  margin: 0;\n}\n\na {\n  color: blue;\n}┤",
        "p {\n  ├color: red;\n  margin: 0;┤\n}\n",
    ),
    "css: value": ("css", "p {\n  color: ║;\n}\n", "├red;┤", "p {\n  color: ├red┤;\n}\n"),
    "json: value": (
        "json",
        '{\n  "a": ║,\n  "b": 2\n}\n',
        "├[1, 2],┤",
        '{\n  "a": ├[1, 2]┤,\n  "b": 2\n}\n',
    ),
    "json: next key": (
        "json",
        '{\n  "a": 1,\n  ║\n}\n',
        '├"b": 2\n}┤',
        '{\n  "a": 1,\n  ├"b": 2┤\n}\n',
    ),
    "yaml: list": (
        "yaml",
        "a:\n  - b\n  ║\nc: d\n",
        "├- e\n  - f\nc: d┤",
        "a:\n  - b\n  ├- e\n  - f┤\nc: d\n",
    ),
    "toml: key": (
        "toml",
        '[a]\nb = "c"\n║\n\n[d]\n',
        "├e = 1\n\n[d]┤",
        '[a]\nb = "c"\n├e = 1┤\n\n[d]\n',
    ),
    "markdown: prose": (
        "markdown",
        "# a\n\nIt's ║\n",
        "├a (small) thing: don't worry.┤",
        "# a\n\nIt's ├a (small) thing: don't worry.┤\n",
    ),
    "no language: indentation alone": ("", "a\n  b ║\n", "├c\n  d\ne┤", "a\n  b ├c\n  d┤\n"),
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
    # near copies
    "near copy of the next line": (
        "python",
        "║\nself.assertEqual(response.status_code, 200, response)\n",
        "├self.assertEqual(response.status_code, 201, response)┤",
        "├┤\nself.assertEqual(response.status_code, 200, response)\n",
    ),
    "short neighbours are no copies": (
        "python",
        "║\nassert f(2) == 4\n",
        "├assert f(1) == 3┤",
        "├assert f(1) == 3┤\nassert f(2) == 4\n",
    ),
    "near copy of two lines": (
        "python",
        "a = 1\n║\nresult = compute(first)\nprint(result, flush=True)\n",
        "├b = 2\nresult = compute(first)\nprint(result, flush=true)┤",
        "a = 1\n├b = 2┤\nresult = compute(first)\nprint(result, flush=True)\n",
    ),
    "half-copies stay": (
        "python",
        "║\nresult = compute(first)\nprint(result)\n",
        "├result = derive(other, 1)\nshow(result)┤",
        "├result = derive(other, 1)\nshow(result)┤\nresult = compute(first)\nprint(result)\n",
    ),
    # loops
    "line again and again": (
        "python",
        "║\n",
        "├print(abc)\nprint(abc)\nprint(abc)\nprint(abc)┤",
        "├print(abc)┤\n",
    ),
    "two lines again and again": (
        "python",
        "║\n",
        "├aaaa = 1\nbbbb = 2\naaaa = 1\nbbbb = 2\naaaa = 1\nbbbb = 2┤",
        "├aaaa = 1\nbbbb = 2┤\n",
    ),
    "the document's line again and again": (
        "python",
        "print(abc)\n║\n",
        "├print(abc)\nprint(abc)┤",
        "print(abc)\n├┤\n",
    ),
    "twice is no loop": ("python", "║\n", "├print(abc)\nprint(abc)┤", "├print(abc)\nprint(abc)┤\n"),
    "words again and again": (
        "",
        "It is ║\n",
        "├a very very very very very very┤",
        "It is ├a very┤\n",
    ),
    "closing brackets are no loop": (
        "javascript",
        "f({a: {b: {║\n",
        "├\n  c: 1,\n}\n}\n}\n);┤",
        "f({a: {b: {├\n  c: 1,\n}┤\n",
    ),
    "a ruler is no loop": (
        "python",
        "# ║\n",
        "├------------------------------┤",
        "# ├------------------------------┤\n",
    ),
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
    "a string's inside stays": (
        "python",
        'def f():\n\tx = """║\n',
        '├\n    a\n        b\n"""┤',
        'def f():\n\tx = """├\n    a\n        b\n"""┤\n',
    ),
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


@pytest.mark.parametrize(("drawn", "completion", "expected"), CASES.values(), ids=CASES)
def test_ghost_text(drawn, completion, expected):
    check(drawn, completion, expected)


@pytest.mark.parametrize(
    ("language", "drawn", "completion", "expected"), IN_LANGUAGE.values(), ids=IN_LANGUAGE
)
def test_ghost_text_in_a_language(language, drawn, completion, expected):
    check(drawn, completion, expected, language)


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
    for offer in choice.offers(answer(text), snapshot):
        assert offer.text in kept and offer.confidence == 1


def test_a_long_file_costs_what_a_short_one_does():
    """Not measured but shown: what is parsed does not grow with the file."""
    block = "def f(a):\n    return a\n\n\n"
    for times in (1_000, 10_000):
        here = window(at(block * times + "║\n" + block * times, "python"))
        assert len(here.before) <= BEFORE_CHARS
        assert len(here.after) <= AFTER_CHARS
        assert here.before.startswith("def") and here.after.endswith("\n")

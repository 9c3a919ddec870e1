"""Ghost text ends where the block ends that the cursor is in."""

import pytest

from tests.dg_lsp.drawn import check

CASES = {
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
}


@pytest.mark.parametrize(("language", "drawn", "completion", "expected"), CASES.values(), ids=CASES)
def test_the_text_ends_with_its_block(language, drawn, completion, expected):
    check(drawn, completion, expected, language)

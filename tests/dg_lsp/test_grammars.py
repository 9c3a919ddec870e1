import gc
import itertools
import math
import random
import subprocess
import sys
import tracemalloc

import pytest

from dg_lsp import grammars

SOURCES = {
    "python": "def f(a):\n    return a\n",
    "javascript": "const f = (a) => a;\n",
    "javascriptreact": "const f = () => <b>{a}</b>;\n",
    "typescript": "function f(a: number): number { return <number>a; }\n",
    "typescriptreact": "const f = (a: number) => <b>{a}</b>;\n",
    "go": "package a\n\nfunc f(a int) int { return a }\n",
    "rust": "fn f(a: u8) -> u8 { a }\n",
    "c": "int f(int a) { return a; }\n",
    "cpp": "template <class T> T f(T a) { return a; }\n",
    "java": "class A { int f(int a) { return a; } }\n",
    "ruby": "def f(a)\n  a\nend\n",
    "lua": "local function f(a) return a end\n",
    "shellscript": "f() { echo $1; }\n",
    "html": "<p>a</p>\n",
    "css": "p { color: red; }\n",
    "json": '{"a": [1, null]}\n',
    "jsonc": '{"a": [1, null]}\n',
    "yaml": "a:\n  - b\n",
    "toml": '[a]\nb = "c"\n',
    "markdown": "# a\n\nb\n",
}


def test_every_language_has_a_source_here():
    assert set(SOURCES) == set(grammars.LANGUAGES)


@pytest.mark.parametrize("language", grammars.LANGUAGES)
def test_a_grammar_parses_its_language(language):
    tree = grammars.parse(SOURCES[language].encode(), language)
    assert tree is not None and not tree.root_node.has_error


def test_a_grammar_tells_code_from_what_is_none():
    for language in ("python", "go", "rust", "java", "json"):
        assert grammars.parse(b"} ) ( {{ :", language).root_node.has_error


@pytest.mark.parametrize("name", ["sh", "bash", "tsx", "c++"])
def test_other_names_of_a_language_are_known(name):
    assert grammars.grammar(name) is not None


@pytest.mark.parametrize("language", ["", "plaintext", "cobol", "python3"])
def test_an_unknown_language_has_no_tree(language):
    assert grammars.grammar(language) is None
    assert grammars.parse(b"a", language) is None


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("a.py", "python"),
        ("src/App.TSX", "typescriptreact"),
        ("lib/x.test.mjs", "javascript"),
        ("run.sh", "shellscript"),
        (".github/ci.yml", "yaml"),
        ("Makefile", ""),
        (".bashrc", ""),
        ("", ""),
        ("a.", ""),
    ],
)
def test_the_language_follows_from_the_name(path, language):
    assert grammars.language_of(path) == language


def test_a_missing_wheel_means_plain_text(monkeypatch, caplog):
    monkeypatch.setitem(grammars._GRAMMARS, "fortran", ("tree_sitter_of_nobody", "language"))
    assert grammars.parse(b"a", "fortran") is None
    assert "tree_sitter_of_nobody" in caplog.text
    grammars.grammar.cache_clear()


def test_no_grammar_is_loaded_before_a_file_of_it_is_parsed():
    script = (
        "import sys\nfrom dg_lsp import grammars\n"
        "def loaded(): return sorted(m for m in sys.modules if m.startswith('tree_sitter_')"
        " and '.' not in m)\n"
        "assert loaded() == [], loaded()\n"
        "grammars.parse(b'a', 'go')\n"
        "assert loaded() == ['tree_sitter_go'], loaded()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


NONSENSE = "".join(random.Random(1).choices("(){}[]<>;:,.'\"`=+-*/ \nabif", k=64_000)).encode()


def test_parsing_what_is_no_code_is_broken_off(monkeypatch):
    """By clocks that tick when looked at: the library looks at one once in some hundred bytes."""
    ticks = itertools.count()
    for clock in ("perf_counter", "thread_time"):
        monkeypatch.setattr(grammars, clock, lambda: next(ticks) / 1000)
    slow = [name for name in SOURCES if grammars.parse(NONSENSE, name) is None]
    assert {"python", "typescriptreact", "cpp", "ruby", "markdown"} <= set(slow)
    assert next(ticks) < 60 * len(SOURCES)


def test_a_parse_that_was_broken_off_leaves_nothing_behind(monkeypatch):
    with monkeypatch.context() as patched:
        for clock in ("perf_counter", "thread_time"):
            patched.setattr(grammars, clock, itertools.count().__next__)
        assert grammars.parse(NONSENSE, "python") is None
    tree = grammars.parse(SOURCES["python"].encode(), "python")
    assert tree is not None and not tree.root_node.has_error


def test_what_other_threads_take_of_the_time_does_not_count(monkeypatch):
    monkeypatch.setattr(grammars, "perf_counter", itertools.count().__next__)
    monkeypatch.setattr(grammars, "thread_time", lambda: 0.0)
    assert grammars.parse(NONSENSE[:2000], "python") is not None


def test_what_may_take_long_is_parsed_to_the_end():
    assert grammars.parse(NONSENSE[:2000], "python", limit_s=math.inf).root_node.has_error


def test_a_long_source_is_read_in_pieces_without_a_seam():
    source = "".join(f"name_{i} = 'ü{i}'\n" for i in range(2000)).encode()
    tree = grammars.parse(source, "python", limit_s=math.inf)
    assert tree.root_node.end_byte == len(source) and not tree.root_node.has_error
    assert tree.root_node.named_child_count == 2000


def test_what_was_parsed_does_not_stay_in_memory():
    def parse(text):
        grammars.parse(text, "python")
        grammars.parse(text, "python", limit_s=0)

    text = b"x = f(1)\n" * 500
    parse(text)
    tracemalloc.start()
    try:
        for number in range(30):
            parse(b"%d\n" % number + text)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < len(text)
    finally:
        tracemalloc.stop()

from dataclasses import replace

from bench import systems
from bench.holes import Hole
from bench.systems import copied


def hole(prefix, suffix="", split="1 line"):
    return Hole(
        key="k", split=split, cluster="c", path="p.py", prefix=prefix, middle="", suffix=suffix
    )


def test_what_followed_the_longest_match_is_copied():
    prefix = "left = get(a)\nright = get(b)\nother = 1\nright = get("
    assert copied(prefix, "", one_line=True) == "b)"


def test_the_nearest_of_equal_matches_is_taken():
    assert copied("x = 1\nx = 2\nx =", "", one_line=True) == " 2"


def test_a_match_may_lie_behind_the_cursor():
    assert copied("value = com", "\nother = compute(1)\n", one_line=True) == "pute(1)"


def test_where_nothing_matches_nothing_is_copied():
    assert copied("a", "bcd", one_line=True) == ""
    assert copied("", "abc", one_line=True) == ""


def test_lines_are_copied_until_they_repeat_the_suffix():
    body = "    a()\n    b()\n    c()\n"
    text = copied(f"if x:\n{body}\nif x:\n", "\n    c()\n", one_line=False)
    assert text == "    a()\n    b()"


def test_copying_ends_after_some_lines():
    lines = "".join(f"    step_{i}()\n" for i in range(20))
    assert copied(f"def f():\n{lines}def f():\n", "", one_line=False).count("\n") == 8


def test_the_request_is_an_editors_but_for_what_the_split_tells():
    request = systems.asked(hole("x" * 10_000 + "\ny = ", "\nz\n"))
    assert len(request.prefix) < 8_100
    assert (request.single_line, request.path, request.language) == (True, "p.py", "python")
    longer = systems.asked(hole("y = ", "\nz\n", split="block"))
    assert not longer.single_line
    assert longer.max_tokens > request.max_tokens


def test_a_hole_is_asked_for_in_its_files_language():
    rust = replace(hole("let y = ", ";\n"), path="src/a.rs")
    assert systems.asked(rust).language == "rust"
    assert systems.snapshot(rust).language == "rust"


def test_the_copy_rule_is_a_system():
    answer = systems.copy(hole("x = 1\nx ="))
    assert (answer.text, answer.forwards, answer.error) == (" 1", 0, "")
    assert answer.ms > 0

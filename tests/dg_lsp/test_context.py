import dataclasses
from itertools import pairwise

import pytest

from dg_lsp import context
from dg_lsp.context import CPU, FILE_ALONE, GPU, Budget
from dg_lsp.document import Snapshot
from dg_lsp.settings import Settings
from engine.request import ContextChunk

BEFORE, SUFFIX = FILE_ALONE.before, FILE_ALONE.suffix
STEP = BEFORE // 3  # the prefix starts further down by this much


def at(drawn, **fields):
    left, _, right = drawn.partition("║")
    return Snapshot(text=left + right, offset=len(left), **fields)


def build(snapshot, **settings):
    return context.build(snapshot, Settings(**settings))


def test_a_small_file_goes_in_whole():
    request = build(
        at("a = 1\nb = ║\nc = 3\n", path="src/a.py", language="python"),
        max_tokens=7,
        deadline_ms=250.0,
    )
    assert (request.prefix, request.suffix) == ("a = 1\nb = ", "\nc = 3\n")
    assert (request.path, request.language) == ("src/a.py", "python")
    assert (request.max_tokens, request.deadline_ms) == (7, 250.0)
    assert request.context == ()


def test_without_a_deadline_the_engine_takes_its_time():
    assert build(at("a║")).deadline_ms is None


def test_one_line_is_asked_for_in_the_middle_of_a_line_only():
    assert build(at("f(║, b)")).single_line
    assert not build(at("f(║)\n")).single_line
    assert not build(at("x = ║\n")).single_line


def test_a_long_file_is_cut_at_line_starts_around_the_cursor():
    lines = [f"line_{i:05} = {i}\n" for i in range(5000)]
    left, right = "".join(lines[:2500]), "".join(lines[2500:])
    request = build(at(left + "x = ║\n" + right))
    assert BEFORE - STEP - 40 < len(request.prefix) <= BEFORE
    assert request.prefix.startswith("line_") and left.endswith(request.prefix[:-4])
    assert SUFFIX - 40 < len(request.suffix) <= SUFFIX
    assert request.suffix.endswith("\n") and ("\n" + right).startswith(request.suffix)


def test_typing_leaves_the_start_of_the_prefix_where_it_is():
    text = "".join(f"line_{i:05} = {i}\n" for i in range(5000))
    starts = []
    for typed in range(3 * STEP):
        left = text + "x" * typed
        starts.append(len(left) - len(build(at(left + "║")).prefix))
    moves = [now - before for before, now in pairwise(starts) if now != before]
    assert len(moves) == 3
    assert all(abs(move - STEP) < 40 for move in moves)


def test_a_line_longer_than_the_budget_is_cut_within():
    request = build(at("a\n" + "x" * 3 * BEFORE + "║" + "y" * 3 * SUFFIX + "\nb"))
    assert set(request.prefix) == {"x"} and set(request.suffix) == {"y"}
    assert BEFORE - STEP < len(request.prefix) <= BEFORE
    assert len(request.suffix) == SUFFIX


def test_a_long_line_before_a_short_one_does_not_leave_the_short_one_alone():
    request = build(at("x" * 3 * BEFORE + "\ny = ║"))
    assert len(request.prefix) > BEFORE - STEP


@pytest.mark.parametrize("newline", ["\r\n", "\r"])
def test_the_model_sees_line_feeds_only(newline):
    request = build(at(f"a{newline}b║{newline}c\f{newline}"))
    assert (request.prefix, request.suffix) == ("a\nb", "\nc\f\n")


def test_an_absolute_path_is_never_sent():
    assert build(at("║", path="/home/me/secret/a.py")).path == "a.py"


def test_the_same_snapshot_gives_the_same_request():
    snapshot = at("a║b", uri="file:///a")
    assert build(snapshot) == build(dataclasses.replace(snapshot, uri="file:///b", version=9))


def far_down(language, above, lines, below="║"):
    """A cursor far below `above`, behind `lines` numbered ones."""
    return at(above + "".join(lines.format(i) for i in range(400)) + below, language=language)


def test_what_is_far_above_but_around_the_cursor_comes_last_before_the_prefix():
    snapshot = far_down(
        "python",
        "import os\nfrom a import (\n    b,\n)\n\nx = 1\n\nclass A(B):\n    y = 2\n\n",
        "    def f{0}(self):\n        return {0}\n\n",
        "    def g(self):\n        ║\n",
    )
    elsewhere = (ContextChunk("other.py", "def other(): ..."),)
    request = context.build(snapshot, Settings(), elsewhere, CPU)
    assert request.context[:-1] == elsewhere
    assert request.context[-1].text == "import os\nfrom a import (\n    b,\n)\n\nclass A(B):"
    assert len(request.prefix) + sum(len(c.text) for c in request.context) <= CPU.before


@pytest.mark.parametrize(
    ("language", "above", "lines", "heads"),
    [
        (
            "go",
            'package a\n\nimport "fmt"\n\nfunc f() {\n\tfor {\n',
            "\t\ta{0} := 1\n",
            'package a\nimport "fmt"\n\nfunc f() {\n\tfor {',
        ),
        (
            "typescript",
            'import { a } from "b";\n\nclass A {\n  m(\n    b: string,\n  ) {\n',
            "    const a{0} = 1;\n",
            'import { a } from "b";\n\nclass A {\n  m(',
        ),
        ("", "a\n  b\n", "    c{0}\n", "a\n  b"),
    ],
)
def test_the_head_in_other_languages(language, above, lines, heads):
    snapshot = far_down(language, above, lines * 3, lines.partition("{")[0] + "║")
    assert context.build(snapshot, Settings(), (), CPU).context[-1].text == heads


def test_a_head_within_the_prefix_is_not_said_twice():
    assert context.build(at("import os\n\nclass A:\n    ║\n"), Settings(), (), CPU).context == ()


def test_the_head_takes_no_more_than_its_part():
    above = "".join(f"import m{i}\n" for i in range(300))
    snapshot = far_down("python", above, "x{0} = 1" + 80 * " " + "\n")
    for budget in (CPU, GPU, Budget(before=1000, context=300)):
        head = context.build(snapshot, Settings(), (), budget).context[-1].text
        assert head.startswith("import m0\nimport m1\n")
        assert len(head) <= budget.context - budget.retrieved


def test_typing_with_context_moves_what_is_before_the_cursor_in_steps_only():
    text = far_down("python", "import os\n\n", "x{0} = 1\n").text
    chunks = (ContextChunk("a.py", "y = 2"),)
    seen = []
    for typed in range(CPU.before // 4):
        snapshot = at(text + "z" * typed + "║", language="python")
        request = context.build(snapshot, Settings(), chunks, CPU)
        seen.append((request.context, len(text) + typed - len(request.prefix)))
    assert [chunk.text for chunk in seen[0][0]] == ["y = 2", "import os"]
    assert sum(now != before for before, now in pairwise(seen)) <= 1


def test_the_budget_follows_from_what_the_engine_takes():
    assert context.budget_for(0) == context.budget_for(1024) == CPU
    assert context.budget_for(8192) == GPU

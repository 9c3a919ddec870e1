import dataclasses
from itertools import pairwise

import pytest

from dg_lsp import context
from dg_lsp.context import PREFIX_CHARS, PREFIX_STEP, SUFFIX_CHARS
from dg_lsp.document import Snapshot
from dg_lsp.settings import Settings


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
    assert PREFIX_CHARS - PREFIX_STEP - 40 < len(request.prefix) <= PREFIX_CHARS
    assert request.prefix.startswith("line_") and left.endswith(request.prefix[:-4])
    assert SUFFIX_CHARS - 40 < len(request.suffix) <= SUFFIX_CHARS
    assert request.suffix.endswith("\n") and ("\n" + right).startswith(request.suffix)


def test_typing_leaves_the_start_of_the_prefix_where_it_is():
    text = "".join(f"line_{i:05} = {i}\n" for i in range(5000))
    starts = []
    for typed in range(3 * PREFIX_STEP):
        left = text + "x" * typed
        starts.append(len(left) - len(build(at(left + "║")).prefix))
    moves = [now - before for before, now in pairwise(starts) if now != before]
    assert len(moves) == 3
    assert all(abs(move - PREFIX_STEP) < 40 for move in moves)


def test_a_line_longer_than_the_budget_is_cut_within():
    request = build(at("a\n" + "x" * 3 * PREFIX_CHARS + "║" + "y" * 3 * SUFFIX_CHARS + "\nb"))
    assert set(request.prefix) == {"x"} and set(request.suffix) == {"y"}
    assert PREFIX_CHARS - PREFIX_STEP < len(request.prefix) <= PREFIX_CHARS
    assert len(request.suffix) == SUFFIX_CHARS


def test_a_long_line_before_a_short_one_does_not_leave_the_short_one_alone():
    request = build(at("x" * 3 * PREFIX_CHARS + "\ny = ║"))
    assert len(request.prefix) > PREFIX_CHARS - PREFIX_STEP


@pytest.mark.parametrize("newline", ["\r\n", "\r"])
def test_the_model_sees_line_feeds_only(newline):
    request = build(at(f"a{newline}b║{newline}c\f{newline}"))
    assert (request.prefix, request.suffix) == ("a\nb", "\nc\f\n")


def test_an_absolute_path_is_never_sent():
    assert build(at("║", path="/home/me/secret/a.py")).path == "a.py"


def test_the_same_snapshot_gives_the_same_request():
    snapshot = at("a║b", uri="file:///a")
    assert build(snapshot) == build(dataclasses.replace(snapshot, uri="file:///b", version=9))

"""Ghost text in a real Neovim: what is on the screen, and in the text."""

import pytest

from tests.neovim.driver import HELLO, SHOWN
from tests.running import until

COUNT_INSTRUCTIONS = """
Instructions = 0
jit.off()
jit.flush()
debug.sethook(function()
  if debug.getinfo(2, 'S').source:find('dg_lsp', 1, true) then
    Instructions = Instructions + 1
  end
end, '', 1)
"""
"""Counts what the interpreter does in the plugin's files."""


def test_ghost_text_stands_behind_the_cursor_and_nowhere_else(typed):
    nvim = typed(HELLO)
    nvim.until_screen("one", "SAY hello worldhello world", "three")
    assert nvim.lines == ["one", HELLO, "three"]
    drawn = nvim.lua("return vim.fn.screenattr(2, 16) ~= vim.fn.screenattr(2, 15)")
    assert drawn, "it looks like text"


def test_further_lines_stand_below_and_move_what_follows_down(typed):
    said = "SAY go(\\n  now)"
    nvim = typed(said)
    shown = ["one", said + "go(", "  now)", "three"]
    nvim.until_screen(*shown)
    assert nvim.lines == ["one", said, "three"]
    assert nvim.call("accept")
    assert nvim.screen() == nvim.lines == shown
    assert nvim.cursor == [3, 6]


def test_what_is_accepted_by_words_and_lines_adds_up_to_the_whole(typed):
    said = "SAY alpha, beta(\\n  gamma,\\n  delta)"
    nvim = typed(said)
    shown = ["one", said + "alpha, beta(", "  gamma,", "  delta)", "three"]
    nvim.until_screen(*shown)
    for so_far in ("alpha", "alpha,", "alpha, beta"):
        assert nvim.call("accept_word")
        assert nvim.lines[1] == said + so_far
        assert nvim.screen() == shown, "what is left does not stay on the screen"
    assert nvim.call("accept_line")
    assert nvim.lines == ["one", said + "alpha, beta(", "three"]
    assert nvim.call("accept_line")
    assert nvim.lines == ["one", said + "alpha, beta(", "  gamma,", "three"]
    assert nvim.screen() == shown
    assert nvim.call("accept")
    assert nvim.lines == shown


def test_typing_as_suggested_keeps_it_and_asks_nobody(typed):
    nvim = typed(HELLO)
    nvim.until_screen(*SHOWN)
    before = nvim.asked
    for letter in "hello":
        nvim.type(letter)
        assert nvim.screen() == list(SHOWN), "it flickers"
    nvim.settle()
    assert nvim.asked == before
    assert nvim.call("accept")
    assert nvim.lines[1] == HELLO + "hello world"


def test_typing_something_else_leaves_no_stale_characters(typed):
    nvim = typed(HELLO)
    nvim.until_screen(*SHOWN)
    nvim.command("let b:dg_lsp_enabled = v:false")  # so that nothing new comes
    nvim.type("X")
    assert nvim.screen() == ["one", HELLO + "X", "three"]
    assert nvim.call("accept") is False
    assert nvim.lines[1] == HELLO + "X"


def test_backspace_into_what_was_typed_brings_it_back(typed):
    nvim = typed(HELLO)
    nvim.until_screen(*SHOWN)
    nvim.type("he<BS><BS>")
    assert nvim.screen() == list(SHOWN)


def test_leaving_insert_mode_cancels_the_question(typed):
    nvim = typed("SLOW")
    until(lambda: "slow" in nvim.events)
    nvim.type("<Esc>")
    until(lambda: "stopped" in nvim.events)
    assert nvim.screen() == ["one", "SLOW", "three"]


def test_typing_on_cancels_the_question(typed):
    nvim = typed("SLOW")
    until(lambda: "slow" in nvim.events)
    assert nvim.cancelled == 0
    nvim.type("x")
    assert nvim.cancelled == 1
    until(lambda: "stopped" in nvim.events)


def test_nobody_is_asked_before_typing_rests(nvim):
    nvim.setup(backend="own", debounce_ms=3_600_000)
    nvim.open("a.txt", "one\n\nthree\n")
    nvim.type("ji" + HELLO)
    nvim.settle()
    assert nvim.asked == 0
    nvim.call("trigger")
    nvim.until_screen(*SHOWN)


def test_what_a_key_costs_does_not_grow_with_the_file(nvim):
    nvim.setup(backend="own", debounce_ms=3_600_000)

    def cost(lines):
        nvim.open(f"{lines}.txt", "line\n" * lines)
        nvim.type(f"<Esc>{lines // 2}Go")
        nvim.lua(COUNT_INSTRUCTIONS)
        nvim.type("some words of text")
        return nvim.lua("debug.sethook() jit.on() return Instructions")

    assert cost(10) == cost(10_000) > 0


def test_leaving_insert_mode_takes_ghost_text_away(typed):
    nvim = typed(HELLO)
    nvim.until_screen(*SHOWN)
    nvim.type("<Esc>")
    assert nvim.screen() == ["one", HELLO, "three"]


def test_dismissed_it_comes_back_when_typing_goes_on(typed):
    nvim = typed(HELLO)
    nvim.until_screen(*SHOWN)
    assert nvim.call("dismiss") is True
    assert nvim.screen() == ["one", HELLO, "three"]
    assert nvim.call("dismiss") is False
    nvim.type("h")
    nvim.until_screen(*SHOWN)


def test_undo_takes_one_accepted_completion_back_in_one_step(typed):
    said = "SAY if x:\\n    go()"
    nvim = typed(said)
    nvim.until_screen("one", said + "if x:", "    go()", "three")
    nvim.call("accept")
    nvim.type(" more<Esc>u")
    assert nvim.lines == ["one", said + "if x:", "    go()", "three"]
    nvim.type("u")
    assert nvim.lines == ["one", said, "three"]
    nvim.type("<C-r>")
    assert nvim.lines == ["one", said + "if x:", "    go()", "three"]


def test_dot_repeats_what_was_typed(typed):
    nvim = typed(HELLO)
    nvim.until_screen(*SHOWN)
    nvim.call("accept")
    nvim.type("!<Esc>jA<Space>")
    nvim.type("end<Esc>k.")
    assert nvim.lines == ["one", HELLO + "hello world! end", "three end"]


def test_a_question_by_hand_is_answered_where_nothing_comes_unasked(nvim):
    nvim.open("a.txt", "one\nSAY hello (rest\nthree\n")
    nvim.type("jfoi<Right>")
    nvim.settle()
    assert nvim.screen() == ["one", "SAY hello (rest", "three"]
    nvim.call("trigger")
    nvim.until_screen("one", "SAY hellohello (rest", "three")


@pytest.mark.parametrize(
    ("line", "text", "shown"),
    [
        ("f(|)", "f(a, b)", ["f(a, b)"]),
        ("f(|)", "f(a).b(c)", ["f(a).b(c)"]),
        ("f(|)", "f(\n  a)", ["f(", "  a)"]),
        ("f(|])", "f([a", ["f([a"]),
    ],
)
def test_text_that_is_replaced_is_drawn_and_inserted_once(nvim, line, text, shown):
    left, right = line.split("|")
    nvim.open("a.txt", f"one\n{left}{right}\nthree\n")
    nvim.command("let b:dg_lsp_enabled = v:false")  # what is offered comes from the test
    nvim.type(f"ji{'<Right>' * len(left)}")
    span = {
        "start": {"line": 1, "character": 0},
        "end": {"line": 1, "character": len(left + right)},
    }
    nvim.lua("require('dg_lsp.own').offer(...)", [{"insertText": text, "range": span}])
    assert nvim.screen() == ["one", *shown, "three"]
    assert nvim.lines == ["one", left + right, "three"]
    nvim.call("accept")
    assert nvim.lines == ["one", *text.split("\n"), "three"]


def test_with_several_answers_one_can_go_through_them(typed):
    said = "SAY alpha\\n    beta"
    nvim = typed(said)
    nvim.until_screen("one", said + "alpha", "three")
    nvim.call("next")
    assert nvim.screen() == ["one", said + "alpha", "    beta (2/2)", "three"]
    nvim.call("prev")
    assert nvim.screen() == ["one", said + "alpha (1/2)", "three"]
    nvim.call("prev")
    nvim.call("accept")
    assert nvim.lines == ["one", said + "alpha", "    beta", "three"]

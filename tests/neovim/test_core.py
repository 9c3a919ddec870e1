"""The Neovim plugin over Neovim's own inline completion, which is there since 0.12."""

import subprocess

import pytest

from tests.neovim.driver import HELLO, SHOWN, program, running

NEOVIM_WAITS_MS = 200


def has_inline_completion():
    ask = [
        "-u",
        "NONE",
        "-i",
        "NONE",
        "--headless",
        "-c",
        "lua io.write(tostring(vim.lsp.inline_completion ~= nil))",
    ]
    ended = subprocess.run([program(), *ask, "-c", "q"], capture_output=True, text=True, check=True)
    return "true" in ended.stdout


pytestmark = pytest.mark.skipif(
    program() is None or not has_inline_completion(), reason="no Neovim 0.12: `make e2e-nvim12`"
)


@pytest.fixture(scope="module")
def one_for_all(tmp_path_factory):
    with running(tmp_path_factory.mktemp("neovim")) as nvim:
        nvim.setup(backend="auto")
        yield nvim


@pytest.fixture
def typed(one_for_all, tmp_path):
    """An empty second line of three, in which was typed what the engine is to say."""
    one_for_all.start_over(tmp_path)

    def typed(script):
        one_for_all.open(f"{tmp_path.name}.txt", "one\n\nthree\n")
        one_for_all.type("ji" + script)
        return one_for_all

    return typed


def accept(nvim, function="accept"):
    """Neovim accepts on the next turn of its loop."""
    taken = nvim.call(function)
    nvim.lua("vim.wait(1)")
    return taken


def test_what_is_accepted_is_what_is_on_the_screen(typed):
    nvim = typed(HELLO)
    nvim.until_screen(*SHOWN)
    assert nvim.lines[1] == HELLO
    assert accept(nvim)
    assert nvim.lines == list(SHOWN)
    assert nvim.cursor == [2, len(SHOWN[1])]
    nvim.type("<Esc>u")
    assert nvim.lines == ["one", HELLO, "three"], "undone in one step"


def test_what_was_typed_since_is_not_inserted_twice(typed):
    nvim = typed(HELLO)
    nvim.until_screen(*SHOWN)
    nvim.type("hel")
    assert accept(nvim)
    assert nvim.lines == list(SHOWN)


def test_what_no_longer_fits_is_not_inserted(typed):
    nvim = typed(HELLO)
    nvim.until_screen(*SHOWN)
    nvim.type("X")
    accept(nvim)
    assert nvim.lines == ["one", HELLO + "X", "three"]


def test_words_and_lines_add_up_to_the_whole(typed):
    said = "SAY alpha, beta(\\n  gamma)"
    nvim = typed(said)
    shown = ["one", said + "alpha, beta(", "  gamma)", "three"]
    nvim.until_screen(*shown)
    accept(nvim, "accept_word")
    assert nvim.lines[1] == said + "alpha"
    nvim.until_screen(*shown)
    accept(nvim, "accept_line")
    assert nvim.lines == ["one", said + "alpha, beta(", "three"]


def test_dismissed_it_is_gone(typed):
    nvim = typed(HELLO)
    nvim.until_screen(*SHOWN)
    assert nvim.call("dismiss") is True
    assert nvim.screen() == ["one", HELLO, "three"]
    assert nvim.call("visible") is False


def test_a_question_by_hand_is_answered_where_nothing_comes_unasked(typed):
    nvim = typed("SAY hello<Esc>Iand <Right><Right>")
    nvim.settle(NEOVIM_WAITS_MS)
    assert nvim.call("visible") is False
    nvim.type("<End>")
    nvim.call("trigger")
    nvim.until_screen("one", "and SAY hellohello", "three")


def test_toggle_turns_the_buffer_off_and_on(typed):
    nvim = typed(HELLO)
    nvim.until_screen(*SHOWN)
    nvim.call("toggle")
    assert nvim.screen() == ["one", HELLO, "three"]
    nvim.call("toggle")
    nvim.type("h")
    nvim.until_screen(*SHOWN)

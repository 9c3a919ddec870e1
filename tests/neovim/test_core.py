"""The Neovim plugin over Neovim's own inline completion, which is there since 0.12."""

import pytest

from tests.neovim.driver import HELLO, SHOWN, crash, knows, running

NEOVIM_WAITS_MS = 200


pytestmark = pytest.mark.skipif(
    not knows("vim.lsp.inline_completion"), reason="no Neovim 0.12: `make e2e-nvim12`"
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

    def typed(script, text="one\n\nthree\n"):
        one_for_all.open(f"{tmp_path.name}.txt", text)
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
    assert nvim.call("visible") is False
    assert accept(nvim) is False, "a key does what it did before"
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
    assert nvim.call("dismiss") is False


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


@pytest.mark.parametrize("spoil", ["setlocal readonly", "let b:dg_lsp_enabled = v:false"])
def test_nothing_is_asked_where_nobody_wants_it(typed, spoil):
    nvim = typed("")
    nvim.command(spoil)
    nvim.type("<Esc>i")
    nvim.settle(NEOVIM_WAITS_MS)
    before = nvim.asked
    nvim.type(HELLO)
    nvim.settle(NEOVIM_WAITS_MS)
    assert nvim.asked == before


def test_crlf_files_get_no_stray_carriage_returns(typed):
    said = "SAY if x:\\n    go()"
    nvim = typed(said, text="one\r\n\r\nthree\r\n")
    nvim.until_screen("one", said + "if x:", "    go()", "three")
    accept(nvim)
    assert nvim.lines == ["one", said + "if x:", "    go()", "three"]


def test_with_several_answers_one_can_go_through_them(typed):
    said = "SAY alpha\\n    beta"
    nvim = typed(said)
    nvim.until_screen("one", said + "alpha", "three")
    assert nvim.call("next")
    assert nvim.screen() == ["one", said + "alpha", "    beta (2/2)", "three"]
    accept(nvim)
    assert nvim.lines == ["one", said + "alpha", "    beta", "three"]
    assert nvim.call("prev") is False


def test_a_crashed_server_comes_back(typed):
    nvim = typed(HELLO)
    nvim.until_screen(*SHOWN)
    crash(nvim)
    nvim.settle()  # Neovim takes the new server in on the next turn of its loop
    nvim.type("<Esc>ccSAY again")
    nvim.until_screen("one", "SAY againagain", "three")

"""The Neovim plugin in a real Neovim against the real server: what is on the screen, and in the text."""

import os
import shutil
import signal

import psutil
import pytest

from tests.neovim import PLUGIN, REAL_SERVER, NeovimError, program, running
from tests.running import end_published, until

pytestmark = pytest.mark.skipif(program() is None, reason="no Neovim: set DG_LSP_TEST_NVIM")


@pytest.fixture(scope="module")
def one_for_all(tmp_path_factory):
    with running(tmp_path_factory.mktemp("neovim")) as nvim:
        yield nvim


@pytest.fixture
def nvim(one_for_all, tmp_path):
    """With the plugin's own ghost text, which every version can draw."""
    one_for_all.start_over(tmp_path)
    one_for_all.setup(backend="own")
    return one_for_all


@pytest.fixture
def fresh(tmp_path):
    """A process of the test's own, not yet set up."""
    with running(tmp_path) as nvim:
        yield nvim


@pytest.fixture
def typed(nvim):
    """An empty second line of three, in which was typed what the engine is to say."""

    def typed(script, text="one\n\nthree\n", keys="ji"):
        nvim.open(f"{nvim.files.name}.txt", text)
        nvim.type(keys + script)
        return nvim

    return typed


HELLO = "SAY hello world"


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
    shown = ("one", HELLO + "hello world", "three")
    nvim.until_screen(*shown)
    before = nvim.asked
    for letter in "hello":
        nvim.type(letter)
        assert nvim.screen() == list(shown), "it flickers"
    nvim.settle()
    assert nvim.asked == before
    assert nvim.call("accept")
    assert nvim.lines[1] == HELLO + "hello world"


def test_typing_something_else_leaves_no_stale_characters(typed):
    nvim = typed(HELLO)
    nvim.until_screen("one", HELLO + "hello world", "three")
    nvim.command("let b:dg_lsp_enabled = v:false")  # so that nothing new comes
    nvim.type("X")
    assert nvim.screen() == ["one", HELLO + "X", "three"]
    assert nvim.call("accept") is False
    assert nvim.lines[1] == HELLO + "X"


def test_backspace_into_what_was_typed_brings_it_back(typed):
    nvim = typed(HELLO)
    nvim.until_screen("one", HELLO + "hello world", "three")
    nvim.type("he<BS><BS>")
    assert nvim.screen() == ["one", HELLO + "hello world", "three"]


def test_leaving_insert_mode_cancels_the_question(typed):
    nvim = typed("SLOW")
    until(lambda: "slow" in nvim.events)
    nvim.type("<Esc>")
    until(lambda: "stopped" in nvim.events)
    assert nvim.screen() == ["one", "SLOW", "three"]


def test_leaving_insert_mode_takes_ghost_text_away(typed):
    nvim = typed(HELLO)
    nvim.until_screen("one", HELLO + "hello world", "three")
    nvim.type("<Esc>")
    assert nvim.screen() == ["one", HELLO, "three"]


def test_dismissed_it_comes_back_when_typing_goes_on(typed):
    nvim = typed(HELLO)
    nvim.until_screen("one", HELLO + "hello world", "three")
    assert nvim.call("dismiss") is True
    assert nvim.screen() == ["one", HELLO, "three"]
    assert nvim.call("dismiss") is False
    nvim.type("h")
    nvim.until_screen("one", HELLO + "hello world", "three")


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
    nvim.until_screen("one", HELLO + "hello world", "three")
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


def test_ghost_text_hides_while_a_menu_is_open(typed):
    nvim = typed(HELLO)
    nvim.until_screen("one", HELLO + "hello world", "three")
    nvim.type("<C-r>=[complete(col('.'), ['hello', 'help']), ''][1]<CR>")
    until(lambda: nvim.eval("pumvisible()"))
    assert "world" not in nvim.screen()[1].removeprefix(HELLO)
    assert nvim.call("accept") is False
    nvim.type("<C-e>")
    nvim.until_screen("one", HELLO + "hello world", "three")


@pytest.mark.parametrize(
    ("plugin", "function"), [("cmp", "visible"), ("blink.cmp", "is_menu_visible")]
)
def test_menus_of_plugins_are_seen(nvim, plugin, function):
    nvim.lua(f"package.loaded['{plugin}'] = {{ {function} = function() return Open == true end }}")
    is_open = "return require('dg_lsp.menu').is_open()"
    assert not nvim.lua(is_open)
    assert nvim.lua("Open = true " + is_open)
    nvim.lua(f"Open = nil package.loaded['{plugin}'] = nil")


def test_tabs_and_wide_characters_keep_their_columns(nvim):
    nvim.open("a.txt", "one\n\nthree\n")
    nvim.command("setlocal tabstop=4 | let b:dg_lsp_enabled = v:false")
    nvim.type("ji日本x")
    nvim.lua("require('dg_lsp.own').offer(...)", [{"insertText": "語\té\n\tß\tz"}])
    assert nvim.screen() == ["one", "日本x語 é", "    ß   z", "three"]
    drawn = [row.replace("\t", "") for row in nvim.screen()]
    nvim.call("accept")
    assert nvim.screen() == drawn
    assert nvim.lines == ["one", "日本x語\té", "\tß\tz", "three"]


def test_crlf_files_get_no_stray_carriage_returns(typed):
    said = "SAY if x:\\n    go()"
    nvim = typed(said, text="one\r\n\r\nthree\r\n")
    assert nvim.eval("&fileformat") == "dos"
    nvim.until_screen("one", said + "if x:", "    go()", "three")
    nvim.call("accept")
    assert nvim.lines == ["one", said + "if x:", "    go()", "three"]


def test_two_buffers_have_their_own(typed):
    nvim = typed(HELLO)
    nvim.until_screen("one", HELLO + "hello world", "three")
    nvim.open("b.txt", "b\n")
    assert nvim.screen() == ["b"]
    nvim.type("<Esc>oSAY other")
    nvim.until_screen("b", "SAY otherother")
    nvim.command("buffer # | let b:dg_lsp_enabled = v:false")  # so that nothing new comes
    assert nvim.call("accept") is False
    assert nvim.screen() == ["one", HELLO, "three"]


@pytest.mark.parametrize(
    "spoil", ["setlocal readonly", "setlocal buftype=nofile", "let b:dg_lsp_enabled = v:false"]
)
def test_nothing_is_asked_where_nobody_wants_it(typed, spoil):
    nvim = typed("")
    nvim.command(spoil)
    before = nvim.asked
    nvim.type(HELLO)
    nvim.settle()
    assert nvim.asked == before


@pytest.mark.parametrize(("name", "text"), [("big.txt", "x" * 20), ("a.lua", "x")])
def test_large_buffers_and_filetypes_turned_off_get_no_server(nvim, name, text):
    nvim.setup(max_bytes=10, filetypes={"lua": False})
    (nvim.files / name).write_text(text)
    nvim.command(f"edit {nvim.files / name}")
    assert nvim.lua("return #vim.lsp.get_clients({ bufnr = 0 })") == 0
    nvim.open("small.txt", "x")


def test_a_crashed_server_comes_back(typed):
    nvim = typed(HELLO)
    nvim.until_screen("one", HELLO + "hello world", "three")
    crashed = nvim.server
    (child,) = psutil.Process(nvim.process.pid).children()
    os.kill(child.pid, signal.SIGKILL)
    until(lambda: nvim.server not in (None, crashed))
    nvim.type("<Esc>ccSAY again")
    nvim.until_screen("one", "SAY againagain", "three")


def test_keys_fall_back_to_what_they_did(fresh):
    nvim = fresh
    nvim.command("inoremap <expr> <Tab> 'from ' .. 'before'")
    nvim.setup(backend="own", keys={"accept": "<Tab>", "dismiss": "<C-]>"})
    nvim.open("a.txt", "one\n\nthree\n")
    nvim.type(f"ji<Tab><Esc>cc{HELLO}")
    nvim.until_screen("one", HELLO + "hello world", "three")
    nvim.type("<Tab><Tab>")
    assert nvim.lines[1] == HELLO + "hello worldfrom before"


def test_virtual_space_and_folds_do_no_harm(typed):
    nvim = typed("", text="one\n\nthree\nfour\n", keys="")
    nvim.command("set virtualedit=all foldmethod=manual")
    nvim.command("3,4fold")
    nvim.type(f"ji{HELLO}")
    nvim.until_visible()
    nvim.call("accept")
    assert nvim.lines == ["one", HELLO + "hello world", "three", "four"]
    assert nvim.eval("foldclosed(3)") == 3
    before = nvim.asked
    nvim.type("<Esc>gg10li")
    nvim.settle()
    assert nvim.asked == before, "asked where no text is"


def test_the_command_completes_its_actions_and_names_wrong_ones(nvim):
    complete = "getcompletion('DgLsp {}', 'cmdline')"
    assert nvim.eval(complete.format("acc")) == ["accept", "accept_line", "accept_word"]
    assert nvim.eval(complete.format("toggle l")) == ["language"]
    with pytest.raises(NeovimError, match="there is no fly; there are accept,"):
        nvim.command("DgLsp fly")


def test_toggle_turns_the_buffer_off_and_on(typed):
    nvim = typed(HELLO)
    nvim.until_screen("one", HELLO + "hello world", "three")
    nvim.call("toggle")
    assert nvim.screen() == ["one", HELLO, "three"]
    assert nvim.call("status") == "dg-lsp: off"
    nvim.call("toggle")
    nvim.type("h")
    nvim.until_screen("one", HELLO + "hello world", "three")
    until(lambda: nvim.call("status") == "")


def test_a_wider_toggle_goes_to_the_server_and_status_says_why(typed):
    nvim = typed("x")
    nvim.command("DgLsp toggle global")
    until(lambda: nvim.call("status") == "dg-lsp: completions are off")
    nvim.command("DgLsp toggle global")
    until(lambda: nvim.call("status") == "")


def test_health_names_a_missing_server(nvim):
    nvim.setup(cmd=["no-such-dg-lsp"])
    nvim.command("checkhealth dg_lsp")
    report = "\n".join(nvim.lines)
    assert "no-such-dg-lsp is not on the PATH" in report
    assert "ghost text is drawn by" in report


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"debounce": 5}, 'there is no option "debounce"'),
        ({"debounce_ms": "5"}, "debounce_ms must be a number"),
        ({"backend": "new"}, 'must be auto, core or own, got "new"'),
    ],
)
def test_a_wrong_option_is_an_error_that_names_it(nvim, options, message):
    with pytest.raises(NeovimError, match=message):
        nvim.setup(**options)


def test_help_is_there_for_all_that_can_be_called(nvim, tmp_path):
    shutil.copytree(PLUGIN / "doc", tmp_path / "doc")  # tags are written beside it
    nvim.command(f"helptags {tmp_path}/doc | set runtimepath+={tmp_path}")
    for name in nvim.lua("return vim.tbl_keys(require('dg_lsp'))"):
        nvim.command(f"help dg_lsp.{name}()")


def test_settings_reach_the_server(fresh):
    nvim = fresh
    nvim.setup(backend="own", settings={"engine": {"model": "loading"}})
    nvim.open("a.txt", "one\n")
    until(lambda: nvim.call("status") == "dg-lsp: loading 50%")
    assert "client loading" in nvim.events


def test_the_embedded_model_completes(tmp_path, monkeypatch):
    with running(tmp_path, DG_LSP_RUNTIME_DIR=str(tmp_path / "r"), DG_LSP_IDLE_EXIT_S="1") as nvim:
        try:
            nvim.setup(cmd=REAL_SERVER, settings={"maxTokens": 12, "askAhead": False})
            source = "def add(a, b):\n    return a + b\n\n\ndef subtract(a, b):\n    \n"
            nvim.open("a.py", source)
            nvim.type("GAre")
            nvim.until_visible(90)
            assert "    return a - b" in nvim.screen()
            nvim.call("accept")
            assert nvim.lines[5] == "    return a - b"
        finally:
            end_published(tmp_path / "r")

"""Where ghost text stands in a real Neovim, and where it must not: menus, buffers, odd lines."""

import pytest

from tests.neovim.driver import HELLO, SHOWN
from tests.running import until


def test_ghost_text_hides_while_a_menu_is_open(typed):
    nvim = typed(HELLO)
    nvim.until_screen(*SHOWN)
    nvim.type("<C-r>=[complete(col('.'), ['hello', 'help']), ''][1]<CR>")
    until(lambda: nvim.eval("pumvisible()"))
    assert "world" not in nvim.screen()[1].removeprefix(HELLO)
    assert nvim.call("accept") is False
    assert nvim.call("dismiss") is False
    nvim.type("<C-e>")
    nvim.until_screen(*SHOWN)


def test_what_was_put_off_for_a_menu_is_asked_when_it_closes(typed):
    nvim = typed("SAY hello.")
    nvim.settle()
    nvim.type("<Space>h<C-r>=[complete(col('.') - 1, ['hello', 'help']), ''][1]<CR>")
    until(lambda: nvim.eval("pumvisible()"))
    before = nvim.asked
    nvim.type("<C-n>")
    nvim.settle()
    assert nvim.asked == before
    nvim.type("<C-y>")
    nvim.until_visible()
    assert nvim.lines[1] == "SAY hello. help"


MENUS = {
    "nvim-cmp": (
        """
        vim.g.loaded_cmp, Heard = true, {}
        package.loaded.cmp = {
          visible = function() return Open end,
          event = { on = function(_, name, heard) Heard[name] = heard end },
        }
        """,
        "Heard[Open and 'menu_opened' or 'menu_closed']()",
    ),
    "blink.cmp": (
        "package.loaded['blink.cmp'] = { is_menu_visible = function() return Open end }",
        """vim.api.nvim_exec_autocmds('User', {
          pattern = Open and 'BlinkCmpMenuOpen' or 'BlinkCmpMenuClose',
        })""",
    ),
}


@pytest.mark.parametrize("plugin", MENUS)
def test_ghost_text_hides_while_a_plugins_menu_is_open(fresh, plugin):
    nvim, (load, tell) = fresh, MENUS[plugin]
    nvim.lua(load)
    nvim.setup(backend="own")
    nvim.open("a.txt", "one\n\nthree\n")
    nvim.type("ji" + HELLO)
    nvim.until_screen(*SHOWN)
    nvim.lua("Open = true " + tell)
    nvim.until_screen("one", HELLO, "three")
    assert nvim.call("accept") is False
    before = nvim.asked
    nvim.type("X<BS>")
    nvim.settle()
    assert nvim.asked == before
    nvim.lua("Open = false " + tell)
    nvim.until_screen(*SHOWN)


def test_nvim_cmp_is_heard_also_when_it_is_loaded_late(nvim):
    load, tell = MENUS["nvim-cmp"]
    nvim.lua(f"{load} vim.api.nvim_exec_autocmds('User', {{ pattern = 'CmpReady' }})")
    nvim.open("a.txt", "one\n\nthree\n")
    nvim.type("ji" + HELLO)
    nvim.until_screen(*SHOWN)
    nvim.lua("Open = true " + tell)
    nvim.until_screen("one", HELLO, "three")
    nvim.lua("package.loaded.cmp, vim.g.loaded_cmp, Open = nil")


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
    nvim.until_screen(*SHOWN)
    nvim.open("b.txt", "b\n")
    assert nvim.screen() == ["b"]
    nvim.type("<Esc>oSAY other")
    nvim.until_screen("b", "SAY otherother")
    nvim.command("buffer # | let b:dg_lsp_enabled = v:false")  # so that nothing new comes
    assert nvim.call("accept") is False
    assert nvim.screen() == ["one", HELLO, "three"]


@pytest.mark.parametrize(
    "spoil",
    [
        "setlocal readonly",
        "setlocal buftype=nofile",
        "let b:dg_lsp_enabled = v:false",
        "lua require('dg_lsp.config').options.max_bytes = 3",
    ],
)
def test_nothing_is_asked_where_nobody_wants_it(typed, spoil):
    nvim = typed("")
    nvim.command(spoil)
    nvim.settle()
    before = nvim.asked
    nvim.type(HELLO)
    nvim.settle()
    assert nvim.asked == before


@pytest.mark.parametrize("make", ["terminal cat", "enew | setlocal buftype=prompt"])
def test_terminals_and_prompts_get_no_server(nvim, make):
    nvim.open("a.txt", "one\n")
    nvim.command(make)
    nvim.type("i" + HELLO)
    until(lambda: any(HELLO in line for line in nvim.lines))
    nvim.settle()
    assert (nvim.asked, nvim.server) == (0, None)
    nvim.type("<C-\\><C-n>")


@pytest.mark.parametrize(("name", "text"), [("big.txt", "x" * 20), ("a.lua", "x")])
def test_large_buffers_and_filetypes_turned_off_get_no_server(nvim, name, text):
    nvim.setup(max_bytes=10, filetypes={"lua": False})
    (nvim.files / name).write_text(text)
    nvim.command(f"edit {nvim.files / name}")
    nvim.settle()
    assert nvim.lua("return #vim.lsp.get_clients({ bufnr = 0 })") == 0
    nvim.open("small.txt", "x")


def test_virtual_space_and_folds_do_no_harm(typed):
    nvim = typed("", text="one\n\nthree\nfour\n", keys="")
    nvim.command("set virtualedit=all foldmethod=manual")
    nvim.command("3,4fold")
    nvim.type(f"ji{HELLO}")
    nvim.until_visible()
    nvim.call("accept")
    assert nvim.lines == ["one", HELLO + "hello world", "three", "four"]
    assert nvim.eval("foldclosed(3)") == 3
    nvim.settle()
    before = nvim.asked
    nvim.type("<Esc>gg10li")
    nvim.settle()
    assert nvim.asked == before, "asked where no text is"


def test_behind_concealed_text_it_stands_where_the_cursor_does(typed):
    nvim = typed("")
    nvim.command("setlocal conceallevel=2 concealcursor=i | syntax match Hidden /SAY / conceal")
    nvim.type(HELLO)
    nvim.until_screen("one", "hello worldhello world", "three")
    assert nvim.call("accept")
    assert nvim.lines == list(SHOWN)

"""What users of the Neovim plugin can type, set and read: keys, commands, options, help, health."""

import shutil

import pytest

from tests.neovim.driver import HELLO, PLUGIN, SHOWN, NeovimError
from tests.running import until


def test_keys_fall_back_to_what_they_did(fresh):
    nvim = fresh
    nvim.command("inoremap <expr> <Tab> 'from ' .. 'before'")
    nvim.setup(backend="own", keys={"accept": "<Tab>", "dismiss": "<C-]>"})
    nvim.open("a.txt", "one\n\nthree\n")
    nvim.type(f"ji<Tab><Esc>cc{HELLO}")
    nvim.until_screen(*SHOWN)
    nvim.type("<Tab><Tab>")
    assert nvim.lines[1] == HELLO + "hello worldfrom before"


def test_each_key_falls_back_where_there_is_no_ghost_text(fresh):
    nvim = fresh
    functions = ["accept", "accept_word", "accept_line", "next", "prev", "dismiss"]
    keys = {function: f"<F{number}>" for number, function in enumerate(functions, 1)}
    for function, key in keys.items():
        nvim.command(f"inoremap {key} {function},")
    nvim.setup(backend="own", keys=keys)
    nvim.open("a.txt", "\n")
    nvim.type("i" + "".join(keys.values()))
    assert nvim.lines == ["".join(f"{function}," for function in functions)]


def test_the_command_completes_its_actions_and_names_wrong_ones(nvim):
    complete = "getcompletion('DgLsp {}', 'cmdline')"
    assert nvim.eval(complete.format("acc")) == ["accept", "accept_line", "accept_word"]
    assert nvim.eval(complete.format("toggle l")) == ["language"]
    with pytest.raises(NeovimError, match="there is no fly; there are accept,"):
        nvim.command("DgLsp fly")


def test_another_model_can_be_chosen_and_the_engine_started_anew(typed):
    nvim = typed(HELLO)
    nvim.until_screen(*SHOWN)
    nvim.command("DgLsp model other")
    until(lambda: "client other" in nvim.events)
    nvim.command("DgLsp restart_engine")
    until(lambda: nvim.events.count("client other") == 2)
    with pytest.raises(NeovimError, match="name a model"):
        nvim.command("DgLsp model")


def test_a_pause_is_said_in_the_status_and_can_be_ended(typed):
    nvim = typed("x")
    nvim.command("DgLsp snooze 10")
    until(lambda: "10 min" in nvim.call("status"))
    assert "snoozed" in nvim.command("DgLsp status")
    nvim.command("DgLsp snooze 0")
    until(lambda: nvim.call("status") == "")


def test_the_figures_are_shown(typed):
    nvim = typed(HELLO)
    nvim.until_screen(*SHOWN)
    nvim.command("messages clear | DgLsp stats")
    until(lambda: "shown      1" in nvim.command("messages"))


def test_toggle_turns_the_buffer_off_and_on(typed):
    nvim = typed(HELLO)
    nvim.until_screen(*SHOWN)
    nvim.call("toggle")
    assert nvim.screen() == ["one", HELLO, "three"]
    assert nvim.call("status") == "dg-lsp: off"
    nvim.call("toggle")
    nvim.type("h")
    nvim.until_screen(*SHOWN)
    until(lambda: nvim.call("status") == "")


def test_a_wider_toggle_goes_to_the_server_and_status_says_why(typed):
    nvim = typed("x")
    nvim.command("let g:said = 0 | autocmd User DgLspStatus ++once let g:said = 1")
    nvim.command("DgLsp toggle global")
    until(lambda: nvim.call("status") == "dg-lsp: completions are off")
    assert nvim.eval("g:said"), "the event for statuslines"
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


def test_help_is_there_for_all_that_can_be_called(nvim):
    for name in nvim.lua("return vim.tbl_keys(require('dg_lsp'))"):
        nvim.command(f"help dg_lsp.{name}()")


def test_the_helps_tags_are_those_of_its_text(nvim, tmp_path):
    shutil.copytree(PLUGIN / "doc", tmp_path / "doc")
    nvim.command(f"helptags {tmp_path}/doc")
    tags = (tmp_path / "doc" / "tags").read_text()
    assert tags == (PLUGIN / "doc" / "tags").read_text(), "run `:helptags nvim-client/doc`"

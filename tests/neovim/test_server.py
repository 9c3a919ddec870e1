"""The Neovim plugin and its server: what they tell each other, crashes, and the real model."""

import os
import signal

import psutil

from tests.neovim.driver import HELLO, REAL_SERVER, SHOWN, running
from tests.running import end_published, until


def test_a_crashed_server_comes_back(typed):
    nvim = typed(HELLO)
    nvim.until_screen(*SHOWN)
    crashed = nvim.server
    (child,) = psutil.Process(nvim.process.pid).children()
    os.kill(child.pid, signal.SIGKILL)
    until(lambda: nvim.server not in (None, crashed))
    nvim.type("<Esc>ccSAY again")
    nvim.until_screen("one", "SAY againagain", "three")


def test_a_restarted_server_is_another_one(typed):
    nvim = typed(HELLO)
    nvim.until_screen(*SHOWN)
    before = nvim.server
    nvim.command("DgLsp restart")
    nvim.until_attached()
    assert nvim.server != before
    nvim.type("<Esc>ccSAY again")
    nvim.until_screen("one", "SAY againagain", "three")


def test_what_becomes_of_ghost_text_is_told(typed):
    nvim = typed("SAY alpha beta gamma")
    nvim.until_visible()
    nvim.call("accept_word")
    nvim.call("accept_word")
    nvim.call("dismiss")
    assert nvim.told == ["didShow", "didPartiallyAccept 5", "didPartiallyAccept 10", "didReject"]


def test_what_is_accepted_whole_is_told_by_the_items_command(typed):
    nvim = typed(HELLO)
    nvim.until_screen(*SHOWN)
    nvim.type("h")
    nvim.call("accept")
    assert nvim.told == ["didShow"], "typed as suggested it is the same one"
    until(lambda: '"how": "full"' in nvim.statistics)


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

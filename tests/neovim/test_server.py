"""The Neovim plugin and its server: what they tell each other, crashes, and the real model."""

from tests.neovim.driver import HELLO, REAL_SERVER, SHOWN, crash, running
from tests.running import end_published, until


def test_a_crashed_server_comes_back(typed):
    nvim = typed(HELLO)
    nvim.until_screen(*SHOWN)
    crash(nvim)
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


def test_a_buffers_status_is_that_of_its_own_server(fresh):
    nvim = fresh
    nvim.setup(backend="own")
    for root in ("a", "b"):
        (nvim.files / root / ".git").mkdir(parents=True)
        nvim.open(f"{root}/{root}.txt", "one\n")
    nvim.command("DgLsp toggle global")
    until(lambda: nvim.call("status") == "dg-lsp: completions are off")
    nvim.command("buffer a.txt")
    assert nvim.call("status") == ""


def test_a_server_that_keeps_crashing_stays_down(fresh):
    nvim = fresh
    nvim.setup(backend="own", cmd=["sh", "-c", "exit 7"])
    nvim.command(f"edit {nvim.files}/a.txt")
    until(lambda: "keeps crashing" in nvim.command("messages"))
    assert nvim.lua("return #vim.lsp.get_clients()") == 0


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

"""Installing the Neovim plugin as its help and the README say; lazy.nvim was tried by hand only."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.neovim.driver import HELLO, PLUGIN, ROOT, SCRIPTED_SERVER, SHOWN, knows, running


def in_help(manager):
    """The help's code for a way to install."""
    text = (PLUGIN / "doc" / "dg_lsp.txt").read_text()
    return re.search(rf"{manager}.*?: >lua\n(.*?)\n<", text, re.DOTALL)[1]


@pytest.fixture
def path(tmp_path):
    """A PATH with a `dg-lsp` on it, whose engine is scripted."""
    command = tmp_path / "bin" / "dg-lsp"
    command.parent.mkdir()
    command.write_text(f"""#!/bin/sh
test "$1" && exec '{sys.executable}' -m dg_lsp.cli "$@"
cd '{ROOT}' && exec {" ".join(SCRIPTED_SERVER)}
""")
    command.chmod(0o755)
    return f"{command.parent}:{os.environ['PATH']}"


def works(nvim):
    nvim.open("a.txt", "one\n\nthree\n")
    nvim.type(f"ji{HELLO}")
    nvim.until_screen(*SHOWN)
    nvim.type("<Tab>")
    nvim.lua("vim.wait(1)")
    assert nvim.lines == list(SHOWN)
    assert re.match("dg_lsp: (ready|thinking)", nvim.command("DgLsp status"))
    assert "dg_lsp.accept()" in nvim.eval("getcompletion('dg_lsp.accept', 'help')")
    nvim.command("checkhealth dg_lsp")
    assert re.search("is (ready|thinking)", "\n".join(nvim.lines))


def test_with_the_readmes_lines(tmp_path, path):
    readme = (ROOT / "README.md").read_text()
    init = re.search(r"\*\*In Neovim\*\*.*?```lua\n(.*?)```", readme, re.DOTALL)[1]
    with running(tmp_path, init, PATH=path) as nvim:
        works(nvim)


def test_without_a_plugin_manager(tmp_path, path):
    with running(tmp_path, in_help("plugin manager"), PATH=path) as nvim:
        works(nvim)


@pytest.mark.skipif(not knows("vim.pack"), reason="no Neovim 0.12: `make e2e-nvim12`")
def test_with_vim_pack(tmp_path, path):
    repository = tmp_path / "dg-lsp"
    shutil.copytree(PLUGIN, repository / "nvim-client")
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", repository, *words], check=True)
    init = in_help("vim.pack").replace("/path/to/dg-lsp", str(repository))
    assert str(repository) in init
    confirmed = "vim.fn.confirm = function() return 1 end\n"
    data = str(tmp_path / "data")
    with running(tmp_path, confirmed + init, PATH=path, XDG_DATA_HOME=data) as nvim:
        works(nvim)

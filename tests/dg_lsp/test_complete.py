import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.dg_lsp.command_line import RUN, complete_json, dg_lsp, refused
from tests.running import connect, published, until

SOURCE = "def f(x):\n    return \n\nprint(f(1))\n"
HEADER = r"def f(x):  # say [\n        x,\n    ]"
SAYING = SOURCE.replace("def f(x):", HEADER)


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "a.py"
    file.write_text(SOURCE)
    return file


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

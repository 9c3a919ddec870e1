import json
import os
import signal
import subprocess
import sys

from tests.dg_lsp.command_line import RUN, dg_lsp
from tests.running import connect, published, running, until


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

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from dg_lsp import client as client_module
from dg_lsp import engine_process
from dg_lsp.client import EngineStatus, EngineUnavailable
from dg_lsp.settings import EngineSettings
from engine.request import PROTOCOL, ContextChunk
from tests.dg_lsp.clients import opened, request
from tests.running import SCRIPTED, end_published, published, running, until


def steps_done(directory):
    steps = directory.with_name("run.steps")
    return steps.read_text().splitlines() if steps.exists() else []


async def eventually(condition):
    return await asyncio.to_thread(until, condition)


def starts(directory):
    return (directory / "engine.log").read_text().count(" listens on ")


class TestStarting:
    async def test_an_engine_is_started_where_there_is_none(self, directory, tmp_path, monkeypatch):
        statuses, hold = [], tmp_path / "hold"
        hold.touch()
        monkeypatch.setenv("SCRIPTED_ENGINE_HOLD", str(hold))

        def note(status):
            statuses.append(status)
            if len({status.progress for status in statuses if status.state == "loading"}) == 2:
                hold.unlink(missing_ok=True)

        settings = EngineSettings(model="load-slow")
        async with opened(settings, on_status=note) as client:
            assert await client.health() is None
            assert (await client.infill(request("a", suffix="b"))).text == "[a|b]"
            pid = (await client.health())["pid"]
        assert statuses[0] == EngineStatus("starting", "starting the engine", 0.0)
        loading = [status for status in statuses if status.state == "loading"]
        assert len({status.progress for status in loading}) >= 2
        assert statuses[-1] == EngineStatus("ready", "", 1.0, runs="load-slow · cpu")
        assert os.getsid(pid) == pid, "it must outlive the editor's session"
        assert psutil.Process(pid).cwd() == str(directory)
        assert directory.stat().st_mode & 0o777 == 0o700

    async def test_two_clients_in_one_loop_start_one_engine(self, directory):
        async with opened() as one, opened() as two:
            await asyncio.gather(one.infill(request()), two.infill(request()))
            assert (await one.health())["pid"] == (await two.health())["pid"]
        assert starts(directory) == 1

    def test_four_processes_start_one_engine(self, directory):
        script = (
            "import asyncio, sys\n"
            "from dg_lsp import engine_process\n"
            "from dg_lsp.client import EngineClient\n"
            "from dg_lsp.settings import EngineSettings\n"
            "from engine.request import InfillRequest\n"
            f"engine_process.COMMAND = {SCRIPTED!r}\n"
            "async def main():\n"
            "    client = EngineClient(EngineSettings(model='scripted'))\n"
            "    sys.stdin.read(1)\n"
            "    result = await client.infill(InfillRequest(prefix='hi'))\n"
            "    print(result.text, (await client.health())['pid'])\n"
            "    await client.aclose()\n"
            "asyncio.run(main())\n"
        )
        command = [sys.executable, "-c", script]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        clients = [subprocess.Popen(command, **pipes) for _ in range(4)]
        for process in clients:
            process.stdin.write("x")
            process.stdin.flush()
        (answer,) = {process.communicate(timeout=60)[0].strip() for process in clients}
        text, pid = answer.rsplit(" ", 1)
        assert text == "[hi|]" and int(pid), "all were answered, by one process"
        assert starts(directory) == 1

    async def test_the_engine_outlives_its_client(self, directory):
        async with opened() as client:
            await client.connect()
        async with opened() as client:
            assert (await client.infill(request())).text == "[hi|]"
        assert starts(directory) == 1

    async def test_a_cancelled_start_is_taken_over_by_the_next_request(self, directory):
        async with opened(EngineSettings(model="load-slow")) as client:
            first = asyncio.create_task(client.infill(request()))
            await eventually(lambda: published(directory))
            second = asyncio.create_task(client.infill(request()))
            first.cancel()
            assert (await second).text == "[hi|]"
            assert first.cancelled()
        assert starts(directory) == 1

    async def test_with_start_off_none_is_started(self, directory):
        async with opened(EngineSettings(start=False)) as client:
            with pytest.raises(EngineUnavailable, match=r"engine\.start is off; start one with"):
                await client.connect()
        assert not directory.exists()

    async def test_patience_ends(self, directory):
        async with opened(EngineSettings(model="load-slow", start_timeout_s=0.3)) as client:
            with pytest.raises(
                EngineUnavailable, match=r"not ready after 0\.3 s; see .*engine.log"
            ):
                await client.connect()
        await eventually(lambda: published(directory))

    @pytest.mark.parametrize(
        ("script", "message"),
        [
            ("sys.exit('dg-lsp engine: error: torch is not installed')", "torch is not installed"),
            (
                "raise ImportError('no luck')",
                "ended at once with code 1: ImportError: no luck; see",
            ),
            ("sys.exit(3)", "ended at once with code 3; see"),
        ],
    )
    async def test_a_process_that_dies_at_once_is_quoted(
        self, directory, monkeypatch, script, message
    ):
        command = (sys.executable, "-c", f"import sys; {script}")
        monkeypatch.setattr(engine_process, "COMMAND", command)
        async with opened() as client:
            with pytest.raises(EngineUnavailable, match=message):
                await client.connect()

    async def test_a_command_that_is_not_there_is_named(self, directory, monkeypatch):
        monkeypatch.setattr(engine_process, "COMMAND", ("/nonexistent/python",))
        async with opened() as client:
            with pytest.raises(EngineUnavailable, match=r"cannot start: .*/nonexistent/python"):
                await client.connect()

    async def test_a_failed_load_is_quoted_and_not_tried_at_every_request(
        self, directory, monkeypatch
    ):
        async with opened(EngineSettings(model="load-fail")) as client:

            async def ask():
                with pytest.raises(
                    EngineUnavailable, match="weights are missing; run `dg-lsp pull"
                ):
                    await client.infill(request())

            await ask()
            await asyncio.to_thread(end_published, directory)
            await ask()
            assert starts(directory) == 1
            monkeypatch.setattr(client_module, "_HOLD_OFF_S", 0)
            await ask()
            assert starts(directory) == 2

    async def test_a_lock_without_an_engine_is_reported(self, directory, monkeypatch):
        monkeypatch.setattr(engine_process, "_LOCK_PATIENCE_S", 0.5)
        monkeypatch.setattr(engine_process, "_AGAIN_S", 0.1)
        directory.mkdir(mode=0o700)
        with FileLock(directory / "engine.lock"):
            async with opened() as client:
                with pytest.raises(EngineUnavailable, match=r"holds .*engine.lock but cannot be"):
                    await client.connect()

    async def test_an_engine_that_does_not_end_is_reported(self, directory, monkeypatch):
        monkeypatch.setattr(client_module, "_STOP_TIMEOUT_S", 0)
        async with opened() as client:
            await client.connect()
            with pytest.raises(EngineUnavailable, match="still there after 0 s"):
                await client.stop()

    async def test_a_directory_open_to_others_is_refused(self, directory):
        directory.mkdir(mode=0o755)
        async with opened() as client:
            with pytest.raises(EngineUnavailable, match=f"chmod 700 {directory}"):
                await client.connect()

    async def test_a_directory_that_cannot_be_made_is_named(self, directory, monkeypatch):
        monkeypatch.setenv("DG_LSP_RUNTIME_DIR", "/dev/null/run")
        async with opened() as client:
            with pytest.raises(EngineUnavailable, match="'/dev/null/run'; set DG_LSP_RUNTIME_DIR"):
                await client.connect()


class TestStaleFiles:
    @pytest.mark.parametrize(
        "content",
        [
            "",
            "{",
            "[1]",
            "{}",
            '{"socket": 3}',
            '{"socket": "/nonexistent/engine.sock", "token": "", "pid": 1}',
            '{"url": "http://127.0.0.1:9", "token": "x", "pid": 1}',
            "[" * 100_000,
        ],
    )
    async def test_a_stale_runtime_file_is_replaced(self, directory, content):
        directory.mkdir(mode=0o700)
        (directory / "engine.json").write_text(content)
        (directory / "engine.json").chmod(0o600)
        async with opened() as client:
            assert (await client.infill(request())).text == "[hi|]"
            assert (await client.health())["pid"] == published(directory)["pid"]

    async def test_a_file_others_could_have_written_is_not_believed(self, directory, tmp_path):
        directory.mkdir(mode=0o700)
        with running(tmp_path / "elsewhere") as other:
            (directory / "engine.json").write_text(json.dumps(published(other.directory)))
            (directory / "engine.json").chmod(0o622)
            async with opened() as client:
                assert (await client.infill(request())).text == "[hi|]"
                assert (await client.health())["pid"] != other.process.pid

    async def test_a_killed_engines_socket_is_replaced(self, directory):
        async with opened() as client:
            await client.connect()
            os.kill((await client.health())["pid"], signal.SIGKILL)
        async with opened() as client:
            assert (await client.infill(request())).text == "[hi|]"
        assert starts(directory) == 2

    async def test_another_protocol_is_told_apart(self, directory, monkeypatch):
        monkeypatch.setattr(client_module, "PROTOCOL", 99)
        async with opened() as client:
            with pytest.raises(
                EngineUnavailable, match=f"protocol {PROTOCOL}, this dg-lsp 99: run"
            ):
                await client.connect()
            assert await client.stop()


class TestAsking:
    async def test_all_of_a_request_arrives(self, directory):
        chunk = ContextChunk(path="a.py", text="\ud800é\x00")
        asked = request("é\ud800", suffix="\r\n", context=(chunk,), deadline_ms=5000.0)
        async with opened() as client:
            result = await client.infill(asked)
        assert result.text == "[é\ud800|\r\n]"
        assert result.timings_ms["queue"] > 0

    async def test_drafts_are_handed_on(self, directory):
        drafts = []
        async with opened() as client:
            result = await client.infill(request("slow 5"), on_draft=drafts.append)
        assert [draft.step for draft in drafts] == [0, 1, 2, 3, 4]
        assert result.forwards == 5

    @pytest.mark.parametrize("on_draft", [None, lambda _: None])
    async def test_an_engine_error_is_one_line_and_not_tried_again(self, directory, on_draft):
        async with opened() as client:
            with pytest.raises(EngineUnavailable, match=r"^the hole does not fit$"):
                await client.infill(request("fail the hole does not fit"), on_draft)
            assert (await client.health())["done"] == 1
            assert (await client.infill(request())).text == "[hi|]"

    @pytest.mark.parametrize("on_draft", [None, lambda _: None])
    async def test_cancelling_the_task_ends_the_work(self, directory, tmp_path, on_draft):
        async with opened() as client:
            (tmp_path / "hold").touch()
            task = asyncio.create_task(client.infill(request(f"hold {tmp_path}/hold"), on_draft))
            await eventually(lambda: steps_done(directory))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await eventually(lambda: steps_done(directory)[-1] == "cancelled")
            assert (await client.infill(request())).text == "[hi|]"

    async def test_an_engine_killed_in_mid_request_is_started_again(self, directory):
        statuses = []
        async with opened(on_status=statuses.append) as client:
            task = asyncio.create_task(client.infill(request("slow 25")))
            await eventually(lambda: steps_done(directory))
            pid = published(directory)["pid"]
            os.kill(pid, signal.SIGKILL)
            assert (await task).forwards == 25
            assert published(directory)["pid"] != pid
        assert [status.state for status in statuses].count("ready") == 2

    async def test_requests_that_are_lost_together_all_come_back(self, directory):
        async with opened() as client:
            tasks = [asyncio.create_task(client.infill(request("slow 10"))) for _ in range(4)]
            await eventually(lambda: steps_done(directory))
            os.kill(published(directory)["pid"], signal.SIGKILL)
            assert [result.forwards for result in await asyncio.gather(*tasks)] == [10] * 4
        assert starts(directory) == 2

    async def test_a_request_that_kills_each_engine_is_given_up(self, directory):
        async with opened() as client:
            with pytest.raises(EngineUnavailable, match=r"was lost twice in this request: .*; see"):
                await client.infill(request("die"))
        assert starts(directory) == 2

    async def test_an_engine_stopped_in_between_is_started_again(self, directory):
        async with opened() as client:
            await client.infill(request())
            pid = published(directory)["pid"]
            assert await client.stop()
            assert (await client.infill(request())).text == "[hi|]"
            assert published(directory)["pid"] != pid

    async def test_proxies_of_the_environment_are_not_used(self, directory, monkeypatch):
        for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        async with opened() as client:
            assert (await client.infill(request())).text == "[hi|]"

    async def test_another_models_failure_is_waited_out_and_not_taken_for_ones_own(self, directory):
        async with opened(EngineSettings(model="load-fail")) as client:
            with pytest.raises(EngineUnavailable, match="weights are missing"):
                await client.connect()
        async with opened(EngineSettings(model="scripted")) as client:
            assert (await client.infill(request())).model == "scripted"
        assert starts(directory) == 2

    async def test_another_model_than_asked_for_is_reported_once(self, directory):
        statuses = []
        with running(directory):
            async with opened(EngineSettings(model="big"), on_status=statuses.append) as client:
                assert (await client.infill(request())).text == "[hi|]"
                await client.connect()
        assert [status.message for status in statuses] == [
            "the running engine has model scripted, not big: it answers with scripted; "
            "to switch, run `dg-lsp engine --stop`"
        ]


class TestLease:
    async def test_it_is_held_until_the_client_closes(self, directory):
        with running(directory, "--idle-exit", "1") as engine:
            async with opened(keep_alive=True) as client:
                await client.connect()
                await asyncio.sleep(1.5)
                assert (await client.health())["leases"] == 1
            assert engine.process.wait(30) == 0

    async def test_without_keep_alive_there_is_none(self, directory):
        async with opened() as client:
            await client.connect()
            assert (await client.health())["leases"] == 0

    async def test_the_engines_end_is_reported_and_the_next_request_starts_it(self, directory):
        statuses = []
        async with opened(keep_alive=True, on_status=statuses.append) as client:
            await client.connect()
            os.kill(published(directory)["pid"], signal.SIGTERM)
            await eventually(lambda: statuses[-1].state == "stopped")
            assert (await client.infill(request())).text == "[hi|]"
            await eventually(lambda: published(directory))
            assert (await client.health())["leases"] == 1


class TestRuntimeDirectory:
    def test_the_environment_variable_decides(self, directory):
        assert engine_process.runtime_dir() == directory

    def test_else_it_is_in_the_users_runtime_directory(self, directory, monkeypatch):
        monkeypatch.delenv("DG_LSP_RUNTIME_DIR")
        monkeypatch.setattr("platformdirs.user_runtime_dir", lambda name: f"/run/user/7/{name}")
        assert engine_process.runtime_dir() == Path("/run/user/7/dg-lsp")

    def test_without_one_it_is_a_directory_of_this_users_directly_in_the_temporary_one(
        self, directory, monkeypatch
    ):
        monkeypatch.delenv("DG_LSP_RUNTIME_DIR")
        below = Path(tempfile.gettempdir(), "runtime-7", "dg-lsp")
        monkeypatch.setattr("platformdirs.user_runtime_dir", lambda _: str(below))
        expected = Path(tempfile.gettempdir(), f"dg-lsp-{os.geteuid()}")
        assert engine_process.runtime_dir() == expected

    def test_the_engine_does_not_import_from_the_directory_it_is_started_in(self, tmp_path):
        (tmp_path / "engine.py").write_text("raise SystemExit('hijacked')")
        command = [*engine_process.COMMAND, "--help"]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)
        assert "--runtime-dir" in ended.stdout

    def test_a_relative_model_path_is_made_absolute(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        assert engine_process.model_argument("./m") == str(tmp_path / "m")
        assert engine_process.model_argument("smollm2-135m") == "smollm2-135m"


def test_importing_the_client_is_cheap():
    script = "import sys, dg_lsp.client; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "dg_lsp.client" in ended.stdout.split()
    assert not {"torch", "httpx", "pygls", "platformdirs"} & set(ended.stdout.split())


async def test_the_answer_is_quick_once_connected(directory):
    async with opened() as client:
        await client.connect()
        begun = time.monotonic()
        for _ in range(20):
            await client.infill(request())
    assert time.monotonic() - begun < 5, "a round trip must not wait for polls or timeouts"

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from filelock import FileLock

from engine import rendezvous, server
from engine.api import MAX_BODY_BYTES
from engine.errors import EngineError
from engine.worker import MAX_WAITING
from tests.running import SCRIPTED, connect, published, running, until


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """One for many tests, between which it may be idle for long."""
    with running(tmp_path_factory.mktemp("engine") / "run", "--idle-exit", "3600") as engine:
        yield engine


@pytest.fixture
def hold(tmp_path, monkeypatch):
    """As long as this file is there, the model "load-slow" loads and requests "hold FILE" run."""
    file = tmp_path / "hold"
    file.touch()
    monkeypatch.setenv("SCRIPTED_ENGINE_HOLD", str(file))
    return file


def run_to_end(*arguments, command=SCRIPTED, **options):
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=60, **options
    )


def loading(tmp_path, *arguments):
    """An engine that loads, as long as there is a `hold`."""
    return running(tmp_path / "run", *map(str, arguments), model="load-slow", ready=False)


def post_in_thread(engine, prefix, **fields):
    answers = []
    thread = threading.Thread(target=lambda: answers.append(engine.infill(prefix, **fields).json()))
    thread.start()
    return thread, answers


def open_request(engine, prefix):
    """A request on its own connection, so that the test can close it."""
    body = json.dumps({"prefix": prefix}).encode()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(published(engine.directory)["socket"])
    head = f"POST /v1/infill HTTP/1.1\r\nHost: engine\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def health(engine):
    return engine.http.get("/health").json()


class TestOneProcess:
    def test_a_second_process_leaves_at_once_without_torch_or_a_server(self, tmp_path):
        with FileLock(tmp_path / "engine.lock"):
            ended = run_to_end(
                *("--model", "x", "--runtime-dir", tmp_path),
                command=[sys.executable, "-X", "importtime", "-m", "engine.server"],
            )
        assert ended.returncode == 0
        assert f"an engine already runs in {tmp_path}" in ended.stderr
        imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
        assert "filelock" in imported
        assert not imported & {"torch", "starlette", "uvicorn", "numpy"}

    def test_files_are_the_users_alone(self, engine):
        sock = Path(published(engine.directory)["socket"])
        files = [engine.directory / name for name in ("engine.json", "engine.lock", "engine.log")]
        for path in (*files, sock, sock.parent, engine.directory):
            assert path.stat().st_mode & 0o077 == 0, path

    def test_a_directory_open_to_others_is_refused(self, tmp_path):
        tmp_path.chmod(0o755)
        ended = run_to_end("--model", "x", "--runtime-dir", tmp_path)
        assert ended.returncode == 1
        assert f"(mode 755); run: chmod 700 {tmp_path}" in ended.stderr
        assert not (tmp_path / "engine.lock").exists()

    def test_a_directory_that_cannot_be_used_is_named(self, tmp_path):
        (tmp_path / "file").write_text("")
        (tmp_path / "link").symlink_to(tmp_path)
        for name, message in (
            ("file", "cannot be used as the runtime directory: [Errno 17]"),
            ("file/x", "cannot be used as the runtime directory: [Errno 20]"),
            ("link", "must be a directory; choose another runtime directory"),
        ):
            with pytest.raises(EngineError) as raised:
                rendezvous.private_directory(tmp_path / name)
            assert str(raised.value).startswith(f"{tmp_path}/{name} {message}")

    def test_a_directory_of_another_user_is_refused(self, tmp_path, monkeypatch):
        owner = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
        with pytest.raises(EngineError, match=f"belongs to user {owner}, not to you; choose"):
            rendezvous.private_directory(tmp_path)

    @pytest.mark.parametrize(
        ("name", "message"),
        [("engine.lock", "engine.lock cannot be locked"), ("engine.sock", "cannot listen on")],
    )
    def test_a_lock_or_socket_that_cannot_be_made_is_named(self, tmp_path, name, message):
        (tmp_path / name / "in the way").mkdir(parents=True)
        ended = run_to_end("--model", "x", "--runtime-dir", tmp_path)
        assert ended.returncode == 1
        assert ended.stderr.startswith("dg-lsp engine: error: ")
        assert message in ended.stderr
        assert len(ended.stderr.splitlines()) == 1

    def test_a_socket_path_that_is_too_long_moves_to_the_temporary_directory(self, tmp_path):
        with running(tmp_path / ("long" * 30)) as engine:
            path = published(engine.directory)["socket"]
            assert len(path) < 100
            assert engine.infill("hi").status_code == 200
            engine.process.terminate()
            engine.process.wait(30)
        assert not Path(path).parent.exists()

    @pytest.mark.parametrize("ending", ["sigterm", "sigint", "request"])
    def test_the_end_leaves_no_files_but_lock_and_log(self, tmp_path, ending):
        with running(tmp_path / "run") as engine:
            if ending == "request":
                assert engine.http.post("/v1/shutdown").status_code == 202
            else:
                engine.process.send_signal(getattr(signal, ending.upper()))
            assert engine.process.wait(30) == 0
            left = sorted(path.name for path in engine.directory.iterdir())
            assert left == ["engine.lock", "engine.log"]

    def test_another_engines_runtime_file_is_left_alone(self, tmp_path):
        with running(tmp_path / "run") as engine:
            path = engine.directory / "engine.json"
            path.write_text('{"pid": 1}')
            engine.process.terminate()
            engine.process.wait(30)
            assert path.read_text() == '{"pid": 1}'

    def test_the_end_does_not_wait_for_a_load(self, tmp_path):
        with running(tmp_path / "run", model="load-slow", ready=False) as engine:
            engine.process.terminate()
            assert engine.process.wait(30) == 0
            assert not (engine.directory / "engine.json").exists()

    def test_a_dead_engines_socket_is_taken_over(self, tmp_path):
        with running(tmp_path / "run") as engine:
            engine.process.kill()
            engine.process.wait()
            sock = published(engine.directory)["socket"]
            assert Path(sock).exists()
        with running(tmp_path / "run") as engine:
            assert published(engine.directory)["socket"] == sock
            assert engine.infill("hi").status_code == 200

    @pytest.mark.parametrize("arguments", [("--idle-exit", "x"), ("--idle-unload", "-1")])
    def test_a_bad_number_is_named(self, tmp_path, arguments):
        ended = run_to_end("--model", "x", "--runtime-dir", tmp_path, *arguments)
        assert ended.returncode == 2
        assert f"must be a number of seconds above 0, got {arguments[1]!r}" in ended.stderr

    @pytest.mark.parametrize("missing", ["uvicorn", "starlette"])
    def test_a_missing_server_library_is_named(self, tmp_path, missing):
        script = f"import sys; sys.modules[{missing!r}] = None\n" + (
            "from engine import server; sys.exit(server.main())"
        )
        ended = run_to_end(
            *("--model", "x", "--runtime-dir", tmp_path), command=[sys.executable, "-c", script]
        )
        assert ended.returncode == 1
        assert ended.stderr.strip() == (
            f"dg-lsp engine: error: {missing} is not installed: "
            "install the engine extra: pip install 'dg-lsp[engine]'"
        )


class TestLoading:
    def test_health_answers_and_requests_are_refused_meanwhile(self, tmp_path, hold):
        with running(tmp_path / "run", model="load-slow", ready=False) as engine:
            until(lambda: health(engine)["progress"] > 0.2)
            state = health(engine)
            assert state["status"] == "loading"
            assert state["message"].startswith("part ")
            assert state["engine"] is None
            refused = engine.infill("hi")
            assert refused.status_code == 503
            assert refused.json()["error"] == "the engine is loading"
            hold.unlink()
            until(lambda: health(engine)["status"] == "ready")
            assert engine.infill("hi").status_code == 200

    def test_a_failure_is_told_and_then_the_process_ends(self, tmp_path):
        message = "the weights are missing; run `dg-lsp pull load-fail`"
        with running(tmp_path / "run", model="load-fail", ready=False) as engine:
            until(lambda: engine.infill("hi").json()["error"] == message)
            assert engine.infill("hi").status_code == 503
            state = health(engine)
            assert (state["status"], state["message"]) == ("failed", message)
            assert engine.process.wait(30) == 1
            assert not (engine.directory / "engine.json").exists()

    def test_a_bug_is_told_too(self, tmp_path):
        with running(tmp_path / "run", model="load-bug", ready=False) as engine:
            state = until(lambda: (s := health(engine))["status"] == "failed" and s)
            assert state["message"] == "unexpected KeyError: 'secret'"
            assert "in load_" in engine.log()  # the traceback

    def test_a_missing_torch_is_named(self, tmp_path):
        model = tmp_path / "model"
        model.mkdir()
        (model / "config.json").write_text("{}")
        script = (
            "import sys; sys.modules['torch'] = None\n"
            "from engine import server; sys.exit(server.main())"
        )
        arguments = ["--model", str(model), "--runtime-dir", str(tmp_path / "run")]
        process = subprocess.Popen([sys.executable, "-c", script, *arguments])
        try:
            with connect(until(lambda: published(tmp_path / "run"))) as http:
                state = until(lambda: (s := http.get("/health").json())["status"] == "failed" and s)
            assert state["message"] == (
                "torch is not installed: install the engine extra: pip install 'dg-lsp[engine]'"
            )
        finally:
            process.terminate()
            process.wait(30)


class TestInfill:
    def test_the_answer_is_a_result_with_queue_time(self, engine):
        answer = engine.infill("a = ", suffix="\n").json()
        assert answer["text"] == "[a = |\n]"
        assert answer["timings_ms"].keys() >= {"queue", "decode", "total"}
        assert answer["timings_ms"]["total"] >= answer["timings_ms"]["queue"] > 0

    def test_lone_surrogates_survive_both_ways(self, engine):
        answer = engine.http.post("/v1/infill", content=rb'{"prefix": "\ud800"}').json()
        assert answer["text"] == "[\ud800|]"

    def test_a_stream_has_all_drafts_and_then_the_result(self, engine):
        stream = engine.http.stream(
            "POST",
            "/v1/infill",
            json={"prefix": "slow 20"},
            headers={"accept": "application/x-ndjson"},
        )
        with stream as response:
            assert response.headers["content-type"].startswith("application/x-ndjson")
            events = [json.loads(line) for line in response.iter_lines()]
        assert [event["draft"]["step"] for event in events[:-1]] == list(range(20))
        assert events[-1]["result"]["forwards"] == 20

    def test_a_failed_stream_ends_with_the_error(self, engine):
        headers = {"accept": "application/x-ndjson"}
        answer = engine.http.post("/v1/infill", json={"prefix": "fail no luck"}, headers=headers)
        assert json.loads(answer.text) == {"error": "no luck"}

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (b"", "the body is not JSON"),
            (b"{", "the body is not JSON"),
            (b"\xff", "the body is not JSON"),
            (b"[" * 100_000, "the body is not JSON"),
            (b"[]", "InfillRequest must be a JSON object, got list"),
            (b"{}", "missing 1 required keyword-only argument: 'prefix'"),
            (b'{"prefix": 1}', "prefix must be str, got int: '1'"),
            (b'{"prefix": "", "n": 1}', "InfillRequest has no field 'n'"),
            (b'{"prefix": "", "max_tokens": 0}', "max_tokens must be 1 to 1024, got 0"),
            (b'{"prefix": "", "deadline_ms": NaN}', "deadline_ms must be above 0, got nan"),
        ],
    )
    def test_a_bad_request_is_400_and_says_why(self, engine, body, message):
        answer = engine.http.post("/v1/infill", content=body)
        assert answer.status_code == 400
        assert message in answer.json()["error"]

    def test_a_body_that_is_too_large_is_413(self, engine):
        answer = engine.http.post("/v1/infill", content=b" " * (MAX_BODY_BYTES + 1))
        assert answer.status_code == 413
        assert answer.json()["error"] == f"the body is larger than {MAX_BODY_BYTES} bytes"

    @pytest.mark.parametrize(("path", "status"), [("/nothing", 404), ("/v1/infill", 405)])
    def test_wrong_paths_and_methods_answer_in_json(self, engine, path, status):
        answer = engine.http.get(path)
        assert answer.status_code == status
        assert answer.json()["error"]

    def test_an_engine_error_is_500_with_its_text(self, engine):
        answer = engine.infill("fail the hole does not fit")
        assert (answer.status_code, answer.json()) == (500, {"error": "the hole does not fit"})

    def test_a_bug_is_told_and_logged_without_source_text_and_the_engine_lives_on(self, engine):
        answer = engine.infill("bug", suffix="password = 'hunter2'")
        assert answer.status_code == 500
        assert answer.json()["error"] == "unexpected ValueError: cannot handle 'bug'"
        assert engine.infill("password = 'hunter2'").status_code == 200
        log = engine.log()
        assert "unexpected ValueError" in log
        assert "in infill" in log  # the traceback
        assert "cannot handle 'bug'" not in log
        assert "hunter2" not in log

    def test_health_counts(self, engine):
        before = health(engine)
        engine.infill("hi")
        after = health(engine)
        assert after["done"] == before["done"] + 1
        assert after["queue"] == 0
        assert after["status"] == "ready"
        assert after["pid"] == engine.process.pid
        assert after["engine"]["mode"] == "causal"
        assert 10 << 20 < after["rss_bytes"] < 1 << 30


class TestQueue:
    @pytest.fixture(autouse=True)
    def _no_steps_yet(self, engine):
        engine.steps.unlink(missing_ok=True)

    def test_jobs_run_one_at_a_time_in_order_of_arrival(self, engine, hold):
        first, _ = post_in_thread(engine, f"hold {hold}")
        until(engine.steps_done)
        second, answers = post_in_thread(engine, "slow 3")
        until(lambda: health(engine)["queue"] == 1)
        time.sleep(0.1)
        hold.unlink()
        first.join(30)
        second.join(30)
        steps = [int(line.split()[1]) for line in engine.steps_done()]
        assert steps == [*range(len(steps) - 3), *range(3)]
        assert answers[0]["timings_ms"]["queue"] > 100

    def test_preparing_gives_way_to_a_request(self, engine, hold):
        preparing, answers = post_in_thread(engine, f"hold {hold}", prepare=True)
        until(engine.steps_done)
        assert engine.infill("hi").status_code == 200
        preparing.join(30)
        assert answers == [{"error": "preparing gave way to a request"}]
        assert engine.steps_done()[-2:] == ["cancelled", "step 0"]

    def test_closing_the_connection_ends_the_running_job(self, engine, hold):
        connection = open_request(engine, f"hold {hold}")
        until(engine.steps_done)
        connection.close()
        until(lambda: engine.steps_done()[-1] == "cancelled")

    def test_drafts_come_as_they_are_made_and_closing_their_stream_ends_the_job(self, engine, hold):
        headers = {"accept": "application/x-ndjson"}
        body = {"prefix": f"hold {hold}"}
        with (
            connect(published(engine.directory)) as http,
            http.stream("POST", "/v1/infill", json=body, headers=headers) as response,
        ):
            assert json.loads(next(response.iter_lines()))["draft"]["step"] == 0
        until(lambda: engine.steps_done()[-1] == "cancelled")

    def test_closing_the_connection_removes_a_waiting_job(self, engine, hold):
        running_job, _ = post_in_thread(engine, f"hold {hold}")
        until(engine.steps_done)
        waiting = open_request(engine, "slow 400")
        until(lambda: health(engine)["queue"] == 1)
        waiting.close()
        until(lambda: health(engine)["queue"] == 0)
        hold.unlink()
        running_job.join(30)
        steps = engine.steps_done()
        assert steps == [f"step {step}" for step in range(len(steps))]

    def test_the_deadline_counts_the_time_in_the_queue(self, engine, hold):
        first, _ = post_in_thread(engine, f"hold {hold}")
        until(engine.steps_done)
        second, answers = post_in_thread(engine, "slow 100", deadline_ms=100)
        until(lambda: health(engine)["queue"] == 1)
        time.sleep(0.1)
        hold.unlink()
        first.join(30)
        second.join(30)
        (answer,) = answers
        assert answer["timings_ms"]["queue"] > 100
        assert (answer["stop"], answer["forwards"]) == ("deadline", 1)

    def test_too_many_waiting_jobs_are_429(self, engine, hold):
        connections = [open_request(engine, f"hold {hold}")]
        until(engine.steps_done)
        connections += [open_request(engine, "x") for _ in range(MAX_WAITING)]
        until(lambda: health(engine)["queue"] == MAX_WAITING)
        refused = engine.infill("hi")
        for connection in connections:
            connection.close()
        assert refused.status_code == 429
        assert refused.json()["error"] == f"{MAX_WAITING} requests wait already; ask again later"
        until(lambda: not health(engine)["busy"])

    def test_the_end_of_the_process_answers_all_jobs(self, tmp_path, hold):
        with running(tmp_path / "run") as engine:
            jobs = [post_in_thread(engine, f"hold {hold}") for _ in range(2)]
            until(lambda: health(engine)["queue"] == 1)
            engine.process.terminate()
            for thread, answers in jobs:
                thread.join(30)
                assert "error" in answers[0]
            assert engine.process.wait(30) == 0


class TestIdle:
    """What must happen before the engine idles happens while it loads: that lasts as long as needed."""

    IDLE_S = 0.5

    def test_without_a_lease_the_process_ends_when_idle(self, tmp_path, hold):
        with loading(tmp_path, "--idle-exit", self.IDLE_S) as engine:
            with engine.http.stream("GET", "/v1/lease"):
                until(lambda: health(engine)["leases"] == 1)
                hold.unlink()
                until(lambda: health(engine)["status"] == "ready")
                assert engine.infill("slow 2").status_code == 200
                left = time.monotonic()
            assert engine.process.wait(30) == 0
            assert time.monotonic() - left > self.IDLE_S
            assert "leaving" in engine.log()

    def test_a_lease_keeps_it_until_the_process_that_holds_it_dies(self, tmp_path, hold):
        with loading(tmp_path, "--idle-exit", self.IDLE_S) as engine:
            script = (
                "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
                "s.sendall(b'GET /v1/lease HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'); s.recv(99);"
                "print('held', flush=True); sys.stdin.read()"
            )
            holder = subprocess.Popen(
                [sys.executable, "-c", script, published(engine.directory)["socket"]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            holder.stdout.readline()
            assert health(engine)["leases"] == 1
            hold.unlink()
            until(lambda: health(engine)["status"] == "ready")
            time.sleep(2 * self.IDLE_S)
            assert engine.process.poll() is None
            holder.kill()
            holder.communicate()
            assert engine.process.wait(30) == 0

    def test_unload_ends_it_although_a_lease_is_open(self, tmp_path, hold):
        with loading(tmp_path, "--idle-unload", self.IDLE_S) as engine:
            with engine.http.stream("GET", "/v1/lease") as lease:
                hold.unlink()
                assert lease.read() == b"{}\n"  # ends with the process
            assert engine.process.wait(30) == 0

    def test_loading_is_not_idling(self, tmp_path):
        with loading(tmp_path, "--idle-exit", "0.2") as engine:  # it loads for 0.5 s
            assert engine.process.wait(30) == 0
            assert engine.log().index("ready after") < engine.log().index("leaving")


class TestTcp:
    def test_loopback_has_a_token_of_its_own(self, tmp_path):
        with running(tmp_path / "run", "--tcp", "0") as engine:
            info = published(engine.directory)
            assert info["url"].startswith("http://127.0.0.1:")
            assert len(info["token"]) >= 32
            assert engine.infill("hi").status_code == 200
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "é".encode()}):
                answer = httpx.get(info["url"] + "/health", headers=headers, trust_env=False)
                assert answer.status_code == 401
                assert answer.json() == {"error": "the token is missing or wrong"}

    def test_the_token_of_a_file_is_used(self, tmp_path):
        token = tmp_path / "token"
        token.write_text("0123456789abcdef\n")
        token.chmod(0o600)
        with running(tmp_path / "run", "--tcp", "127.0.0.1:0", "--token-file", token) as engine:
            assert published(engine.directory)["token"] == "0123456789abcdef"

    @pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "[::]", "example.org"])
    def test_a_host_beyond_loopback_needs_a_token(self, tmp_path, host):
        ended = run_to_end("--model", "x", "--runtime-dir", tmp_path, "--tcp", f"{host}:0")
        assert ended.returncode == 1
        assert f"{host.strip('[]')} can be reached from other machines: give --token-file" in (
            ended.stderr
        )

    @pytest.mark.parametrize("address", ["x", "127.0.0.1:x", "127.0.0.1:70000", ":-1"])
    def test_a_bad_address_is_named(self, tmp_path, address):
        ended = run_to_end("--model", "x", "--runtime-dir", tmp_path, "--tcp", address)
        assert ended.returncode == 1
        assert f"--tcp must be [HOST:]PORT with a port up to 65535, got {address!r}" in ended.stderr

    def test_a_port_in_use_is_named(self, tmp_path):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            ended = run_to_end("--model", "x", "--runtime-dir", tmp_path, "--tcp", address)
        assert ended.returncode == 1
        assert f"cannot listen on {address}" in ended.stderr

    @pytest.mark.parametrize(
        ("text", "mode", "message"),
        [
            (None, 0, "cannot be read"),
            ("0123456789abcdef", 0o644, "is open to other users; run: chmod 600"),
            ("short", 0o600, "must hold one line of at least 16 characters"),
            ("0123456789 abcdef", 0o600, "must hold one line of at least 16 characters"),
        ],
    )
    def test_a_bad_token_file_is_named(self, tmp_path, text, mode, message):
        file = tmp_path / "token"
        if text is not None:
            file.write_text(text)
            file.chmod(mode)
        arguments = ("--tcp", "0", "--token-file", file)
        ended = run_to_end("--model", "x", "--runtime-dir", tmp_path / "run", *arguments)
        assert ended.returncode == 1
        assert f"token file {file}" in ended.stderr
        assert message in ended.stderr


def test_options_of_how_weights_are_kept_and_steps_made_reach_the_engine(monkeypatch, tmp_path):
    loaded = []
    monkeypatch.setenv("GOMP_SPINCOUNT", "10000")  # which loading sets for good
    monkeypatch.setattr("engine.pull.resolve_model", Path)
    monkeypatch.setattr(
        "engine.runtime.Engine.load", lambda config, progress: loaded.append(config)
    )
    given = ["--model", str(tmp_path), "--runtime-dir", str(tmp_path), "--quantize", "int4"]
    options = server._parser().parse_args([*given, "--soft-tokens", "16", "--template", "raw"])
    server._load(options, lambda share, doing: None)
    [config] = loaded
    assert (config.quantize, config.soft_tokens, config.template) == ("int4", 16, "raw")
    assert server._parser().parse_args(given).soft_tokens is None

"""Starts the scripted engine for a test and ends it with the test."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

SCRIPTED = (sys.executable, "-P", str(Path(__file__).with_name("scripted_engine.py")))


@dataclass
class Running:
    process: subprocess.Popen
    directory: Path
    http: httpx.Client
    steps: Path

    def infill(self, prefix, **fields):
        return self.http.post("/v1/infill", json={"prefix": prefix, **fields})

    def steps_done(self):
        return self.steps.read_text().splitlines() if self.steps.exists() else []

    def log(self):
        return (self.directory / "engine.log").read_text()


def until(condition, seconds=30):
    """Waits until the condition holds and returns what it returned."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.01)
    return value


def published(directory):
    try:
        return json.loads((directory / "engine.json").read_text())
    except FileNotFoundError:
        return None


def connect(info, **options):
    """An HTTP client for what a runtime file says."""
    transport = httpx.HTTPTransport(uds=info.get("socket"))
    headers = {"authorization": f"Bearer {info['token']}"} if info["token"] else {}
    url = info.get("url", "http://engine")
    return httpx.Client(transport=transport, base_url=url, headers=headers, **options)


def end_published(directory):
    """Ends the engine a client under test has started, if it still runs."""
    with contextlib.suppress(ProcessLookupError):
        if info := published(directory):
            os.kill(info["pid"], signal.SIGKILL)
            until(lambda: not is_alive(info["pid"]))


def is_alive(pid):
    """Whether the process runs; one that has ended but was not waited for does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def running(directory, *arguments, model="scripted", ready=True):
    """The engine's process, and with `ready` its HTTP client once it answers requests."""
    steps = directory.with_name(directory.name + ".steps")
    command = [*SCRIPTED, "--runtime-dir", str(directory), "--model", model, *arguments]
    environment = {**os.environ, "SCRIPTED_ENGINE_STEPS": str(steps)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        # A killed engine leaves its file behind, so the pid is compared.
        until(lambda: (published(directory) or {}).get("pid") == process.pid or process.poll())
        assert process.poll() is None, process.stderr.read()
        with connect(published(directory), timeout=20) as http:
            if ready:
                until(lambda: http.get("/health").json()["status"] == "ready")
            yield Running(process, directory, http, steps)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
        steps.unlink(missing_ok=True)
        sock = Path((published(directory) or {}).get("socket", directory / "engine.sock"))
        if sock.parent != directory:  # the path was too long, and it was killed
            shutil.rmtree(sock.parent, ignore_errors=True)

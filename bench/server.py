"""What the language server itself costs: its start, a keystroke, and memory with many open files.

    dg-lsp bench server [--keystrokes N]

The engine is replaced by one that answers at once, so these figures are all the server's own.
What is open is Python's own standard library. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

URI = "file:///bench/a.py"
_GAP_S = 0.05  # in which the server may ask ahead
_REST_S = 1.5  # without computing; what is done in a pause begins after one second
LINE = "    some_value = function(argument_one, two)\n"
# The engine's start is left out; its answer is the shortest that is shown.
SERVER = """
from dg_lsp.lsp import server
from engine.request import InfillResult, Mode, StopReason

class Instant:
    def __init__(self, settings, on_status): pass
    async def connect(self): pass
    async def aclose(self): pass
    async def infill(self, request, on_draft=None):
        return InfillResult(text="x(argument)", stop=StopReason.COMPLETE, mode=Mode.CAUSAL, model="instant",
            confidence=1.0, tokens=1, forwards=1, prompt_tokens=1, cached_tokens=0)

server.main(Instant)
"""


class Connection:
    """A server process and the messages to and from it."""

    def __init__(self, script: str = SERVER) -> None:
        self._home = tempfile.TemporaryDirectory()
        command = [sys.executable, "-c", script]
        pipe = subprocess.PIPE
        env = {**os.environ, "DG_LSP_STATISTICS": str(Path(self._home.name) / "statistics")}
        env.pop(
            "PYTHONDONTWRITEBYTECODE", None
        )  # an installed server is compiled once, not each time
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=env)
        self._id = 0

    def notify(self, method: str, params: Any) -> None:
        """Sends a notification."""
        self._send({"method": method, "params": params})

    def request(self, method: str, params: Any) -> Any:
        """Sends a request and waits for its answer; other messages are passed over."""
        self._id += 1
        self._send({"id": self._id, "method": method, "params": params})
        assert self.process.stdout is not None
        while True:
            length = int(self.process.stdout.readline().partition(b":")[2])
            while self.process.stdout.readline().strip():
                continue
            message = json.loads(self.process.stdout.read(length))
            if message.get("id") == self._id:
                return message["result"]

    def _send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.process.stdin.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keystrokes", type=int, default=200)
    options = parser.parse_args()
    figures: dict[str, Any] = {"start_ms": round(statistics.median(start() for _ in range(5)))}
    for lines in (1_000, 10_000, 22_000):  # the last has a million characters
        figures[f"lines_{lines}"] = keystrokes(lines, options.keystrokes)
    figures["open_files"] = memory((0, 100, 300, 1_000))
    for name, value in figures.items():
        print(name, value)
    print(json.dumps({"bench": "server", **figures}))


def start() -> float:
    """Milliseconds from the process's start to its answer to `initialize`."""
    begun = time.perf_counter()
    connection = opened()
    elapsed = 1000 * (time.perf_counter() - begun)
    leave(connection)
    return elapsed


def keystrokes(lines: int, count: int) -> dict[str, float]:
    """Round trips of didChange and inlineCompletion in a file of so many lines.

    Beside them the processor time of all the server's threads for one keystroke, on the average.
    """
    connection = opened()
    document = {"uri": URI, "languageId": "python", "version": 0, "text": LINE * lines}
    connection.notify("textDocument/didOpen", {"textDocument": document})
    line = lines // 2
    took = []
    cpu_s = rest(connection)
    for typed in range(count):
        time.sleep(_GAP_S)
        place = {"line": line, "character": len(LINE) - 1 + typed}
        change = {"range": {"start": place, "end": place}, "text": ".y"[typed % 2]}
        version = {"uri": URI, "version": typed + 1}
        begun = time.perf_counter()
        connection.notify(
            "textDocument/didChange", {"textDocument": version, "contentChanges": [change]}
        )
        asked = {
            "textDocument": {"uri": URI},
            "position": {"line": line, "character": len(LINE) + typed},
            "context": {"triggerKind": 1},  # at once: only computing is measured
        }
        answer = connection.request("textDocument/inlineCompletion", asked)
        took.append(1000 * (time.perf_counter() - begun))
        assert answer["items"], "every keystroke is answered"
    cpu_s = rest(connection) - cpu_s
    leave(connection)
    took.sort()
    return {
        "p50_ms": round(took[len(took) // 2], 2),
        "p95_ms": round(took[int(0.95 * len(took))], 2),
        "cpu_ms": round(1000 * cpu_s / count, 2),
    }


def memory(counts: Sequence[int]) -> dict[int, dict[str, float]]:
    """Resident memory, and the size of the texts, in MB with so many files open, each of 64 kB at most."""
    library = Path(sysconfig.get_path("stdlib"))
    sources = [path for path in sorted(library.rglob("*.py")) if path.stat().st_size <= 64_000]
    connection = opened()
    process = psutil.Process(connection.process.pid)
    figures, size = {}, 0
    for number in range(max(counts) + 1):
        if number in counts:
            rest(connection)
            rss = process.memory_info().rss
            figures[number] = {"text_mb": round(size / 1e6, 1), "rss_mb": round(rss / 1e6, 1)}
        text = sources[number].read_text(encoding="utf-8", errors="replace")
        size += len(text)
        document = {"uri": sources[number].as_uri(), "languageId": "python", "version": 0}
        connection.notify("textDocument/didOpen", {"textDocument": {**document, "text": text}})
    leave(connection)
    return figures


def rest(connection: Connection) -> float:
    """Waits until the server has nothing to do; returns the seconds that it has computed so far."""
    process = psutil.Process(connection.process.pid)
    spent = -1.0
    while (now := sum(process.cpu_times()[:2])) > spent:
        spent = now
        time.sleep(_REST_S)
    return spent


def opened() -> Connection:
    """A server that has answered `initialize`."""
    connection = Connection()
    connection.request("initialize", {"processId": None, "rootUri": None, "capabilities": {}})
    connection.notify("initialized", {})
    return connection


def leave(connection: Connection) -> None:
    """Ends the server as an editor does."""
    connection.request("shutdown", None)
    connection.notify("exit", None)
    assert connection.process.wait() == 0


if __name__ == "__main__":
    main()

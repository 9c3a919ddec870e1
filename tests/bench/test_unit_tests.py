import threading

import psutil
import pytest

from bench import unit_tests
from bench.unit_tests import Limits, Verdict, run

RIGHT = "def double(x):\n    return 2 * x\n"
WRONG = "def double(x):\n    return x + 1\n"
CHECK = "def check(f):\n    assert f(3) == 6\ncheck(double)\n"

no_network = pytest.mark.skipif(
    "no network" not in unit_tests.isolation(), reason="this system grants no namespaces"
)


def test_a_right_answer_passes_and_a_wrong_one_fails():
    assert run(RIGHT + CHECK) is Verdict.PASSED
    assert run(WRONG + CHECK) is Verdict.FAILED
    assert run("def double(x:\n" + CHECK) is Verdict.FAILED


def test_the_standard_library_can_be_imported():
    assert run("import collections, hashlib, math, random, re, typing") is Verdict.PASSED


@pytest.mark.parametrize(
    "early", ["import sys\nsys.exit(0)", "raise SystemExit", "import os\nos._exit(0)"]
)
def test_leaving_before_the_tests_is_no_pass(early):
    assert run(early + "\n" + RIGHT + CHECK) is not Verdict.PASSED


def test_an_endless_loop_is_stopped_by_its_processor_time():
    assert run("while True: pass", Limits(cpu_s=1)) is Verdict.STOPPED


def test_a_program_that_only_waits_is_stopped_and_leaves_no_process():
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    waits = "import time\ntime.sleep(600)"
    assert run(waits, Limits(wall_s=0.5)) is Verdict.STOPPED
    after = {child.pid for child in psutil.Process().children(recursive=True)}
    assert after <= before


@pytest.mark.parametrize("guard", [True, False])
def test_too_much_memory_is_an_error_in_the_program(guard):
    program = (
        "try:\n    'x' * (2 << 30)\nexcept MemoryError:\n    pass\nelse:\n    raise ValueError"
    )
    assert run(program, guard=guard) is Verdict.PASSED


# Each program passes if the sandbox refuses it in the way expected behind the audit hook.
WALLS = {
    "processes": "import os\nos.fork()",
    "threads": "import threading\nthreading.Thread(target=print).start()",
    "big files": "with open('big', 'wb') as f:\n    f.write(bytes(2 << 20))",
}


def refused(program, error):
    indented = "\n".join("    " + line for line in program.splitlines())
    return f"try:\n{indented}\nexcept {error}:\n    pass\nelse:\n    raise ValueError('allowed')"


@pytest.mark.parametrize("name", WALLS)
def test_the_limits_hold_without_the_guard(name):
    assert run(refused(WALLS[name], "(OSError, RuntimeError)"), guard=False) is Verdict.PASSED


@no_network
@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM"])
def test_there_is_no_network_behind_the_guard(kind):
    connect = f"import socket\nsocket.socket(type=socket.{kind}).connect(('192.0.2.1', 9))"
    unreachable = (
        f"import errno\ntry:\n    {connect.splitlines()[0]}\n    {connect.splitlines()[1]}\n"
    )
    unreachable += "except OSError as error:\n    assert error.errno == errno.ENETUNREACH\n"
    assert run(unreachable + "else:\n    raise ValueError", guard=False) is Verdict.PASSED


@no_network
def test_a_fork_bomb_ends_with_the_program(monkeypatch):
    monkeypatch.setattr(Limits, "resources", lambda self: {"RLIMIT_NPROC": 40})
    bomb = "import os, time\nos.setsid()\nfor _ in range(5):\n    if not os.fork():\n        os.setsid()\ntime.sleep(99)"
    seen, over = set(), threading.Event()
    watcher = threading.Thread(target=watch, args=(seen, over))
    watcher.start()
    try:
        assert run(bomb, Limits(wall_s=3), guard=False) is Verdict.STOPPED
    finally:
        over.set()
        watcher.join()
    assert len(seen) > 3, "the bomb did not go off"
    assert psutil.wait_procs(seen, timeout=10)[1] == []


def watch(seen, over):
    while not over.wait(0.1):
        seen.update(psutil.Process().children(recursive=True))


@pytest.mark.parametrize(
    "program",
    [
        "open('file', 'w')",
        "import os\nos.remove('/nowhere')",
        "import shutil\nshutil.rmtree('/nowhere')",
        "import os\nos.system('true')",
        "import subprocess\nsubprocess.run(['true'])",
        "import socket\nsocket.socket()",
        "import ctypes\nctypes.CDLL(None)",
    ],
)
def test_the_guard_refuses_what_no_unit_test_needs(program):
    assert run(refused(program, "PermissionError")) is Verdict.PASSED


def test_what_is_missing_of_the_sandbox_is_said(monkeypatch):
    monkeypatch.setattr(unit_tests, "_works", lambda walls: False)
    unit_tests._walls.cache_clear()
    try:
        assert "NETWORK REACHABLE" in unit_tests.isolation()
        assert run(RIGHT + CHECK) is Verdict.PASSED
    finally:
        unit_tests._walls.cache_clear()

"""Runs a program with its unit tests in a sandboxed subprocess, and says whether it passed.

The subprocess has no network and sees no other process where the system grants it namespaces
(`unshare`), is another user where we are root (`setpriv`), cannot start processes or threads, is
bound in processor time, memory and file size, and ends with everything it started. `isolation`
says what of this there is here. Knows nothing of models or holes.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil

from bench.sandboxed import FAILED, PASSED

_SCRIPT = Path(__file__).with_name("sandboxed.py")
_NAMESPACES = ("unshare", "--net", "--pid", "--fork", "--kill-child")
_OWN_USER = ("--user", "--map-current-user")
# Nobody, who may still read: the interpreter often lies where only root can.
_NOBODY = (
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"),
    *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
    "--bounding-set=-all,+dac_read_search",
)


class Verdict(StrEnum):
    """How a program ended. `stopped` is by a limit, or by leaving before its end."""

    PASSED = "passed"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a program may take. Processor time decides; `wall_s` ends one that only waits."""

    cpu_s: int = 5
    wall_s: float = 30.0
    memory_bytes: int = 1 << 30
    file_bytes: int = 1 << 20

    def resources(self) -> dict[str, int]:
        """The limits by their names in the module `resource`."""
        return {
            "RLIMIT_CPU": self.cpu_s,
            "RLIMIT_AS": self.memory_bytes,
            "RLIMIT_FSIZE": self.file_bytes,
            "RLIMIT_CORE": 0,
            "RLIMIT_NOFILE": 64,
            "RLIMIT_NPROC": 1,  # itself: there is no second process, and no thread
        }


def run(program: str, limits: Limits | None = None, *, guard: bool = True) -> Verdict:
    """Runs `program` to its end or to a limit; it passed if it raised nothing on the way.

    `guard` False leaves out the audit hook, so that tests see the walls behind it.
    """
    limits = limits or Limits()
    task = {"program": program, "limits": limits.resources(), "guard": guard}
    with tempfile.TemporaryDirectory(prefix="dg-lsp-test-") as empty:
        process = subprocess.Popen(
            [*_walls(), sys.executable, "-I", "-S", str(_SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=empty,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
        try:
            process.communicate(json.dumps(task).encode(), timeout=limits.wall_s)
        except subprocess.TimeoutExpired:
            return Verdict.STOPPED
        finally:
            _end(process)
    verdicts = {PASSED: Verdict.PASSED, FAILED: Verdict.FAILED}
    return verdicts.get(process.returncode, Verdict.STOPPED)


def isolation() -> str:
    """One line on how well programs are locked in on this machine."""
    walls = _walls()
    network = "no network" if "unshare" in walls else "NETWORK REACHABLE (no namespaces here)"
    user = "other user" if "setpriv" in walls else "this user"
    return f"unit tests in a sandbox: {network}, {user}, no processes, no writing"


@functools.cache
def _walls() -> tuple[str, ...]:
    """The most of the walls that this machine grants, as the beginning of a command."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    user = _NOBODY if root else ()
    namespaces = _NAMESPACES if root else (_NAMESPACES[0], *_OWN_USER, *_NAMESPACES[1:])
    for walls in ((*namespaces, *user), user):
        if not walls or (shutil.which(walls[0]) and _works(walls)):
            return walls
    return ()


def _works(walls: tuple[str, ...]) -> bool:
    done = subprocess.run(
        [*walls, sys.executable, "-I", "-S", "-c", ""], capture_output=True, check=False
    )
    return done.returncode == 0


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills the process and whatever it has started, also what has left its group."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()

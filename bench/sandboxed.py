"""Runs one untrusted program inside the sandbox: a script of its own, standard library only.

Reads {"program", "limits", "guard"} as JSON from stdin, binds itself to the limits, refuses what no
unit test needs, and runs the program. It exits with PASSED where the program ran to its end and with
FAILED where that raised; any other status is of a program that was stopped. Started by `bench.unit_tests` and by nothing else.
"""

from __future__ import annotations

import json
import os
import resource
import sys

PASSED, FAILED = 77, 78
_REFUSED = ("ctypes.", "os.", "pty.", "shutil.", "signal.", "socket.", "subprocess.")
_READING = ("os.listdir", "os.scandir", "os.walk", "os.fwalk")  # imports list directories
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def main() -> int:
    """The exit status for the program on stdin."""
    task = json.load(sys.stdin)
    for name, value in task["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    if task["guard"]:
        sys.addaudithook(_refuse)
    try:
        exec(compile(task["program"], "program", "exec"), {"__name__": "program"})
    except BaseException as error:  # noqa: BLE001 - also SystemExit: leaving early is no pass
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return FAILED
    return PASSED


def _refuse(event: str, details: tuple[object, ...]) -> None:
    """An audit hook, which Python code cannot take out again: no writing, processes, sockets."""
    writes = event == "open" and isinstance(details[2], int) and details[2] & _WRITING
    if writes or (event.startswith(_REFUSED) and event not in _READING):
        raise PermissionError(f"{event} is refused in the sandbox")


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # at once: the program's threads and exit handlers have no say

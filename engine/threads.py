"""How many threads a forward may use: as many as there are cores that others leave alone.

A forward is hundreds of short parallel regions, and each ends when its slowest thread does. Where
another process holds one of two cores, two threads take more than twice as long as one (LOG.md).
Knows nothing of torch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_SHORTEST, _LONGEST = 0.25, 20.0  # seconds that say something about the present


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds so far: on the clock, of the cores at work, and of them for this process."""

    clock: float
    busy: float
    own: float


class Threads:
    """Chooses between 1 and `most`, by what others did since the choice before."""

    def __init__(self, most: int, read: Callable[[], Usage | None] | None = None) -> None:
        self._most = most
        self._read = read or usage
        self._last = self._read()
        self._chosen = most

    def choose(self) -> int:
        """For the forwards of the next moments; `most` where nothing is known."""
        last, now = self._last, self._read()
        if last is None or now is None:
            return self._most
        passed = now.clock - last.clock
        if passed < _SHORTEST:
            return self._chosen
        self._last = now
        others = (now.busy - last.busy - (now.own - last.own)) / passed
        free = round(self._most - others) if passed < _LONGEST else self._most
        self._chosen = max(1, min(self._most, free))
        return self._chosen


def usage() -> Usage | None:
    """Of the cores this process may use, as Linux tells; None elsewhere.

    What runs at low priority does not count: it makes room.
    """
    try:
        lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
        names = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    except (OSError, AttributeError):
        return None
    ticks = 0
    for line in lines:
        name, *counts = line.split()
        if name in names:
            user, _nice, system, _idle, _iowait, irq, softirq, steal = map(int, counts[:8])
            ticks += user + system + irq + softirq + steal
    return Usage(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), time.process_time())

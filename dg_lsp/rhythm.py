"""HOW LONG to wait for the next keystroke before the engine is asked.

Pure: moving averages of moments given in seconds of any clock.
"""

from __future__ import annotations

from dataclasses import dataclass

RATE = 1.2  # of a typist's gap; in replays 0 to 1.6 do as well, from 2.2 on answers come late

_SHARE = 0.2  # of the newest in an average
_PAUSE_S = 0.6  # longer is not typing


@dataclass(slots=True)
class Rhythm:
    """One typist's gap between keystrokes and one engine's time to an answer, in seconds."""

    gap: float = 0.0
    latency: float = 0.0
    last: float | None = None

    def key(self, now: float) -> None:
        """Takes note of a keystroke."""
        if self.last is not None and now - self.last <= _PAUSE_S:
            self.gap = _average(self.gap, now - self.last)
        self.last = now

    def answered(self, seconds: float) -> None:
        """Takes note of how long the engine took."""
        self.latency = _average(self.latency, seconds)

    def wait(self, now: float) -> float:
        """How long to wait yet, so that the answer comes when a pause is likely; never negative.

        It counts from the keystroke: what the client waited before it asked has passed already.
        """
        if self.last is None:
            return 0.0
        return max(0.0, self.last + RATE * self.gap - self.latency - now)


def _average(old: float, new: float) -> float:
    return old + _SHARE * (new - old) if old else new

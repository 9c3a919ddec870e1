"""An event loop that never waits: where nothing is to be done, its time goes on to the next timer.

So what takes an hour by the clock takes as long as the computing in it. With a `clock` the time
that passes while computing counts too; without one, time is only what was slept.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")


class _NoWait(selectors.DefaultSelector):
    """A selector that adds up the time it was asked to wait for instead of waiting."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready now."""
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing will ever happen: no timer, no task that can go on"
            self.skipped += max(0.0, timeout)
        return ready


class SkippingLoop(asyncio.SelectorEventLoop):
    """The loop; what happens outside of it, in threads and other processes, is not waited for."""

    def __init__(self, clock: Callable[[], float] = lambda: 0.0) -> None:
        self._no_wait = _NoWait()
        self._clock = clock
        super().__init__(self._no_wait)

    def time(self) -> float:
        """Seconds, of the clock and of all that was skipped."""
        return self._clock() + self._no_wait.skipped


class AtOnce(Executor):
    """Runs at once, and in no time, what would run in a thread: the loop waits for none."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """The call's outcome."""
        done: Future[T] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - it belongs to who asks for the result
            done.set_exception(error)
        return done


def run(work: Coroutine[Any, Any, T], clock: Callable[[], float] = lambda: 0.0) -> T:
    """The result of `work`, in simulated time."""
    with asyncio.Runner(loop_factory=lambda: SkippingLoop(clock)) as runner:
        return runner.run(work)

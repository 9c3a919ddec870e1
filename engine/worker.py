"""One engine and the one thread that runs it: loads first, then jobs in order of arrival.

Knows nothing of HTTP, sockets or files: a job's events leave through its own `deliver`.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from engine.errors import Cancelled, EngineError
from engine.request import Draft, InfillRequest, InfillResult

logger = logging.getLogger(__name__)

MAX_WAITING = 64
_REST_AFTER_S = 2.0  # longer than one pauses between two keys
_LEAST_DEADLINE_MS = 1e-3  # a deadline that passed in the queue still buys one step

Progress = Callable[[float, str], None]
Event = Draft | InfillResult | EngineError


class QueueFull(EngineError):
    """Too many requests wait already."""


class Engine(Protocol):
    """What the worker needs of an engine; only its one thread calls `infill`."""

    def infill(
        self,
        request: InfillRequest,
        *,
        cancelled: Callable[[], bool],
        on_draft: Callable[[Draft], None] | None = None,
    ) -> InfillResult:
        """Fills the hole; polls `cancelled` between forwards and then raises Cancelled."""

    def rest(self) -> None:
        """Told when no request has come for a while."""

    def describe(self) -> dict[str, Any]:
        """What runs, as plain JSON values."""


@dataclass(frozen=True, slots=True)
class LoadState:
    """How far the engine is on its way to answer requests."""

    status: Literal["starting", "loading", "ready", "failed"] = "starting"
    message: str = ""
    progress: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A request on its way; `received` is on the monotonic clock."""

    request: InfillRequest
    deliver: Callable[[Event], None]
    drafts: bool = False
    received: float = field(default_factory=time.monotonic)
    cancelled: threading.Event = field(default_factory=threading.Event)


class Worker:
    """Loads the engine in its thread and runs one job at a time."""

    def __init__(self, load: Callable[[Progress], Engine]) -> None:
        self.state = LoadState()
        self.done = 0
        self.last_used = time.monotonic()
        self.engine: Engine | None = None
        self._load = load
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._changed = threading.Condition()
        self._closed = False
        # A daemon, because importing torch or reading weights cannot be interrupted.
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begins to load; returns at once."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs in the queue, without the running one."""
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether the thread loads the engine or runs a job."""
        return self.state.status in ("starting", "loading") or self._running is not None

    def submit(self, job: Job) -> None:
        """Queues the job, before which one that only prepares ends; raises QueueFull."""
        with self._changed:
            if self._closed:
                raise Cancelled("the engine is shutting down")
            if len(self._waiting) >= MAX_WAITING:
                raise QueueFull(f"{MAX_WAITING} requests wait already; ask again later")
            self.last_used = time.monotonic()
            for earlier in (self._running, *self._waiting):
                if earlier is not None and earlier.request.prepare:
                    earlier.cancelled.set()
            self._waiting.append(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Takes the job out of the queue, or ends it within one step; harmless when done."""
        job.cancelled.set()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)

    def close(self, timeout_s: float) -> bool:
        """Ends all jobs; returns whether the thread is gone (a load goes on regardless)."""
        with self._changed:
            self._closed = True
            for job in self._waiting:
                job.deliver(Cancelled("the engine is shutting down"))
            self._waiting.clear()
            if self._running is not None:
                self._running.cancelled.set()
            self._changed.notify()
        if self.state.status in ("ready", "failed"):  # waiting for a load is of no use
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        self.engine = self._loaded()
        if self.engine is None:
            return
        while (job := self._next(self.engine)) is not None:
            job.deliver(_answer(self.engine, job))
            self._running = None
            self.done += 1
            self.last_used = time.monotonic()

    def _loaded(self) -> Engine | None:
        def progress(fraction: float, message: str) -> None:
            self.state = LoadState("loading", message, min(max(fraction, 0.0), 1.0))

        progress(0.0, "loading the model")
        begun = time.monotonic()
        try:
            engine = self._load(progress)
        except Exception as error:  # noqa: BLE001 - whatever it was, clients are told and it is logged
            self.last_used = time.monotonic()
            self.state = LoadState("failed", str(_as_engine_error(error)))
            logger.error("the engine cannot start: %s", self.state.message)
            return None
        self.last_used = time.monotonic()
        self.state = LoadState("ready", "", 1.0)
        logger.info("ready after %.1f s", self.last_used - begun)
        return engine

    def _next(self, engine: Engine) -> Job | None:
        def wanted() -> bool:
            return bool(self._waiting) or self._closed

        with self._changed:
            idle = not self._changed.wait_for(wanted, _REST_AFTER_S)
        if idle:
            try:
                engine.rest()
            except Exception as error:  # noqa: BLE001 - resting must not end the engine either
                logger.warning("the engine cannot rest: %s", error)
        with self._changed:
            self._changed.wait_for(wanted)
            if self._closed:
                return None
            self._running = self._waiting.popleft()
            return self._running


def _answer(engine: Engine, job: Job) -> Event:
    """The result or the error; the deadline and the timings count from receipt."""
    queued_ms = 1000 * (time.monotonic() - job.received)
    request = job.request
    if request.deadline_ms is not None:
        left_ms = max(request.deadline_ms - queued_ms, _LEAST_DEADLINE_MS)
        request = replace(request, deadline_ms=left_ms)
    on_draft = job.deliver if job.drafts else None
    try:
        result = engine.infill(request, cancelled=job.cancelled.is_set, on_draft=on_draft)
    except Exception as error:  # noqa: BLE001 - one bad request must not end the engine
        if request.prepare and isinstance(error, Cancelled):
            return EngineError("preparing gave way to a request")  # the engine goes on
        return _as_engine_error(error)
    total_ms = 1000 * (time.monotonic() - job.received)
    timings = {**result.timings_ms, "queue": queued_ms, "total": total_ms}
    logger.info(
        "%s: %d tokens, %d forwards, %.0f ms, stop %s",
        result.mode,
        result.tokens,
        result.forwards,
        total_ms,
        result.stop,
    )
    return replace(result, timings_ms=timings)


def _as_engine_error(error: Exception) -> EngineError:
    """Errors made on purpose stay as they are; a bug's traceback goes to the log.

    Its message does not: it may quote the user's source text.
    """
    if isinstance(error, EngineError):
        return error
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("unexpected %s\n%s", type(error).__name__, frames)
    return EngineError(f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}")

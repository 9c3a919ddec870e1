"""Who gets the engine: of one document, only the newest request.

Every request is answered exactly once, by an Outcome; a newer request for the same document
cancels the older one's work in the engine. Nothing is locked while the engine works. Knows
nothing of LSP, of what is asked or of how an engine is reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from engine.request import InfillRequest, InfillResult

Infill = Callable[[InfillRequest], Coroutine[Any, Any, InfillResult]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a request: a result, an error, or neither where a newer one took over."""

    result: InfillResult | None = None
    error: Exception | None = None


class Scheduler:
    """Runs at most one request per key (a document's URI); cancelling the caller cancels it."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[InfillResult]] = {}

    async def ask(self, key: str, request: InfillRequest, infill: Infill) -> Outcome:
        """Asks in place of the key's running request, which ends without a result."""
        self.supersede(key)
        task = asyncio.create_task(infill(request))
        self._running[key] = task
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()
            if self._running.get(key) is task:
                del self._running[key]
        if task.cancelled():
            return Outcome()
        try:
            return Outcome(result=task.result())
        except Exception as error:  # noqa: BLE001 - it belongs to whoever asked
            return Outcome(error=error)

    def supersede(self, key: str) -> None:
        """Ends the key's running request, if there is one, without a result."""
        if running := self._running.get(key):
            running.cancel()

    def supersede_all(self) -> None:
        """Ends all requests without a result."""
        for task in self._running.values():
            task.cancel()

    async def aclose(self) -> None:
        """Ends all requests without a result and returns when their work has stopped."""
        self.supersede_all()
        if self._running:
            await asyncio.wait(self._running.values())

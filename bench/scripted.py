"""The engine of a replay: what it was asked is written down; the scripted one knows the text.

Its time is the event loop's. Knows nothing of keys or of what is shown.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from dg_lsp.session import Engine
from engine.request import InfillRequest, InfillResult, Mode, StopReason

STEP_S = 0.008  # of the scripted engine, for one token
TAIL = 200


@dataclass(slots=True)
class Work:
    """One request in the engine: what for, for how long, and whether its answer was shown."""

    asked: InfillRequest
    seconds: float = 0.0
    finished: bool = False
    shown: bool = False

    @property
    def tail(self) -> str:
        """The end of the prefix, by which its place is known."""
        return self.asked.prefix[-TAIL:]


class Watched:
    """An engine whose work is written down."""

    def __init__(self, engine: Engine, work: list[Work]) -> None:
        self.connect = engine.connect
        self.stop = engine.stop
        self.aclose = engine.aclose
        self._infill = engine.infill
        self._work = work

    async def infill(self, request: InfillRequest) -> InfillResult:
        """As the engine does."""
        loop = asyncio.get_running_loop()
        work, begun = Work(request), loop.time()
        self._work.append(work)
        try:
            result = await self._infill(request)
            work.finished = True
            return result
        finally:
            work.seconds = loop.time() - begun


class Scripted:
    """Knows the text that is typed; one request at a time, a step for each token of its answer.

    Three answers of ten begin right and go wrong, and so does what follows a typing error.
    """

    def __init__(self, final: str, begun_s: float) -> None:
        self._final = final
        self._begun_s = begun_s
        self._free = asyncio.Lock()

    async def connect(self) -> None:
        """It is there."""

    async def stop(self) -> bool:
        """It cannot be stopped."""
        return False

    async def aclose(self) -> None:
        """It stays."""

    async def infill(self, request: InfillRequest) -> InfillResult:
        """The truth, or something like it."""
        text = "" if request.prepare else self._answer(request)
        async with self._free:
            await asyncio.sleep(self._begun_s + STEP_S * (len(text) / 4 + 1))
        return InfillResult(
            text=text,
            stop=StopReason.COMPLETE,
            mode=Mode.FIM,
            model="scripted",
            confidence=0.9,
            tokens=len(text) // 4 + 1,
            forwards=len(text) // 4 + 1,
            prompt_tokens=500,
            cached_tokens=490,
        )

    def _answer(self, request: InfillRequest) -> str:
        place = self._final.find(request.prefix[-400:])
        if place < 0:
            return "something_else(entirely)"
        rest = self._final[place + len(request.prefix[-400:]) :]
        lines = rest.split("\n")
        rng = random.Random(f"{request.prefix[-80:]}|{len(request.prefix)}")
        most = 1 if request.single_line or request.prefix[-1:].strip() else rng.choice([1, 1, 4])
        if not lines[0] or request.prefix.rstrip(" ").endswith((":", "\n", "{")):
            most = rng.choice([2, 4, 6])
        text = "\n".join(lines[:most])
        if rng.random() < 0.3:
            words = text.split(" ")
            text = " ".join(words[: 1 + len(words) // 3]) + " other_name(argument)"
        return text

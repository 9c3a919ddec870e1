"""The engine of a replay: what it was asked is written down; the scripted one knows the text.

Its time is the event loop's. Knows nothing of keys or of what is shown.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from dg_lsp.session import Engine, OnDraft
from engine.request import Draft, InfillRequest, InfillResult, Mode, StopReason

TAIL = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How the scripted engine is: seconds before its first token and for each, and how often wrong."""

    begun_s: float = 0.06
    token_s: float = 0.008
    wrong: float = 0.3


LIKE_DG_MINI = Manner(begun_s=0.15, token_s=0.06, wrong=0.7)  # on two cores of a CPU


@dataclass(slots=True)
class Work:
    """One request in the engine: what for, for how long, what came of it, and was it shown."""

    asked: InfillRequest
    seconds: float = 0.0
    draft: str = ""
    result: InfillResult | None = None
    shown: bool = False

    @property
    def finished(self) -> bool:
        """Whether it was answered."""
        return self.result is not None

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

    async def infill(self, request: InfillRequest, on_draft: OnDraft | None = None) -> InfillResult:
        """As the engine does."""
        loop = asyncio.get_running_loop()
        work, begun = Work(request), loop.time()
        self._work.append(work)

        def note(draft: Draft) -> None:
            work.draft = draft.text
            if on_draft:
                on_draft(draft)

        try:
            work.result = await self._infill(request, note)
            return work.result
        finally:
            work.seconds = loop.time() - begun


class Scripted:
    """Knows the text that is typed; one request at a time, a step for each token of its answer.

    Some answers begin right and go wrong, and so does what follows a typing error.
    """

    def __init__(self, final: str, manner: Manner) -> None:
        self._final = final
        self._manner = manner
        self._free = asyncio.Lock()

    async def connect(self) -> None:
        """It is there."""

    async def stop(self) -> bool:
        """It cannot be stopped."""
        return False

    async def aclose(self) -> None:
        """It stays."""

    async def infill(self, request: InfillRequest, on_draft: OnDraft | None = None) -> InfillResult:
        """The truth, or something like it."""
        text = "" if request.prepare else self._answer(request)
        async with self._free:
            await asyncio.sleep(self._manner.begun_s)
            for step in range(len(text) // 4 + 1):
                await asyncio.sleep(self._manner.token_s)
                if on_draft and text:
                    on_draft(Draft(text=text[: 4 * step + 4], step=step, mode=Mode.FIM))
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
        if rng.random() < self._manner.wrong:
            words = text.split(" ")
            text = " ".join(words[: 1 + len(words) // 3]) + " other_name(argument)"
        return text

"""The order in which an answer is looked for, and what is asked ahead of time.

What is known already; else what the engine is at work on; else the engine. Knows neither the
protocol nor the engine's address: a place in a text in, what there is to show out.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from dg_lsp import choice, ghost_text
from dg_lsp.cache import Answer, Cache, Offer
from dg_lsp.document import LINE_END, Snapshot
from dg_lsp.scheduler import Scheduler
from dg_lsp.settings import Settings
from engine.request import InfillResult

logger = logging.getLogger(__name__)

Infill = Callable[[Snapshot], Coroutine[Any, Any, InfillResult]]


class Completer:
    """Answers the requests of all documents of a session."""

    def __init__(self, infill: Infill) -> None:
        self._infill = infill
        self._settings = Settings()
        self._scheduler = Scheduler()
        self._cache = Cache()

    def configure(self, settings: Settings) -> None:
        """Takes other settings: what was answered under the old ones is forgotten."""
        self._settings = settings
        self._cache.clear()

    def typed(self, uri: str) -> None:
        """Takes note that a document has been edited."""
        self._scheduler.typed(uri)

    async def answer(self, place: Snapshot, *, automatic: bool, refusal: str = "") -> Answer:
        """What there is to show at `place`; a reason for refusal keeps the engine out of it.

        Raises Superseded when a newer request has taken over, and what the engine raised.
        """
        turn = self._scheduler.turn(place)
        found = self._cache.find(place)
        if found is None:
            await turn.running()
            found = self._cache.find(place)
        if found is None and not refusal:
            await turn.engine(self._fill, at_once=not automatic)
            found = self._cache.find(place)
        if found is None:
            return Answer()
        if automatic:
            found = found.unasked
        if found.offers and self._settings.ask_ahead:
            places = (ahead for ahead in _ahead(place, found) if ahead not in self._cache)
            self._scheduler.ahead(places, self._fill)
        return found

    def forget(self, uri: str) -> None:
        """Ends a document's request and drops its answers."""
        self._scheduler.supersede(uri)
        self._cache.forget(uri)

    def stop(self) -> None:
        """Ends all requests and drops all answers: the engine is another."""
        self._scheduler.supersede_all()
        self._cache.clear()

    async def aclose(self) -> None:
        """Ends all requests and returns when their work has stopped."""
        await self._scheduler.aclose()

    async def _fill(self, place: Snapshot) -> None:
        """Asks the engine and keeps what is worth showing of its answer."""
        result = await self._infill(place)
        least = self._settings.min_score
        offers = tuple(
            Offer(
                offer.text,
                ghost_text.covered(offer.text, place),
                wanted=offer.confidence >= least and not choice.too_short(offer.text),
            )
            for offer in choice.offers(result, place, least)
        )
        self._cache.put(place, Answer(offers))


def _ahead(place: Snapshot, answer: Answer) -> Iterator[Snapshot]:
    """The places at which one is after accepting all of an answer, or only its first line."""
    best = answer.offers[0]
    yield _accepted(place, best.text, best.covered)
    end = LINE_END.search(best.text, 1)
    if end is not None:
        yield _accepted(place, best.text[: end.start()], 0)


def _accepted(place: Snapshot, text: str, covered: int) -> Snapshot:
    return dataclasses.replace(
        place,
        text=place.prefix + text + place.text[place.offset + covered :],
        offset=place.offset + len(text),
    )

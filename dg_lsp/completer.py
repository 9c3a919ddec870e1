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
from dg_lsp.cache import Answer, Cache, Offer, typed_since
from dg_lsp.document import LINE_END, Snapshot
from dg_lsp.scheduler import Scheduler
from dg_lsp.settings import Settings
from dg_lsp.triggers import INDENT_FIRST
from engine.request import Draft, InfillResult, Mode

logger = logging.getLogger(__name__)

Infill = Callable[[Snapshot, Callable[[Draft], None]], Coroutine[Any, Any, InfillResult]]


class Completer:
    """Answers the requests of all documents of a session."""

    def __init__(self, infill: Infill) -> None:
        self._infill = infill
        self._settings = Settings()
        self._scheduler = Scheduler()
        self._cache = Cache()
        self._drafts: dict[str, tuple[Snapshot, str]] = {}  # by document, what is being written

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
        found = self._cache.find(place, unasked=automatic)
        if found is None:
            await turn.running(lambda: self._is_settled(place))
            found = self._cache.find(place, unasked=automatic)
        if found is None and not refusal:
            await turn.engine(self._fill, at_once=not automatic)
            found = self._cache.find(place, unasked=automatic)
        if found is None:
            if refusal == INDENT_FIRST and self._settings.ask_ahead:
                self._scheduler.ahead([place], self._fill)  # for who goes on to type
            return Answer()
        if found.offers and self._settings.ask_ahead:
            places = (ahead for ahead in _ahead(place, found) if ahead not in self._cache)
            self._scheduler.ahead(places, self._fill)
        return found

    def forget(self, uri: str) -> None:
        """Ends a document's request and drops its answers."""
        self._scheduler.supersede(uri)
        self._cache.forget(uri)
        self._drafts.pop(uri, None)

    def stop(self) -> None:
        """Ends all requests and drops all answers: the engine is another."""
        self._scheduler.supersede_all()
        self._cache.clear()
        self._drafts.clear()

    async def aclose(self) -> None:
        """Ends all requests and returns when their work has stopped."""
        await self._scheduler.aclose()

    async def _fill(self, place: Snapshot) -> None:
        """Asks the engine and keeps what is worth showing of its answer."""

        def note(draft: Draft) -> None:
            if draft.mode in (Mode.FIM, Mode.CAUSAL):
                self._drafts[place.uri] = place, draft.text
                self._scheduler.told(place.uri)

        try:
            result = await self._infill(place, note)
        finally:
            self._drafts.pop(place.uri, None)
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

    def _is_settled(self, place: Snapshot) -> bool:
        """Whether what is written so far settles what to do at `place`; what is to be shown is kept.

        If one has typed on as the engine writes, it is shown: that is right about as often as an
        answer. If one has not, the engine is to be asked anew: it hardly ever ends otherwise than
        it began.
        """
        begun, text = self._drafts.get(place.uri, (place, ""))
        typed = typed_since(begun, place) or ""
        if not text.startswith(typed):
            return not typed.startswith(text)
        rest = choice.so_far(text[len(typed) :], place) if typed.strip() else ""
        if rest:
            self._cache.put(place, Answer((Offer(rest, ghost_text.covered(rest, place)),)))
        return bool(rest)


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

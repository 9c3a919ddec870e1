"""Who gets the engine: of one document only the newest request, and when all is quiet what is next.

A request is a turn, and a newer turn of the same document supersedes it. Work in the engine that
may still answer the newer one goes on; other work is cancelled. Nothing is locked while the engine
works, and time is the event loop's. Knows nothing of LSP, of answers or of how an engine is reached.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from dg_lsp.cache import typed_since
from dg_lsp.document import Snapshot
from dg_lsp.rhythm import Rhythm

logger = logging.getLogger(__name__)

Fill = Callable[[Snapshot], Coroutine[Any, Any, None]]

ORPHAN_S = 0.2  # how long work goes on when its request was taken back in order to type on


class Superseded(Exception):
    """A newer turn of the same document has begun, or there is no use for any."""


@dataclass(frozen=True, slots=True)
class _Work:
    """The engine at work for one place."""

    place: Snapshot
    task: asyncio.Task[None]

    def may_answer(self, place: Snapshot) -> bool:
        """Whether what was typed since could be how the answer begins.

        Drafts are not looked at: on a canvas each may yet change.
        """
        typed = typed_since(self.place, place)
        return typed is not None and not (self.place.mid_line and "\n" in typed)

    def is_for(self, place: Snapshot) -> bool:
        """Whether this is exactly what a request at `place` would have done."""
        own = self.place
        return (own.uri, own.offset, own.text) == (place.uri, place.offset, place.text)


@dataclass(slots=True)
class _Document:
    """A document's newest turn, by number, and its work.

    `newer` is done with the next turn, `news` when there is more to know of the work.
    """

    newer: asyncio.Future[None]
    news: asyncio.Future[None]
    generation: int = 0
    edits: int = 0
    work: _Work | None = None

    def advance(self) -> None:
        """Whatever turn there is, it is over."""
        self.generation += 1
        self.newer.set_result(None)
        self.newer = asyncio.get_running_loop().create_future()

    def tell(self) -> None:
        """There is more to know of the work."""
        self.news.set_result(None)
        self.news = asyncio.get_running_loop().create_future()


class Scheduler:
    """Runs at most one work for each document, and one ahead of them all."""

    def __init__(self) -> None:
        self._rhythm = Rhythm()
        self._documents: dict[str, _Document] = {}
        self._ahead: _Work | None = None
        self._later: list[Snapshot] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def turn(self, place: Snapshot) -> Turn:
        """Begins a turn; those before it in the document are over, and so is work of no use."""
        document = self._document(place.uri)
        document.advance()
        if document.work is not None and not document.work.may_answer(place):
            document.work.task.cancel()
            document.work = None
        if self._ahead is not None and self._ahead.place.uri == place.uri:
            if self._ahead.may_answer(place) and document.work is None:
                document.work, self._ahead = self._ahead, None
                self._later.clear()
            elif typed_since(place, self._ahead.place) is None:
                self._drop_ahead()
        return Turn(self, document, place)

    def typed(self, uri: str) -> None:
        """Takes note that a document has been edited."""
        self._rhythm.key(asyncio.get_running_loop().time())
        self._document(uri).edits += 1

    def told(self, uri: str) -> None:
        """Has the turn that waits for a document's work look whether it knows enough."""
        if document := self._documents.get(uri):
            document.tell()

    def ahead(self, places: Iterable[Snapshot], fill: Fill) -> None:
        """Fills the places in order while no turn needs the engine; they replace earlier ones."""
        later = list(places)
        running = self._ahead
        if running is not None:
            others = [place for place in later if not running.is_for(place)]
            if len(others) == len(later):
                self._drop_ahead()
            later = others
        self._later = later
        if self._ahead is None:
            self._go_ahead(fill)

    def supersede(self, uri: str) -> None:
        """Ends a document's turn and all work for it."""
        if document := self._documents.pop(uri, None):
            document.advance()
            if document.work is not None:
                document.work.task.cancel()
        if self._ahead is not None and self._ahead.place.uri == uri:
            self._drop_ahead()

    def supersede_all(self) -> None:
        """Ends all turns and all work."""
        for uri in list(self._documents):
            self.supersede(uri)
        self._drop_ahead()

    async def aclose(self) -> None:
        """Ends all turns and returns when all work has stopped."""
        self.supersede_all()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _document(self, uri: str) -> _Document:
        if uri not in self._documents:
            loop = asyncio.get_running_loop()
            self._documents[uri] = _Document(loop.create_future(), loop.create_future())
        return self._documents[uri]

    def _start(self, place: Snapshot, fill: Fill) -> _Work:
        task = asyncio.create_task(self._timed(place, fill))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return _Work(place, task)

    async def _timed(self, place: Snapshot, fill: Fill) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await fill(place)
        self._rhythm.answered(loop.time() - begun)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.debug("the engine's work ended with %s", type(error).__name__)

    def _go_ahead(self, fill: Fill) -> None:
        if not self._later:
            return
        work = self._ahead = self._start(self._later.pop(0), fill)

        def go_on(_: asyncio.Task[None]) -> None:
            if self._ahead is work:
                self._ahead = None
                self._go_ahead(fill)

        work.task.add_done_callback(go_on)

    def _drop_ahead(self) -> None:
        self._later.clear()
        if self._ahead is not None:
            self._ahead.task.cancel()
            self._ahead = None


class Turn:
    """One request's way to an answer; each step raises Superseded once a newer turn has begun."""

    def __init__(self, scheduler: Scheduler, document: _Document, place: Snapshot) -> None:
        self._scheduler = scheduler
        self._document = document
        self._place = place
        self._generation = document.generation
        self._edits = document.edits

    async def running(self, enough: Callable[[], bool]) -> None:
        """Waits for work that may answer this turn too, which is nearer to its end than any anew.

        Or until `enough` is known of it. Raises what the work raised.
        """
        work = self._document.work
        while work is not None and not work.task.done() and not enough():
            await self._until({work.task, self._document.news}, None)

    async def engine(self, fill: Fill, at_once: bool) -> None:
        """Has the place filled, after a wait that suits the typist unless `at_once` is said.

        Raises what `fill` raises.
        """
        wait = self._scheduler._rhythm.wait(asyncio.get_running_loop().time())
        if wait and not at_once:
            await self._until(set(), wait)
        self._scheduler._drop_ahead()
        if self._document.work is not None:
            self._document.work.task.cancel()
        self._document.work = self._scheduler._start(self._place, fill)
        await self._until({self._document.work.task}, None)

    async def _until(self, ends: set[asyncio.Future[None]], seconds: float | None) -> None:
        """Until one of `ends` is done or the time is up."""
        try:
            await asyncio.wait(
                {self._document.newer, *ends}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
        except asyncio.CancelledError:
            self._taken_back()
            raise
        if self._document.generation != self._generation:
            raise Superseded
        for end in ends:
            if end.cancelled():
                raise Superseded
            if end.done():
                end.result()

    def _taken_back(self) -> None:
        """Ends the work of a request that the client cancelled, unless a newer turn has it.

        Typing cancels requests too, and the next one may want the same work: that gets a moment.
        """
        work, typed = self._document.work, self._document.edits != self._edits

        def end() -> None:
            if work is not None and self._document.generation == self._generation:
                work.task.cancel()

        if typed:
            asyncio.get_running_loop().call_later(ORPHAN_S, end)
        else:
            end()

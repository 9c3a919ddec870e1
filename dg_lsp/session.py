"""One editor's session: its settings, its open documents and its way to the engine.

Takes plain data and answers with plain data; which answer there is, is the completer's matter.
Knows nothing of LSP messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
import traceback
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from dg_lsp import context, settings
from dg_lsp.client import EngineStatus, EngineUnavailable
from dg_lsp.completer import Completer
from dg_lsp.completion import Completion, site
from dg_lsp.document import Document, Edit, Encoding, Position, Snapshot
from dg_lsp.documents import Documents
from dg_lsp.exclusions import Exclusions
from dg_lsp.feedback import Feedback, Record
from dg_lsp.notebook import Notebook, widened
from dg_lsp.scheduler import Superseded
from dg_lsp.settings import EngineSettings, Settings
from dg_lsp.surroundings import Chunks, Surroundings
from dg_lsp.switches import Scope, Status, Switches
from dg_lsp.triggers import Ask, exclusion, refusal
from engine.request import Draft, InfillRequest, InfillResult

logger = logging.getLogger(__name__)

_CLOSE_TIMEOUT_S = 3.0
_PATIENCE_S = 0.1  # an answer that takes longer is said to be thought about


class Engine(Protocol):
    """What a session asks of an `EngineClient`; tests put a scripted one in its place."""

    async def infill(self, request: InfillRequest, on_draft: OnDraft | None = None) -> InfillResult:
        """Fills the hole or raises EngineUnavailable; cancelling the task cancels the work."""

    async def connect(self) -> None:
        """Finds or starts the engine, waits until it is ready, or raises EngineUnavailable."""

    async def stop(self) -> bool:
        """Ends the engine's process; returns whether there was one, or raises EngineUnavailable."""

    async def aclose(self) -> None:
        """Lets go of the engine."""


OnDraft = Callable[[Draft], None]
MakeClient = Callable[[EngineSettings, Callable[[EngineStatus], None]], Engine]


class Session:
    """Opens, edits and completes documents; statuses and warnings go to the two callbacks."""

    def __init__(
        self,
        make_client: MakeClient,
        on_status: Callable[[Status], None],
        on_warning: Callable[[str], None],
        record: Record = lambda event, **figures: None,
        around: Surroundings | None = None,
    ) -> None:
        self.encoding: Encoding = "utf-16"
        self.settings = self._initial = Settings()
        self._make_client = make_client
        self._on_status = on_status
        self._on_warning = on_warning
        self.notebooks: dict[str, Notebook] = {}
        self.switches = Switches()
        self.feedback = Feedback(self._count, self._later)
        self._record = record
        self._status = self._engine_status = Status("ready")
        self._waiting = 0  # requests that have no answer yet
        self._last_ms: float | None = None  # what the last completion took
        self._complaints: frozenset[str] = frozenset()  # about the settings, as last said
        self._documents = Documents()
        self._completer = Completer(self._infill)
        self._around = around or Surroundings()
        self._folders: dict[str, Path] = {}
        self._budget = context.CPU
        self._client: Engine | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def initialize(self, options: object) -> None:
        """Takes the settings given at the start, over which later ones are laid."""
        self.settings = self._initial = self._parse(options, Settings())
        self._completer.configure(self.settings)
        self._exclude()

    def set_folders(self, folders: Mapping[str, Path]) -> None:
        """Takes the workspace's folders, by their URI."""
        self._folders = dict(folders)
        self._exclude()

    def configure(self, options: object) -> None:
        """Takes changed settings; goes to another engine if they name one."""
        engine, excluded = self.settings.engine, self.settings.excluded_files
        self.settings = self._parse(options, self._initial)
        self._completer.configure(self.settings)
        if self.settings.excluded_files != excluded:
            self._exclude()
        if self.settings.engine != engine and (client := self._let_go()):
            self._spawn(client.aclose())
        self._start_engine()

    async def restart_engine(self, model: str = "") -> None:
        """Ends this user's engine and starts it anew, with another model if one is named.

        An engine given by its URL is left alone and only reached for anew.
        """
        if model:
            engine = dataclasses.replace(self.settings.engine, model=model)
            self.settings = dataclasses.replace(self.settings, engine=engine)
        client = self._let_go() or self._engine()
        self._client = None
        try:
            try:
                if not self.settings.engine.url:
                    await client.stop()
            finally:
                await client.aclose()
        except Exception as error:  # noqa: BLE001 - the status tells
            self._fail(error)
        self._start_engine()

    def open(self, uri: str, language: str, version: int, text: str) -> None:
        """Takes over a document, and has the engine started if it will be needed."""
        document = Document(
            text, uri=uri, language=language, version=version, encoding=self.encoding
        )
        self._documents.put(document)
        self._around.opened(document)
        self._start_engine()

    def change(self, uri: str, version: int, edits: Iterable[Edit]) -> None:
        """Edits an open document."""
        if document := self._documents.get(uri):
            edits = list(edits)
            document.apply(edits, version)
            self.feedback.changed(document, edits)
            self._completer.typed(uri)
            self._around.changed(uri, edits)

    def viewed(self, uri: str, unit: str, line: int | None) -> None:
        """Takes note of how an editor indents a document, and of the line amid what it shows of it."""
        if document := self._documents.get(uri):
            document.unit = unit
            if line is not None and (here := document.snapshot(Position(line, 0))):
                self._around.seen(dataclasses.replace(here, path=self._around.path(uri)))

    def rename_language(self, uri: str, language: str) -> None:
        """Takes another language for a document; what was answered in the old one is forgotten."""
        if document := self._documents.get(uri):
            document.language = language
            self._completer.forget(uri)

    def save(self, uri: str) -> None:
        """Takes note of what a document defines now."""
        if document := self._documents.get(uri):
            self._around.saved(document)

    def files_changed(self, uris: Iterable[str]) -> None:
        """Takes note of files that were changed, made or deleted on disk."""
        self._around.files_changed(uris)

    def close(self, uri: str) -> None:
        """Forgets a document and ends its request."""
        self._documents.remove(uri)
        self.feedback.closed(uri)
        self._completer.forget(uri)
        self._around.closed(uri)

    def notebook_of(self, uri: str) -> Notebook | None:
        """The notebook in which a document is a cell."""
        return next((book for book in self.notebooks.values() if uri in book.cells), None)

    def toggle(self, scope: Scope, uri: str, folder: str, language: str = "") -> bool:
        """Turns completions over: all, in a folder, or in a language (if none, the document's).

        Returns whether they are on now.
        """
        document = self._documents.get(uri)
        language = language or (document.language if document else "")
        name = folder if scope == "workspace" else language
        on = self.switches.toggle(scope, name, self.settings)
        self._explain(self.switches.silence(self.settings, language, folder))
        self._start_engine()
        return on

    def snooze(self, minutes: float) -> None:
        """Shows nothing unasked for so long; 0 ends that."""
        self.switches.snooze(minutes)
        self._explain(self.switches.silence(self.settings, "", ""))

    def was_typed_to(self, uri: str, position: Position) -> bool:
        """Whether the newest edit of a document put text right before the position."""
        document = self._documents.get(uri)
        return document is not None and document.was_typed_to(position)

    async def complete(self, ask: Ask) -> list[Completion] | None:
        """What to show; an empty list is nothing, None the answer to a request out of date."""
        begun = time.perf_counter()
        document = self._documents.get(ask.uri)
        if document is None:
            return []
        silence = self._silence(ask, document)
        self._explain(silence)
        where = None if silence else site(document, ask)
        if where is None:
            return []
        if notebook := self.notebook_of(ask.uri):
            place = widened(where.place, notebook, self._documents.get)
            where = dataclasses.replace(where, place=place)
        self._around.visited(where.place)
        version = document.version
        typing = ask.selected is not None or document.was_typed_to(ask.position)
        refused = refusal(where.place, typing) if ask.automatic else ""
        try:
            with self._thinking():
                answer = await self._completer.answer(
                    where.place, automatic=ask.automatic, refusal=refused
                )
        except Superseded:
            return None
        except Exception as error:  # noqa: BLE001 - whatever it was, the request gets an answer
            self._fail(error)
            return []
        if document is not self._documents.get(ask.uri) or document.version != version:
            return None
        self._around.when_idle(where.place, self._budget, partial(self._warm, where.place))
        found = [where.completion(offer, self.encoding) for offer in answer.offers]
        waited_ms = 1000 * (time.perf_counter() - begun)
        self._tell_answer(waited_ms if found else self._last_ms)
        texts = [completion.text for completion in found]
        ids = self.feedback.offered(document, where.line, texts, waited_ms)
        return [dataclasses.replace(c, id=id_) for c, id_ in zip(found, ids, strict=True)]

    async def aclose(self) -> None:
        """Answers what is pending, ends what runs and lets go of the engine."""
        await self._completer.aclose()
        await self._around.aclose()
        for task in self._tasks:
            task.cancel()
        client, self._client = self._client, None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await asyncio.gather(*self._tasks, return_exceptions=True)
                if client is not None:
                    await client.aclose()

    def _silence(self, ask: Ask, document: Document) -> Status | None:
        """Why nothing is shown in this document whatever stands at the cursor; None if not so."""
        if secret := self._around.excluded(ask.uri):
            return Status("excluded", secret)
        off = self.switches.silence(self.settings, document.language, ask.folder, ask.automatic)
        if off is None and (reason := exclusion(ask, len(document.text))):
            return Status("excluded", reason)
        return off

    def _wants(self, document: Document) -> bool:
        silence = self.switches.silence(self.settings, document.language, "")
        return silence is None and not self._around.excluded(document.uri)

    async def _infill(self, place: Snapshot, on_draft: OnDraft) -> InfillResult:
        """Asks the engine for what is missing at a place."""
        chunks = await self._around.chunks(place, self._budget)
        request = context.build(place, self.settings, chunks, self._budget)
        return await self._engine().infill(request, on_draft)

    async def _warm(self, place: Snapshot, chunks: Chunks) -> None:
        """Has the engine encode what it will be asked with, while it has nothing else to do."""
        request = context.build(place, self.settings, chunks, self._budget)
        with contextlib.suppress(EngineUnavailable):  # the next request says so
            await self._engine().infill(dataclasses.replace(request, prepare=True))

    def _exclude(self) -> None:
        exclusions = Exclusions(self.settings.excluded_files)
        for message in exclusions.messages:
            self._on_warning(message)
        self._around.configure(self._folders, exclusions)

    def _engine(self) -> Engine:
        """The client of the engine that the settings name; made when it is first needed."""
        if self._client is None:
            self._client = self._make_client(self.settings.engine, self._hear)
        return self._client

    def _let_go(self) -> Engine | None:
        """Ends what runs on the engine; returns its client, which is to be closed."""
        if self._connecting is not None:
            self._connecting.cancel()
        self._completer.stop()
        client, self._client, self._connecting = self._client, None, None
        return client

    def _start_engine(self) -> None:
        if self._connecting is not None and not self._connecting.done():
            return
        if any(self._wants(document) for document in self._documents):
            self._connecting = self._spawn(self._connect(self._engine()))

    async def _connect(self, engine: Engine) -> None:
        try:
            await engine.connect()
        except Exception as error:  # noqa: BLE001 - nobody awaits this task: the status tells
            self._fail(error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _count(self, event: str, **figures: float | str) -> None:
        if self.settings.statistics:
            self._record(event, **figures)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, call)

    def _hear(self, engine: EngineStatus) -> None:
        if engine.prompt_tokens:
            self._budget = context.budget_for(engine.prompt_tokens)
        self._engine_status = Status(engine.state, engine.message or engine.runs, engine.progress)
        self._tell(self._going_on())

    @contextlib.contextmanager
    def _thinking(self) -> Iterator[None]:
        """Says, of an answer that keeps one waiting, that the engine thinks."""
        self._waiting += 1
        saying = asyncio.get_running_loop().call_later(_PATIENCE_S, self._tell_engine)
        try:
            yield
        finally:
            saying.cancel()
            self._waiting -= 1
            self._tell_engine()

    def _going_on(self) -> Status:
        """What the engine does: thinks, or is ready and took so long for the last answer."""
        status = self._engine_status
        if status.state != "ready" or (not self._waiting and self._last_ms is None):
            return status
        if self._waiting:
            return Status("thinking")
        last = f"last answer {self._last_ms:.0f} ms"
        message = " · ".join(filter(None, (status.message, last)))
        return dataclasses.replace(status, message=message)

    def _tell_engine(self) -> None:
        """Says what the engine does, unless nothing is shown whatever it does."""
        if not self._status.explains_silence:
            self._tell(self._going_on())

    def _explain(self, silence: Status | None) -> None:
        """Says why nothing is shown, or what the engine does when that is over."""
        if silence or self._status.explains_silence:
            self._tell(silence or self._going_on())

    def _tell(self, status: Status) -> None:
        if status != self._status:
            self._status = status
            self._on_status(status)

    def _fail(self, error: Exception) -> None:
        """Says why there is nothing to show: once, not at each keystroke."""
        message = str(error)
        if not isinstance(error, EngineUnavailable):
            kind = type(error).__name__  # its message may quote source text
            logger.error("%s\n%s", kind, "".join(traceback.format_tb(error.__traceback__)))
            message = f"internal error ({kind}); see the server's log"
        failed = Status("failed", message)
        if self._engine_status != failed:
            self._on_warning(message)
        self._engine_status = failed
        self._tell(failed)

    def _tell_answer(self, last_ms: float | None) -> None:
        """Says what the last completion took, and that the engine is well again if it was not."""
        if self._engine_status.state == "failed":
            self._engine_status = Status("ready", progress=1.0)
        self._last_ms = last_ms
        self._tell_engine()

    def _parse(self, options: object, base: Settings) -> Settings:
        parsed, messages = settings.resolve(options, base)
        for message in messages:
            if message not in self._complaints:
                self._on_warning(message)
        self._complaints = frozenset(messages)
        return parsed

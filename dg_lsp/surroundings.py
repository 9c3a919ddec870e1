"""What is around the open documents, kept up and looked up off the event loop's way.

What happens in the editor goes to one thread that owns the retrieval, in order; files of the
workspace are read in another. Who asks for chunks waits for BUDGET_S at most and then goes without.
What a document got it gets again until the cursor is somewhere else or the engine has taken in what
is better, so that the engine's prefix cache stays valid. Nothing excluded comes in here. Knows
nothing of LSP messages or of how an engine is asked.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dg_lsp.context import Budget
from dg_lsp.definitions import Definition
from dg_lsp.document import Document, Edit, Snapshot
from dg_lsp.exclusions import Exclusions
from dg_lsp.paths import relative_path, uri_path
from dg_lsp.reader import Reader
from dg_lsp.retrieval import BUDGET_S, JUMP_LINES, Retrieval
from engine.request import ContextChunk

logger = logging.getLogger(__name__)

IDLE_S = 1.0  # without a keystroke; then there is time to look anew

Chunks = tuple[ContextChunk, ...]
Warm = Callable[[Chunks], Awaitable[object]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Given:
    """What a document got, and for where."""

    line: int
    budget: Budget
    chunks: Chunks


class Surroundings:
    """One session's; folders are those of the workspace, by their URI.

    The retrieval is used by `thread` alone, which runs one call at a time.
    """

    def __init__(
        self,
        budget_s: float = BUDGET_S,
        idle_s: float = IDLE_S,
        thread: Executor | None = None,
    ) -> None:
        self._budget_s = budget_s
        self._idle_s = idle_s
        self._folders: dict[str, Path] = {}
        self._labels: dict[str, str] = {}
        self._exclusions = Exclusions()
        self._thread = thread or ThreadPoolExecutor(1, "retrieval")
        self._retrieval = Retrieval()
        self._reader: Reader | None = None
        self._read: set[str] = set()  # the folders' URIs
        self._given: dict[str, _Given] = {}
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._idle: asyncio.Task[None] | None = None

    def configure(self, folders: Mapping[str, Path], exclusions: Exclusions) -> None:
        """Starts afresh with other folders or other exclusions."""
        self._folders, self._exclusions = dict(folders), exclusions
        self._labels = _labels(self._folders)
        self._forget_all()

    def path(self, uri: str) -> str:
        """A document's path below its folder of the workspace; else the file's name alone."""
        return relative_path(uri, list(self._folders))

    def excluded(self, uri: str) -> str:
        """Why no model is shown a document, in words for the user; empty if one is."""
        whole = uri_path(uri)
        path = self.path(uri) or whole.lstrip("/")
        return self._exclusions.reason(path, whole.removesuffix(path).rstrip("/"))

    def opened(self, document: Document) -> None:
        """Takes what a document defines; reads its folder of the workspace if none has yet."""
        if self.excluded(document.uri):
            return
        self._update(document)
        folder = self._folder(document.uri)
        if folder and folder not in self._read:
            self._read.add(folder)
            self._reading().read_all(self._folders[folder], self.path(document.uri))

    def changed(self, uri: str, edits: Iterable[Edit]) -> None:
        """Somebody types, or inserts much at once."""
        self._stir()
        for edit in edits:
            if edit.start is not None and "\n" in edit.text and not self.excluded(uri):
                self._do(self._retrieval.pasted, self._labelled(uri, self.path(uri)), edit.text)

    def saved(self, document: Document) -> None:
        """Takes what a document defines now, and the place where it was saved."""
        if not self.excluded(document.uri):
            self._update(document)
            self._do(self._retrieval.saved, document.uri)

    def closed(self, uri: str) -> None:
        """Forgets what a document got."""
        self._given.pop(uri, None)
        self._do(self._retrieval.closed, uri)

    def visited(self, snapshot: Snapshot) -> None:
        """Notes where the cursor is."""
        self._stir()
        self._do(self._retrieval.visit, self._in_workspace(snapshot))

    def seen(self, snapshot: Snapshot) -> None:
        """Notes what of a document is on the screen, at the snapshot's cursor."""
        if not self.excluded(snapshot.uri):
            self._do(self._retrieval.seen, self._in_workspace(snapshot))

    def files_changed(self, uris: Iterable[str]) -> None:
        """Reads again what was changed, made or deleted; all, if what is ignored has changed."""
        for uri in uris:
            folder, path = self._folder(uri), self.path(uri)
            if path.endswith(".gitignore"):
                self._forget_all()
                return
            if folder in self._read:
                self._reading().read(self._folders[folder], path)

    async def chunks(self, snapshot: Snapshot, budget: Budget) -> Chunks:
        """What may help at the cursor; what a document got before where there is no time."""
        if not budget.context:
            return ()
        uri, line = snapshot.uri, snapshot.line_number
        given = self._given.get(uri)
        if given is None or given.budget != budget or abs(given.line - line) > JUMP_LINES:
            if uri not in self._looking:
                self._looking[uri] = asyncio.create_task(self._look(snapshot, budget))
            await asyncio.wait([self._looking[uri]], timeout=self._budget_s)
            given = self._given.get(uri)
        return given.chunks if given else ()

    def when_idle(self, snapshot: Snapshot, budget: Budget, warm: Warm) -> None:
        """Looks anew when nobody has typed for a while, unless somebody does before.

        What is found is given out only when `warm` has had the engine take it in.
        """
        self._stir()
        if budget.context:
            self._idle = asyncio.create_task(self._look_anew(snapshot, budget, warm))

    async def aclose(self) -> None:
        """Ends what runs; the threads end behind what they are at."""
        self._stir()
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._reader:
            self._reader.close()
        tasks = [*self._looking.values(), *filter(None, [self._idle])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self, snapshot: Snapshot, budget: Budget) -> None:
        try:
            await self._find(snapshot, budget)
        finally:
            del self._looking[snapshot.uri]

    async def _look_anew(self, snapshot: Snapshot, budget: Budget, warm: Warm) -> None:
        await asyncio.sleep(self._idle_s)
        self._do(self._retrieval.settle)
        here = self._in_workspace(snapshot)
        self._do(self._retrieval.update, here.path, here.language, here.text)
        try:
            await self._find(snapshot, budget, warm)
        except Exception as error:  # noqa: BLE001 - nobody waits for it, and the next request tells
            _log(error)

    async def _find(self, snapshot: Snapshot, budget: Budget, warm: Warm | None = None) -> None:
        """Looks, and gives out what is found if it may still be used then."""
        retrieval = self._retrieval
        found = await asyncio.wrap_future(
            self._do(retrieval.look, self._in_workspace(snapshot), budget)
        )
        given = self._given.get(snapshot.uri)
        if found is None:
            return
        if warm and (given is None or given.chunks != found):
            await warm(found)
        if retrieval is self._retrieval:
            self._given[snapshot.uri] = _Given(snapshot.line_number, budget, found)

    def _stir(self) -> None:
        """Whoever types is not to be disturbed."""
        if self._idle:
            self._idle.cancel()
        if self._reader:
            self._reader.typed()

    def _update(self, document: Document) -> None:
        """Many documents may wait here, so that their texts are taken only when it is their turn."""
        path, retrieval = self._labelled(document.uri, self.path(document.uri)), self._retrieval
        self._do(lambda: retrieval.update(path, document.language, document.text))

    def _in_workspace(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with a path that no file of another folder has."""
        path = self._labelled(snapshot.uri, snapshot.path)
        return snapshot if path == snapshot.path else dataclasses.replace(snapshot, path=path)

    def _labelled(self, uri: str, path: str) -> str:
        label = self._labels.get(self._folder(uri), "")
        return f"{label}/{path}" if label and path else path

    def _folder(self, uri: str) -> str:
        """The URI of the innermost folder that a document is in; empty if it is in none."""
        within = [folder for folder in self._folders if uri.startswith(folder.rstrip("/") + "/")]
        return max(within, key=len, default="")

    def _reading(self) -> Reader:
        if self._reader is None:
            retrieval = self._retrieval
            labels = {path: self._labels[uri] for uri, path in self._folders.items()}

            def put(folder: Path, path: str, found: tuple[Definition, ...] | None) -> None:
                path = f"{labels[folder]}/{path}" if labels[folder] else path
                if found is None:
                    self._do(retrieval.forget, path)
                else:
                    self._do(retrieval.index.put, path, found)

            self._reader = Reader(put, self._allowed)
        return self._reader

    def _allowed(self, folder: Path, path: str) -> bool:
        return not self._exclusions.reason(path, folder.as_posix())

    def _forget_all(self) -> None:
        self._retrieval = Retrieval()
        self._given.clear()
        if self._reader:
            self._reader.close()
        self._reader = None
        for folder in self._read & self._folders.keys():
            self._reading().read_all(self._folders[folder], "")
        self._read &= self._folders.keys()

    def _do(self, work: Callable[..., T], *args: object) -> Future[T | None]:
        """Runs `work` in the thread that owns the retrieval; what goes wrong is logged, and None."""

        def run() -> T | None:
            try:
                return work(*args)
            except Exception as error:  # noqa: BLE001 - without it there is only less context
                _log(error)
                return None

        try:
            return self._thread.submit(run)
        except RuntimeError:  # closed
            done: Future[T | None] = Future()
            done.set_result(None)
            return done


def _labels(folders: Mapping[str, Path]) -> dict[str, str]:
    """What paths of each folder begin with, where there are several: its name, or one like it."""
    labels: dict[str, str] = {}
    for uri, folder in folders.items():
        names = [folder.name, *(f"{folder.name}-{number}" for number in range(2, len(folders) + 1))]
        free = (name for name in names if name not in labels.values())
        labels[uri] = next(free) if len(folders) > 1 else ""
    return labels


def _log(error: Exception) -> None:
    """The error without its message, which may quote source text."""
    logger.error("%s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))

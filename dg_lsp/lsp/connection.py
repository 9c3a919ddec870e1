"""One client's connection: its session, and what the server says without being asked."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable

from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.server import LanguageServer

from dg_lsp import __version__
from dg_lsp.document import Edit, Position
from dg_lsp.lsp.wire import Wire
from dg_lsp.paths import is_read_only, relative_path
from dg_lsp.session import MakeClient, Session
from dg_lsp.stats import Statistics
from dg_lsp.stdio import death_of
from dg_lsp.switches import Status
from dg_lsp.triggers import Ask

logger = logging.getLogger(__name__)


class Connection(LanguageServer):
    """What the handlers share: the session and the way to the client."""

    def __init__(
        self, make_client: MakeClient, notebooks: types.NotebookDocumentSyncOptions | None = None
    ) -> None:
        super().__init__("dg-lsp", __version__, protocol_cls=Wire, notebook_document_sync=notebooks)
        self.session = Session(make_client, self.show_status, self.warn, Statistics().add)
        self.shut_down = False
        self.fetches = 0  # how often the client was asked for its settings
        self.stop: Callable[[], None] = self.shutdown  # ends the reading of messages
        self._loading: asyncio.Queue[Status] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def take_over(self, method: str, handler: Callable[..., None]) -> None:
        """Handles in pygls' stead what it would keep a copy of the documents for."""
        del self.protocol.fm.builtin_features[method]
        self.feature(method)(handler)

    def place(self, uri: str) -> tuple[str, str]:
        """The document's path below its workspace folder, and that folder's URI, if it is in one.

        A cell is where its notebook is.
        """
        notebook = self.session.notebook_of(uri)
        uri = notebook.uri if notebook else uri
        roots = [folder.uri for folder in self.workspace.folders.values()]
        roots = roots or [self.workspace.root_uri or ""]
        around = [root for root in roots if root and uri.startswith(root.rstrip("/") + "/")]
        return relative_path(uri, roots), max(around, key=len, default="")

    def ask(
        self, uri: str, position: Position, *, automatic: bool, selected: Edit | None = None
    ) -> Ask:
        """What a client wants to know at a position of a document."""
        path, folder = self.place(uri)
        return Ask(
            uri=uri,
            position=position,
            path=path,
            folder=folder,
            automatic=automatic,
            selected=selected,
            read_only=is_read_only(uri),
        )

    async def announce(self, method: str, options: object) -> None:
        """Registers a capability with a client that wants to hear of it after the start."""
        registration = types.Registration(id=method, method=method, register_options=options)
        try:
            await self.client_register_capability_async(
                types.RegistrationParams(registrations=[registration])
            )
        except JsonRpcException as error:
            logger.info("the client refuses %s: %s", method, type(error).__name__)

    def show_status(self, status: Status) -> None:
        """Tells the client what is happening; loading also as work-done progress."""
        state, message, progress = status.state, status.message, status.progress
        params = {"state": state, "message": message, "progress": progress}
        self.protocol.notify("dg/status", params)
        window = self.client_capabilities.window
        if self._loading is None and _is_loading(status) and window and window.work_done_progress:
            self._loading = asyncio.Queue()
            self._tasks.add(asyncio.create_task(self._show_progress(self._loading)))
        if self._loading is not None:
            self._loading.put_nowait(status)
        if not _is_loading(status):
            self._loading = None

    def warn(self, message: str) -> None:
        """Puts a warning into the client's log and into ours: never a popup."""
        logger.warning(message)
        params = types.LogMessageParams(type=types.MessageType.Warning, message=message)
        self.window_log_message(params)

    def watch(self, parent: int | None) -> None:
        """Stops when the editor's process dies, even if something else holds our input open."""

        async def stop_after() -> None:
            await death_of(parent)
            self.stop()

        self._tasks.add(asyncio.create_task(stop_after()))

    async def aclose(self) -> None:
        """Ends the session and all that runs for it."""
        for task in self._tasks:
            task.cancel()
        await self.session.aclose()

    def report_server_error(self, error: Exception, source: type[Exception]) -> None:
        """Logs what pygls could not handle; pygls' own way is a popup in the editor."""
        kind = str(error).partition(":")[0]  # what follows may quote source text
        frames = (getattr(error, "data", None) or {}).get("traceback", [])
        logger.error("%s: %s\n%s", source.__name__, kind, "".join(frames))

    async def _show_progress(self, statuses: asyncio.Queue[Status]) -> None:
        """One progress bar, from the first status until one that is not of loading."""
        token = f"dg-lsp/{uuid.uuid4()}"
        try:
            await self.work_done_progress.create_async(token)
        except JsonRpcException as error:
            logger.info("the client refuses to show progress: %s", error)
            return
        status = await statuses.get()
        begin = types.WorkDoneProgressBegin(
            title="dg-lsp", message=status.message, percentage=int(100 * status.progress)
        )
        self.work_done_progress.begin(token, begin)
        while _is_loading(status := await statuses.get()):
            percentage = int(100 * status.progress)
            report = types.WorkDoneProgressReport(message=status.message, percentage=percentage)
            self.work_done_progress.report(token, report)
        end = types.WorkDoneProgressEnd(message=status.message or status.state)
        self.work_done_progress.end(token, end)


def _is_loading(status: Status) -> bool:
    return status.state in ("starting", "loading")

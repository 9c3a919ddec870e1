"""The language server: the ONLY module that knows pygls and lsprotocol.

Turns messages into plain data and answers into messages; what happens between is `session`'s.
Handlers never block the event loop, and nothing here knows the engine.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import uuid
from collections.abc import Callable
from typing import Any

from lsprotocol import types
from pygls.exceptions import JsonRpcException, JsonRpcInvalidParams, JsonRpcInvalidRequest
from pygls.io_ import run_async
from pygls.lsp.server import LanguageServer
from pygls.protocol import LanguageServerProtocol

from dg_lsp import __version__
from dg_lsp.client import EngineClient, EngineStatus
from dg_lsp.document import Edit, Position, relative_path
from dg_lsp.session import Completion, MakeClient, Session, Status
from dg_lsp.settings import EngineSettings, Settings
from dg_lsp.stdio import StdoutWriter, death_of, stdin_reader
from dg_lsp.triggers import Ask

logger = logging.getLogger(__name__)

_PYGLS = logging.getLogger("pygls")
_SECTION = "dg-lsp"


class Server(LanguageServer):
    """One client's connection."""

    def __init__(self, make_client: MakeClient) -> None:
        super().__init__("dg-lsp", __version__, protocol_cls=_Wire)
        self.session = Session(make_client, self.show_status, self.warn)
        self.shut_down = False
        self.stop: Callable[[], None] = self.shutdown  # ends the reading of messages
        self._loading: asyncio.Queue[Status] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def show_status(self, status: Status) -> None:
        """Tells the client what the engine is doing; loading also as work-done progress."""
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


class _Wire(LanguageServerProtocol):
    """pygls' protocol, made to answer every request and to keep tracebacks to itself."""

    _server: Server

    def structure_message(self, data: dict[str, Any]) -> Any:
        """Answers a request whose parameters cannot be read; pygls would drop it."""
        try:
            return super().structure_message(data)
        except JsonRpcException:
            if "id" in data and "method" in data:
                error = JsonRpcInvalidParams(f"cannot read the parameters of {data['method']}")
                self._send_response(data["id"], error=error.to_response_error())
            raise

    def handle_message(self, message: Any) -> None:
        """Answers requests after `shutdown` too, as the specification wants."""
        if self._shutdown and hasattr(message, "id") and hasattr(message, "method"):
            error = JsonRpcInvalidRequest("the server has been shut down")
            self._send_response(message.id, error=error.to_response_error())
        else:
            super().handle_message(message)

    def _send_response(
        self, msg_id: str | int, result: Any = None, error: types.ResponseError | None = None
    ) -> None:
        if error is not None:
            error.data = None  # pygls puts a traceback there
        super()._send_response(msg_id, result, error)


def build(make_client: MakeClient) -> Server:
    """The server with all its handlers, for any way to an engine."""
    server = Server(make_client)
    for method in (
        types.TEXT_DOCUMENT_DID_OPEN,
        types.TEXT_DOCUMENT_DID_CHANGE,
        types.TEXT_DOCUMENT_DID_CLOSE,
    ):  # pygls would keep a second copy of each text, split at the wrong characters
        del server.protocol.fm.builtin_features[method]
    server.feature(types.INITIALIZE)(_initialize)
    server.feature(types.SHUTDOWN)(_shutdown)
    server.feature(types.WORKSPACE_DID_CHANGE_CONFIGURATION)(_did_change_configuration)
    server.feature(types.TEXT_DOCUMENT_DID_OPEN)(_did_open)
    server.feature(types.TEXT_DOCUMENT_DID_CHANGE)(_did_change)
    server.feature(types.TEXT_DOCUMENT_DID_CLOSE)(_did_close)
    server.feature(types.TEXT_DOCUMENT_INLINE_COMPLETION, types.InlineCompletionOptions())(
        _inline_completion
    )
    return server


def main(make_client: MakeClient | None = None) -> None:
    """Serves on standard input and output until the client has gone; exits with the status."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    _set_log_level(Settings())
    try:
        sys.exit(asyncio.run(_serve(build(make_client or _own_engine))))
    except KeyboardInterrupt:
        sys.exit(130)


def _own_engine(
    settings: EngineSettings, on_status: Callable[[EngineStatus], None]
) -> EngineClient:
    return EngineClient(settings, on_status, keep_alive=True)


async def _serve(server: Server) -> int:
    """Handles messages until `exit` or until the client is gone; returns the exit status."""
    reader = stdin_reader()
    server.protocol.set_writer(StdoutWriter(on_broken=reader.feed_eof))
    server.stop = reader.feed_eof
    try:
        await run_async(
            stop_event=threading.Event(),
            reader=reader,
            protocol=server.protocol,
            logger=_PYGLS,
            error_handler=server.report_server_error,
        )
    except SystemExit:
        logger.debug("the client said exit")
    except asyncio.IncompleteReadError:
        logger.debug("the client went in the middle of a message")
    finally:
        await server.aclose()
    return 0 if server.shut_down else 1


def _initialize(ls: Server, params: types.InitializeParams) -> None:
    encoding = types.PositionEncodingKind(ls.workspace.position_encoding)
    ls.session.encoding = encoding.value
    ls.session.initialize(_section(params.initialization_options))
    _set_log_level(ls.session.settings)
    ls.watch(params.process_id)


async def _shutdown(ls: Server, params: None) -> None:
    ls.shut_down = True
    await ls.aclose()


def _did_change_configuration(ls: Server, params: types.DidChangeConfigurationParams) -> None:
    ls.session.configure(_section(params.settings))
    _set_log_level(ls.session.settings)


def _did_open(ls: Server, params: types.DidOpenTextDocumentParams) -> None:
    item = params.text_document
    ls.session.open(item.uri, item.language_id, item.version, item.text)


def _did_change(ls: Server, params: types.DidChangeTextDocumentParams) -> None:
    document = params.text_document
    ls.session.change(document.uri, document.version, map(_edit, params.content_changes))


def _did_close(ls: Server, params: types.DidCloseTextDocumentParams) -> None:
    ls.session.close(params.text_document.uri)


async def _inline_completion(
    ls: Server, params: types.InlineCompletionParams
) -> types.InlineCompletionList | None:
    """Superseded: null; nothing to show: an empty list; cancelled: pygls sends the error."""
    uri = params.text_document.uri
    roots = [folder.uri for folder in ls.workspace.folders.values()]
    selected = params.context.selected_completion_info
    ask = Ask(
        uri=uri,
        position=_position(params.position),
        path=relative_path(uri, roots or [ls.workspace.root_uri or ""]),
        automatic=params.context.trigger_kind is types.InlineCompletionTriggerKind.Automatic,
        selected=_selected(selected) if selected else None,
    )
    completions = await ls.session.complete(ask)
    if completions is None:
        return None
    return types.InlineCompletionList(items=[_item(completion) for completion in completions])


def _position(position: types.Position) -> Position:
    return Position(position.line, position.character)


def _selected(info: types.SelectedCompletionInfo) -> Edit:
    return Edit(info.text, _position(info.range.start), _position(info.range.end))


def _edit(change: types.TextDocumentContentChangeEvent) -> Edit:
    if isinstance(change, types.TextDocumentContentChangePartial):
        return Edit(change.text, _position(change.range.start), _position(change.range.end))
    return Edit(change.text)


def _item(completion: Completion) -> types.InlineCompletionItem:
    start, end = (types.Position(*place) for place in (completion.start, completion.end))
    return types.InlineCompletionItem(
        insert_text=completion.text, range=types.Range(start=start, end=end)
    )


def _section(options: object) -> object:
    """Our part of the configuration, where a client sends the whole of it."""
    return options.get(_SECTION, options) if isinstance(options, dict) else options


def _is_loading(status: Status) -> bool:
    return status.state in ("starting", "loading")


def _set_log_level(settings: Settings) -> None:
    """pygls logs whole messages, and so source text: only who asks for debugging gets that."""
    logging.getLogger("dg_lsp").setLevel(settings.log_level.upper())
    _PYGLS.setLevel(logging.DEBUG if settings.log_level == "debug" else logging.CRITICAL)

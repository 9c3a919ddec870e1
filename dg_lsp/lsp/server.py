"""The language server: all its handlers, its life from `initialize` to `exit`, its log.

Handlers never block the event loop, and nothing here knows the engine.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable

from lsprotocol import types
from pygls.io_ import run_async

from dg_lsp.client import EngineClient, EngineStatus
from dg_lsp.lsp import completion, text
from dg_lsp.lsp.connection import Connection
from dg_lsp.session import MakeClient
from dg_lsp.settings import EngineSettings, Settings
from dg_lsp.stdio import StdoutWriter, stdin_reader

logger = logging.getLogger(__name__)

_PYGLS = logging.getLogger("pygls")
_SECTION = "dg-lsp"


def build(make_client: MakeClient) -> Connection:
    """The server with all its handlers, for any way to an engine."""
    ls = Connection(make_client)
    ls.feature(types.INITIALIZE)(_initialize)
    ls.feature(types.SHUTDOWN)(_shutdown)
    ls.feature(types.WORKSPACE_DID_CHANGE_CONFIGURATION)(_did_change_configuration)
    text.register(ls)
    completion.register(ls)
    return ls


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


async def _serve(ls: Connection) -> int:
    """Handles messages until `exit` or until the client is gone; returns the exit status."""
    reader = stdin_reader()
    ls.protocol.set_writer(StdoutWriter(on_broken=reader.feed_eof))
    ls.stop = reader.feed_eof
    try:
        await run_async(
            stop_event=threading.Event(),
            reader=reader,
            protocol=ls.protocol,
            logger=_PYGLS,
            error_handler=ls.report_server_error,
        )
    except SystemExit:
        logger.debug("the client said exit")
    except asyncio.IncompleteReadError:
        logger.debug("the client went in the middle of a message")
    finally:
        await ls.aclose()
    return 0 if ls.shut_down else 1


def _initialize(ls: Connection, params: types.InitializeParams) -> None:
    encoding = types.PositionEncodingKind(ls.workspace.position_encoding)
    ls.session.encoding = encoding.value
    ls.session.initialize(_section(params.initialization_options))
    _set_log_level(ls.session.settings)
    ls.watch(params.process_id)


async def _shutdown(ls: Connection, params: None) -> None:
    ls.shut_down = True
    await ls.aclose()


def _did_change_configuration(ls: Connection, params: types.DidChangeConfigurationParams) -> None:
    ls.session.configure(_section(params.settings))
    _set_log_level(ls.session.settings)


def _section(options: object) -> object:
    """Our part of the configuration, where a client sends the whole of it."""
    return options.get(_SECTION, options) if isinstance(options, dict) else options


def _set_log_level(settings: Settings) -> None:
    """pygls logs whole messages, and so source text: only who asks for debugging gets that."""
    logging.getLogger("dg_lsp").setLevel(settings.log_level.upper())
    _PYGLS.setLevel(logging.DEBUG if settings.log_level == "debug" else logging.CRITICAL)

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
from dg_lsp.lsp import commands, completion, configuration, feedback, files, notebooks, text, view
from dg_lsp.lsp.connection import Connection
from dg_lsp.memory import one_heap
from dg_lsp.session import MakeClient
from dg_lsp.settings import EngineSettings, Settings
from dg_lsp.stdio import StdoutWriter, stdin_reader

logger = logging.getLogger(__name__)

_PYGLS = logging.getLogger("pygls")


def build(make_client: MakeClient) -> Connection:
    """The server with all its handlers, for any way to an engine."""
    ls = Connection(make_client, notebooks.SYNC)
    ls.feature(types.INITIALIZE)(_initialize)
    ls.feature(types.INITIALIZED)(_initialized)
    ls.feature(types.SHUTDOWN)(_shutdown)
    for part in (text, files, notebooks, feedback, view, commands, configuration):
        part.register(ls)
    return ls


def main(make_client: MakeClient | None = None) -> None:
    """Serves on standard input and output until the client has gone; exits with the status."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    configuration.set_log_level(Settings())
    one_heap()
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
    except ValueError:
        logger.error("what comes in is no LSP: a header has no end")
    finally:
        await ls.aclose()
    return 0 if ls.shut_down else 1


def _initialize(ls: Connection, params: types.InitializeParams) -> None:
    encoding = types.PositionEncodingKind(ls.workspace.position_encoding)
    ls.session.encoding = encoding.value
    files.take_folders(ls)
    ls.session.initialize(configuration.section(params.initialization_options))
    configuration.set_log_level(ls.session.settings)
    completion.offer(ls)
    ls.watch(params.process_id)


async def _initialized(ls: Connection, params: types.InitializedParams) -> None:
    await completion.announce(ls)
    await configuration.start(ls)
    await files.watch(ls)


async def _shutdown(ls: Connection, params: None) -> None:
    ls.shut_down = True
    await ls.aclose()

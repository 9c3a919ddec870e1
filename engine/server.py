"""`python -m engine.server`: the engine's process, from its lock to its end.

Order matters: one lock, then the socket, then the runtime file, and only then torch and the
weights, so that a second process leaves in an instant and clients see the loading. Knows
nothing of requests or routes (`api`) and of how the engine is run (`worker`).
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import logging
import logging.handlers
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from engine import memory
from engine.config import EngineConfig, Template
from engine.errors import EngineError
from engine.rendezvous import (
    AlreadyRunning,
    Listener,
    listen_tcp,
    listen_unix,
    private_directory,
    publish,
    read_token,
    take_lock,
    withdraw,
)
from engine.request import PROTOCOL
from engine.worker import Engine, Progress, Worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import uvicorn

    from engine.api import Api

logger = logging.getLogger(__name__)

_INSTALL = "install the engine extra: pip install 'dg-lsp[engine]'"
_FAILURE_SHOWN_S = 30.0  # how long a failed engine waits to tell its clients why
_FAILURE_TOLD_S = 2.0  # and for how long after the first one knows
_JOIN_S = 5.0
_LOG_BYTES, _LOG_FILES = 1 << 20, 2


def main(
    arguments: Sequence[str] | None = None,
    load: Callable[[Progress], Engine] | None = None,
) -> int:
    """Runs the engine until nobody needs it; `load` replaces the model's own loader."""
    options = _parser().parse_args(arguments)
    os.umask(0o077)
    try:
        directory = private_directory(options.runtime_dir.expanduser().absolute())
        lock = take_lock(directory)
    except AlreadyRunning as error:
        sys.stderr.write(f"dg-lsp engine: {error}\n")
        return 0
    except EngineError as error:
        sys.stderr.write(f"dg-lsp engine: error: {error}\n")
        return 1
    _log_to(directory, options.log_level)
    worker = Worker(load or (lambda progress: _load(options, progress)))
    try:
        code = asyncio.run(_serve(directory, options, worker))
    except EngineError as error:
        sys.stderr.write(f"dg-lsp engine: error: {error}\n")
        code = 1
    if not worker.close(timeout_s=0):
        # A load cannot be interrupted, and the interpreter must not end under it.
        logging.shutdown()
        os._exit(code)
    lock.release()
    return code


async def _serve(directory: Path, options: argparse.Namespace, worker: Worker) -> int:
    """Listens, publishes the address, loads and serves; returns the exit code."""
    try:
        import uvicorn

        from engine.api import Api
    except ModuleNotFoundError as error:
        raise _not_installed(error) from None
    listener, token = _listen(directory, options)
    try:
        api = Api(worker, options.model, stop=lambda: setattr(server, "should_exit", True))

        async def end() -> None:
            withdraw(directory)  # first: who comes now must look for the next engine
            api.close()
            await asyncio.to_thread(worker.close, _JOIN_S)

        server = _server(uvicorn, api.app(token), end)
        info = {"protocol": PROTOCOL, "pid": os.getpid(), "model": options.model, "token": token}
        publish(directory, {**info, **listener.address})
        logger.info("pid %d listens on %s", os.getpid(), listener.path or listener.url)
        worker.start()
        watch = asyncio.create_task(_watch(server, api, worker, options))
        await server.serve(sockets=[listener.sock])
        watch.cancel()
    finally:
        withdraw(directory)
        listener.close()
    return 1 if worker.state.status == "failed" else 0


def _listen(directory: Path, options: argparse.Namespace) -> tuple[Listener, str]:
    """The socket asked for, and the token that guards it (none on a unix socket)."""
    if not options.tcp and hasattr(socket, "AF_UNIX"):
        return listen_unix(directory), ""
    token = read_token(options.token_file) if options.token_file else ""
    listener = listen_tcp(options.tcp or "127.0.0.1:0", has_token=bool(token))
    return listener, token or secrets.token_urlsafe(32)


def _server(uvicorn_: Any, app: Any, end: Callable[[], Awaitable[None]]) -> uvicorn.Server:
    """A uvicorn server that ends leases and jobs before it waits for their connections."""

    class Server(uvicorn_.Server):  # type: ignore[misc]
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            await end()
            await super().shutdown(sockets)

    # uvicorn raises SIGTERM and SIGINT again once it has ended; by then there is more to do.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    config = uvicorn_.Config(
        app,
        log_config=None,
        access_log=False,
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=3,
    )
    server: uvicorn.Server = Server(config)
    return server


async def _watch(
    server: uvicorn.Server, api: Api, worker: Worker, options: argparse.Namespace
) -> None:
    """Ends the process when it has failed, or when nobody has needed it for long enough."""
    while not server.should_exit:
        await asyncio.sleep(min(0.5, options.idle_exit / 4))
        now = time.monotonic()
        unused = now - worker.last_used
        if worker.state.status == "failed":
            told = api.failure_told is not None and now - api.failure_told > _FAILURE_TOLD_S
            server.should_exit = told or unused > _FAILURE_SHOWN_S
        elif not worker.busy:
            unwatched = min(unused, now - api.lease_closed)
            if unused > options.idle_unload or (not api.leases and unwatched > options.idle_exit):
                logger.info("idle for %.0f s: leaving", unused)
                server.should_exit = True


def _load(options: argparse.Namespace, progress: Progress) -> Engine:
    """Finds the model and loads it; imports torch."""
    from engine.pull import resolve_model

    config = EngineConfig(
        model=resolve_model(options.model),
        device=options.device,
        dtype=options.dtype,
        quantize=options.quantize,
        max_prompt_tokens=options.max_prompt_tokens,
        soft_tokens=options.soft_tokens,
        template=options.template,
        threads=options.threads,
    )
    progress(0.0, "importing torch")
    # OpenMP threads spin for milliseconds before they sleep. Once a build or another language
    # server wants the same cores that costs far more than it gains (LOG.md, 2026-11-23).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    memory.save()
    try:
        from engine import runtime
    except ModuleNotFoundError as error:
        raise _not_installed(error) from None
    return runtime.Engine.load(config, progress)


def _not_installed(error: ModuleNotFoundError) -> EngineError:
    package = (error.name or "a library").partition(".")[0]
    return EngineError(f"{package} is not installed: {_INSTALL}")


def _log_to(directory: Path, level: str) -> None:
    """Log lines go to a file that stays small, and to a terminal where there is one."""
    handlers: list[logging.Handler] = [
        logging.handlers.RotatingFileHandler(
            directory / "engine.log", maxBytes=_LOG_BYTES, backupCount=_LOG_FILES, encoding="utf-8"
        )
    ]
    if sys.stderr.isatty():
        handlers.append(logging.StreamHandler())
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", handlers=handlers
    )
    logging.captureWarnings(True)
    faulthandler.enable()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m engine.server", description=main.__doc__)
    parser.add_argument("--model", required=True, help="a known name or a model directory")
    parser.add_argument("--runtime-dir", required=True, type=Path, metavar="DIR")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument(
        "--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16", "int8"]
    )
    parser.add_argument(
        "--quantize",
        default="auto",
        choices=["auto", "bf16", "fp8", "int4"],
        help="round the weights while they are loaded; auto: as a GPU's memory needs it",
    )
    parser.add_argument(
        "--max-prompt-tokens",
        type=int,
        metavar="N",
        help="8192 on a GPU, 1024 on a CPU, as memory allows",
    )
    parser.add_argument(
        "--soft-tokens",
        type=int,
        metavar="N",
        help="DiffusionGemma looks back at the N likeliest tokens of a step only, 1 to 64; not evaluated",
    )
    parser.add_argument(
        "--template",
        default="auto",
        choices=get_args(Template),
        help="how DiffusionGemma is shown a request: chat (auto), plain text, the hole asked for",
    )
    parser.add_argument("--threads", default=0, type=int, help="0: those that others leave")
    parser.add_argument("--tcp", default="", metavar="[HOST:]PORT", help="instead of a unix socket")
    parser.add_argument("--token-file", type=Path, metavar="F", help="the token for --tcp")
    parser.add_argument(
        "--idle-exit",
        type=_seconds,
        default=os.environ.get("DG_LSP_IDLE_EXIT_S", "60"),
        metavar="S",
        help="leave after S seconds without a request or an editor (60)",
    )
    parser.add_argument(
        "--idle-unload",
        type=_seconds,
        default=os.environ.get("DG_LSP_IDLE_UNLOAD_S", "1800"),
        metavar="S",
        help="leave after S seconds without a request although editors are open (1800)",
    )
    parser.add_argument(
        "--log-level",
        type=str.upper,
        default=os.environ.get("DG_LSP_LOG_LEVEL", "INFO").upper(),
        choices=["DEBUG", "INFO", "WARNING", "ERROR"],
    )
    return parser


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text!r}")
    return value


if __name__ == "__main__":
    sys.exit(main())

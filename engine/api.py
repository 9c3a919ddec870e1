"""The engine over HTTP: routes, their JSON and what closing a connection means.

Knows nothing of sockets, the runtime directory or models; work goes to the `Worker`.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from importlib.metadata import version
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.errors import Cancelled, EngineError
from engine.request import PROTOCOL, Draft, InfillRequest, InfillResult, RequestError
from engine.worker import Event, Job, QueueFull, Worker

MAX_BODY_BYTES = 32 << 20
_CLIENT_LEFT = 499  # nobody reads this status; it only ends the handler


class Api:
    """The handlers and the two facts they keep: open leases and when the last one closed."""

    def __init__(self, worker: Worker, model: str, stop: Callable[[], None]) -> None:
        self.leases = 0
        self.lease_closed = time.monotonic()
        self.failure_told: float | None = None
        self._worker = worker
        self._model = model
        self._stop = stop
        self._begun = time.monotonic()
        self._closing = asyncio.Event()

    def app(self, token: str = "") -> ASGIApp:
        """The ASGI application; with a token, every request must carry it."""
        routes = [
            Route("/health", self.health),
            Route("/v1/infill", self.infill, methods=["POST"]),
            Route("/v1/lease", self.lease),
            Route("/v1/shutdown", self.shutdown, methods=["POST"]),
        ]
        handlers = {HTTPException: _http_error}
        app = Starlette(routes=routes, exception_handlers=handlers)  # type: ignore[arg-type]
        return _require_token(app, token) if token else app

    def close(self) -> None:
        """Ends the open leases, so that the server can end."""
        self._closing.set()

    async def health(self, _: Request) -> Response:
        """How far the engine is, what it runs and how busy it is."""
        worker, state = self._worker, self._worker.state
        if state.status == "failed" and self.failure_told is None:
            self.failure_told = time.monotonic()
        return _json(
            {
                "status": state.status,
                "message": state.message,
                "progress": state.progress,
                "model": self._model,
                "engine": worker.engine.describe() if worker.engine else None,
                "protocol": PROTOCOL,
                "version": version("dg-lsp"),
                "pid": os.getpid(),
                "uptime_s": time.monotonic() - self._begun,
                "rss_bytes": _rss_bytes(),
                "queue": worker.waiting,
                "busy": worker.busy,
                "done": worker.done,
                "leases": self.leases,
            }
        )

    async def infill(self, http: Request) -> Response:
        """Fills one hole; streams drafts to a client that accepts newline-delimited JSON."""
        received = time.monotonic()
        if self._worker.state.status != "ready":
            return self._not_ready()
        try:
            request = InfillRequest.from_json(json.loads(await _body(http)))
        except RequestError as error:
            return _error(400, str(error))
        except (ValueError, RecursionError) as error:
            return _error(400, f"the body is not JSON: {error}")
        except ClientDisconnect:
            return Response(status_code=_CLIENT_LEFT)
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        job = Job(
            request,
            deliver=lambda event: _call_soon(loop, events, event),
            drafts="application/x-ndjson" in http.headers.get("accept", ""),
            received=received,
        )
        try:
            self._worker.submit(job)
        except QueueFull as error:
            return _error(429, str(error))
        except Cancelled as error:
            return _error(503, str(error))
        followed = self._follow(http, job, events)
        if job.drafts:
            return StreamingResponse(_lines(followed), media_type="application/x-ndjson")
        async with aclosing(followed):
            async for event in followed:  # without drafts there is one event, or none
                return _outcome(event)
        return Response(status_code=_CLIENT_LEFT)

    async def lease(self, http: Request) -> Response:
        """Stays open while the client lives; an engine without leases ends when idle."""

        async def hold() -> AsyncIterator[bytes]:
            gone = asyncio.create_task(_disconnected(http))
            closing = asyncio.create_task(self._closing.wait())
            self.leases += 1
            try:
                yield b"{}\n"
                await asyncio.wait({gone, closing}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self.leases -= 1
                self.lease_closed = time.monotonic()
                gone.cancel()
                closing.cancel()

        return StreamingResponse(hold(), media_type="application/x-ndjson")

    async def shutdown(self, _: Request) -> Response:
        """Ends the process after this answer."""
        self._stop()
        return _json({"stopping": True}, 202)

    def _not_ready(self) -> Response:
        state = self._worker.state
        message = state.message if state.status == "failed" else f"the engine is {state.status}"
        return _json({"error": message, "status": state.status, "progress": state.progress}, 503)

    async def _follow(
        self, http: Request, job: Job, events: asyncio.Queue[Event | None]
    ) -> AsyncGenerator[Event, None]:
        """The job's events up to its last; leaving early, or the client's leaving, cancels it."""

        async def watch() -> None:
            await _disconnected(http)
            events.put_nowait(None)

        watching = asyncio.create_task(watch())
        try:
            while (event := await events.get()) is not None:
                yield event
                if not isinstance(event, Draft):
                    return
        finally:
            watching.cancel()
            self._worker.cancel(job)


async def _body(http: Request) -> bytes:
    """The body, refused as soon as it is too large."""
    parts, size = [], 0
    async for part in http.stream():
        parts.append(part)
        if (size := size + len(part)) > MAX_BODY_BYTES:
            raise HTTPException(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
    return b"".join(parts)


async def _disconnected(http: Request) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


def _call_soon(
    loop: asyncio.AbstractEventLoop, events: asyncio.Queue[Event | None], event: Event
) -> None:
    """Hands an event from the worker's thread to the loop, unless the server has ended."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(events.put_nowait, event)


def _outcome(event: Event) -> Response:
    if isinstance(event, InfillResult):
        return _json(event.to_json())
    assert isinstance(event, EngineError), f"a job ended with {type(event).__name__}"
    return _error(503 if isinstance(event, Cancelled) else 500, str(event))


async def _lines(followed: AsyncGenerator[Event, None]) -> AsyncIterator[bytes]:
    async with aclosing(followed):
        async for event in followed:
            yield _line(event)


def _line(event: Event) -> bytes:
    if isinstance(event, Draft):
        return _encoded({"draft": event.to_json()})
    if isinstance(event, InfillResult):
        return _encoded({"result": event.to_json()})
    return _encoded({"error": str(event)})


def _error(status: int, message: str) -> Response:
    return _json({"error": message}, status)


def _json(data: Any, status: int = 200) -> Response:
    return Response(_encoded(data), status, media_type="application/json")


def _encoded(data: Any) -> bytes:
    """JSON in ASCII: text with lone surrogates has no UTF-8, but its escapes do."""
    return json.dumps(data).encode("ascii") + b"\n"


async def _http_error(_: Request, error: HTTPException) -> Response:
    return _error(error.status_code, error.detail)


def _require_token(app: ASGIApp, token: str) -> ASGIApp:
    expected = f"Bearer {token}".encode()

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope.get("headers", ())).get(b"authorization", b"")
        if scope["type"] != "http" or hmac.compare_digest(given, expected):
            return await app(scope, receive, send)
        return await _error(401, "the token is missing or wrong")(scope, receive, send)

    return guarded


def _rss_bytes() -> int:
    """Memory this process holds; where the system tells no more, the most it has held."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

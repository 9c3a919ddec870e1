"""Single calls to an engine over HTTP: a request, its health.

Knows the wire format of `/v1/infill` and `/health`; not which engine to ask, nor when to ask
again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from dg_lsp.engine_process import Endpoint, EngineUnavailable
from dg_lsp.http11 import Broken, Http
from engine.request import PROTOCOL, Draft, InfillRequest, InfillResult, RequestError

_HEALTH_TIMEOUT_S = 5.0
_ANSWER_TIMEOUT_S = 600.0  # longer than any request should take: only against hanging forever


class Lost(Exception):
    """The connection, or the engine behind it, is gone; asking again may help."""


async def ask(
    http: Http, request: InfillRequest, on_draft: Callable[[Draft], None] | None
) -> InfillResult:
    """One infill request; raises Lost or EngineUnavailable."""
    # ASCII: text with lone surrogates has no UTF-8, but its JSON escapes do.
    content = json.dumps(request.to_json()).encode("ascii")
    accept = "application/x-ndjson" if on_draft else "application/json"
    headers = [("accept", accept), ("content-type", "application/json")]
    try:
        async with (
            asyncio.timeout(_ANSWER_TIMEOUT_S),
            http.send("POST", "/v1/infill", content, headers) as response,
        ):
            if response.status != 200:
                reason = refusal(response.status, await response.read())
                raise Lost(reason) if response.status == 503 else EngineUnavailable(reason)
            if on_draft is None:
                return InfillResult.from_json(json.loads(await response.read()))
            async for line in response.lines():
                event = json.loads(line)
                if not isinstance(event, dict):
                    raise ValueError("it has a line that is no object")
                if "draft" not in event:
                    return _final(event)
                on_draft(Draft.from_json(event["draft"]))
    except TimeoutError:
        raise EngineUnavailable(
            f"the engine gave no answer within {_ANSWER_TIMEOUT_S:g} s; see `dg-lsp doctor`"
        ) from None
    except Broken as error:
        raise Lost(str(error)) from None
    except (RequestError, ValueError, RecursionError) as error:
        raise EngineUnavailable(f"the engine's answer cannot be used: {error}") from None
    raise Lost("the answer ended early")


def _final(event: dict[str, Any]) -> InfillResult:
    if "result" in event:
        return InfillResult.from_json(event["result"])
    raise EngineUnavailable(str(event.get("error", "the engine sent no result")))


async def get_health(http: Http) -> dict[str, Any] | None:
    """The engine's `/health`; None where nothing, or something else, answers there."""
    try:
        async with asyncio.timeout(_HEALTH_TIMEOUT_S), http.send("GET", "/health") as response:
            body = await response.read()
        if response.status == 401:
            raise EngineUnavailable(refusal(response.status, body))
        health = json.loads(body)
    except TimeoutError:
        # It listens, so it lives: importing torch can keep the interpreter for seconds.
        return {"protocol": PROTOCOL, "status": "loading", "message": "the engine is busy"}
    except (Broken, ValueError, RecursionError):
        return None
    return health if _is_health(health) else None


def _is_health(data: object) -> bool:
    if not isinstance(data, dict) or not {"protocol", "status"} <= set(data):
        return False
    engine = data.get("engine") or {}
    return (
        isinstance(engine, dict)
        and isinstance(engine.get("prompt_tokens", 0), int)
        and isinstance(data.get("progress", 0.0), (int, float))
    )


async def shut_down(http: Http) -> bool:
    """Has the engine end; False where none answers. Raises EngineUnavailable if it will not."""
    try:
        async with (
            asyncio.timeout(_HEALTH_TIMEOUT_S),
            http.send("POST", "/v1/shutdown") as response,
        ):
            body = await response.read()
    except (Broken, TimeoutError):
        return False
    if response.status != 202:
        raise EngineUnavailable(refusal(response.status, body))
    return True


def refusal(status: int, body: bytes) -> str:
    """What the engine said with a status other than 200, and what to do where it is known."""
    try:
        message = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        message = f"the engine answered with HTTP status {status}"
    if status == 401:
        return f"{message}; set engine.token to the one the engine was started with"
    return message


def open_pool(endpoint: Endpoint) -> Http:
    """The way to an engine."""
    try:
        return Http(endpoint.url, endpoint.socket, endpoint.token)
    except ValueError as error:
        raise EngineUnavailable(f"engine.url or engine.token cannot be used: {error}") from None

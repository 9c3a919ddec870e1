"""Single calls to an engine over HTTP: a request, its health, the pool of connections.

Knows the wire format of `/v1/infill` and `/health`; not which engine to ask, nor when to ask
again. httpx is imported with the first call, so that importing this module costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dg_lsp.engine_process import Endpoint, EngineUnavailable
from engine.request import PROTOCOL, Draft, InfillRequest, InfillResult, RequestError

if TYPE_CHECKING:
    import httpx

HEALTH_TIMEOUT_S = 5.0
_ANSWER_TIMEOUT_S = 600.0  # longer than any request should take: only against hanging forever


class Lost(Exception):
    """The connection, or the engine behind it, is gone; asking again may help."""


async def ask(
    http: httpx.AsyncClient, request: InfillRequest, on_draft: Callable[[Draft], None] | None
) -> InfillResult:
    """One infill request; raises Lost or EngineUnavailable."""
    import httpx

    # ASCII: text with lone surrogates has no UTF-8, but its JSON escapes do.
    content = json.dumps(request.to_json()).encode("ascii")
    accept = "application/x-ndjson" if on_draft else "application/json"
    headers = {"accept": accept, "content-type": "application/json"}
    try:
        async with http.stream("POST", "/v1/infill", content=content, headers=headers) as response:
            if response.status_code != 200:
                await response.aread()
                if response.status_code == 503:
                    raise Lost(refusal(response))
                raise EngineUnavailable(refusal(response))
            if on_draft is None:
                return InfillResult.from_json(json.loads(await response.aread()))
            async for line in response.aiter_lines():
                event = json.loads(line)
                if "draft" not in event:
                    return _final(event)
                on_draft(Draft.from_json(event["draft"]))
    except httpx.TimeoutException:
        raise EngineUnavailable(
            f"the engine gave no answer within {_ANSWER_TIMEOUT_S:g} s; see `dg-lsp doctor`"
        ) from None
    except httpx.TransportError as error:
        raise Lost(str(error) or type(error).__name__) from None
    except (RequestError, ValueError) as error:
        raise EngineUnavailable(f"the engine's answer cannot be used: {error}") from None
    raise Lost("the answer ended early")


def _final(event: dict[str, Any]) -> InfillResult:
    if "result" in event:
        return InfillResult.from_json(event["result"])
    raise EngineUnavailable(str(event.get("error", "the engine sent no result")))


async def get_health(http: httpx.AsyncClient) -> dict[str, Any] | None:
    """The engine's `/health`; None where nothing, or something else, answers there."""
    import httpx

    try:
        response = await http.get("/health", timeout=HEALTH_TIMEOUT_S)
        if response.status_code == 401:
            raise EngineUnavailable(refusal(response))
        health = response.json()
    except httpx.TimeoutException:
        # It listens, so it lives: importing torch can keep the interpreter for seconds.
        return {"protocol": PROTOCOL, "status": "loading", "message": "the engine is busy"}
    except (httpx.TransportError, ValueError):
        return None
    is_health = isinstance(health, dict) and {"protocol", "status"} <= set(health)
    return health if is_health else None


def refusal(response: httpx.Response) -> str:
    """What the engine said with a status other than 200, and what to do where it is known."""
    try:
        message = str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        message = f"the engine answered with HTTP status {response.status_code}"
    if response.status_code == 401:
        return f"{message}; set engine.token to the one the engine was started with"
    return message


def open_pool(endpoint: Endpoint) -> httpx.AsyncClient:
    """A connection pool; no proxy ever stands between an editor and its engine."""
    import httpx

    transport = httpx.AsyncHTTPTransport(
        uds=endpoint.socket or None,
        verify=endpoint.url.startswith("https:"),
        trust_env=False,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=4, keepalive_expiry=30),
    )
    try:
        return httpx.AsyncClient(
            transport=transport,
            base_url=endpoint.url or "http://engine",
            headers={"authorization": f"Bearer {endpoint.token}"} if endpoint.token else {},
            timeout=httpx.Timeout(_ANSWER_TIMEOUT_S, connect=HEALTH_TIMEOUT_S),
        )
    except (httpx.InvalidURL, UnicodeError) as error:
        raise EngineUnavailable(f"engine.url or engine.token cannot be used: {error}") from None

"""The engine over HTTP: finds a running one, starts one where there is none, asks it.

Knows when to start, wait, ask again and give up; nothing of editors, models or what a single
call looks like (`engine_http`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from dg_lsp.engine_http import Lost, ask, get_health, open_pool, shut_down
from dg_lsp.engine_process import (
    Endpoint,
    EngineUnavailable,
    Launch,
    model_argument,
    published,
    runtime_dir,
)
from dg_lsp.http11 import Broken, Http
from dg_lsp.settings import EngineSettings
from engine.request import PROTOCOL, Draft, InfillRequest, InfillResult

__all__ = ["EngineClient", "EngineStatus", "EngineUnavailable"]

logger = logging.getLogger(__name__)

_POLL_S = (0.1, 0.5)  # the first and the longest pause between two looks
_HOLD_OFF_S = 10.0
_STOP_TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """What the engine is doing, in words for the user; `progress` is 0 to 1.

    `prompt_tokens` is how many the engine takes, `runs` its model and device; 0 and "" where it has
    not said yet.
    """

    state: Literal["starting", "loading", "ready", "stopped"]
    message: str
    progress: float
    prompt_tokens: int = 0
    runs: str = ""


class EngineClient:
    """One user's connection to an engine; `keep_alive` holds the engine for an open editor."""

    def __init__(
        self,
        settings: EngineSettings,
        on_status: Callable[[EngineStatus], None] | None = None,
        keep_alive: bool = False,
    ) -> None:
        self._settings = settings
        self._on_status = on_status
        self._keep_alive = keep_alive
        self._http: Http | None = None
        self._connecting = asyncio.Lock()
        self._lease: asyncio.Task[None] | None = None
        self._last_status: EngineStatus | None = None
        self._failure: tuple[float, str] | None = None
        self._model_told = False

    async def infill(
        self, request: InfillRequest, on_draft: Callable[[Draft], None] | None = None
    ) -> InfillResult:
        """Asks the engine, which is started if need be; raises EngineUnavailable.

        Cancelling the awaiting task closes the connection, and that cancels the work. An
        engine that is lost on the way is asked, or started, once more.
        """
        self._raise_recent_failure()
        for _ in range(2):
            http = await self._connected()
            try:
                return await ask(http, request, on_draft)
            except Lost as error:
                lost = error
                await self._forget(http)
        raise EngineUnavailable(f"the engine was lost twice in this request: {lost}; see {_log()}")

    async def connect(self) -> None:
        """Finds or starts the engine and waits until it is ready; raises EngineUnavailable."""
        await self._connected()

    async def health(self) -> dict[str, Any] | None:
        """What a running engine says of itself; None where none answers. Never starts one."""
        endpoint = self._endpoint()
        if endpoint is None:
            return None
        http = open_pool(endpoint)
        try:
            return await get_health(http)
        finally:
            http.close()

    async def stop(self) -> bool:
        """Ends the running engine; returns whether there was one. Raises EngineUnavailable."""
        endpoint = self._endpoint()
        if endpoint is None:
            return False
        http = open_pool(endpoint)
        try:
            if not await shut_down(http):
                return False
            begun = time.monotonic()
            while await get_health(http) is not None:
                if time.monotonic() - begun > _STOP_TIMEOUT_S:
                    raise EngineUnavailable(f"the engine is still there after {_STOP_TIMEOUT_S} s")
                await asyncio.sleep(_POLL_S[0])
        finally:
            http.close()
        return True

    async def aclose(self) -> None:
        """Closes all connections; the engine itself ends when nobody needs it."""
        if self._http is not None:
            await self._forget(self._http)

    def _endpoint(self) -> Endpoint | None:
        url, token = self._settings.url, self._settings.token
        if not url:
            return published(runtime_dir())
        if url.startswith("unix:"):
            return Endpoint(socket=url.removeprefix("unix:"), token=token)
        if url.startswith(("http://", "https://")):
            return Endpoint(url=url, token=token)
        raise EngineUnavailable(
            f"engine.url must be http://HOST:PORT, https://HOST or unix:PATH, got {url!r}"
        )

    async def _connected(self) -> Http:
        # One task looks for the engine; if it is cancelled, the next one goes on.
        async with self._connecting:
            if self._http is None:
                try:
                    self._http = await self._found()
                except EngineUnavailable as error:
                    self._failure = (time.monotonic(), str(error))
                    raise
                self._failure = None
                if self._keep_alive:
                    self._lease = asyncio.create_task(self._hold(self._http))
            return self._http

    async def _found(self) -> Http:
        """Looks, starts and waits until an engine is ready."""
        directory = runtime_dir()
        launch = Launch(self._settings, directory)
        begun, pause = time.monotonic(), _POLL_S[0]
        while time.monotonic() - begun < self._settings.start_timeout_s:
            endpoint = self._endpoint()
            http = open_pool(endpoint) if endpoint else None
            ready = False
            try:
                health = await get_health(http) if http else None
                ready = health is not None and self._judge(health)
            finally:
                if http and not ready:
                    http.close()
            if http and ready:
                return http
            if health is None:
                self._require(launch)
            await asyncio.sleep(pause)
            pause = min(1.2 * pause, _POLL_S[1])
        raise EngineUnavailable(
            f"the engine was not ready after {self._settings.start_timeout_s:g} s; see {_log()}"
        )

    def _judge(self, health: dict[str, Any]) -> bool:
        """Whether the engine is ready; reports its state, raises if it never will be."""
        if health["protocol"] != PROTOCOL:
            raise EngineUnavailable(
                f"the running engine speaks protocol {health['protocol']}, this dg-lsp {PROTOCOL}: "
                "run `dg-lsp engine --stop`; the right one then starts by itself"
            )
        status, message = health["status"], str(health.get("message", ""))
        if status == "failed":
            if self._is_ours(str(health.get("model", ""))):
                raise EngineUnavailable(message)
            # Another model's failure says nothing about ours: its engine leaves in a moment.
            self._report("starting", "an engine that failed is about to leave", 0.0)
            return False
        if status != "ready":
            state: Literal["starting", "loading"] = (
                "starting" if status == "starting" else "loading"
            )
            self._report(state, message, float(health.get("progress", 0.0)))
            return False
        model, engine = str(health.get("model", "")), health.get("engine") or {}
        runs = " · ".join(filter(None, [model, str(engine.get("device", ""))]))
        tokens = int(engine.get("prompt_tokens", 0))
        self._report("ready", self._other_model(model), 1.0, tokens, runs)
        return True

    def _is_ours(self, model: str) -> bool:
        """Whether a running engine's model is the one set; an engine given by URL has its own."""
        return bool(self._settings.url) or model == model_argument(self._settings.model)

    def _other_model(self, model: str) -> str:
        """One sentence, once, if the running engine has not the model that is set."""
        if self._model_told or self._is_ours(model):
            return ""
        self._model_told = True
        return (
            f"the running engine has model {model}, not {self._settings.model}: it answers with "
            f"{model}; to switch, run `dg-lsp engine --stop`"
        )

    def _require(self, launch: Launch) -> None:
        """No engine answers: starts one, where that is wanted."""
        if self._settings.url:
            raise EngineUnavailable(
                f"no engine answers at {self._settings.url}; start it there or clear engine.url"
            )
        if not self._settings.start:
            raise EngineUnavailable(
                "no engine runs and engine.start is off; start one with `dg-lsp engine`"
            )
        self._report("starting", "starting the engine", 0.0)
        launch.advance()

    async def _hold(self, http: Http) -> None:
        """Keeps a lease open; its end means that the engine has ended."""
        try:
            async with http.send("GET", "/v1/lease") as response:
                async for _ in response.pieces():
                    logger.debug("the engine is held")
        except Broken as error:
            logger.debug("lease lost: %s", error)
        if self._http is http:
            self._http = self._lease = None
            self._report("stopped", "the engine has ended; the next request starts it again", 0.0)
            http.close()

    async def _forget(self, http: Http) -> None:
        """Closes the connections to an engine, unless another task has done so already."""
        if self._http is not http:
            return
        lease, self._lease, self._http = self._lease, None, None
        if lease is not None:
            lease.cancel()
            await asyncio.wait({lease})
        http.close()

    def _report(
        self, state: Any, message: str, progress: float, prompt_tokens: int = 0, runs: str = ""
    ) -> None:
        status = EngineStatus(state, message, progress, prompt_tokens, runs)
        if status != self._last_status and self._on_status is not None:
            self._on_status(status)
        self._last_status = status

    def _raise_recent_failure(self) -> None:
        """An engine that just failed is not started again at every keystroke."""
        if self._failure and time.monotonic() - self._failure[0] < _HOLD_OFF_S:
            raise EngineUnavailable(self._failure[1])


def _log() -> str:
    return str(runtime_dir() / "engine.log")

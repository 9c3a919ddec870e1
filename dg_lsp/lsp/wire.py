"""pygls' protocol, made to answer every request and to keep tracebacks and source text to itself."""

from __future__ import annotations

from typing import Any

from lsprotocol import types
from pygls.exceptions import (
    JsonRpcException,
    JsonRpcInvalidParams,
    JsonRpcInvalidRequest,
    JsonRpcServerNotInitialized,
)
from pygls.protocol import LanguageServerProtocol


class Wire(LanguageServerProtocol):
    """Exactly one reply to each request, whatever is wrong with it."""

    _greeted = False  # whether `initialize` has come

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
        """Takes nothing before `initialize` and nothing after `shutdown`, but answers requests."""
        method = getattr(message, "method", None)
        refusal = self._refusal(method) if method not in (None, types.EXIT) else None
        if refusal is None:
            self._greeted = self._greeted or method == types.INITIALIZE
            super().handle_message(message)
        elif hasattr(message, "id"):
            self._send_response(message.id, error=refusal.to_response_error())

    def _refusal(self, method: str | None) -> JsonRpcException | None:
        """Why a message of this method is not taken now."""
        if self._shutdown:
            return JsonRpcInvalidRequest("the server has been shut down")
        if self._greeted and method == types.INITIALIZE:
            return JsonRpcInvalidRequest("the server is initialized already")
        if not self._greeted and method != types.INITIALIZE:
            return JsonRpcServerNotInitialized("the server is not initialized yet")
        return None

    def _send_response(
        self, msg_id: str | int, result: Any = None, error: types.ResponseError | None = None
    ) -> None:
        if error is not None:
            error.data = None  # pygls puts a traceback there
        super()._send_response(msg_id, result, error)

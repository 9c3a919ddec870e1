"""pygls' protocol, made to answer every request and to keep tracebacks and source text to itself."""

from __future__ import annotations

from typing import Any

from lsprotocol import types
from pygls.exceptions import JsonRpcException, JsonRpcInvalidParams, JsonRpcInvalidRequest
from pygls.protocol import LanguageServerProtocol


class Wire(LanguageServerProtocol):
    """Exactly one reply to each request, whatever is wrong with it."""

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

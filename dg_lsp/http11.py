"""HTTP/1.1 to one address, over a unix socket, TCP or TLS: what little of it an engine needs.

No proxy, redirect or cookie ever stands between an editor and its engine. A general library would
take more memory than all of the language server's own code. Knows nothing of what is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import urlsplit

import h11

_CONNECT_S = 4.0  # before whoever asks for the health gives up
_PIECE = 1 << 16  # bytes
_MOST_IDLE = 4
_MOST_BYTES = 10_000_000  # of one answer

Headers: TypeAlias = list[tuple[str, str]]


class Broken(Exception):
    """No connection, or one that broke off, or what came over it is no HTTP."""


@dataclass(slots=True)
class _Line:
    """One connection, and where its protocol stands."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    state: h11.Connection = field(default_factory=lambda: h11.Connection(h11.CLIENT))

    @property
    def is_usable(self) -> bool:
        """Whether the other side still holds it open, as far as is known here."""
        return not self.reader.at_eof() and not self.writer.is_closing()

    def send(self, event: h11.Event) -> None:
        self.writer.write(self.state.send(event) or b"")

    async def next_event(self) -> h11.Event:
        while (event := self.state.next_event()) is h11.NEED_DATA:
            self.state.receive_data(await self.reader.read(_PIECE))
        assert not isinstance(event, type), "the other side is waited for, and has not ended"
        return event


@dataclass(slots=True)
class Response:
    """An answer whose body is still to come."""

    status: int
    _line: _Line

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes."""
        came = 0
        while isinstance(event := await self._line.next_event(), h11.Data):
            came += len(event.data)
            if came > _MOST_BYTES:
                raise Broken(f"the answer is longer than {_MOST_BYTES} bytes")
            yield bytes(event.data)

    async def lines(self) -> AsyncIterator[bytes]:
        """The body's lines as they come, without their ends."""
        rest = b""
        async for piece in self.pieces():
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield line
        if rest:
            yield rest

    async def read(self) -> bytes:
        """The whole body."""
        return b"".join([piece async for piece in self.pieces()])


class Http:
    """The way to one address. Connections are kept for the next request; each carries one at a time."""

    def __init__(self, url: str = "", socket: str = "", token: str = "") -> None:
        """Raises ValueError where that is no address, or the token cannot be sent."""
        parts = urlsplit(url or "http://engine")
        if not parts.hostname:
            raise ValueError("no host is named")
        self._socket = socket
        self._tls = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port or (443 if self._tls else 80)
        self._base = parts.path.rstrip("/")
        self._headers = [("host", parts.netloc.rpartition("@")[2])]
        if token:
            self._headers.append(("authorization", f"Bearer {token}"))
        try:
            self._request("GET", "/", b"", [])
        except h11.LocalProtocolError as error:
            raise ValueError(str(error)) from None
        self._idle: list[_Line] = []

    @asynccontextmanager
    async def send(
        self, method: str, path: str, body: bytes = b"", headers: Headers | None = None
    ) -> AsyncIterator[Response]:
        """One request; raises Broken. What is left of the answer at the end is not waited for."""
        request = self._request(method, path, body, headers or [])
        line = self._kept() or await self._connected()
        try:
            line.send(request)
            if body:
                line.send(h11.Data(data=body))
            line.send(h11.EndOfMessage())
            await line.writer.drain()
            while isinstance(event := await line.next_event(), h11.InformationalResponse):
                continue
            assert isinstance(event, h11.Response), "the first thing of an answer"
            yield Response(event.status_code, line)
        except (OSError, h11.RemoteProtocolError) as error:
            raise Broken(str(error) or type(error).__name__) from None
        finally:
            self._put_back(line)

    def close(self) -> None:
        """Closes the connections that nobody uses."""
        while self._idle:
            self._idle.pop().writer.close()

    def _request(self, method: str, path: str, body: bytes, headers: Headers) -> h11.Request:
        length = [("content-length", str(len(body)))]
        every = [*self._headers, *headers, *length]
        return h11.Request(method=method, target=self._base + path, headers=every)

    def _kept(self) -> _Line | None:
        while self._idle:
            line = self._idle.pop()
            if line.is_usable:
                return line
            line.writer.close()
        return None

    async def _connected(self) -> _Line:
        try:
            async with asyncio.timeout(_CONNECT_S):
                if self._socket:
                    return _Line(*await asyncio.open_unix_connection(self._socket))
                secure = True if self._tls else None
                return _Line(*await asyncio.open_connection(self._host, self._port, ssl=secure))
        except (OSError, UnicodeError, ValueError) as error:  # TimeoutError is an OSError
            raise Broken(str(error) or type(error).__name__) from None

    def _put_back(self, line: _Line) -> None:
        """Keeps a connection whose answer was read to its end; else closing it says so."""
        finished = line.state.our_state is line.state.their_state is h11.DONE
        if finished and line.is_usable and len(self._idle) < _MOST_IDLE:
            line.state.start_next_cycle()
            self._idle.append(line)
        else:
            line.writer.transport.abort()

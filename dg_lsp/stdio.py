"""Standard input and output of a server process, and the life of the process that started it.

Nothing here keeps a process alive whose client has gone. Knows nothing of LSP.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable

_CHUNK = 1 << 16
_POLL_S = 2.0


def stdin_reader() -> asyncio.StreamReader:
    """Standard input for the running loop, read by a thread that no exit has to wait for.

    What the loop has no use for yet stays in the pipe, a few chunks excepted.
    """
    loop = asyncio.get_running_loop()
    reader, gate = _Reader(), _Gate()
    reader.set_transport(gate)

    def feed(data: bytes) -> None:
        if not reader.at_eof():
            reader.feed_data(data)
        gate.let_through()

    def pump() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            while data := os.read(sys.stdin.fileno(), _CHUNK):
                gate.shut()
                loop.call_soon_threadsafe(feed, data)
                gate.wait()
            loop.call_soon_threadsafe(reader.feed_eof)

    threading.Thread(target=pump, name="stdin", daemon=True).start()
    return reader


class _Gate(asyncio.ReadTransport):
    """Lets one chunk after the other through, and none while the reader has enough."""

    def __init__(self) -> None:
        super().__init__()
        self._open = threading.Event()
        self._paused = False
        self.shut, self.wait = self._open.clear, self._open.wait

    def let_through(self) -> None:
        """The last chunk is with the reader."""
        if not self._paused:
            self._open.set()

    def pause_reading(self) -> None:
        """The reader has enough."""
        self._paused = True

    def resume_reading(self) -> None:
        """The reader wants more."""
        self._paused = False
        self._open.set()


class _Reader(asyncio.StreamReader):
    """Lets what one message began take its first step before the next message is read.

    So a request sees the text as it was when it was sent, even if edits lie in the same chunk.
    """

    async def readline(self) -> bytes:
        await asyncio.sleep(0)
        return await super().readline()


class StdoutWriter:
    """Standard output, unbuffered; `on_broken` is called once when nobody reads it any more."""

    def __init__(self, on_broken: Callable[[], None]) -> None:
        self._on_broken = on_broken
        self._open = True

    def write(self, data: bytes) -> None:
        """Writes all of `data`; after the end, nothing."""
        rest = memoryview(data)
        try:
            while self._open and rest:
                rest = rest[os.write(sys.stdout.fileno(), rest) :]
        except OSError:
            self.close()
            self._on_broken()

    def close(self) -> None:
        """Ends the writing; the descriptor itself stays open until the process ends."""
        self._open = False


async def death_of(pid: int | None, poll_s: float = _POLL_S) -> None:
    """Returns when the process ends; never if it cannot be seen from here.

    A client in another container gives a pid that means nothing here.
    """
    if pid is None or pid <= 0 or os.name != "posix" or not _is_alive(pid):
        await asyncio.Event().wait()
        return
    while _is_alive(pid):  # noqa: ASYNC110 - a process that is not ours tells us nothing
        await asyncio.sleep(poll_s)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

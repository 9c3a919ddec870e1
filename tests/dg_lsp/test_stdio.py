import asyncio
import os
import sys

import pytest

from dg_lsp.stdio import stdin_reader

TEXT = bytes(range(256)) * 20_000  # five megabytes


@pytest.fixture
def pipe(monkeypatch):
    """What is written to it comes in as standard input."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as stdin, os.fdopen(write, "wb") as stdout:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield stdout


async def test_all_comes_in_and_what_nobody_has_asked_for_yet_takes_no_room(pipe):
    reader = stdin_reader()

    def write():
        pipe.write(TEXT)
        pipe.close()

    writing = asyncio.create_task(asyncio.to_thread(write))
    came = await reader.readexactly(1)
    while len(came) < len(TEXT):
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(reader._buffer) < 300_000
        came += await reader.readexactly(min(100_000, len(TEXT) - len(came)))
    await writing
    assert came == TEXT
    assert await reader.read() == b"", "the end comes too"

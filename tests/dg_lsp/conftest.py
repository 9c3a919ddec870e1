"""Editors whose servers have a scripted engine, see scripted_server.py."""

import contextlib

import pytest_asyncio

from tests.editor import starting


@pytest_asyncio.fixture
async def start_editor(tmp_path):
    """Starts editors, each with its own server process and its own file of events."""
    async with contextlib.AsyncExitStack() as stack:

        async def start():
            events = tmp_path / "events"
            server = starting(
                "-m", "tests.dg_lsp.scripted_server", env={"SCRIPTED_EVENTS": str(events)}
            )
            editor = await stack.enter_async_context(server)
            editor.events_file = events
            return editor

        yield start


@pytest_asyncio.fixture
async def editor(start_editor):
    """An editor that has been greeted and has nothing open."""
    editor = await start_editor()
    await editor.initialize()
    return editor

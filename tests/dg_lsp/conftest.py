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
            statistics = tmp_path / "statistics.jsonl"
            env = {"SCRIPTED_EVENTS": str(events), "DG_LSP_STATISTICS": str(statistics)}
            server = starting("-m", "tests.dg_lsp.scripted_server", env=env)
            editor = await stack.enter_async_context(server)
            editor.events_file = events
            editor.statistics_file = statistics
            return editor

        yield start


@pytest_asyncio.fixture
async def editor(start_editor):
    """An editor that has been greeted and has nothing open."""
    editor = await start_editor()
    await editor.initialize()
    return editor

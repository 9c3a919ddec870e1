"""Editors whose servers have a scripted engine, see scripted_server.py; where the command line finds one."""

import contextlib
import tempfile
from pathlib import Path

import pytest
import pytest_asyncio

from tests.editor import starting
from tests.running import end_published, running


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


@pytest.fixture(scope="module")
def home():
    """A runtime directory that the module's tests share, with one engine that already runs."""
    with (
        tempfile.TemporaryDirectory(prefix="dg") as name,
        running(Path(name) / "run", "--idle-exit", "3600"),
    ):
        yield Path(name)


@pytest.fixture
def empty_home():
    """A runtime directory in which no engine runs yet."""
    with tempfile.TemporaryDirectory(prefix="dg") as name:
        try:
            yield Path(name)
        finally:
            end_published(Path(name) / "run")


@pytest.fixture
def hold(tmp_path, monkeypatch):
    """A file that keeps an engine loading until it is taken away: until a test has seen that."""
    file = tmp_path / "hold"
    file.touch()
    monkeypatch.setenv("SCRIPTED_ENGINE_HOLD", str(file))
    return file

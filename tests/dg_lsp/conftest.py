"""Editors whose servers have a scripted engine, see scripted_server.py; where the command line finds one."""

import contextlib
import tempfile
from pathlib import Path

import pytest
import pytest_asyncio

from dg_lsp import engine_process
from tests.editor import starting
from tests.running import SCRIPTED, end_published, running


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


@pytest.fixture
def directory(monkeypatch):
    """This user's runtime directory for one test; the engine started in it ends with the test."""
    with tempfile.TemporaryDirectory(prefix="dg") as name:
        path = Path(name) / "run"
        monkeypatch.setenv("DG_LSP_RUNTIME_DIR", str(path))
        monkeypatch.setenv("DG_LSP_IDLE_EXIT_S", "20")
        monkeypatch.setenv("SCRIPTED_ENGINE_STEPS", str(Path(name) / "run.steps"))
        monkeypatch.setattr(engine_process, "COMMAND", SCRIPTED)
        try:
            yield path
        finally:
            end_published(path)

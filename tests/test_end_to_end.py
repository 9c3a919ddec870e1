"""The real server over stdio, the real engine process and the real embedded model."""

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from lsprotocol import types
from pygls.exceptions import JsonRpcException

from dg_lsp.client import EngineClient
from dg_lsp.settings import EngineSettings
from engine.errors import EngineError
from engine.pull import resolve_model
from tests.editor import NOTHING, starting
from tests.running import end_published, is_alive

MODEL = EngineSettings().model
SERVER = ("-c", "from dg_lsp.cli import main; main(['serve'])")
TEXT = """\
def add(a, b):
    return a + b


def subtract(a, b):

    # swap the arguments
    return subtract(, a)


def multiply(a, b):
"""


@pytest.fixture(scope="module")
def model():
    """The embedded model, fetched once where it is not there yet."""
    try:
        resolve_model(MODEL)
    except EngineError:
        subprocess.run([sys.executable, "-m", "engine.pull", MODEL], check=True)


@pytest.fixture
def directory(model, monkeypatch):
    """A runtime directory of this test's own, with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="dg-") as path:
        monkeypatch.setenv("DG_LSP_RUNTIME_DIR", path)
        monkeypatch.setenv("DG_LSP_IDLE_EXIT_S", "1")
        yield Path(path)
        end_published(Path(path))


async def health():
    client = EngineClient(EngineSettings())
    try:
        return await client.health()
    finally:
        await client.aclose()


async def until_busy(wanted):
    """Waits until the engine works, or until it does not, and returns what it says then."""
    async with asyncio.timeout(60):
        while (state := await health())["busy"] != wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return state


async def until_gone(pid):
    async with asyncio.timeout(60):
        while is_alive(pid):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def answers_finished(directory):
    return (directory / "engine.log").read_text().count(" forwards, ")


def only(answer):
    (item,) = answer.items
    return item


async def second_editor_comes_and_is_killed(pid):
    async with starting(*SERVER, env={}) as editor:
        await editor.initialize(options={"maxTokens": 4})
        editor.open("def add(a, b):\n    return ", language="python")
        assert only(await editor.complete(1, 11)).insert_text.startswith("    return a")
        state = await health()
        assert (state["pid"], state["leases"]) == (pid, 2)
        editor.process.kill()
        await editor.process.wait()


async def test_open_type_complete_cancel_complete_again_and_leave(directory):
    async with starting(*SERVER, env={}) as editor:
        progress = types.WindowClientCapabilities(work_done_progress=True)
        await editor.initialize(options={"maxTokens": 24, "askAhead": False}, window=progress)
        editor.open(TEXT, language="python")
        await editor.until(lambda: editor.statuses and editor.statuses[-1].state == "ready")
        (reports,) = editor.client.progress_reports.values()
        assert isinstance(reports[0], types.WorkDoneProgressBegin)

        editor.edit("    ", (5, 0), (5, 0))
        whole_line = only(await editor.complete(5, 4))
        assert whole_line.insert_text.startswith("    return a - b")
        assert whole_line.range == types.Range(types.Position(5, 0), types.Position(5, 4))

        editor.edit("re", (5, 4), (5, 4))
        typed_on = only(await editor.complete(5, 6))
        assert typed_on.insert_text.startswith("    return a - b")
        assert typed_on.range.end == types.Position(5, 6)

        mid_line = only(await editor.complete(7, 20))
        assert mid_line.insert_text.startswith("    return subtract(")
        assert "\n" not in mid_line.insert_text
        assert mid_line.range == types.Range(types.Position(7, 0), types.Position(7, 20))

        finished = answers_finished(directory)
        editor.configure({"maxTokens": 500})
        answer, msg_id = editor.ask(11, 0)
        await until_busy(True)
        editor.cancel(msg_id)
        with pytest.raises(JsonRpcException) as raised:
            await answer
        assert raised.value.code == types.LSPErrorCodes.RequestCancelled
        pid = (await until_busy(False))["pid"]
        assert answers_finished(directory) == finished, "the cancelled request ran to its end"

        older, _ = editor.ask(11, 0)
        await until_busy(True)
        editor.configure({"maxTokens": 24})
        assert only(await editor.complete(5, 6)).insert_text == typed_on.insert_text
        assert await older is None

        await second_editor_comes_and_is_killed(pid)
        assert only(await editor.complete(5, 6)).insert_text == typed_on.insert_text

        assert await editor.complete(99, 0) == NOTHING
        assert editor.client.messages == []
        assert await editor.leave() == 0
    await until_gone(pid)
    assert not any(path.suffix in (".sock", ".json") for path in directory.iterdir())

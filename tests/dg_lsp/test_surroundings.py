"""What is around the documents, with real threads; nothing here depends on how fast they are."""

import asyncio
import threading

import pytest
import pytest_asyncio

from dg_lsp.context import Budget
from dg_lsp.document import Document, Edit, Position
from dg_lsp.exclusions import Exclusions
from dg_lsp.surroundings import Surroundings

SHAPES = 'def paint(shape, colour):\n    """Covers the shape."""\n    return shape\n'
USER = "from shapes import paint\n\npaint(\n"
BUDGET = Budget(context=3000)


@pytest_asyncio.fixture
async def around(tmp_path):
    """The surroundings of a workspace in `tmp_path`, with all the time that it takes."""
    around = Surroundings(budget_s=30, idle_s=0)
    around.configure({tmp_path.as_uri(): tmp_path}, Exclusions())
    yield around
    await around.aclose()


def opened(around, root, path="user.py", text=USER):
    document = Document(
        text, uri=f"{root.as_uri()}/{path}", language="python", version=1, encoding="utf-16"
    )
    around.opened(document)
    return document


def place(around, document, line=2, character=6):
    return document.snapshot(Position(line, character), around.path(document.uri))


async def paths(around, document, **where):
    return [chunk.path for chunk in await around.chunks(place(around, document, **where), BUDGET)]


async def until(condition):
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_the_definitions_of_an_open_document_help_in_another(around, tmp_path):
    opened(around, tmp_path, "shapes.py", SHAPES)
    assert await paths(around, opened(around, tmp_path)) == ["shapes.py"]


async def test_the_workspace_is_read_when_a_document_of_it_is_opened(around, tmp_path):
    (tmp_path / "shapes.py").write_text(SHAPES)
    document = opened(around, tmp_path)

    async def found():
        around.closed(document.uri)  # forgets what it got
        return await paths(around, document) == ["shapes.py"]

    await until(found)


async def test_saving_and_changes_on_disk_are_seen(around, tmp_path):
    document = opened(around, tmp_path)
    shapes = opened(around, tmp_path, "shapes.py", "x = 1\n")
    assert await paths(around, document) == []
    shapes.apply([Edit(SHAPES)], 2)
    around.saved(shapes)
    around.closed(document.uri)
    assert await paths(around, document) == ["shapes.py"]
    (tmp_path / "shapes.py").unlink(missing_ok=True)
    around.files_changed([shapes.uri])

    async def gone():
        around.closed(document.uri)
        return await paths(around, document) == []

    await until(gone)


async def test_files_of_two_folders_with_the_same_path_are_two(around, tmp_path):
    one, two = tmp_path / "one" / "lib", tmp_path / "two" / "lib"
    for folder in (one, two):
        folder.mkdir(parents=True)
    around.configure({folder.as_uri(): folder for folder in (one, two)}, Exclusions())
    document = opened(around, one)
    opened(around, one, "shapes.py", SHAPES)
    opened(around, two, "shapes.py", SHAPES.replace("Covers", "Also covers"))
    opened(around, two, "user.py", "def paint(other_arguments):\n    return 1\n")
    assert await paths(around, document) == ["lib-2/shapes.py", "lib-2/user.py", "lib/shapes.py"]
    around.files_changed([f"{two.as_uri()}/shapes.py"])  # which is not there

    async def gone():
        around.closed(document.uri)
        return await paths(around, document) == ["lib-2/user.py", "lib/shapes.py"]

    await until(gone)


async def test_what_is_ignored_later_is_forgotten(around, tmp_path):
    opened(around, tmp_path, "shapes.py", SHAPES)
    document = opened(around, tmp_path)
    assert await paths(around, document) == ["shapes.py"]
    around.files_changed([f"{tmp_path.as_uri()}/.gitignore"])
    assert await paths(around, document) == []


async def test_a_document_keeps_its_chunks_while_one_types_and_gets_others_elsewhere(
    around, tmp_path
):
    document = opened(around, tmp_path, text=USER + "\n" * 40)
    assert await paths(around, document) == []
    opened(around, tmp_path, "shapes.py", SHAPES)
    assert await paths(around, document, line=30) == []
    assert await paths(around, document, line=40) == ["shapes.py"]


async def test_other_chunks_are_given_only_when_the_engine_has_taken_them_in(around, tmp_path):
    document = opened(around, tmp_path)
    assert await paths(around, document) == []
    opened(around, tmp_path, "shapes.py", SHAPES)
    asked, answer = asyncio.Event(), asyncio.Event()
    warmed = []

    async def warm(chunks):
        warmed.append([chunk.path for chunk in chunks])
        asked.set()
        await answer.wait()

    around.when_idle(place(around, document), BUDGET, warm)
    await asyncio.wait_for(asked.wait(), 30)
    assert warmed == [["shapes.py"]]
    assert await paths(around, document) == []
    answer.set()
    await around._idle
    assert await paths(around, document) == ["shapes.py"]
    around.when_idle(place(around, document), BUDGET, warm)
    await around._idle
    assert len(warmed) == 1, "the engine has it"


@pytest.mark.parametrize("event", ["typing", "asking", "closing"])
async def test_what_is_done_while_idle_ends_at_once_when_somebody_is_there(around, tmp_path, event):
    document = opened(around, tmp_path)
    asked, ended = asyncio.Event(), asyncio.Event()

    async def warm(chunks):
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    around.when_idle(place(around, document), BUDGET, warm)
    await asyncio.wait_for(asked.wait(), 30)
    if event == "typing":
        around.changed(document.uri, [])
    elif event == "asking":
        around.visited(place(around, document))
    else:
        await around.aclose()
    await asyncio.wait_for(ended.wait(), 30)


async def test_what_takes_too_long_is_left_out_and_comes_when_it_is_there(around, tmp_path):
    document = opened(around, tmp_path)
    opened(around, tmp_path, "shapes.py", SHAPES)
    gate = threading.Event()
    around._do(gate.wait, 30)
    around._budget_s = 0
    assert await paths(around, document) == []
    assert await paths(around, document) == []
    (looking,) = around._looking.values()
    gate.set()
    await looking
    assert await paths(around, document) == ["shapes.py"]


async def test_with_no_room_nothing_is_looked_for(around, tmp_path):
    document = opened(around, tmp_path)
    around._do = None
    assert await around.chunks(place(around, document), Budget(context=0)) == ()


async def test_nothing_comes_out_of_excluded_files(around, tmp_path):
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "on_disk.py").write_text(SHAPES)
    opened(around, tmp_path, "shapes.py", SHAPES)
    document = opened(around, tmp_path)
    assert await paths(around, document) == ["shapes.py"]
    around.configure({tmp_path.as_uri(): tmp_path}, Exclusions(["shapes.py", "private/"]))
    secret = opened(around, tmp_path, "shapes.py", SHAPES)
    opened(around, tmp_path, "private/open.py", SHAPES)
    around.saved(secret)
    around.seen(place(around, secret))
    around.changed(secret.uri, [Edit(SHAPES * 3, Position(0, 0), Position(0, 0))])
    around.files_changed([secret.uri, f"{tmp_path.as_uri()}/private/on_disk.py"])
    around.when_idle(place(around, document), BUDGET, lambda chunks: asyncio.sleep(0))
    await around._idle
    assert await paths(around, document) == []


async def test_a_look_from_before_an_exclusion_gives_nothing_after_it(around, tmp_path):
    opened(around, tmp_path, "shapes.py", SHAPES)
    document = opened(around, tmp_path)
    gate = threading.Event()
    around._do(gate.wait, 30)
    looking = asyncio.create_task(paths(around, document))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    around.configure({tmp_path.as_uri(): tmp_path}, Exclusions(["shapes.py"]))
    gate.set()
    assert await looking == []


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("file:///home/me/.ssh/config", ".ssh/"),
        ("file:///home/me/.env", ".env*"),
        ("file:///w/certs/a.pem", "*.pem"),
        ("vscode-remote://host/home/me/.aws/credentials", ".aws/"),
        ("untitled:.env", ".env*"),
        ("file:///w/a.py", ""),
        ("untitled:Untitled-1", ""),
    ],
)
async def test_a_document_is_excluded_by_its_whole_path(around, uri, why):
    assert (f"({why})" in around.excluded(uri)) if why else around.excluded(uri) == ""


async def test_what_goes_wrong_is_logged_without_its_text(around, tmp_path, caplog):
    around._do(int, "my_secret").result(30)
    assert "ValueError" in caplog.text and "my_secret" not in caplog.text


async def test_after_closing_nothing_is_done_and_nothing_fails(around, tmp_path):
    await around.aclose()
    document = opened(around, tmp_path)
    assert await paths(around, document) == []

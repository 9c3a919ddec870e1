"""Folders and files as the client tells of them: what is read on disk and given to the engine."""

import asyncio

import pytest_asyncio
from lsprotocol import types

from dg_lsp.reader import QUIET_S
from dg_lsp.workspace import EXTENSIONS
from tests.dg_lsp.test_protocol import only, registered

WATCHED = types.WORKSPACE_DID_CHANGE_WATCHED_FILES
SHAPES = "def paint(shape):\n    return shape\n"
USER = "paint CONTEXT"


class Workspace:
    """An editor with one folder on disk, in which `user.txt` is asked what the engine is given."""

    def __init__(self, editor, root):
        self.editor = editor
        self.root = root
        self.user = f"{root.as_uri()}/user.txt"

    async def given(self):
        """The paths of what goes along; the document is opened anew, so that it is looked up."""
        self.editor.open(USER, self.user)
        answer = only(await self.editor.complete(0, len(USER), self.user))
        self.editor.close(self.user)
        return answer.insert_text.removeprefix(USER).split()

    async def until_given(self, *paths):
        async with asyncio.timeout(30):
            while await self.given() != list(paths):  # noqa: ASYNC110
                await asyncio.sleep(2 * QUIET_S)  # files are read while nobody asks

    def changed(self, *paths):
        kind = types.FileChangeType.Changed
        events = [types.FileEvent(uri=f"{self.root.as_uri()}/{path}", type=kind) for path in paths]
        params = types.DidChangeWatchedFilesParams(changes=events)
        self.editor.client.workspace_did_change_watched_files(params)

    def folders(self, added=(), removed=()):
        named = [
            [types.WorkspaceFolder(uri=path.as_uri(), name=path.name) for path in paths]
            for paths in (added, removed)
        ]
        event = types.WorkspaceFoldersChangeEvent(*named)
        params = types.DidChangeWorkspaceFoldersParams(event=event)
        self.editor.client.workspace_did_change_workspace_folders(params)


@pytest_asyncio.fixture
async def workspace(start_editor, tmp_path):
    root = tmp_path / "project"
    root.mkdir()
    editor = await start_editor()
    await editor.initialize(folders=[root.as_uri()])
    return Workspace(editor, root)


async def test_a_client_that_can_is_asked_to_watch_sources_and_gitignores(start_editor):
    editor = await start_editor()
    found = registered(editor)
    watching = types.DidChangeWatchedFilesClientCapabilities(dynamic_registration=True)
    workspace = types.WorkspaceClientCapabilities(did_change_watched_files=watching)
    await editor.initialize(workspace=workspace)
    await editor.until(lambda: WATCHED in found)
    sources, ignores = (watcher["globPattern"] for watcher in found[WATCHED]["watchers"])
    assert sources == f"**/*.{{{','.join(EXTENSIONS)}}}" and "py" in EXTENSIONS
    assert ignores == "**/.gitignore"


async def test_a_client_that_cannot_watch_is_asked_nothing(start_editor):
    editor = await start_editor()
    found = registered(editor)
    await editor.initialize()
    editor.open("x")
    assert only(await editor.complete(0, 1)), "what follows `initialized` is done"
    assert found == {}


async def test_a_file_that_changes_on_disk_is_read_again(workspace):
    shapes = workspace.root / "shapes.py"
    await workspace.until_given("none")
    shapes.write_text(SHAPES)
    workspace.changed("shapes.py")
    await workspace.until_given("shapes.py")
    shapes.write_text(SHAPES.replace("paint", "draw"))
    workspace.changed("shapes.py")
    await workspace.until_given("none")


async def test_a_changed_gitignore_is_taken_at_once(workspace):
    (workspace.root / "shapes.py").write_text(SHAPES)
    await workspace.until_given("shapes.py")
    (workspace.root / ".gitignore").write_text("shapes.py\n")
    workspace.changed(".gitignore")
    await workspace.until_given("none")
    (workspace.root / ".gitignore").unlink()
    workspace.changed(".gitignore")
    await workspace.until_given("shapes.py")


async def test_saving_tells_what_a_document_defines_now(workspace):
    uri = f"{workspace.root.as_uri()}/shapes.py"
    workspace.editor.open("", uri, "python")
    workspace.editor.edit(SHAPES, (0, 0), (0, 0), uri)
    assert await workspace.given() == ["none"]
    document = types.TextDocumentIdentifier(uri=uri)
    workspace.editor.client.text_document_did_save(
        types.DidSaveTextDocumentParams(text_document=document)
    )
    await workspace.until_given("shapes.py")


async def test_folders_come_and_go_and_their_files_are_not_mixed_up(workspace, tmp_path):
    other = tmp_path / "library"
    for folder in (workspace.root, other):
        folder.mkdir(exist_ok=True)
        (folder / "shapes.py").write_text(SHAPES.replace("shape", folder.name))
    await workspace.until_given("shapes.py")
    workspace.folders(added=[other])
    workspace.editor.open("x = 1\n", f"{other.as_uri()}/main.py", "python")  # so it is read
    await workspace.until_given("library/shapes.py", "project/shapes.py")
    workspace.folders(removed=[other])
    await workspace.until_given("shapes.py")

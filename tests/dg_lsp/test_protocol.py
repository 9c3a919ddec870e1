"""What editors differ in: what they offer, tell and ask besides text; over stdio."""

import asyncio
import itertools
import json

import pytest
from lsprotocol import types
from pygls.exceptions import JsonRpcException

from dg_lsp.settings import EngineSettings
from tests.editor import NOTHING, URI

MODEL = EngineSettings().model
INLINE = types.InlineCompletionClientCapabilities
TEXT = types.TextDocumentClientCapabilities
MENU = TEXT(completion=types.CompletionClientCapabilities())


def only(answer):
    (item,) = answer.items
    return item


def lines(editor):
    """What the statistics say, without times."""
    text = editor.statistics_file.read_text() if editor.statistics_file.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def outcomes(editor):
    return [line["how"] for line in lines(editor) if line["event"] == "outcome"]


def registered(editor):
    """The capabilities registered after the start, as they come in."""
    found = {}

    @editor.client.feature(types.CLIENT_REGISTER_CAPABILITY)
    def register(params):
        found.update({r.method: r.register_options for r in params.registrations})

    return found


async def menu(editor, line, character, kind=types.CompletionTriggerKind.Invoked):
    return await editor.client.text_document_completion_async(
        types.CompletionParams(
            text_document=types.TextDocumentIdentifier(uri=URI),
            position=types.Position(line, character),
            context=types.CompletionContext(trigger_kind=kind),
        )
    )


# what is offered to whom


async def test_a_client_that_offers_it_gets_inline_completion_registered_later(start_editor):
    editor = await start_editor()
    found = registered(editor)
    inline = INLINE(dynamic_registration=True)
    result = await editor.initialize(text_document=TEXT(inline_completion=inline))
    assert result.capabilities.inline_completion_provider is None
    await editor.until(lambda: types.TEXT_DOCUMENT_INLINE_COMPLETION in found)
    editor.open("x")
    assert only(await editor.complete(0, 1)).insert_text == "x<x|>"


async def test_a_client_with_inline_completion_gets_that_and_commands_and_nothing_in_its_list(
    start_editor,
):
    both = TEXT(inline_completion=INLINE(), completion=types.CompletionClientCapabilities())
    result = await (await start_editor()).initialize(text_document=both)
    assert result.capabilities.inline_completion_provider is not None
    assert result.capabilities.completion_provider is None
    names = "accept completeNow toggle snooze restartEngine chooseModel showStatistics"
    assert result.capabilities.execute_command_provider.commands == tuple(
        f"dgLsp.{name}" for name in names.split()
    )


async def test_the_list_is_an_option(start_editor):
    editor = await start_editor()
    result = await editor.initialize(text_document=MENU, options={"completionMenu": False})
    assert result.capabilities.completion_provider is None


async def test_a_client_without_inline_completion_gets_entries_for_its_list(start_editor):
    editor = await start_editor()
    result = await editor.initialize(text_document=MENU)
    assert "." in result.capabilities.completion_provider.trigger_characters
    editor.open("é = nam\nSAY 1\\n  2\nx")
    answer = await menu(editor, 0, 7)
    assert answer.is_incomplete
    item = only(answer)
    assert item.filter_text == item.text_edit.new_text == "nam<é = nam|>"
    assert item.text_edit.range == types.Range(types.Position(0, 4), types.Position(0, 7))
    assert (item.kind, item.insert_text_format, item.insert_text_mode) == (
        types.CompletionItemKind.Text,
        types.InsertTextFormat.PlainText,  # never a snippet
        types.InsertTextMode.AsIs,
    )
    block = (await menu(editor, 1, 10)).items
    assert [(i.label, i.sort_text) for i in block] == [("21", "!0"), ("21 …", "!1")]
    await editor.execute(item.command.command, *block[0].command.arguments)
    assert outcomes(editor) == ["full"]


async def test_in_a_list_what_was_typed_is_told_from_what_a_command_asks(start_editor):
    editor = await start_editor()
    await editor.initialize(text_document=MENU)
    editor.open("   ")  # where Tab must indent: only a command gets an answer
    typed = types.CompletionTriggerKind.TriggerCharacter
    assert (await menu(editor, 0, 3, typed)).items == ()
    assert (await menu(editor, 0, 3)).items
    editor.edit(" ", (0, 3), (0, 3))
    assert (await menu(editor, 0, 4)).items == (), "an editor says of typing that it was invoked"


# what becomes of completions


async def test_an_item_names_itself_in_the_command_that_tells_of_its_acceptance(editor):
    editor.open("x")
    item = only(await editor.complete(0, 1))
    await editor.execute(item.command.command, *item.command.arguments)
    assert item.command.command == "dgLsp.accept"
    assert [line["event"] for line in lines(editor)] == ["shown", "outcome"]
    assert outcomes(editor) == ["full"]
    assert lines(editor)[0]["ms"] > 0 and lines(editor)[0]["language"] == "plaintext"


async def test_acceptance_is_seen_in_the_text_where_no_command_comes(editor):
    editor.open("x = y")
    text = only(await editor.complete(0, 5)).insert_text
    editor.edit(text[5:8], (0, 5), (0, 5))
    editor.edit(text[8:], (0, 8), (0, 8))
    await editor.until(lambda: outcomes(editor))
    assert outcomes(editor) == ["full"]


TOLD = {
    "dg/didPartiallyAccept": "partial",
    "textDocument/didPartiallyAcceptCompletion": "partial",
    "dg/didReject": "rejected",
}


async def test_the_client_tells_in_our_words_or_in_copilots(editor):
    for told, how in TOLD.items():
        ours = told.startswith("dg/")
        editor.open("x")
        command = only(await editor.complete(0, 1)).command
        item = {"command": {"command": command.command, "arguments": command.arguments}}
        name = {"id": command.arguments[0]} if ours else {"item": item}
        shown = "dg/didShow" if ours else "textDocument/didShowCompletion"
        editor.client.protocol.notify(shown, name)
        editor.client.protocol.notify(told, {**name, "acceptedLength": 2})
        if how == "partial":
            editor.client.protocol.notify("dg/didReject", name)
        await editor.until(lambda: outcomes(editor))
        assert outcomes(editor) == [how]
        editor.close()
        editor.statistics_file.unlink()


async def test_messages_that_mean_nothing_do_no_harm(editor):
    editor.open("x")
    for params in (None, {}, {"id": 3}, {"item": None}, {"item": {"command": {"arguments": []}}}):
        editor.client.protocol.notify("dg/didShow", params)
        editor.client.protocol.notify("dg/didPartiallyAccept", params)
    for editors in (3, [3], [{"uri": 3}], [{"uri": URI, "visibleRanges": [{"start": 1}]}]):
        editor.client.protocol.notify("dg/didView", {"editors": editors})
    assert only(await editor.complete(0, 1))


VIEWS = [
    ({"tabSize": 2, "insertSpaces": True}, "  "),
    ({"tabSize": 8, "insertSpaces": False}, "\t"),
    ({"tabSize": "wide", "insertSpaces": True}, "    "),  # as the completion came
]


@pytest.mark.parametrize(("options", "unit"), VIEWS)
async def test_without_a_block_in_the_document_it_is_indented_as_the_editor_says(
    editor, options, unit
):
    line = "SAY if x:\\n    go()"
    editor.open(line)
    view = {"uri": URI, "formattingOptions": options, "visibleRanges": []}
    editor.client.protocol.notify("dg/didView", {"editors": [view]})
    first, *_ = (await editor.complete(0, len(line))).items
    assert first.insert_text == f"{line}if x:\n{unit}go()"


async def test_what_is_on_the_screen_beside_the_cursor_is_given_to_the_engine(editor):
    beside = URI.replace("a.py", "beside.txt")
    editor.open("\n".join(f"line {number} of what is beside" for number in range(9)), beside)
    editor.open("CONTEXT")
    shown = {"start": {"line": 2, "character": 0}, "end": {"line": 6, "character": 0}}
    view = {"editors": [{"uri": beside, "visibleRanges": [shown]}]}
    editor.client.protocol.notify("dg/didView", view)
    for column in range(7, 107):
        item = only(await editor.complete(0, column))
        if "beside.txt" in item.insert_text:
            break
        await asyncio.sleep(1.2)  # what is new comes in when one does not type for a while
        editor.edit("x", (0, 0), (0, 0))
    else:
        pytest.fail("what is on the screen is never given")


async def test_statistics_can_be_off_and_never_hold_text(start_editor):
    editor = await start_editor()
    await editor.initialize()
    editor.open("my_secret = ")
    only(await editor.complete(0, 12))
    assert "my_secret" not in editor.statistics_file.read_text()
    editor.statistics_file.unlink()
    editor.configure({"statistics": False})
    editor.open("other")
    only(await editor.complete(0, 5))
    assert lines(editor) == []


# commands


async def test_completions_can_be_turned_off_and_on_and_the_status_says_why(editor):
    editor.open("x = ")
    assert only(await editor.complete(0, 4, automatic=True))
    for scope, message in [
        ("global", "completions are off"),
        ("language", "completions are off in plaintext"),
        ("workspace", "completions are off in this workspace"),
    ]:
        assert await editor.execute("dgLsp.toggle", scope, URI) is False
        assert await editor.complete(0, 4, automatic=True) == NOTHING
        assert (editor.statuses[-1].state, editor.statuses[-1].message) == ("disabled", message)
        assert await editor.execute("dgLsp.toggle", scope, URI) is True
        assert editor.statuses[-1].state == "ready"
        assert only(await editor.complete(0, 4, automatic=True))


async def test_a_pause_can_be_broken_by_a_request_by_command(editor):
    editor.open("x = ")
    await editor.execute("dgLsp.snooze", 10)
    assert await editor.complete(0, 4, automatic=True) == NOTHING
    assert editor.statuses[-1].state == "snoozed" and "10 min" in editor.statuses[-1].message
    asked = await editor.execute("dgLsp.completeNow", URI, 0, 4)
    assert asked["items"][0]["insertText"] == "x = <x = |>"
    await editor.execute("dgLsp.snooze", 0)
    assert only(await editor.complete(0, 4, automatic=True))


async def test_the_engine_can_be_started_anew_and_with_another_model(editor):
    editor.open("x")
    assert only(await editor.complete(0, 1))
    await editor.execute("dgLsp.restartEngine")
    await editor.execute("dgLsp.chooseModel", "other")
    assert only(await editor.complete(0, 1))
    assert [event for event in editor.events if event.split()[0] in ("client", "stop")] == [
        *(f"client {MODEL}", "stop", f"client {MODEL}", "stop"),
        "client other",
    ]


async def test_an_engine_given_by_its_url_is_not_stopped(start_editor):
    editor = await start_editor()
    await editor.initialize(options={"engine": {"url": "http://team:1"}})
    editor.open("x")
    await editor.execute("dgLsp.restartEngine")
    assert only(await editor.complete(0, 1))
    assert "stop" not in editor.events and "closed" in editor.events


async def test_statistics_are_shown(editor):
    editor.open("x")
    assert only(await editor.complete(0, 1))
    shown = await editor.execute("dgLsp.showStatistics")
    assert shown["figures"]["shown"] == 1 and "shown      1" in shown["text"]
    assert "<svg" in shown["html"]
    assert shown["path"] == str(editor.statistics_file)


WRONG = [
    ("accept", ()),
    ("completeNow", (URI, "0", 1)),
    ("toggle", ("global", URI, "python", "more")),
    ("toggle", ("planet", URI)),
    ("snooze", ("long",)),
    ("chooseModel", (7,)),
    ("restartEngine", (1,)),
]


async def test_wrong_arguments_are_refused(editor):
    for command, arguments in WRONG:
        with pytest.raises(JsonRpcException) as raised:
            await editor.execute(f"dgLsp.{command}", *arguments)
        assert raised.value.code == types.ErrorCodes.InvalidParams, command


# settings and folders


async def test_settings_are_fetched_at_the_start_and_when_they_have_changed(start_editor):
    editor = await start_editor()
    found = registered(editor)
    editor.client.set_configuration({"disabledLanguages": ["plaintext"]}, section="dg-lsp")
    workspace = types.WorkspaceClientCapabilities(
        configuration=True,
        did_change_configuration=types.DidChangeConfigurationClientCapabilities(
            dynamic_registration=True
        ),
    )
    await editor.initialize(options={"maxTokens": 5}, workspace=workspace)
    await editor.until(lambda: found)
    assert found[types.WORKSPACE_DID_CHANGE_CONFIGURATION] == {"section": ["dg-lsp", "dgLsp"]}
    editor.open("x = ")

    async def until_shown(wanted):
        for _ in range(500):
            if (await editor.complete(0, 4, automatic=True) != NOTHING) is wanted:
                return True
        return False

    assert await until_shown(False)
    editor.client.set_configuration({}, section="dg-lsp")
    editor.configure(None)
    assert await until_shown(True)


async def test_an_untrusted_workspace_does_not_choose_the_engine(start_editor):
    editor = await start_editor()
    evil = {"engine": {"model": "evil", "url": "http://evil"}}
    await editor.initialize(options={"trusted": False, "workspace": evil})
    editor.configure({"workspace": evil})
    editor.open("x")
    assert only(await editor.complete(0, 1))
    assert [event for event in editor.events if "client" in event] == [f"client {MODEL}"]
    warned = [message.message for message in editor.client.log_messages]
    assert warned == [
        f"setting engine.{name} is not taken from a workspace that is not trusted"
        for name in ("model", "url")
    ]


async def test_paths_are_below_the_folders_that_are_open(editor):
    uri = "file:///else/where/b.py"
    editor.open("x", uri)
    assert only(await editor.complete(0, 1, uri))

    def change(added=(), removed=()):
        folders = [
            [types.WorkspaceFolder(uri=u, name="n") for u in uris] for uris in (added, removed)
        ]
        event = types.WorkspaceFoldersChangeEvent(*folders)
        params = types.DidChangeWorkspaceFoldersParams(event=event)
        editor.client.workspace_did_change_workspace_folders(params)

    change(added=["file:///else"])
    editor.open("y", uri)
    assert only(await editor.complete(0, 1, uri))
    change(removed=["file:///else"])
    editor.open("z", uri)
    assert only(await editor.complete(0, 1, uri))
    paths = [event for event in editor.events if "infill" in event]
    assert [path for path, _ in itertools.groupby(paths)] == [
        "infill b.py",
        "infill where/b.py",
        "infill b.py",
    ]


# notebooks

BOOK = "file:///workspace/nb.ipynb"


def cell(number, text, language="r"):
    uri = f"{BOOK}#{number}"
    kinds = types.NotebookCellKind
    kind = kinds.Markup if language == "markdown" else kinds.Code
    return (
        types.NotebookCell(kind=kind, document=uri),
        types.TextDocumentItem(uri=uri, language_id=language, version=1, text=text),
    )


def open_notebook(editor, cells, metadata):
    notebook = types.NotebookDocument(
        uri=BOOK,
        notebook_type="jupyter-notebook",
        version=1,
        cells=[cell for cell, _ in cells],
        metadata=metadata,
    )
    editor.client.notebook_document_did_open(
        types.DidOpenNotebookDocumentParams(
            notebook_document=notebook, cell_text_documents=[text for _, text in cells]
        )
    )


async def test_notebooks_are_one_text_of_their_cells_in_order(start_editor):
    editor = await start_editor()
    notebooks = types.NotebookDocumentClientCapabilities(
        synchronization=types.NotebookDocumentSyncClientCapabilities()
    )
    result = await editor.initialize(notebook_document=notebooks)
    (selector,) = result.capabilities.notebook_document_sync.notebook_selector
    assert selector.notebook == "*"
    cells = [cell(0, "a = 1"), cell(1, "Prose", "markdown"), cell(2, "b = PROMPT", "plaintext")]
    open_notebook(editor, cells, {"language_info": {"name": "r"}})

    async def prompt(number, line, character):
        return only(await editor.complete(line, character, f"{BOOK}#{number}")).insert_text

    assert await prompt(2, 0, 10) == "b = PROMPT'a = 1//b = PROMPT|'"
    added = cell(3, "c = 3")
    structure = types.NotebookDocumentCellChangeStructure(
        array=types.NotebookCellArrayChange(start=1, delete_count=1, cells=[added[0]]),
        did_open=[added[1]],
        did_close=[types.TextDocumentIdentifier(uri=f"{BOOK}#1")],
    )
    content = types.NotebookDocumentCellContentChanges(
        document=types.VersionedTextDocumentIdentifier(uri=f"{BOOK}#0", version=2),
        changes=[types.TextDocumentContentChangeWholeDocument(text="z = PROMPT")],
    )
    editor.client.notebook_document_did_change(
        types.DidChangeNotebookDocumentParams(
            notebook_document=types.VersionedNotebookDocumentIdentifier(version=2, uri=BOOK),
            change=types.NotebookDocumentChangeEvent(
                cells=types.NotebookDocumentCellChanges(structure=structure, text_content=[content])
            ),
        )
    )
    assert await prompt(0, 0, 10) == "z = PROMPT'z = PROMPT|//c = 3//b = PROMPT'"
    assert {event for event in editor.events if "infill" in event} == {"infill nb.ipynb"}
    assert await editor.complete(0, 0, f"{BOOK}#1") == NOTHING
    editor.client.notebook_document_did_close(
        types.DidCloseNotebookDocumentParams(
            notebook_document=types.NotebookDocumentIdentifier(uri=BOOK),
            cell_text_documents=[
                types.TextDocumentIdentifier(uri=f"{BOOK}#{number}") for number in (0, 2, 3)
            ],
        )
    )
    assert await editor.complete(0, 10, f"{BOOK}#0") == NOTHING


async def test_a_notebooks_other_kernel_is_the_language_of_cells_that_name_none(start_editor):
    editor = await start_editor()
    notebooks = types.NotebookDocumentClientCapabilities(
        synchronization=types.NotebookDocumentSyncClientCapabilities()
    )
    await editor.initialize(notebook_document=notebooks)
    cells = [cell(0, "a = 1", "r"), cell(1, "b = PROMPT", "plaintext"), cell(2, "c = 3", "julia")]
    open_notebook(editor, cells, {"language_info": {"name": "r"}})

    async def prompt():
        return only(await editor.complete(0, 10, f"{BOOK}#1")).insert_text

    assert await prompt() == "b = PROMPT'a = 1//b = PROMPT|'"
    for metadata, wanted in (
        ({"kernelspec": {"language": "julia"}}, "b = PROMPT'b = PROMPT|//c = 3'"),
        ({}, "b = PROMPT'b = PROMPT|'"),
    ):
        editor.client.notebook_document_did_change(
            types.DidChangeNotebookDocumentParams(
                notebook_document=types.VersionedNotebookDocumentIdentifier(version=2, uri=BOOK),
                change=types.NotebookDocumentChangeEvent(metadata=metadata),
            )
        )
        assert await prompt() == wanted


# what is logged


async def test_no_log_but_a_debug_log_has_source_text(start_editor, capfd):
    for level in ("info", "debug"):
        editor = await start_editor()
        await editor.initialize(options={"logLevel": level, "engine": {"token": "my_token"}})
        editor.open("my_marker = ")
        item = only(await editor.complete(0, 12))
        await editor.execute("dgLsp.accept", *item.command.arguments)
        with pytest.raises(JsonRpcException):
            await editor.execute("dgLsp.accept", 1)
        await editor.leave()
        log = capfd.readouterr().err
        assert ("my_marker" in log) is (level == "debug")
        if level == "info":
            assert "my_token" not in log

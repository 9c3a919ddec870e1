"""Messages with something wrong in them: each request still gets one reply, and the server lives on."""

import asyncio
import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.clock import run
from tests.dg_lsp.wired import AUTOMATIC, BY_HAND, URIS, Editor

URI, OTHER = URIS
NOT_INITIALIZED, INVALID_REQUEST = -32002, -32600
BOOK = "file:///book.ipynb"
START = {"line": 0, "character": 0}
SPAN = {"start": START, "end": {"line": 0, "character": 1}}
ITEM = {"uri": URI, "languageId": "python", "version": 1, "text": "a = b\n"}
CELL = {"kind": 2, "document": f"{BOOK}#1"}
CELL_ITEM = {**ITEM, "uri": f"{BOOK}#1"}
CHANGE = {"range": SPAN, "text": "x"}
NAMED = {"textDocument": {"uri": URI}}
VALID = [
    ("textDocument/didOpen", {"textDocument": ITEM}),
    (
        "textDocument/didChange",
        {"textDocument": {"uri": URI, "version": 2}, "contentChanges": [CHANGE, {"text": "y"}]},
    ),
    ("textDocument/didSave", NAMED),
    ("textDocument/didClose", NAMED),
    (
        "textDocument/inlineCompletion",
        {
            **NAMED,
            "position": START,
            "context": {"triggerKind": 2, "selectedCompletionInfo": {"range": SPAN, "text": "ab"}},
        },
    ),
    ("workspace/didChangeConfiguration", {"settings": {"dg-lsp": {"engine": {"model": "m"}}}}),
    ("workspace/didChangeConfiguration", {"settings": {"maxTokens": 5, "excludedFiles": ["*.a"]}}),
    ("workspace/didChangeWatchedFiles", {"changes": [{"uri": URI, "type": 2}]}),
    (
        "workspace/didChangeWorkspaceFolders",
        {"event": {"added": [{"uri": "file:///w", "name": "w"}], "removed": []}},
    ),
    ("workspace/executeCommand", {"command": "dgLsp.completeNow", "arguments": [URI, 0, 1]}),
    ("workspace/executeCommand", {"command": "dgLsp.snooze", "arguments": [1]}),
    ("workspace/executeCommand", {"command": "dgLsp.toggle", "arguments": ["language", URI]}),
    ("workspace/executeCommand", {"command": "dgLsp.accept", "arguments": ["1-0"]}),
    (
        "notebookDocument/didOpen",
        {
            "notebookDocument": {
                "uri": BOOK,
                "notebookType": "jupyter-notebook",
                "version": 1,
                "metadata": {"kernelspec": {"language": "python"}},
                "cells": [CELL],
            },
            "cellTextDocuments": [CELL_ITEM],
        },
    ),
    (
        "notebookDocument/didChange",
        {
            "notebookDocument": {"uri": BOOK, "version": 2},
            "change": {
                "metadata": {"language_info": {"name": "r"}},
                "cells": {
                    "structure": {
                        "array": {"start": 0, "deleteCount": 1, "cells": [CELL]},
                        "didOpen": [CELL_ITEM],
                        "didClose": [{"uri": f"{BOOK}#1"}],
                    }
                },
            },
        },
    ),
    (
        "dg/didView",
        {
            "editors": [
                {
                    "uri": URI,
                    "formattingOptions": {"tabSize": 4, "insertSpaces": True},
                    "visibleRanges": [SPAN],
                }
            ]
        },
    ),
    ("dg/didShow", {"id": "1-0"}),
    ("textDocument/didPartiallyAcceptCompletion", {"item": {"command": {"arguments": ["1-0"]}}}),
    ("$/cancelRequest", {"id": 1}),
    ("$/setTrace", {"value": "off"}),
    ("dg/unknown", {}),
]
REQUESTS = {"textDocument/inlineCompletion", "workspace/executeCommand", "dg/unknown"}

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([-1, 0, 1, 7, 2**31, 2**70, 10**400, -0.5, 1e308, float("inf")])
    | st.sampled_from(["", URI, OTHER, "a.py", "file://[", "untitled:1", "\ud800", "😀" * 3])
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(value, path=()):
    """The ways to all parts of a value."""
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def spoiled(value, path, part):
    """The value with another part; without it where there is nothing to put there."""
    if not path:
        return part
    first, *rest = path
    copy = value.copy()
    copy[first] = spoiled(value[first], rest, part)
    return copy


@st.composite
def messages(draw):
    """A valid message, or one that has something else in a place of it."""
    method, params = draw(st.sampled_from(VALID))
    if draw(st.integers(0, 3)):
        place = draw(st.sampled_from(list(places(params))))
        params = spoiled(params, place, draw(ANYTHING))
    return method, params


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(messages(), min_size=5, max_size=25))
def test_whatever_is_in_them_each_request_gets_one_reply_and_the_server_lives_on(sent):
    async def session():
        editor = Editor()
        await editor.greet()
        for method, params in sent:
            if method in REQUESTS:
                await editor.request(method, params)
            else:
                await editor.send(method, params)
        await asyncio.sleep(60)
        assert [id_ for id_, replies in editor.replies.items() if len(replies) != 1] == []
        await editor.send("workspace/didChangeConfiguration", {"settings": {}})
        await editor.open("file:///after.txt")
        after = await editor.request(
            "workspace/executeCommand",
            {"command": "dgLsp.completeNow", "arguments": ["file:///after.txt", 0, 3]},
        )
        await asyncio.sleep(60)
        assert isinstance(editor.answer(after), (dict, type(None)))
        await editor.request("shutdown", None)
        assert editor.engine.running == 0

    logging.disable(logging.CRITICAL)  # of each wrong message there is a line
    try:
        run(session())
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize("minutes", [float("inf"), 1e308, 10**30])
def test_a_pause_without_end_is_a_long_one(minutes):
    async def session():
        editor = Editor()
        await editor.greet()
        snooze = {"command": "dgLsp.snooze", "arguments": [minutes]}
        await editor.request("workspace/executeCommand", snooze)
        await editor.ask(URI, 3, AUTOMATIC)
        await asyncio.sleep(0.01)
        assert editor.answer(editor.newest[URI]) == {"items": []}
        await editor.ask(URI, 3, BY_HAND)
        await asyncio.sleep(60)
        assert editor.answer(editor.newest[URI])["items"]

    run(session())


def test_before_the_greeting_requests_are_refused_and_the_rest_is_passed_over():
    async def session():
        editor = Editor()
        await editor.open(URI)
        await editor.ask(URI, 3, BY_HAND)
        await editor.complete_now(URI, 3)
        assert [editor.answer(id_) for id_ in editor.replies] == [NOT_INITIALIZED] * 2
        assert not list(editor.server.session._documents)
        await editor.greet()
        again = await editor.request("initialize", {"processId": None, "capabilities": {}})
        assert editor.answer(again) == INVALID_REQUEST
        await editor.ask(URI, 3, BY_HAND)
        await asyncio.sleep(60)
        assert editor.answer(editor.newest[URI])["items"]

    run(session())


def test_folders_that_are_no_places_here_are_passed_over():
    async def session():
        editor = Editor()
        await editor.greet("http://[bad", "untitled:1", "vscode-vfs://github/a/b", "")
        await editor.ask(URI, 3, BY_HAND)
        await asyncio.sleep(60)
        assert editor.answer(editor.newest[URI])["items"]

    run(session())

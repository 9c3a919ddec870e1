"""The real server process over stdio, with a scripted engine (see scripted_server.py)."""

import asyncio
import json
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import psutil
import pytest
from lsprotocol import types
from pygls.exceptions import JsonRpcException

from dg_lsp.settings import EngineSettings
from tests.dg_lsp.scripted_server import UNAVAILABLE
from tests.editor import NOTHING, ROOT, URI

MODEL = EngineSettings().model
WIDTHS = {"utf-8": lambda c: len(c.encode()), "utf-16": lambda c: 1 + (c > "\uffff")}


def width(text, encoding):
    return sum(map(WIDTHS.get(encoding, len), text))


def only(answer):
    (item,) = answer.items
    return item


# what is announced


async def test_inline_completion_and_incremental_sync_are_announced(start_editor):
    result = await (await start_editor()).initialize()
    assert result.capabilities.inline_completion_provider == types.InlineCompletionOptions()
    sync = result.capabilities.text_document_sync
    assert (sync.open_close, sync.change) == (True, types.TextDocumentSyncKind.Incremental)
    assert result.server_info.name == "dg-lsp"


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [
        (None, "utf-16"),
        (["utf-7", "utf-8", "utf-16"], "utf-8"),
    ],
)
async def test_the_clients_first_known_encoding_is_taken(start_editor, offered, agreed):
    result = await (await start_editor()).initialize(offered)
    assert result.capabilities.position_encoding == agreed


async def test_the_engine_is_started_by_the_first_document_and_no_earlier(editor):
    assert await editor.complete(0, 0) == NOTHING
    assert editor.events == []
    editor.open("x")
    await editor.until(lambda: editor.events == [f"client {MODEL}", "connect"])


# what is answered


async def test_an_answer_replaces_the_typed_part_of_the_line(editor):
    editor.open("a\n  x = \n")
    item = only(await editor.complete(1, 6))
    assert item.insert_text == "  x = <  x = |>"
    assert item.range == types.Range(types.Position(1, 0), types.Position(1, 6))


async def test_closers_that_the_answer_writes_anew_are_replaced(editor):
    editor.open("foo(SAY a) + b)\n")
    item = only(await editor.complete(0, 14))
    assert item.insert_text == "foo(SAY a) + ba) + b"
    assert item.range.end == types.Position(0, 15)


async def test_an_answer_of_several_lines_still_replaces_one_line(editor):
    editor.open("SAY 1\\n  2\r\nb\r\n")
    short, long = (await editor.complete(0, 10)).items
    assert short.insert_text == "SAY 1\\n  21"
    assert long.insert_text == "SAY 1\\n  21\n  2", "a line end that every editor takes for its own"
    line = types.Range(types.Position(0, 0), types.Position(0, 10))
    assert (short.range, long.range) == (line, line)


LINES = ["é😀 = 'ü😀'", "a\fb\u2028c\x85d\u2029😀 = ", "", "\tx😀y"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
async def test_positions_and_edits_mean_the_same_to_both_sides(start_editor, encoding):
    editor = await start_editor()
    await editor.initialize([encoding])
    for newline in ("\n", "\r\n", "\r"):
        await check_positions_and_edits(editor, encoding, newline)
        editor.close()


async def check_positions_and_edits(editor, encoding, newline):
    lines = list(LINES)
    editor.open(newline.join(lines))

    def place(line, column):
        return line, width(lines[line][:column], encoding)

    async def check(line, column):
        item = only(await editor.complete(*place(line, column)))
        left, right = lines[line][:column], lines[line][column:]
        assert item.insert_text == f"{left}<{left}|{right}>"
        assert item.range.end.character == width(left, encoding)

    await check(1, len(lines[1]))
    await check(3, 3)
    editor.edit("😀é\f", place(0, 1), place(0, 2))
    lines[0] = "é😀é\f = 'ü😀'"
    await check(0, 4)
    editor.edit(f"z{newline}w", place(1, 9), place(3, 2))
    lines[1:] = [lines[1][:9] + "z", "w😀y"[0] + lines[3][2:]]
    await check(1, 10)
    await check(2, 1)


async def test_a_position_behind_the_lines_end_is_the_lines_end(editor):
    editor.open("ab\r\ncd")
    assert only(await editor.complete(0, 99)).insert_text == "ab<ab|>"


async def test_a_whole_new_text_replaces_the_old_one(editor):
    editor.open("old")
    document = types.VersionedTextDocumentIdentifier(uri=URI, version=2)
    change = types.TextDocumentContentChangeWholeDocument(text="new 1\nnew 2")
    editor.client.text_document_did_change(
        types.DidChangeTextDocumentParams(text_document=document, content_changes=[change])
    )
    assert only(await editor.complete(1, 5)).insert_text == "new 2<new 2|>"


async def test_an_item_selected_in_the_clients_list_is_extended(editor):
    editor.open("x.ab")
    span = types.Range(types.Position(0, 2), types.Position(0, 4))
    selected = types.SelectedCompletionInfo(range=span, text="abc")
    item = only(await editor.complete(0, 4, selected=selected))
    assert item.insert_text == "x.abc<x.abc|>"
    assert item.range.end == types.Position(0, 4)


async def test_the_client_says_whether_typing_or_a_command_asks(editor):
    editor.open("    ")
    assert await editor.complete(0, 4, automatic=True) == NOTHING
    assert only(await editor.complete(0, 4)).insert_text == "    <    |>"


# nothing to show


async def test_what_is_not_there_gets_an_empty_answer(editor):
    editor.open("x\ny")
    for line, uri in [(9, URI), (2**31 - 1, URI), (0, "file:///never/opened.py"), (0, "nonsense")]:
        assert await editor.complete(line, 0, uri) == NOTHING
    assert only(await editor.complete(1, 1))


async def test_an_answer_that_breaks_the_documents_language_is_not_shown(editor):
    editor.open("x")
    assert only(await editor.complete(0, 1)).insert_text == "x<x|>"
    editor.open("x", uri="file:///workspace/src/b.py", language="python")
    assert await editor.complete(0, 1, "file:///workspace/src/b.py") == NOTHING


async def test_a_closed_document_gets_an_empty_answer(editor):
    editor.open("SLOW")
    answer, _ = editor.ask(0, 4)
    await editor.until(lambda: "infill src/a.py" in editor.events)
    editor.close()
    assert await answer is None
    assert await editor.complete(0, 0) == NOTHING
    editor.edit("x", (0, 0), (0, 0))
    assert await editor.complete(0, 0) == NOTHING


# cancelled and superseded


async def test_cancelling_stops_the_engines_work_and_is_answered_as_such(editor):
    editor.open("SLOW")
    answer, msg_id = editor.ask(0, 4)
    await editor.until(lambda: "infill src/a.py" in editor.events)
    editor.cancel(msg_id)
    with pytest.raises(JsonRpcException) as raised:
        await answer
    assert raised.value.code == types.LSPErrorCodes.RequestCancelled
    await editor.until(lambda: "stopped" in editor.events)


async def test_a_newer_request_of_the_same_document_supersedes_the_older(editor):
    editor.open("SLOW\nx")
    older, _ = editor.ask(0, 4)
    await editor.until(lambda: "infill src/a.py" in editor.events)
    assert only(await editor.complete(1, 1)).insert_text == "x<x|>"
    assert await older is None
    assert "stopped" in editor.events


@pytest.mark.parametrize(
    "change",
    [
        lambda editor: editor.edit("z", (2, 1), (2, 1)),
        lambda editor: editor.edit("", (0, 1), (2, 1)),
        lambda editor: editor.close(),
    ],
    ids=["edited", "shortened", "closed"],
)
async def test_an_answer_to_a_text_that_has_changed_is_out_of_date(editor, change):
    editor.open("x\ny\nz")
    with editor.in_one_chunk():
        answer, _ = editor.ask(2, 1)
        change(editor)
    assert await answer is None


async def test_a_storm_of_requests_gets_one_answer_each(editor):
    editor.open("SLOW\nx")
    asked = []
    for number in range(60):
        asked.append(editor.ask(number % 3 % 2, 1 + 3 * (number % 2)))
        if number % 4 == 0:
            editor.cancel(asked[number // 2][1])
        if number % 7 == 0:
            editor.edit("z", (1, 0), (1, 0))
    last = only(await editor.complete(1, 1))
    assert last.insert_text.startswith("z<")
    answers = await asyncio.gather(*(answer for answer, _ in asked), return_exceptions=True)
    for answer in answers:
        cancelled = isinstance(answer, JsonRpcException) and answer.code == -32800
        assert cancelled or answer is None or len(answer.items) <= 1


# failures


async def test_a_failing_engine_gets_an_empty_answer_a_status_and_no_popup(editor):
    editor.open("FAIL\nx")
    for _ in range(3):
        assert await editor.complete(0, 4) == NOTHING
    assert [(s.state, s.message) for s in editor.statuses] == [("failed", UNAVAILABLE)]
    assert [m.message for m in editor.client.log_messages] == [UNAVAILABLE]
    assert editor.client.messages == []
    assert only(await editor.complete(1, 1))
    assert "failed" not in [s.state for s in editor.statuses[1:]]
    assert editor.statuses[-1].state == "ready"


async def test_an_engine_that_cannot_be_reached_is_said_once(start_editor):
    editor = await start_editor()
    await editor.initialize(options={"engine": {"model": "broken"}})
    editor.open("x")
    await editor.until(lambda: editor.statuses)
    assert await editor.complete(0, 1) == NOTHING
    assert [(s.state, s.message) for s in editor.statuses] == [("failed", UNAVAILABLE)]


async def test_our_own_errors_reach_neither_the_client_nor_the_log_with_source(editor, capfd):
    editor.open("my_secret BUG")
    assert await editor.complete(0, 13) == NOTHING
    assert editor.statuses[-1].message == "internal error (TypeError); see the server's log"
    await editor.leave()
    log = capfd.readouterr().err
    assert "scripted_server.py" in log and "TypeError" in log
    assert "my_secret" not in log


async def test_an_error_of_a_notification_is_logged_and_no_popup(start_editor, capfd):
    editor = await start_editor()
    await editor.initialize(options={"engine": {"model": "explode"}})
    editor.open("my_secret")
    assert await editor.complete(0, 1) == NOTHING
    assert editor.client.messages == []
    await editor.leave()
    log = capfd.readouterr().err
    assert "FeatureNotificationError: ValueError" in log and "in __init__" in log
    assert str(editor.events_file) not in log and "my_secret" not in log


async def test_parameters_that_cannot_be_read_are_answered_and_the_server_lives_on(editor):
    editor.open("x")
    method = types.TEXT_DOCUMENT_INLINE_COMPLETION
    send = {"jsonrpc": "2.0", "id": "bad", "method": method, "params": {"position": "here"}}
    body = json.dumps(send).encode()
    editor.client.protocol._request_futures["bad"] = future = asyncio.Future()
    editor.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    with pytest.raises(JsonRpcException) as raised:
        await asyncio.wait_for(future, 30)
    assert raised.value.code == types.ErrorCodes.InvalidParams
    assert raised.value.message == f"cannot read the parameters of {method}"
    assert only(await editor.complete(0, 1))


async def test_an_error_of_a_request_is_answered_without_a_traceback(start_editor):
    editor = await start_editor()
    await editor.initialize(options={"engine": {"model": "unclosable"}})
    editor.open("x")
    await editor.complete(0, 1)
    with pytest.raises(JsonRpcException) as raised:
        await editor.client.shutdown_async(None)
    assert (raised.value.code, raised.value.data) == (types.ErrorCodes.InternalError, None)
    editor.client.exit(None)
    assert await editor.process.wait() == 0


async def test_an_unknown_request_is_refused_without_a_traceback(editor):
    with pytest.raises(JsonRpcException) as raised:
        await editor.client.protocol.send_request_async("dg/unknown", {})
    assert raised.value.code == types.ErrorCodes.MethodNotFound
    assert raised.value.data is None


# status and progress


async def test_loading_is_shown_as_status_and_as_progress(start_editor):
    editor = await start_editor()
    await editor.initialize(
        options={"engine": {"model": "loading"}},
        window=types.WindowClientCapabilities(work_done_progress=True),
    )
    editor.open("x")
    await editor.until(lambda: len(editor.statuses) == 3)
    assert only(await editor.complete(0, 1))
    assert [(s.state, s.progress) for s in editor.statuses[:3]] == [
        ("starting", 0.0),
        ("loading", 0.25),
        ("loading", 0.5),
    ]
    assert (editor.statuses[-1].state, editor.statuses[-1].progress) == ("ready", 1.0)
    (reports,) = editor.client.progress_reports.values()
    await editor.until(lambda: isinstance(reports[-1], types.WorkDoneProgressEnd))
    assert [getattr(report, "percentage", None) for report in reports] == [0, 25, 50, None]
    assert reports[2].message == "reading weights"


async def test_a_client_without_progress_is_not_asked_to_show_any(start_editor):
    editor = await start_editor()
    await editor.initialize(options={"engine": {"model": "loading"}})
    editor.open("x")
    assert only(await editor.complete(0, 1))
    assert editor.client.progress_reports == {}


# settings


async def test_settings_that_cannot_be_used_are_said_in_the_log(start_editor):
    editor = await start_editor()
    await editor.initialize(options={"maxToken": 1, "engine": {"model": 7}})
    editor.open("x")
    assert only(await editor.complete(0, 1))
    assert [m.message for m in editor.client.log_messages] == [
        "setting maxToken is unknown; did you mean maxTokens?",
        f"setting engine.model must be a string, got '7'; '{MODEL}' stays",
    ]
    assert editor.client.messages == []


async def test_vs_codes_settings_are_taken_but_not_what_its_extension_keeps_among_them(editor):
    editor.open("x")
    extensions_own = {"server": {"path": ""}, "trace": {"server": "off"}, "yieldToOthers": False}
    editor.configure({"dgLsp": {"enabled": False, **extensions_own}})
    assert await editor.complete(0, 1) == NOTHING
    assert editor.client.log_messages == []


async def test_changed_settings_lead_to_another_engine(editor):
    editor.open("x")
    await editor.complete(0, 1)
    editor.configure({"other-server": {"a": 1}, "dg-lsp": {"engine": {"model": "second"}}})
    assert only(await editor.complete(0, 1))
    assert [e for e in editor.events if "infill" not in e and e != "connect"] == [
        f"client {MODEL}",
        "client second",
        "closed",
    ]
    editor.configure({"enabled": False})
    assert await editor.complete(0, 1) == NOTHING
    editor.configure(None)
    assert only(await editor.complete(0, 1))


# the end


async def test_shutdown_answers_what_is_pending_and_closes_the_engine(editor):
    editor.open("SLOW")
    answer, _ = editor.ask(0, 4)
    await editor.until(lambda: "infill src/a.py" in editor.events)
    await editor.client.shutdown_async(None)
    assert await answer is None
    assert editor.events[-2:] == ["stopped", "closed"]
    late, _ = editor.ask(0, 0)
    with pytest.raises(JsonRpcException) as raised:
        await late
    assert raised.value.code == types.ErrorCodes.InvalidRequest
    editor.client.exit(None)
    assert await editor.process.wait() == 0


async def test_exit_without_shutdown_is_status_1(editor):
    editor.open("x")
    await editor.complete(0, 1)
    editor.client.exit(None)
    assert await editor.process.wait() == 1
    assert editor.events[-1] == "closed"


async def test_the_end_of_input_ends_the_server(editor):
    editor.open("SLOW")
    editor.ask(0, 4)
    await editor.until(lambda: "infill src/a.py" in editor.events)
    editor.process.stdin.close()
    assert await asyncio.wait_for(editor.process.wait(), 30) == 1
    assert editor.events[-2:] == ["stopped", "closed"]


async def test_the_end_of_input_within_a_message_ends_the_server(editor, capfd):
    editor.process.stdin.write(b"Content-Length: 100\r\n\r\n{")
    editor.process.stdin.close()
    assert await asyncio.wait_for(editor.process.wait(), 30) == 1
    await editor.client.stop()
    assert "Traceback" not in capfd.readouterr().err


async def test_a_header_without_end_ends_the_server(editor, capfd):
    editor.process.stdin.write(b"Content-Length: " + b"1" * 1_000_000)
    assert await asyncio.wait_for(editor.process.wait(), 30) == 1
    await editor.client.stop()
    log = capfd.readouterr().err
    assert "what comes in is no LSP" in log and "Traceback" not in log


async def test_the_death_of_the_editor_ends_the_server(start_editor):
    editor = await start_editor()
    parent = await asyncio.create_subprocess_exec("sleep", "600")
    await editor.initialize(process_id=parent.pid)
    editor.open("x")
    await editor.complete(0, 1)
    parent.kill()
    await parent.wait()
    assert await asyncio.wait_for(editor.process.wait(), 30) == 1
    assert editor.events[-1] == "closed"


async def test_a_process_id_that_means_nothing_here_is_ignored(start_editor):
    gone = await asyncio.create_subprocess_exec("true")
    await gone.wait()
    editor = await start_editor()
    await editor.initialize(process_id=gone.pid)
    editor.open("x")
    assert only(await editor.complete(0, 1))
    assert await editor.leave() == 0


async def test_an_editor_that_stops_reading_ends_the_server(editor):
    editor.open("x")
    editor.process._transport.get_pipe_transport(1).close()
    editor.ask(0, 1)
    assert await asyncio.wait_for(editor.process.wait(), 30) == 1


async def test_an_interrupt_leaves_cleanly(editor, capfd):
    editor.open("x")
    await editor.complete(0, 1)
    editor.process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(editor.process.wait(), 30) == 130
    assert editor.events[-1] == "closed"
    assert "Traceback" not in capfd.readouterr().err


async def test_the_log_has_no_source_text(editor, capfd):
    editor.open("my_secret = 1\nFAIL")
    await editor.complete(0, 13)
    await editor.complete(1, 4)
    editor.edit("my_secret", (0, 0), (0, 0))
    await editor.leave()
    log = capfd.readouterr().err
    assert UNAVAILABLE in log and "my_secret" not in log


def library_text():
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:100]
    return "".join(file.read_text(encoding="utf-8", errors="replace") for file in files)


async def test_the_server_takes_no_more_than_60_mb_however_many_documents_are_open(editor):
    text = library_text()
    for number in range(200):  # ten million characters, as a thousand files of a library have
        part = text[7_000 * number :][:50_000]
        editor.open(part, f"{URI}{number}", language="plaintext")
    editor.open("def f(a):\n    return ", language="python")
    await editor.complete(1, 11)  # by the grammar too
    assert psutil.Process(editor.process.pid).memory_info().rss < 60e6
    uri = f"{URI}0"
    editor.edit("SAY it is at hand", (0, 0), (0, 0), uri)
    answer = only(await editor.complete(0, 17, uri))
    assert answer.insert_text.startswith("SAY it is at handit is at hand")


def test_importing_the_server_brings_nothing_large():
    names = "{'torch', 'httpx', 'filelock', 'numpy', 'argparse', 'statistics', 'engine.config'}"
    code = f"import sys, dg_lsp.lsp.server; print(sorted({names} & set(sys.modules)))"
    run = [sys.executable, "-c", code]
    assert subprocess.run(run, capture_output=True, text=True, cwd=ROOT).stdout.strip() == "[]"


def test_the_servers_classes_are_lean_and_nobody_elses():
    code = (
        "import dg_lsp.lsp.server, attrs\n"
        "from lsprotocol.types import Hover, Position\n"
        "@attrs.define\n"
        "class Other: x: int\n"
        "print('__eq__' in vars(Hover), Position(1, 2) == Position(1, 2), Other(1) == Other(1))\n"
    )
    run = [sys.executable, "-c", code]
    ended = subprocess.run(run, capture_output=True, text=True, cwd=ROOT)
    assert ended.stdout.strip() == "False True True"

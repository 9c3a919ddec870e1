"""The session without LSP: plain data in, plain data out."""

import asyncio
import itertools
import re

import pytest

from dg_lsp.client import EngineStatus, EngineUnavailable
from dg_lsp.completion import Completion
from dg_lsp.document import Edit, Position
from dg_lsp.session import Session, Status
from dg_lsp.settings import EngineSettings
from dg_lsp.surroundings import Surroundings
from dg_lsp.triggers import Ask
from tests.answers import answer as scripted_answer

URI = "file:///w/a.py"
MODEL = EngineSettings().model


class ScriptedEngine:
    """Answers with what stands in `answers`; an exception is raised, None never comes."""

    def __init__(self, answers):
        self.answers = answers
        self.requests = []
        self.log = []

    def __call__(self, settings, on_status):
        self.log.append(f"made for {settings.model}")
        self.on_status = on_status
        return self

    async def connect(self):
        self.log.append("connect")
        self.on_status(EngineStatus("ready", "", 1.0))

    async def infill(self, request, on_draft=None):
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            await asyncio.Event().wait()
        return scripted_answer(answer)

    async def stop(self):
        self.log.append("stop")
        return True

    async def aclose(self):
        self.log.append("closed")


class Desk:
    """A session with its engine and all that it said."""

    def __init__(self, *answers):
        self.engine = ScriptedEngine(list(answers))
        self.statuses = []
        self.warnings = []
        around = Surroundings(budget_s=30)  # what is looked up comes, however busy the machine is
        self.session = Session(
            self.engine, self.statuses.append, self.warnings.append, around=around
        )

    def open(self, text, language="python", uri=URI):
        self.session.open(uri, language, 1, text)

    async def complete(self, line, character, uri=URI, automatic=False):
        ask = Ask(uri=uri, position=Position(line, character), path="a.py", automatic=automatic)
        return await self.session.complete(ask)


async def settle():
    """Lets run what can run; also what waits for a look around in the thread."""
    for _ in range(3):
        for _ in range(5):
            await asyncio.sleep(0)
        if looks := [
            t for t in asyncio.all_tasks() if t.get_coro().__qualname__.endswith("._look")
        ]:
            await asyncio.wait(looks)


async def test_a_completion_replaces_the_line_from_its_start():
    desk = Desk("1")
    desk.open("  x = \n")
    assert await desk.complete(0, 6) == [
        Completion(text="  x = 1", start=Position(0, 0), end=Position(0, 6))
    ]
    assert desk.engine.requests[0].path == "a.py"


async def test_the_end_is_in_the_clients_units():
    desk = Desk("a) or b")
    desk.session.encoding = "utf-8"
    desk.open("é😀(´)\n")
    (completion,) = await desk.complete(0, 9)
    assert (completion.text, completion.end) == ("é😀(´a) or b", Position(0, 10))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
async def test_an_item_selected_in_the_editors_list_is_extended(encoding):
    desk = Desk("(abc)")
    desk.session.encoding = encoding
    width = {"utf-8": 7, "utf-16": 4, "utf-32": 3}[encoding]  # of the line's beginning
    desk.open("é😀.pri\n", language="plaintext")
    start, end = Position(0, width), Position(0, width + 3)
    ask = Ask(uri=URI, position=end, selected=Edit("print😀", start, end))
    assert await desk.session.complete(ask) == [
        Completion(text="é😀.print😀(abc)", start=Position(0, 0), end=end)
    ]
    assert (desk.engine.requests[0].prefix, desk.engine.requests[0].suffix) == (
        "é😀.print😀",
        "\n",
    )


async def test_an_item_that_replaces_what_follows_the_cursor_is_extended_behind_that():
    desk = Desk("(abc)")
    desk.open("a.prifoo\n")
    selected = Edit("print", Position(0, 2), Position(0, 8))
    ask = Ask(uri=URI, position=Position(0, 5), selected=selected)
    (completion,) = await desk.session.complete(ask)
    assert (completion.text, completion.end) == ("a.print(abc)", Position(0, 8))


async def test_an_item_selected_for_another_place_cannot_be_extended():
    desk = Desk("(abc)")
    desk.open("a.pri\nb\n")
    for start, end in [(Position(1, 0), Position(1, 1)), (Position(0, 2), Position(1, 0))]:
        ask = Ask(uri=URI, position=Position(0, 5), selected=Edit("print", start, end))
        assert await desk.session.complete(ask) == []
    assert desk.engine.requests == []


async def test_at_a_word_an_automatic_request_is_answered_only_while_typing():
    desk = Desk("(abc)", "(abc)")
    desk.open("")
    desk.session.change(URI, 2, [Edit("pri", Position(0, 0), Position(0, 0))])
    assert len(await desk.complete(0, 3, automatic=True)) == 1
    desk.session.change(URI, 3, [Edit("x", Position(0, 0), Position(0, 0))])
    assert await desk.complete(0, 4, automatic=True) == []
    assert len(await desk.complete(0, 4)) == 1, "asked for by command"
    desk.session.change(URI, 4, [Edit("", Position(0, 0), Position(0, 1))])
    desk.session.change(URI, 5, [Edit("n", Position(0, 3), Position(0, 3))])
    desk.session.change(URI, 6, [Edit("", Position(0, 3), Position(0, 4))])
    assert len(await desk.complete(0, 3, automatic=True)) == 1, "backspace shows what is known"


async def test_a_file_that_is_too_large_is_completed_by_command_only():
    desk = Desk("f(abc)")
    desk.open("#" + 1_000_000 * "x" + "\ny = ")
    assert await desk.complete(1, 4, automatic=True) == []
    assert desk.engine.requests == []
    assert len(await desk.complete(1, 4)) == 1


@pytest.mark.parametrize("answer", ["", " \n ", "\u200b"])
async def test_nothing_visible_is_nothing_to_show(answer):
    desk = Desk(answer)
    desk.open("x")
    assert await desk.complete(0, 1) == []


async def test_the_engine_is_reached_for_when_a_document_is_opened():
    desk = Desk()
    assert await desk.complete(0, 0) == []
    assert desk.engine.log == []
    desk.open("x")
    await settle()
    assert desk.engine.log == [f"made for {MODEL}", "connect"]


@pytest.mark.parametrize("options", [{"enabled": False}, {"disabledLanguages": ["python"]}])
async def test_where_completions_are_off_the_engine_is_left_alone(options):
    desk = Desk("1")
    desk.session.initialize(options)
    desk.open("x")
    await settle()
    assert await desk.complete(0, 1, automatic=True) == []
    assert (desk.engine.log, desk.engine.requests) == ([], [])
    desk.session.configure({"enabled": True, "disabledLanguages": []})
    assert len(await desk.complete(0, 1)) == 1


async def test_a_disabled_language_does_not_disable_the_others():
    desk = Desk("1")
    desk.session.initialize({"disabledLanguages": ["markdown"]})
    desk.open("x", language="markdown", uri="file:///w/a.md")
    desk.open("x")
    assert await desk.complete(0, 1, "file:///w/a.md", automatic=True) == []
    assert len(await desk.complete(0, 1)) == 1


async def test_an_answer_to_a_text_that_has_changed_is_out_of_date():
    desk = Desk("1")
    desk.open("x")
    asked = asyncio.create_task(desk.complete(0, 1))
    await asyncio.sleep(0)
    desk.session.change(URI, 2, [Edit("y", Position(0, 1), Position(0, 1))])
    assert await asked is None


async def test_closing_a_document_ends_its_request():
    desk = Desk(None)
    desk.open("x")
    asked = asyncio.create_task(desk.complete(0, 1))
    await settle()
    desk.session.close(URI)
    assert await asked is None
    assert await desk.complete(0, 1) == []


async def test_requests_of_two_documents_do_not_disturb_each_other():
    desk = Desk(None, "1")
    desk.open("x")
    desk.open("y", uri="file:///w/b.py")
    slow = asyncio.create_task(desk.complete(0, 1))
    await settle()
    assert len(await desk.complete(0, 1, "file:///w/b.py")) == 1
    assert not slow.done()
    await desk.session.aclose()
    assert await slow is None


async def test_a_failure_is_said_once_and_taken_back_with_the_next_answer():
    down = EngineUnavailable("no engine; start one")
    desk = Desk(down, down, "1", "2")
    desk.open("x")
    await settle()
    desk.statuses.clear()
    assert [await desk.complete(0, 1) for _ in range(2)] == [[], []]
    assert desk.statuses == [Status("failed", "no engine; start one")]
    assert desk.warnings == ["no engine; start one"]
    for _ in range(2):
        assert len(await desk.complete(0, 1)) == 1
    assert {status.state for status in desk.statuses[1:]} == {"ready"}


async def test_our_own_errors_are_logged_without_their_text(caplog):
    desk = Desk(ValueError("cannot use my_secret"))
    desk.open("x")
    assert await desk.complete(0, 1) == []
    assert desk.warnings == ["internal error (ValueError); see the server's log"]
    assert "ValueError" in caplog.text and "in infill" in caplog.text
    assert "my_secret" not in caplog.text


async def test_an_error_while_connecting_is_a_status():
    desk = Desk()

    async def connect():
        raise OSError("no such socket")

    desk.engine.connect = connect
    desk.open("x")
    await settle()
    assert desk.statuses == [Status("failed", "internal error (OSError); see the server's log")]


async def test_other_engine_settings_lead_to_another_engine_at_once():
    desk = Desk()
    desk.open("x")
    await settle()
    desk.session.configure({"engine": {"model": "other"}})
    await settle()
    assert desk.engine.log == [
        f"made for {MODEL}",
        "connect",
        "made for other",
        "closed",
        "connect",
    ]


async def test_going_to_another_engine_ends_what_runs_on_the_old_one():
    desk = Desk(None, "1")
    cancelled = []

    async def connect():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(list(desk.engine.log))
            raise

    desk.engine.connect = connect
    desk.open("x")
    desk.open("y", uri="file:///w/b.py")
    asked = asyncio.create_task(desk.complete(0, 1, "file:///w/b.py"))
    await settle()
    desk.session.configure({"engine": {"model": "other"}})
    assert len(await desk.complete(0, 1)) == 1
    assert await asyncio.wait_for(asked, 5) is None
    assert cancelled == [[f"made for {MODEL}", "made for other"]]
    await desk.session.aclose()


async def test_configuration_is_laid_over_the_initial_options_and_not_over_the_last_one():
    desk = Desk()
    desk.session.initialize({"maxTokens": 5, "nonsense": 1})
    desk.session.configure({"deadlineMs": 10})
    assert (desk.session.settings.max_tokens, desk.session.settings.deadline_ms) == (5, 10.0)
    desk.session.configure({"maxTokens": 6})
    assert (desk.session.settings.max_tokens, desk.session.settings.deadline_ms) == (6, None)
    assert len(desk.warnings) == 1


async def test_closing_lets_go_of_the_engine_even_while_it_is_being_reached():
    desk = Desk(None)

    async def connect():
        await asyncio.Event().wait()

    desk.engine.connect = connect
    desk.open("x")
    asked = asyncio.create_task(desk.complete(0, 1))
    await settle()
    await desk.session.aclose()
    assert await asked is None
    assert desk.engine.log[-1] == "closed"
    await desk.session.aclose()
    assert desk.engine.log.count("closed") == 1


# why nothing is shown


async def test_the_status_says_why_and_then_what_the_engine_does():
    desk = Desk("1234")
    desk.session.initialize({"disabledLanguages": ["markdown"]})
    desk.open("x = ")
    desk.open("x = ", language="markdown", uri="file:///w/a.md")
    await settle()
    assert [status.state for status in desk.statuses] == ["ready"]
    for _ in range(2):
        assert await desk.complete(0, 4, "file:///w/a.md", automatic=True) == []
    assert desk.statuses[1:] == [Status("disabled", "completions are off in markdown")]
    assert len(await desk.complete(0, 4)) == 1
    assert desk.statuses[2] == Status("ready", progress=1.0)


async def test_a_ready_engine_tells_what_the_last_completion_took():
    desk = Desk("1234", "")
    desk.open("x = ")
    await settle()
    assert len(await desk.complete(0, 4)) == 1
    told = desk.statuses[-1]
    assert told.state == "ready" and re.fullmatch(r"last answer \d+ ms", told.message)
    desk.open("y = ")
    assert await desk.complete(0, 4) == []
    assert desk.statuses[-1] == told


async def test_an_answer_that_keeps_one_waiting_is_said_to_be_thought_about(monkeypatch):
    monkeypatch.setattr("dg_lsp.session._PATIENCE_S", 0)
    desk = Desk(None)
    desk.open("x = ")
    await settle()
    asked = asyncio.create_task(desk.complete(0, 4))
    await settle()
    assert desk.statuses[-1] == Status("thinking")
    await desk.session.aclose()
    assert await asked is None
    assert desk.statuses[-1].state == "ready"


async def test_a_file_that_is_too_large_is_excluded_and_says_so():
    desk = Desk()
    desk.open("x" * 1_000_001)
    await settle()
    assert await desk.complete(0, 4, automatic=True) == []
    reason = "the file is larger than 1,000,000 characters"
    assert desk.statuses[-1] == Status("excluded", reason)


async def test_a_failure_is_not_forgotten_while_completions_are_off():
    desk = Desk(EngineUnavailable("down"))
    desk.open("x = ")
    await settle()
    assert await desk.complete(0, 4) == []
    desk.session.toggle("global", URI, "")
    desk.session.toggle("global", URI, "")
    assert [status.state for status in desk.statuses] == ["ready", "failed", "disabled", "failed"]
    assert desk.warnings == ["down"]


async def test_turning_completions_on_starts_the_engine():
    desk = Desk()
    desk.session.initialize({"enabled": False})
    desk.open("x")
    await settle()
    assert desk.engine.log == []
    assert desk.session.toggle("global", URI, "") is True
    await settle()
    assert desk.engine.log == [f"made for {MODEL}", "connect"]


# another engine by command


async def test_a_chosen_model_stays_until_settings_are_sent_again():
    desk = Desk()
    desk.open("x")
    await settle()
    await desk.session.restart_engine("other")
    await settle()
    assert desk.engine.log[2:] == ["stop", "closed", "made for other", "connect"]
    desk.session.configure(None)
    await settle()
    assert desk.session.settings.engine.model == MODEL


async def test_an_engine_that_does_not_stop_is_a_status():
    desk = Desk()

    async def stop():
        raise EngineUnavailable("it will not stop")

    desk.engine.stop = stop
    desk.open("x")
    await settle()
    await desk.session.restart_engine()
    assert desk.warnings == ["it will not stop"]
    assert "closed" in desk.engine.log
    await settle()
    assert desk.statuses[-1].state == "ready"
    assert desk.engine.log[-1] == "connect"


async def test_a_secret_file_is_shown_to_no_engine_and_the_status_says_why():
    desk = Desk("1")
    uri = "file:///w/.env"
    desk.open("KEY=\n", language="shellscript", uri=uri)
    await settle()
    for automatic in (True, False):
        assert await desk.complete(0, 4, uri, automatic=automatic) == []
    assert (desk.engine.log, desk.engine.requests) == ([], [])
    assert desk.statuses[-1].state == "excluded" and ".env*" in desk.statuses[-1].message


async def test_what_other_documents_define_goes_along_but_not_what_excluded_ones_do():
    desk = Desk("1")
    desk.session.initialize({"excludedFiles": ["private.py"]})
    for name in ("shapes", "private"):
        desk.open(f"def paint_{name}(a):\n    pass\n", uri=f"file:///w/{name}.py")
    desk.open("paint_shapes(paint_private(\n")
    await desk.complete(0, 27)
    (chunk,) = desk.engine.requests[0].context
    assert (chunk.path, chunk.text) == ("shapes.py", "def paint_shapes(a):")


async def test_each_keystroke_leaves_what_the_engine_has_encoded_as_it_is():
    typed = "paint_shapes(one, two)"
    desk = Desk(*["" for _ in typed])
    desk.open("def paint_shapes(a):\n    pass\n", uri="file:///w/shapes.py")
    desk.open("".join(f"value_{i} = compute_{i}(first)\n" for i in range(300)) + "paint_shapes\n")
    for column, char in enumerate(typed):
        here = Position(300, column)
        desk.session.change(URI, 2 + column, [Edit(char, here, here)])
        await desk.complete(300, column + 1)
    prompts = [
        "".join(f"{chunk.text}\n\n" for chunk in request.context) + request.prefix
        for request in desk.engine.requests
    ]
    assert len(prompts) > 3 and desk.engine.requests[0].context
    for earlier, later in itertools.pairwise(prompts):
        assert later.startswith(earlier)

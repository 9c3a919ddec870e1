"""The order of answers, over a scripted engine in simulated time. ║ is the cursor."""

import asyncio
import dataclasses

import pytest

from dg_lsp.cache import Answer
from dg_lsp.completer import Completer
from dg_lsp.document import Snapshot
from dg_lsp.scheduler import Superseded
from dg_lsp.settings import Settings
from dg_lsp.triggers import INDENT_FIRST
from engine.request import Draft, Mode
from tests.answers import answer
from tests.simulated import simulated

SECONDS = 0.5


def at(drawn, uri="a", language="python"):
    left, _, right = drawn.partition("║")
    return Snapshot(text=left + right, offset=len(left), uri=uri, language=language)


class Desk:
    """A completer whose engine writes what `answers` say after a prefix's last line."""

    def __init__(self, answers, **settings):
        self.answers = answers
        self.drafts, self.mode = {}, Mode.FIM
        self.asked = []
        self.cancelled = []
        self.completer = Completer(self.infill)
        self.completer.configure(Settings(**settings))

    async def infill(self, place, on_draft):
        line = place.line_left
        self.asked.append(line)
        try:
            await asyncio.sleep(SECONDS / 2)
            on_draft(Draft(text=self.drafts.get(line, ""), step=1, mode=self.mode))
            await asyncio.sleep(SECONDS / 2)
        except asyncio.CancelledError:
            self.cancelled.append(line)
            raise
        said = self.answers.get(line, "")
        return said if not isinstance(said, str) else answer(said)

    async def shown(self, drawn, **how):
        """What is offered, the best first, and how many seconds that took."""
        begun = asyncio.get_running_loop().time()
        how = {"automatic": True, **how}
        found = await self.completer.answer(at(drawn), **how)
        seconds = asyncio.get_running_loop().time() - begun
        return [offer.text for offer in found.offers], pytest.approx(seconds)


ONE = {"x = ": "f(abc)"}


@simulated
async def test_what_is_not_known_is_the_engines_to_say():
    desk = Desk(ONE)
    assert await desk.shown("x = ║\n") == (["f(abc)"], SECONDS)


@simulated
async def test_what_is_typed_as_suggested_stays_shown_without_the_engine():
    desk = Desk(ONE, ask_ahead=False)
    await desk.shown("x = ║\n")
    assert await desk.shown("x = f║\n") == (["(abc)"], 0)
    assert await desk.shown("x = f(║)\n") == (["abc)"], 0)
    assert await desk.shown("x = f(a║)\n") == (["bc)"], 0)
    assert desk.asked == ["x = "]


@simulated
async def test_backspace_shows_what_was_there_before():
    desk = Desk(ONE, ask_ahead=False)
    await desk.shown("x = ║\n")
    await desk.shown("x = g║\n")
    assert await desk.shown("x = ║\n") == (["f(abc)"], 0)
    assert desk.asked == ["x = ", "x = g"]


@simulated
async def test_what_the_engine_is_writing_answers_who_types_on():
    desk = Desk(ONE, ask_ahead=False)
    older = asyncio.create_task(desk.shown("x = ║\n"))
    await asyncio.sleep(SECONDS - 0.1)
    assert await desk.shown("x = f║\n") == (["(abc)"], 0.1)
    with pytest.raises(Superseded):
        await older
    assert (desk.asked, desk.cancelled) == (["x = "], [])


@simulated
async def test_who_types_on_as_the_engine_writes_sees_what_it_has_so_far_and_that_stays():
    desk = Desk({"x = ": "self.save(path)"}, ask_ahead=False)
    desk.drafts["x = "] = "self.load(pa"
    older = asyncio.create_task(desk.shown("x = ║\n"))
    await asyncio.sleep(0.1)
    assert await desk.shown("x = s║\n") == (["elf.load"], SECONDS / 2 - 0.1)
    assert await desk.shown("x = se║\n") == (["lf.load"], 0)
    with pytest.raises(Superseded):
        await older
    await asyncio.sleep(SECONDS)
    assert await desk.shown("x = self.║\n") == (["load"], 0)
    assert await desk.shown("x = self.s║\n") == (["ave(path)"], 0)
    assert (desk.asked, desk.cancelled) == (["x = "], [])


@simulated
async def test_what_is_being_written_is_not_shown_to_who_has_typed_nothing_of_it():
    desk = Desk({"x =": " load(path)"}, ask_ahead=False)
    desk.drafts["x ="] = " self.load(pa"
    older = asyncio.create_task(desk.shown("x =║\n"))
    await asyncio.sleep(0.1)
    assert await desk.shown("x = ║\n") == (["load(path)"], SECONDS - 0.1)
    with pytest.raises(Superseded):
        await older


@simulated
async def test_who_types_otherwise_than_the_engine_writes_has_it_asked_anew():
    desk = Desk({"x = ": "self.load(path)", "x = o": "ther(path)"}, ask_ahead=False)
    desk.drafts["x = "] = "self.l"
    older = asyncio.create_task(desk.shown("x = ║\n"))
    await asyncio.sleep(0.1)
    assert await desk.shown("x = o║\n") == (["ther(path)"], SECONDS / 2 - 0.1 + SECONDS)
    with pytest.raises(Superseded):
        await older
    assert desk.cancelled == ["x = "]


@simulated
async def test_a_canvas_may_change_altogether_so_its_drafts_settle_nothing():
    desk = Desk({"x = ": "other(path)"}, ask_ahead=False)
    desk.drafts["x = "], desk.mode = "self.load(pa", Mode.DIFFUSION
    older = asyncio.create_task(desk.shown("x = ║\n"))
    await asyncio.sleep(0.1)
    assert await desk.shown("x = o║\n") == (["ther(path)"], SECONDS - 0.1)
    with pytest.raises(Superseded):
        await older


@simulated
async def test_if_it_turns_out_otherwise_the_engine_is_asked_anew():
    desk = Desk({"x = ": "f(abc)", "x = g": "(abc)"}, ask_ahead=False)
    older = asyncio.create_task(desk.shown("x = ║\n"))
    await asyncio.sleep(SECONDS - 0.1)
    assert await desk.shown("x = g║\n") == (["(abc)"], 0.1 + SECONDS)
    with pytest.raises(Superseded):
        await older


@simulated
async def test_an_answer_that_came_too_late_is_there_for_whoever_comes_back():
    desk = Desk(ONE, ask_ahead=False)
    older = asyncio.create_task(desk.shown("x = ║\n"))
    await asyncio.sleep(SECONDS - 0.1)
    desk.completer.typed("a")
    older.cancel()
    await asyncio.sleep(0.15)
    assert await desk.shown("x = ║\n") == (["f(abc)"], 0)


@simulated
async def test_a_refused_request_gets_what_is_known_and_never_the_engine():
    desk = Desk(ONE, ask_ahead=False)
    assert await desk.shown("x = ║\n", refusal="a reason") == ([], 0)
    assert desk.asked == []
    await desk.shown("x = ║\n")
    assert await desk.shown("x = f║\n", refusal="a reason") == (["(abc)"], 0)


@simulated
async def test_that_there_is_nothing_to_show_is_asked_once():
    desk = Desk({})
    assert await desk.shown("x = ║\n") == ([], SECONDS)
    assert await desk.shown("x = ║\n") == ([], 0)


# ahead


@simulated
async def test_after_tab_the_next_one_is_there():
    desk = Desk({**ONE, "x = f(abc)": "\ny = f(x)"})
    await desk.shown("x = ║\n")
    await asyncio.sleep(1)
    assert await desk.shown("x = f(abc)║\n") == (["\ny = f(x)"], 0)


@simulated
async def test_after_the_first_line_of_several_the_rest_is_there():
    desk = Desk({"if a:": "\n    abc()\n    abcd()"})
    await desk.shown("if a:║\n")
    assert (await desk.shown("if a:\n    abc()║\n"))[0] == ["\n    abcd()"]


@simulated
async def test_what_comes_next_is_asked_once_however_often_it_is_shown():
    desk = Desk({**ONE, "x = f(abc)": "\ny = f(x)"})
    for drawn in ("x = ║\n", "x = f║\n", "x = f(║)\n", "x = f(a║)\n"):
        await desk.shown(drawn)
    await asyncio.sleep(10)
    assert desk.asked == ["x = ", "x = f(abc)"]


@simulated
async def test_asking_ahead_is_abandoned_for_a_request():
    desk = Desk({**ONE, "y = ": "f(abc)"})
    await desk.shown("x = ║\n")
    await asyncio.sleep(0.1)
    assert await desk.shown("x = f(b)\ny = ║\n") == (["f(abc)"], SECONDS)
    assert desk.cancelled == ["x = f(abc)"]


@simulated
async def test_nothing_is_asked_ahead_where_that_is_off_or_nothing_is_shown():
    desk = Desk(ONE, ask_ahead=False)
    await desk.shown("x = ║\n")
    await asyncio.sleep(10)
    assert desk.asked == ["x = "]
    desk = Desk({})
    await desk.shown("x = ║\n")
    await asyncio.sleep(10)
    assert desk.asked == ["x = "]


@simulated
async def test_where_a_line_is_to_be_indented_nothing_is_shown_and_what_is_typed_then_is_known():
    desk = Desk({"": "    return f(a)"})
    assert await desk.shown("def f(a):\n║\n", refusal=INDENT_FIRST) == ([], 0)
    await asyncio.sleep(1)
    assert await desk.shown("def f(a):\n    r║\n") == (["eturn f(a)"], 0)
    assert desk.asked[0] == ""


@simulated
async def test_where_asking_ahead_is_off_a_line_to_be_indented_waits():
    desk = Desk({"": "    return f(a)"}, ask_ahead=False)
    await desk.shown("def f(a):\n║\n", refusal=INDENT_FIRST)
    await asyncio.sleep(1)
    assert desk.asked == []


# what is shown


@simulated
async def test_the_short_and_the_long_answer_are_alternatives():
    desk = Desk({"x = ": "f(abc)\ny = f(x)", "if a:": "\n    abc()\n    abcd()"})
    assert (await desk.shown("x = ║\n"))[0] == ["f(abc)", "f(abc)\ny = f(x)"]
    assert (await desk.shown("if a:║\n"))[0] == ["\n    abc()\n    abcd()", "\n    abc()"]
    assert len(set(desk.asked)) == len(desk.asked), "both come from one answer of the engine"


@simulated
async def test_who_types_another_likely_text_finds_it_without_the_engine():
    others = [("value + 1", 0.4), ("other", 0.1)]
    desk = Desk({"x = ": answer("f(abc)", others=others)}, min_score=0.2, ask_ahead=False)
    assert (await desk.shown("x = ║\n"))[0] == ["f(abc)", "value + 1"]
    assert await desk.shown("x = va║\n") == (["lue + 1"], 0)
    await desk.shown("x = o║\n")
    assert desk.asked == ["x = ", "x = o"], "of a doubtful one it knows more now"


@simulated
async def test_a_doubtful_answer_is_shown_to_who_asked_only():
    desk = Desk({"x = ": answer("f(abc)", confidence=0.3)}, min_score=0.4)
    assert await desk.shown("x = ║\n") == ([], SECONDS)
    assert await desk.shown("x = ║\n", automatic=False) == (["f(abc)"], 0)
    assert await desk.shown("x = ║\n") == ([], 0)


@simulated
async def test_who_types_a_doubtful_answer_gives_the_engine_more_to_go_by():
    doubt, sure = answer("f(abc)", confidence=0.3), answer("abc)", confidence=0.5)
    desk = Desk({"x = ": doubt, "x = f(": sure}, min_score=0.4)
    assert await desk.shown("x = ║\n") == ([], SECONDS)
    assert await desk.shown("x = f(║\n") == (["abc)"], SECONDS)


@simulated
async def test_of_a_doubtful_block_the_sure_first_line_is_shown_unasked():
    said = answer("\n    abc()\n    abcd()", confidence=0.1, line=0.6)
    desk = Desk({"if a:": said}, min_score=0.4, ask_ahead=False)
    assert (await desk.shown("if a:║\n"))[0] == ["\n    abc()"]
    by_hand = await desk.shown("if a:║\n", automatic=False)
    assert by_hand == (["\n    abc()\n    abcd()", "\n    abc()"], 0)
    assert (await desk.shown("if a:\n    abc║\n"))[0] == ["()"]


@simulated
async def test_the_threshold_of_doubt_is_a_setting():
    desk = Desk({"x = ": answer("f(abc)", confidence=0.3)}, min_score=0.2, ask_ahead=False)
    assert (await desk.shown("x = ║\n"))[0] == ["f(abc)"]
    desk.completer.configure(Settings(min_score=0.4))
    assert await desk.shown("x = ║\n") == ([], SECONDS)


@simulated
async def test_what_is_sooner_typed_than_read_is_shown_to_who_asked_only():
    desk = Desk({"x = ": "abc"})
    assert await desk.shown("x = ║\n") == ([], SECONDS)
    assert await desk.shown("x = ║\n", automatic=False) == (["abc"], 0)


@simulated
async def test_closers_that_an_answer_writes_anew_are_covered():
    desk = Desk({"print(": "abc) or x"})
    found = await desk.completer.answer(at("print(║)\n"), automatic=True)
    assert [dataclasses.astuple(offer) for offer in found.offers] == [("abc) or x", 1, True)]


# the end


@simulated
async def test_a_closed_document_is_forgotten():
    desk = Desk(ONE)
    await desk.shown("x = ║\n")
    asked = asyncio.create_task(desk.shown("y = ║\n"))
    await asyncio.sleep(0.1)
    desk.completer.forget("a")
    with pytest.raises(Superseded):
        await asked
    assert await desk.shown("x = ║\n") == (["f(abc)"], SECONDS)


@simulated
async def test_another_engine_is_asked_anew():
    desk = Desk(ONE)
    await desk.shown("x = ║\n")
    desk.completer.stop()
    assert await desk.shown("x = ║\n") == (["f(abc)"], SECONDS)


@simulated
async def test_errors_of_the_engine_reach_who_asked():
    desk = Desk({})

    async def infill(place, on_draft):
        raise RuntimeError("no")

    desk.completer._infill = infill
    with pytest.raises(RuntimeError):
        await desk.completer.answer(at("x = ║\n"), automatic=True)
    desk.completer._infill = desk.infill
    assert await desk.completer.answer(at("x = ║\n"), automatic=True) == Answer()

"""Turns of documents, in simulated time, with work that is a number of seconds long."""

import asyncio

import pytest

from dg_lsp.document import Snapshot
from dg_lsp.rhythm import RATE
from dg_lsp.scheduler import ORPHAN_S, Scheduler, Superseded
from tests.simulated import simulated


def at(drawn, uri="a"):
    left, _, right = drawn.partition("║")
    return Snapshot(text=left + right, offset=len(left), uri=uri)


class Desk:
    """A scheduler, and the moments at which work began, ended and was cancelled."""

    def __init__(self, seconds=1.0):
        self.scheduler = Scheduler()
        self.seconds = seconds
        self.log = []

    async def fill(self, place):
        self.note("begin", place)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.note("cancel", place)
            raise
        if "fail" in place.text:
            raise RuntimeError(place.text)
        self.note("end", place)

    def note(self, what, place):
        now = round(asyncio.get_running_loop().time(), 3)
        self.log.append((now, what, place.prefix))

    async def ask(self, drawn, uri="a", at_once=True):
        """Goes all the way to the engine unless running work has ended on the way."""
        place = at(drawn, uri)
        turn = self.scheduler.turn(place)
        ended = len(self.log)
        await turn.running(lambda: False)
        if not any(what == "end" for _, what, _ in self.log[ended:]):
            await turn.engine(self.fill, at_once)

    def asking(self, drawn, uri="a"):
        return asyncio.create_task(self.ask(drawn, uri))


@simulated
async def test_a_turn_gets_the_engine():
    desk = Desk()
    await desk.ask("x║")
    assert desk.log == [(0, "begin", "x"), (1, "end", "x")]


@simulated
async def test_the_newest_turn_of_a_document_wins():
    desk = Desk()
    older = desk.asking("x║")
    await asyncio.sleep(0.5)
    newer = desk.asking("y║")
    with pytest.raises(Superseded):
        await older
    await newer
    assert desk.log == [
        *((0, "begin", "x"), (0.5, "cancel", "x")),
        *((0.5, "begin", "y"), (1.5, "end", "y")),
    ]


@simulated
async def test_work_that_may_still_answer_goes_on():
    desk = Desk(seconds=0.5)
    older = desk.asking("x║\n")
    await asyncio.sleep(0.4)
    await desk.ask("xy║\n")
    with pytest.raises(Superseded):
        await older
    assert desk.log == [(0, "begin", "x"), (0.5, "end", "x")]


@simulated
async def test_work_for_an_earlier_text_is_waited_for_to_its_end():
    desk = Desk(seconds=5)
    older = desk.asking("x║\n")
    await asyncio.sleep(0.1)
    await desk.ask("xy║\n")
    with pytest.raises(Superseded):
        await older
    assert desk.log == [(0, "begin", "x"), (5, "end", "x")]


@simulated
async def test_a_turn_waits_no_longer_than_until_enough_is_known_of_the_work():
    desk = Desk(seconds=5)
    older = desk.asking("x║\n")
    await asyncio.sleep(0.1)
    turn, known = desk.scheduler.turn(at("xy║\n")), []
    asyncio.get_running_loop().call_later(1, desk.scheduler.told, "a")
    asyncio.get_running_loop().call_later(2, known.append, "enough")
    asyncio.get_running_loop().call_later(3, desk.scheduler.told, "a")
    await turn.running(lambda: bool(known))
    assert asyncio.get_running_loop().time() == pytest.approx(3.1)
    with pytest.raises(Superseded):
        await older
    await asyncio.sleep(3)
    assert desk.log == [(0, "begin", "x"), (5, "end", "x")]


def test_there_is_nobody_to_tell_of_a_closed_document():
    Scheduler().told("a")


@simulated
async def test_the_very_same_request_waits_for_the_work_to_its_end():
    desk = Desk(seconds=5)
    older = desk.asking("x║")
    await asyncio.sleep(1)
    await desk.ask("x║")
    with pytest.raises(Superseded):
        await older
    assert desk.log == [(0, "begin", "x"), (5, "end", "x")]


@pytest.mark.parametrize("now", ["║\n", "z║\n", "x║\ny", "x y║ \n."])
@simulated
async def test_work_that_cannot_answer_any_more_is_cancelled_at_once(now):
    desk = Desk()
    older = desk.asking("x║\n")
    await asyncio.sleep(0.1)
    desk.scheduler.turn(at(now))
    await asyncio.sleep(0.1)
    with pytest.raises(Superseded):
        await older
    assert desk.log[-1] == (0.1, "cancel", "x")


@simulated
async def test_a_line_end_is_never_the_beginning_of_the_rest_of_a_line():
    desk = Desk()
    older = desk.asking("x║ + 1\n")
    await asyncio.sleep(0.1)
    desk.scheduler.turn(at("x\n║ + 1\n"))
    with pytest.raises(Superseded):
        await older
    await asyncio.sleep(0.1)
    assert desk.log == [(0, "begin", "x"), (0.1, "cancel", "x")]


@simulated
async def test_documents_do_not_disturb_each_other():
    desk = Desk()
    await asyncio.gather(desk.asking("x║", "one"), desk.asking("y║", "two"))
    assert [what for _, what, _ in desk.log] == ["begin", "begin", "end", "end"]


@simulated
async def test_an_error_belongs_to_its_request():
    desk = Desk()
    with pytest.raises(RuntimeError, match="fail"):
        await desk.ask("fail║")
    await desk.ask("x║")
    assert desk.log[-1][1:] == ("end", "x")


# the wait


@simulated
async def test_the_engine_is_asked_when_the_typist_pauses():
    desk = Desk(seconds=0.05)
    for _ in range(5):
        await asyncio.sleep(0.2)
        desk.scheduler.typed("a")
    await desk.ask("x║", at_once=False)
    first = desk.log[0][0]
    assert first == pytest.approx(1 + RATE * 0.2)
    await asyncio.sleep(0.2)
    desk.scheduler.typed("a")
    typed = asyncio.get_running_loop().time()
    await desk.ask("xy║", at_once=False)
    gap = 0.2 + 0.2 * (RATE * 0.2 + 0.05 + 0.2 - 0.2)  # its average with the newest one
    assert desk.log[2][0] == pytest.approx(typed + RATE * gap - 0.05, abs=0.01)


@simulated
async def test_who_asks_by_command_does_not_wait():
    desk = Desk()
    for _ in range(5):
        await asyncio.sleep(0.2)
        desk.scheduler.typed("a")
    await desk.ask("x║", at_once=True)
    assert desk.log[0] == (1, "begin", "x")


@simulated
async def test_a_turn_that_is_over_before_its_wait_never_reaches_the_engine():
    desk = Desk()
    for _ in range(5):
        await asyncio.sleep(0.2)
        desk.scheduler.typed("a")
    older = asyncio.create_task(desk.ask("x║", at_once=False))
    await asyncio.sleep(0.1)
    await desk.ask("y║")
    with pytest.raises(Superseded):
        await older
    assert {prefix for _, _, prefix in desk.log} == {"y"}


# cancelled by the client


@simulated
async def test_a_cancelled_request_ends_its_work_at_once():
    desk = Desk()
    asked = desk.asking("x║")
    await asyncio.sleep(0.5)
    asked.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert desk.log == [(0, "begin", "x"), (0.5, "cancel", "x")]


@simulated
async def test_who_cancels_to_type_on_finds_the_work_again():
    desk = Desk(seconds=0.6)
    asked = desk.asking("x║\n")
    await asyncio.sleep(0.4)
    desk.scheduler.typed("a")
    asked.cancel()
    await asyncio.sleep(ORPHAN_S / 2)
    await desk.ask("xy║\n")
    assert desk.log == [(0, "begin", "x"), (0.6, "end", "x")]


@simulated
async def test_work_that_nobody_comes_back_for_ends():
    desk = Desk()
    asked = desk.asking("x║\n")
    await asyncio.sleep(0.4)
    desk.scheduler.typed("a")
    asked.cancel()
    await asyncio.sleep(10)
    assert desk.log == [(0, "begin", "x"), (round(0.4 + ORPHAN_S, 3), "cancel", "x")]


@simulated
async def test_a_cancelled_request_leaves_the_newer_ones_work_alone():
    desk = Desk()
    older = desk.asking("x║\n")
    await asyncio.sleep(0)
    newer = desk.asking("y║\n")
    await asyncio.sleep(0)
    older.cancel()
    await newer
    assert desk.log[-1] == (1, "end", "y")


# ahead


@simulated
async def test_what_may_come_next_is_filled_one_after_the_other():
    desk = Desk()
    desk.scheduler.ahead([at("x1║"), at("x2║")], desk.fill)
    await asyncio.sleep(10)
    assert [(what, prefix) for _, what, prefix in desk.log] == [
        *(("begin", "x1"), ("end", "x1")),
        *(("begin", "x2"), ("end", "x2")),
    ]


@simulated
async def test_what_was_begun_ahead_is_out_of_the_way_of_whoever_needs_the_engine():
    desk = Desk()
    desk.scheduler.ahead([at("x1║"), at("x2║")], desk.fill)
    await asyncio.sleep(0.5)
    await desk.ask("y║", "another document")
    assert desk.log == [
        *((0, "begin", "x1"), (0.5, "cancel", "x1")),
        *((0.5, "begin", "y"), (1.5, "end", "y")),
    ]
    await asyncio.sleep(10)
    assert len(desk.log) == 4


@simulated
async def test_who_comes_to_where_work_is_ahead_gets_that_work():
    desk = Desk()
    desk.scheduler.ahead([at("x1║"), at("x2║")], desk.fill)
    await asyncio.sleep(0.8)
    await desk.ask("x1║")
    await asyncio.sleep(10)
    assert desk.log == [(0, "begin", "x1"), (1, "end", "x1")]


@simulated
async def test_work_ahead_goes_on_while_one_types_towards_it_and_ends_when_one_does_not():
    desk = Desk()
    desk.scheduler.ahead([at("x123║")], desk.fill)
    await asyncio.sleep(0.1)
    desk.scheduler.turn(at("x1║"))
    desk.scheduler.ahead([at("x123║")], desk.fill)
    await asyncio.sleep(0.1)
    desk.scheduler.turn(at("xy║"))
    await asyncio.sleep(0.1)
    assert desk.log == [(0, "begin", "x123"), (0.2, "cancel", "x123")]


@simulated
async def test_an_error_ahead_is_nobodys():
    desk = Desk()
    desk.scheduler.ahead([at("fail║"), at("x║")], desk.fill)
    await asyncio.sleep(10)
    assert desk.log[-1] == (2, "end", "x")


# the end


@simulated
async def test_closing_a_document_ends_its_turn_and_its_work():
    desk = Desk()
    asked = desk.asking("x║")
    desk.scheduler.ahead([at("x1║")], desk.fill)
    await asyncio.sleep(0.5)
    desk.scheduler.supersede("a")
    desk.scheduler.supersede("unknown")
    with pytest.raises(Superseded):
        await asked
    assert [what for _, what, _ in desk.log] == ["begin", "cancel"]


@simulated
async def test_closing_answers_everything_and_waits_for_the_work_to_stop():
    desk = Desk()
    asked = [desk.asking("x║", uri) for uri in "abc"]
    await asyncio.sleep(0.5)
    desk.scheduler.ahead([at("y║")], desk.fill)
    await asyncio.sleep(0)
    await desk.scheduler.aclose()
    assert sum(what == "cancel" for _, what, _ in desk.log) == 4
    replies = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(reply) for reply in replies] == [Superseded] * 3

import asyncio
import random

import pytest

from dg_lsp.scheduler import Outcome, Scheduler
from engine.request import InfillRequest
from tests.answers import answer as scripted_answer


class ScriptedEngine:
    """Answers when told to, and notes whose work was cancelled."""

    def __init__(self):
        self.gates = {}
        self.cancelled = []

    async def __call__(self, request):
        gate = self.gates.setdefault(request.prefix, asyncio.Event())
        try:
            await gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(request.prefix)
            raise
        if request.prefix.startswith("fail"):
            raise RuntimeError(request.prefix)
        return scripted_answer(request.prefix)

    def finish(self, name):
        self.gates.setdefault(name, asyncio.Event()).set()


@pytest.fixture
def engine():
    return ScriptedEngine()


@pytest.fixture
def scheduler():
    return Scheduler()


def ask(scheduler, engine, key, name):
    return asyncio.create_task(scheduler.ask(key, InfillRequest(prefix=name), engine))


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_request_gets_the_engines_result(scheduler, engine):
    engine.finish("a")
    assert await ask(scheduler, engine, "doc", "a") == Outcome(result=scripted_answer("a"))


async def test_the_newest_request_of_a_document_wins(scheduler, engine):
    older = ask(scheduler, engine, "doc", "older")
    await settle()
    newer = ask(scheduler, engine, "doc", "newer")
    await settle()
    assert engine.cancelled == ["older"]
    assert await older == Outcome()
    engine.finish("newer")
    assert (await newer).result == scripted_answer("newer")


async def test_a_superseded_request_does_not_protect_its_successor(scheduler, engine):
    tasks = []
    for name in ("first", "second", "third"):
        tasks.append(ask(scheduler, engine, "doc", name))
        await settle()
    assert engine.cancelled == ["first", "second"]
    engine.finish("third")
    assert [await tasks[0], await tasks[1]] == [Outcome(), Outcome()]
    assert (await tasks[2]).result == scripted_answer("third")


async def test_a_request_superseded_at_once_never_reaches_the_engine(scheduler, engine):
    older, newer = (ask(scheduler, engine, "doc", name) for name in ("older", "newer"))
    engine.finish("newer")
    assert (await older, (await newer).result) == (Outcome(), scripted_answer("newer"))
    assert list(engine.gates) == ["newer"]


async def test_requests_of_other_documents_go_on(scheduler, engine):
    one, two = ask(scheduler, engine, "one", "1"), ask(scheduler, engine, "two", "2")
    await settle()
    engine.finish("1")
    engine.finish("2")
    assert [(await task).result.text for task in (one, two)] == ["1", "2"]
    assert engine.cancelled == []


async def test_cancelling_the_caller_cancels_the_engines_work(scheduler, engine):
    task = ask(scheduler, engine, "doc", "a")
    await settle()
    task.cancel()
    await settle()
    assert task.cancelled()
    assert engine.cancelled == ["a"]


async def test_a_cancelled_request_leaves_a_newer_one_alone(scheduler, engine):
    older, newer = ask(scheduler, engine, "doc", "older"), ask(scheduler, engine, "doc", "newer")
    await settle()
    older.cancel()
    engine.finish("newer")
    assert (await newer).result == scripted_answer("newer")


async def test_an_error_is_the_outcome_of_its_request_only(scheduler, engine):
    engine.finish("fail")
    engine.finish("next")
    failed = await ask(scheduler, engine, "doc", "fail")
    assert isinstance(failed.error, RuntimeError) and failed.result is None
    assert (await ask(scheduler, engine, "doc", "next")).result == scripted_answer("next")


async def test_superseding_ends_a_request_without_a_result(scheduler, engine):
    task = ask(scheduler, engine, "doc", "a")
    await settle()
    scheduler.supersede("doc")
    scheduler.supersede("unknown")
    assert await task == Outcome()


async def test_closing_answers_everything(scheduler, engine):
    tasks = [ask(scheduler, engine, key, key) for key in "abc"]
    await settle()
    await scheduler.aclose()
    assert sorted(engine.cancelled) == ["a", "b", "c"]
    assert [await task for task in tasks] == [Outcome()] * 3


async def test_a_storm_of_requests_gets_one_outcome_each(scheduler, engine):
    draw = random.Random(0)
    tasks = {}
    for number in range(500):
        name = f"{draw.choice(['ok', 'fail'])} {number}"
        tasks[name] = ask(scheduler, engine, draw.choice("abc"), name)
        other = draw.choice(list(tasks))
        draw.choice([tasks[other].cancel, lambda name=other: engine.finish(name), int])()
        if draw.random() < 0.5:
            await asyncio.sleep(0)
    for name in tasks:
        engine.finish(name)
    outcomes = await asyncio.gather(*tasks.values(), return_exceptions=True)
    kinds = set()
    for name, outcome in zip(tasks, outcomes, strict=True):
        if isinstance(outcome, asyncio.CancelledError):
            kinds.add("cancelled")
        elif outcome.result is not None:
            assert outcome.result.text == name
            kinds.add("result")
        else:
            assert outcome.error is None or str(outcome.error) == name
            kinds.add("error" if outcome.error else "superseded")
    assert kinds == {"cancelled", "result", "error", "superseded"}
    assert scheduler._running == {}

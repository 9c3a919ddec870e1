"""The engine's one thread, over an engine that notes what it is told."""

import threading

import pytest

from engine import worker
from engine.errors import EngineError
from engine.request import InfillRequest
from engine.worker import Job, Worker


class Noting:
    def __init__(self):
        self.told, self.restless = [], False
        self.rested = threading.Event()

    def infill(self, request, *, cancelled, on_draft=None):
        self.told.append(request.prefix)
        raise EngineError("no answer is no harm")

    def rest(self):
        self.told.append("rest")
        self.rested.set()
        if self.restless:
            raise MemoryError


@pytest.fixture
def engine():
    return Noting()


@pytest.mark.parametrize("restless", [False, True])
def test_it_rests_once_where_no_request_comes_and_answers_the_next(engine, monkeypatch, restless):
    """Even if resting fails."""
    engine.restless = restless
    monkeypatch.setattr(worker, "_REST_AFTER_S", 0.01)
    ours = Worker(lambda progress: engine)
    ours.start()
    assert engine.rested.wait(30)
    answered = threading.Event()
    job = Job(InfillRequest(prefix="def f"), deliver=lambda event: answered.set())
    ours.submit(job)
    assert answered.wait(30)
    assert engine.told[:2] == ["rest", "def f"]
    assert ours.close(30)

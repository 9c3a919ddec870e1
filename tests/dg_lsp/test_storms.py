"""Whatever an editor sends in whatever order, each request gets one reply, and nothing is left over.

The server's own messages, in one process and in simulated time, over a scripted engine.
"""

import asyncio
import dataclasses
import gc
import sys
import tracemalloc

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.clock import AtOnce, run
from bench.screen import Replay
from bench.scripted import Manner, Scripted, Watched
from bench.typist import RECORDINGS, Recording
from dg_lsp.document import Edit, Position
from dg_lsp.session import Session
from dg_lsp.surroundings import Surroundings
from dg_lsp.triggers import Ask
from tests.answers import answer
from tests.dg_lsp.wired import AUTOMATIC, BY_HAND, URIS, Editor, Engine
from tests.simulated import simulated

REQUEST_CANCELLED = -32800

URI = st.sampled_from(URIS)
TYPE = st.tuples(st.just("type"), URI, st.sampled_from(["a", "b", "(", "\n", "ab"]), st.just(0))
ASK = st.tuples(
    st.just("ask"), URI, st.integers(0, 5), st.sampled_from([BY_HAND, BY_HAND, AUTOMATIC])
)
WAIT = st.tuples(st.just("wait"), st.floats(0, 1))
ACTIONS = st.one_of(
    *(TYPE, TYPE, ASK, ASK, ASK, WAIT, WAIT),
    st.tuples(st.just("erase"), URI),
    st.tuples(st.just("complete_now"), URI, st.integers(0, 5)),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("close"), URI),
    st.tuples(st.just("open"), URI),
    st.tuples(st.just("configure"), st.sampled_from(["one", "two"])),
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ACTIONS, min_size=30, max_size=60))
def test_in_a_storm_each_request_gets_one_reply_of_the_right_kind(actions):
    async def storm():
        editor = Editor()
        await editor.greet()
        for name, *arguments in actions:
            await getattr(editor, name)(*arguments)
        await asyncio.sleep(60)
        for id_ in editor.newest.values():
            assert editor.answer(id_) is not None, "nothing has superseded it"
        for uri in URIS:
            await editor.open(uri)
            await editor.ask(uri, 3, BY_HAND)
            await asyncio.sleep(60)
            assert editor.answer(editor.newest[uri]) is not None, "after any storm"
        assert editor.engine.running == 0
        for uri in URIS:
            await editor.type(uri, "x", 0)
            await editor.ask(uri, 1, BY_HAND)
        await asyncio.sleep(0.01)
        await editor.request("shutdown", None)
        await asyncio.sleep(0.01)
        assert editor.engine.running == 0, "work goes on that nobody wants"
        for id_ in editor.replies:
            if isinstance(answer := editor.answer(id_), int):
                assert answer == REQUEST_CANCELLED and id_ in editor.cancelled
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(storm())


@simulated
async def test_only_the_newest_of_a_burst_reaches_the_engine():
    editor = Editor()
    await editor.greet()
    uri = URIS[0]
    for end in range(3, 203):
        await editor.type(uri, "b", end)
        await editor.ask(uri, end + 1, AUTOMATIC)
        assert editor.engine.running <= 1
    await asyncio.sleep(10)
    _, *older, newest = map(editor.answer, editor.replies)
    assert older == [None] * 199 and newest is not None


# what a keystroke costs


def calls(lines):
    """How many Python functions are called for a keystroke in the middle of such a file."""
    count = asked = 0

    def profile(frame, event, argument):
        nonlocal count
        count += event == "call"

    async def infill(request, on_draft=None):
        nonlocal asked
        asked += 1
        return answer("method(argument)")

    async def keystrokes():
        engine = Engine()
        engine.infill = infill
        session = Session(lambda *_: engine, print, print, around=Surroundings(thread=AtOnce()))
        line = "    some_value = function(argument_one, two)"
        session.open(URIS[0], "python", 1, f"{line}\n" * lines)
        for typed in range(3):  # the first ones load a grammar and fill caches
            place = Position(lines // 2, len(line) + typed)
            sys.setprofile(profile if typed == 2 else None)
            session.change(URIS[0], 2 + typed, [Edit(".", place, place)])
            ask = Ask(uri=URIS[0], position=Position(place.line, place.character + 1))
            await session.complete(ask)
            sys.setprofile(None)
            assert asked == typed + 1
        await session.aclose()

    run(keystrokes())
    return count


def test_a_keystroke_takes_no_more_steps_in_a_long_file_than_in_a_short_one():
    short = calls(400)
    assert calls(10_000) < 1.1 * short
    assert calls(22_000) < 1.1 * short, "a million characters"


def test_an_hour_of_typing_takes_no_more_memory_than_its_first_half():
    """A recording over and over, each time into a new document of one session.

    Each is so long that whatever keeps its text is seen.
    """
    recording = Recording.load(RECORDINGS / "demo.json")
    start = recording.start + "\n" + 8 * (1000 * "-" + "\n")
    recording = dataclasses.replace(recording, language="plaintext", start=start)
    *_, final = recording.texts()

    async def hour():
        loop = asyncio.get_running_loop()
        replay = Replay(
            recording, lambda work: Watched(Scripted(final, Manner()), work), ahead=True
        )
        sizes = []
        while not sizes or loop.time() < 3600:
            await replay.type(f"file:///{loop.time()}.txt")
            replay.figures.work.clear()
            replay.figures.times.clear()
            if loop.time() > 1800:
                tracemalloc.start()
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
        return sizes

    try:
        sizes = run(hour())
    finally:
        tracemalloc.stop()
    assert len(sizes) > 20
    # What is watched for ten minutes after accepting it has been replaced by the half of these.
    assert sizes[-1] - sizes[len(sizes) // 2] < 60_000, "a kilobyte a document"

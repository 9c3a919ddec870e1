"""Whatever an editor does in whatever order, each request gets one reply, and nothing is left over.

In simulated time, over a scripted engine.
"""

import asyncio
import dataclasses
import sys
import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from bench.clock import AtOnce, run
from bench.replay import Replay, Scripted, Watched
from bench.typist import RECORDINGS, Recording
from dg_lsp.client import EngineUnavailable
from dg_lsp.document import Edit, Position
from dg_lsp.session import Session
from dg_lsp.surroundings import Surroundings
from dg_lsp.triggers import Ask
from tests.answers import answer
from tests.simulated import simulated

URIS = ("file:///a.txt", "file:///b.txt")


class Engine:
    """Answers after a while, with what follows from the text; knows what it is working on."""

    def __init__(self, *_):
        self.running = 0

    async def connect(self):
        pass

    async def aclose(self):
        pass

    async def infill(self, request):
        seed = sum(map(ord, request.prefix)) + len(request.suffix)
        self.running += 1
        try:
            await asyncio.sleep(seed % 7 / 10)
        finally:
            self.running -= 1
        if seed % 11 == 0:
            raise EngineUnavailable("not today")
        return answer(["", "abcd", "aaaa\nbbbb", "(abcd)"][seed % 4])


class Editor:
    """Two open documents, edited at their beginnings; each request is awaited by a task."""

    def __init__(self):
        self.engine = Engine()
        self.session = Session(
            lambda *_: self.engine,
            lambda _: None,
            lambda _: None,
            around=Surroundings(thread=AtOnce()),
        )
        self.asked = []
        self.newest = {}
        self.version = 1
        for uri in URIS:
            self.open(uri)

    def open(self, uri):
        self.session.open(uri, "plaintext", self.version, "a b\nc\n")

    def type(self, uri, text, place):
        self.version += 1
        start = Position(0, place)
        self.session.change(uri, self.version, [Edit(text, start, start)])

    def erase(self, uri):
        self.version += 1
        self.session.change(uri, self.version, [Edit("", Position(0, 0), Position(0, 1))])

    def ask(self, uri, place, automatic):
        task = asyncio.create_task(
            self.session.complete(Ask(uri=uri, position=Position(0, place), automatic=automatic))
        )
        self.asked.append(task)
        self.newest[uri] = (task, self.version)

    def cancel(self, number):
        if self.asked:
            self.asked[number % len(self.asked)].cancel()


uris = st.sampled_from(URIS)
ACTIONS = st.one_of(
    st.tuples(st.just("type"), uris, st.sampled_from(["a", "b", "(", "\n", "ab"]), st.just(0)),
    st.tuples(st.just("erase"), uris),
    st.tuples(st.just("ask"), uris, st.integers(0, 5), st.booleans()),
    st.tuples(st.just("cancel"), st.integers(0, 100)),
    st.tuples(st.just("wait"), st.floats(0, 1)),
    st.tuples(st.just("close"), uris),
    st.tuples(st.just("open"), uris),
    st.tuples(st.just("configure"), st.sampled_from(["one", "two"])),
)


async def storm(actions):
    editor = Editor()
    for name, *arguments in actions:
        if name == "wait":
            await asyncio.sleep(*arguments)
        elif name == "close":
            editor.session.close(*arguments)
        elif name == "configure":
            editor.session.configure({"engine": {"model": arguments[0]}})
        else:
            getattr(editor, name)(*arguments)
    replies = await asyncio.wait_for(
        asyncio.gather(*editor.asked, return_exceptions=True), timeout=60
    )
    for reply in replies:
        assert reply is None or isinstance(reply, (list, asyncio.CancelledError)), reply
    await editor.session.aclose()
    assert editor.engine.running == 0, "work went on that nobody wants"
    assert asyncio.all_tasks() == {asyncio.current_task()}


@settings(deadline=None, max_examples=150)
@given(st.lists(ACTIONS, max_size=60))
def test_a_storm_gets_one_reply_each_and_leaves_nothing_behind(actions):
    run(storm(actions))


@settings(deadline=None, max_examples=50)
@given(st.lists(ACTIONS, max_size=30))
def test_after_any_storm_the_next_request_is_answered(actions):
    async def then():
        await storm_and_ask(actions)

    run(then())


async def storm_and_ask(actions):
    editor = Editor()
    for name, *arguments in actions:
        if name == "wait":
            await asyncio.sleep(*arguments)
        elif name not in ("close", "configure"):
            getattr(editor, name)(*arguments)
    editor.open(URIS[0])
    editor.session.change(URIS[0], 999, [Edit("x = ", Position(0, 0), Position(0, 0))])
    editor.ask(URIS[0], 4, False)
    reply = await asyncio.wait_for(editor.asked[-1], 60)
    assert isinstance(reply, list), "it is the newest, so nothing supersedes it"
    await editor.session.aclose()


@simulated
async def test_only_the_newest_of_a_burst_reaches_the_engine():
    editor = Editor()
    for number in range(200):
        editor.type(URIS[0], "b", 3 + number)
        editor.ask(URIS[0], 4 + number, True)
        await asyncio.sleep(0)
        assert editor.engine.running <= 1
    replies = await asyncio.gather(*editor.asked)
    assert replies[:-1] == [None] * 199
    await editor.session.aclose()


# what a keystroke costs


def calls(lines):
    """How many Python functions are called for a keystroke in the middle of such a file."""
    count = asked = 0

    def profile(frame, event, argument):
        nonlocal count
        count += event == "call"

    async def infill(request):
        nonlocal asked
        asked += 1
        return answer("method(argument)")

    async def keystrokes():
        editor = Editor()
        editor.engine.infill = infill
        line = "    some_value = function(argument_one, two)"
        editor.session.open(URIS[0], "python", 1, f"{line}\n" * lines)
        for typed in range(3):  # the first ones load a grammar and fill caches
            place = Position(lines // 2, len(line) + typed)
            sys.setprofile(profile if typed == 2 else None)
            editor.session.change(URIS[0], 2 + typed, [Edit(".", place, place)])
            ask = Ask(uri=URIS[0], position=Position(place.line, place.character + 1))
            await editor.session.complete(ask)
            sys.setprofile(None)
            assert asked == typed + 1
        await editor.session.aclose()

    run(keystrokes())
    return count


def test_a_keystroke_takes_no_more_steps_in_a_long_file_than_in_a_short_one():
    short = calls(400)
    assert calls(10_000) < 1.1 * short
    assert calls(22_000) < 1.1 * short, "a million characters"


def test_an_hour_of_typing_takes_no_more_memory_than_its_first_half():
    """A recording over and over, each time into a new document of one session."""
    recording = dataclasses.replace(Recording.load(RECORDINGS / "demo.json"), language="plaintext")
    *_, final = recording.texts()

    async def hour():
        loop = asyncio.get_running_loop()
        replay = Replay(recording, lambda work: Watched(Scripted(final, 0.06), work), ahead=True)
        sizes = []
        while not sizes or loop.time() < 3600:
            await replay.type(f"file:///{loop.time()}.txt")
            replay.figures.work.clear()
            replay.figures.times.clear()
            if loop.time() > 1800:
                tracemalloc.start()
                sizes.append(tracemalloc.get_traced_memory()[0])
        return sizes

    try:
        sizes = run(hour())
    finally:
        tracemalloc.stop()
    assert len(sizes) > 20
    # What is watched for ten minutes after accepting it has been replaced by the half of these.
    assert sizes[-1] - sizes[len(sizes) // 2] < 100_000, "what is forgotten is replaced"

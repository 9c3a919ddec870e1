"""Whatever an editor sends in whatever order, each request gets one reply, and nothing is left over.

The server's own messages, in one process and in simulated time, over a scripted engine.
"""

import asyncio
import dataclasses
import gc
import itertools
import json
import sys
import tracemalloc

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.clock import AtOnce, run
from bench.screen import Replay
from bench.scripted import Scripted, Watched
from bench.typist import RECORDINGS, Recording
from dg_lsp.client import EngineUnavailable
from dg_lsp.document import Edit, Position
from dg_lsp.lsp.server import build
from dg_lsp.session import Session
from dg_lsp.surroundings import Surroundings
from dg_lsp.triggers import Ask
from tests.answers import answer
from tests.simulated import simulated

URIS = ("file:///a.txt", "file:///b.txt")
BY_HAND, AUTOMATIC = 1, 2  # LSP's kinds of trigger
REQUEST_CANCELLED = -32800


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
            await asyncio.sleep((1 + seed % 6) / 10)
        finally:
            self.running -= 1
        if seed % 11 == 0:
            raise EngineUnavailable("not today")
        return answer(["", "abcd", "aaaa\nbbbb", "(abcd)"][seed % 4])


class Editor:
    """A client in the server's own process: sends messages, keeps every reply by its request's id."""

    def __init__(self):
        self.engine = Engine()
        self.server = build(lambda *_: self.engine)
        self.server.session = Session(
            lambda *_: self.engine,
            self.server.show_status,
            self.server.warn,
            around=Surroundings(thread=AtOnce()),
        )
        self.server.protocol.set_writer(self, include_headers=False)
        self.ids = itertools.count(1)
        self.replies = {}
        self.cancelled = set()
        self.newest = {}  # by document, the request to which nothing has happened since
        self.version = 1

    def write(self, data):
        message = json.loads(data)
        if "method" not in message:
            self.replies.setdefault(message["id"], []).append(message)

    async def send(self, method, params, **id_):
        protocol = self.server.protocol
        sent = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, **id_})
        protocol.handle_message(json.loads(sent, object_hook=protocol.structure_message))
        await asyncio.sleep(0)  # as standard input's reader does between two messages

    async def request(self, method, params):
        id_ = next(self.ids)
        self.replies[id_] = []
        await self.send(method, params, id=id_)
        return id_

    def answer(self, id_):
        """The one reply to a request: its result, or the code of its error."""
        (reply,) = self.replies[id_]
        return reply["error"]["code"] if "error" in reply else reply["result"]

    async def greet(self):
        await self.request("initialize", {"processId": None, "rootUri": None, "capabilities": {}})
        for uri in URIS:
            await self.open(uri)

    async def open(self, uri):
        self.newest.pop(uri, None)
        item = {"uri": uri, "languageId": "plaintext", "version": 1, "text": "a b\nc\n"}
        await self.send("textDocument/didOpen", {"textDocument": item})

    async def close(self, uri):
        self.newest.pop(uri, None)
        await self.send("textDocument/didClose", {"textDocument": {"uri": uri}})

    async def type(self, uri, text, at):
        await self.change(uri, text, at, at)

    async def erase(self, uri):
        await self.change(uri, "", 0, 1)

    async def change(self, uri, text, start, end):
        self.newest.pop(uri, None)
        self.version += 1
        span = {"start": place(start), "end": place(end)}
        await self.send(
            "textDocument/didChange",
            {
                "textDocument": {"uri": uri, "version": self.version},
                "contentChanges": [{"range": span, "text": text}],
            },
        )

    async def ask(self, uri, character, kind):
        asked = {
            "textDocument": {"uri": uri},
            "position": place(character),
            "context": {"triggerKind": kind},
        }
        self.newest[uri] = await self.request("textDocument/inlineCompletion", asked)

    async def complete_now(self, uri, character):
        run = {"command": "dgLsp.completeNow", "arguments": [uri, 0, character]}
        self.newest[uri] = await self.request("workspace/executeCommand", run)

    async def cancel(self, back):
        id_ = max(self.replies) - back
        self.cancelled.add(id_)
        self.newest = {uri: newest for uri, newest in self.newest.items() if newest != id_}
        await self.send("$/cancelRequest", {"id": id_})

    async def configure(self, model):
        self.newest.clear()
        settings = {"engine": {"model": model}}
        await self.send("workspace/didChangeConfiguration", {"settings": settings})

    async def wait(self, seconds):
        await asyncio.sleep(seconds)


def place(character):
    return {"line": 0, "character": character}


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

    async def infill(request):
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
        replay = Replay(recording, lambda work: Watched(Scripted(final, 0.06), work), ahead=True)
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

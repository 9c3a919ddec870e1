"""An editor and its language server in one process: messages in, replies out, over a scripted engine."""

import asyncio
import itertools
import json

from pygls.exceptions import JsonRpcException

from bench.clock import AtOnce
from dg_lsp.client import EngineUnavailable
from dg_lsp.lsp.server import build
from dg_lsp.session import Session
from dg_lsp.surroundings import Surroundings
from tests.answers import answer

URIS = ("file:///a.txt", "file:///b.txt")
BY_HAND, AUTOMATIC = 1, 2  # LSP's kinds of trigger


class Engine:
    """Answers after a while, with what follows from the text; knows what it is working on."""

    def __init__(self, *_):
        self.running = 0

    async def connect(self):
        pass

    async def aclose(self):
        pass

    async def infill(self, request, on_draft=None):
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
        try:
            protocol.handle_message(json.loads(sent, object_hook=protocol.structure_message))
        except Exception as error:  # noqa: BLE001 - as whoever reads standard input does
            self.server.report_server_error(error, JsonRpcException)
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

    async def greet(self, *folders):
        greeting = {"processId": None, "rootUri": None, "capabilities": {}}
        if folders:
            greeting["workspaceFolders"] = [{"uri": uri, "name": "w"} for uri in folders]
        await self.request("initialize", greeting)
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

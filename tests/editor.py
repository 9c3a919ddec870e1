"""An editor under test: a pytest-lsp client that talks to a real server process over stdio."""

import asyncio
import contextlib
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from lsprotocol import types
from pytest_lsp import ClientServerConfig

ROOT = Path(__file__).parents[1]
URI = "file:///workspace/src/a.py"
NOTHING = types.InlineCompletionList(items=())


class Editor:
    """One client and its server process; positions are in the agreed code units."""

    def __init__(self, client):
        self.client = client
        self.events_file = Path(os.devnull)
        self.statuses = []
        self.version = 1
        client.feature("dg/status")(lambda params: self.statuses.append(params))

    @property
    def process(self):
        return self.client._server

    @property
    def events(self):
        """What a scripted engine has noted."""
        return self.events_file.read_text().splitlines() if self.events_file.exists() else []

    async def initialize(
        self,
        encodings=None,
        options=None,
        window=None,
        process_id=None,
        folders=("file:///workspace",),
        **capabilities,
    ):
        general = types.GeneralClientCapabilities(position_encodings=encodings)
        return await self.client.initialize_session(
            types.InitializeParams(
                capabilities=types.ClientCapabilities(
                    general=general, window=window, **capabilities
                ),
                process_id=process_id,
                initialization_options=options,
                workspace_folders=[types.WorkspaceFolder(uri=uri, name="w") for uri in folders],
            )
        )

    def open(self, text, uri=URI, language="plaintext"):
        """In plain text a scripted answer need not parse, as it must where there is a grammar."""
        item = types.TextDocumentItem(uri=uri, language_id=language, version=1, text=text)
        self.client.text_document_did_open(types.DidOpenTextDocumentParams(text_document=item))

    def edit(self, text, start, end, uri=URI):
        self.version += 1
        document = types.VersionedTextDocumentIdentifier(uri=uri, version=self.version)
        span = types.Range(start=types.Position(*start), end=types.Position(*end))
        change = types.TextDocumentContentChangePartial(range=span, text=text)
        self.client.text_document_did_change(
            types.DidChangeTextDocumentParams(text_document=document, content_changes=[change])
        )

    def close(self, uri=URI):
        document = types.TextDocumentIdentifier(uri=uri)
        self.client.text_document_did_close(
            types.DidCloseTextDocumentParams(text_document=document)
        )

    def ask(self, line, character, uri=URI, msg_id=None, automatic=False, selected=None):
        """The future of a completion's answer, and the request's id."""
        msg_id = msg_id or f"request-{time.monotonic_ns()}"
        kinds = types.InlineCompletionTriggerKind
        params = types.InlineCompletionParams(
            text_document=types.TextDocumentIdentifier(uri=uri),
            position=types.Position(line=line, character=character),
            context=types.InlineCompletionContext(
                trigger_kind=kinds.Automatic if automatic else kinds.Invoked,
                selected_completion_info=selected,
            ),
        )
        method = types.TEXT_DOCUMENT_INLINE_COMPLETION
        future = self.client.protocol.send_request(method, params, msg_id=msg_id)
        return asyncio.wrap_future(future), msg_id

    async def complete(self, line, character, uri=URI, **context):
        answer, _ = self.ask(line, character, uri, **context)
        return await asyncio.wait_for(answer, 30)

    async def execute(self, command, *arguments):
        params = types.ExecuteCommandParams(command=command, arguments=list(arguments))
        return await self.client.workspace_execute_command_async(params)

    def cancel(self, msg_id):
        self.client.cancel_request(types.CancelParams(id=msg_id))

    def configure(self, settings):
        params = types.DidChangeConfigurationParams(settings=settings)
        self.client.workspace_did_change_configuration(params)

    @contextlib.contextmanager
    def in_one_chunk(self):
        """What is sent meanwhile reaches the server together."""
        protocol, chunks = self.client.protocol, []
        writer = protocol.writer
        protocol.writer = SimpleNamespace(write=chunks.append)
        yield
        protocol.writer = writer
        writer.write(b"".join(chunks))

    async def until(self, condition):
        """Waits for what the server does on its own time."""
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def leave(self):
        await self.client.shutdown_session()
        return self.process.returncode


@contextlib.asynccontextmanager
async def starting(*command, env):
    """An editor and its server, `python COMMAND`; ends the server if it still runs."""
    unwritable = str(Path(os.devnull) / "statistics")  # what tests do is nobody's statistics
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DG_LSP_STATISTICS": unwritable, **env}
    config = ClientServerConfig([sys.executable, *command], server_env=environment)
    editor = Editor(await config.start())
    try:
        yield editor
    finally:
        if editor.process.returncode is None:
            editor.process.kill()
        await editor.client.stop()

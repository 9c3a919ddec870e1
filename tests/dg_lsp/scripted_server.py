"""The real language server process around a scripted engine client.

What the engine does is written on the cursor's line, so that every test says its own script:
    "SLOW"       never answers; its work can only be cancelled
    "FAIL"       raises EngineUnavailable
    "BUG"        raises TypeError quoting the prefix
    "PROMPT"     answers with all it was given as 'before|behind', a slash for each line end
    "CONTEXT"    answers with the paths of what it was given from elsewhere
    "SAY text"   answers with the text, in which \\n is a line end
    other        answers with what the engine was given of the cursor's line, as <left|right>
`engine.model` scripts the connection: "explode" is a bug before it, "bug" one in it and
"unclosable" one after it, "broken" never connects, "loading" loads until the first request.
Each event is a line of the file named by SCRIPTED_EVENTS.
"""

import asyncio
import os
from pathlib import Path

from dg_lsp.client import EngineStatus, EngineUnavailable
from dg_lsp.lsp import server
from tests.answers import answer as scripted_answer

UNAVAILABLE = "no engine here; start one with `dg-lsp engine`"


class ScriptedClient:
    def __init__(self, settings, on_status):
        self.model = settings.model
        self.on_status = on_status
        note(f"client {self.model}")
        if self.model == "explode":
            raise ValueError(f"quoting {os.environ['SCRIPTED_EVENTS']}")

    async def connect(self):
        note("connect")
        if self.model == "broken":
            raise EngineUnavailable(UNAVAILABLE)
        if self.model == "bug":
            raise ValueError("a bug")
        if self.model == "loading":
            self.on_status(EngineStatus("starting", "starting the engine", 0.0))
            for percent in (25, 50):
                self.on_status(EngineStatus("loading", "reading weights", percent / 100))
                await asyncio.sleep(0.01)

    async def infill(self, request, on_draft=None):
        line = request.prefix.rpartition("\n")[2]
        note(f"infill {request.path}")
        if "FAIL" in line or self.model == "broken":
            raise EngineUnavailable(UNAVAILABLE)
        if "BUG" in line:
            raise TypeError(f"cannot use {request.prefix!r}")
        if "SLOW" in line:
            note("slow")
            try:
                await asyncio.sleep(3600)
            finally:
                note("stopped")
        self.on_status(EngineStatus("ready", "", 1.0))
        _, say, text = line.partition("SAY ")
        text = (
            text.replace("\\n", "\n") if say else f"<{line}|{request.suffix.partition(chr(10))[0]}>"
        )
        if line.endswith("CONTEXT"):
            text = " ".join(chunk.path for chunk in request.context) or "none"
        if line.endswith("PROMPT"):
            text = repr(f"{request.prefix}|{request.suffix}".replace("\n", "/"))
        return scripted_answer(text)

    async def stop(self):
        note("stop")
        return True

    async def aclose(self):
        note("closed")
        if self.model == "unclosable":
            raise ValueError("a bug")


def note(event):
    with Path(os.environ["SCRIPTED_EVENTS"]).open("a") as file:
        file.write(event + "\n")


if __name__ == "__main__":
    server.main(ScriptedClient)

"""What typing with the language server is like: recorded typing, replayed key by key.

    dg-lsp bench replay [--recording FILE...] [--slow | --real [--seconds S]]

The scripted engine's time, and the typist's, is simulated, and only the server's own computing
takes as long as it takes. `--real` replays the beginning of each recording against the user's
engine, in real time. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

from bench.clock import run
from bench.screen import Figures, Replay, together
from bench.scripted import LIKE_DG_MINI, Manner, Scripted, Watched
from bench.typist import RECORDINGS, Recording
from dg_lsp.client import EngineClient, EngineStatus
from dg_lsp.settings import EngineSettings
from engine.request import InfillRequest

TARGETS_MS = {  # path: (p50, p95), from the keystroke to the reply
    "known": (None, 10),
    "line": (200, 400),
    "block": (300, 600),
    "after tab": (20, None),
}


def replay_scripted(
    recording: Recording, manner: Manner, clock: Callable[[], float], ahead: bool = True
) -> Figures:
    """A recording against the scripted engine."""
    *_, final = recording.texts()
    replay = Replay(recording, lambda work: Watched(Scripted(final, manner), work), ahead)
    return run(replay.run(), clock)


def replay_real(
    recording: Recording, settings: EngineSettings, seconds: float, ahead: bool = True
) -> Figures:
    """The beginning of a recording against the user's engine."""

    def tell(status: EngineStatus) -> None:
        print(f"# engine: {status.state} {status.message}", flush=True)

    async def work() -> Figures:
        client = EngineClient(settings, tell, keep_alive=True)
        await client.connect()
        await client.infill(InfillRequest(prefix="def f(a):\n    return "))
        return await Replay(recording, lambda work: Watched(client, work), ahead).run(seconds)

    return asyncio.run(work())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recording", type=Path, nargs="*", default=sorted(RECORDINGS.glob("*")))
    parser.add_argument(
        "--slow", action="store_true", help="a scripted engine like dg-mini on a CPU"
    )
    parser.add_argument("--real", action="store_true", help="ask the user's engine")
    parser.add_argument("--seconds", type=float, default=40, help="of each, with --real")
    parser.add_argument("--no-ahead", action="store_true", help="ask nothing ahead of time")
    parser.add_argument("--model", default=EngineSettings().model)
    options = parser.parse_args()
    recordings = [Recording.load(path) for path in options.recording]
    settings = EngineSettings(model=options.model)
    manner = LIKE_DG_MINI if options.slow else Manner()
    figures = {
        recording.name: replay_real(recording, settings, options.seconds, not options.no_ahead)
        if options.real
        else replay_scripted(recording, manner, time.perf_counter, not options.no_ahead)
        for recording in recordings
    }
    figures["all"] = together(list(figures.values()))
    summaries = {name: value.summary() for name, value in figures.items()}
    for name, summary in summaries.items():
        print(name)
        for key, value in summary.items():
            if key == "fates":
                rows = [f"    {fate}: {row}" for fate, row in value.items()]
                print("  requests by their fate:", *rows, sep="\n")
            else:
                print(f"  {key}: {value}")
    print(f"aims, p50 and p95: {TARGETS_MS}")
    engine = options.model if options.real else "scripted"
    print(json.dumps({"bench": "replay", "engine": engine, **summaries}))


if __name__ == "__main__":
    main()

"""What an earlier answer saves the engine while one types: recorded keys, each asked about.

    python -m bench.warm_start [--keys N] [--mode fim] [--recording FILE...]

After each of the first N keys of a recording that the language server would ask the engine about,
the engine in this process is asked, with earlier answers in use and without. What a finished answer
still holds is not asked again; a request is cancelled after as many forwards as fit before the next
key, each counted `--forward-ms` long, so that only the milliseconds depend on the machine. Ends with
one JSON line.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bench.typist import RECORDINGS, Recording
from dg_lsp import context, triggers
from dg_lsp.document import Snapshot
from dg_lsp.settings import EngineSettings, Settings
from engine.config import EngineConfig
from engine.errors import Cancelled
from engine.request import InfillRequest, InfillResult, Mode


class Filling(Protocol):
    """What is asked: `engine.runtime.Engine`, or a stand-in."""

    def infill(self, request: InfillRequest, *, cancelled: Callable[[], bool]) -> InfillResult:
        """Fills the hole, or raises Cancelled."""


@dataclass(slots=True)
class Figures:
    """What one way of answering took; `answers` are the texts by the number of their key."""

    known: int = 0
    cancelled: int = 0
    forwards: int = 0
    decode_ms: float = 0.0
    answers: dict[int, str] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """The figures of the table; forwards and milliseconds of finished answers, on average."""
        finished = max(1, len(self.answers))
        return {
            "known": self.known,
            "finished": len(self.answers),
            "cancelled": self.cancelled,
            "forwards": round(self.forwards / finished, 2),
            "decode_ms": round(self.decode_ms / finished, 1),
        }


def replay(
    recording: Recording, engine: Filling, keys: int, *, forward_ms: float, mode: Mode
) -> Figures:
    """Asks after each of the first `keys` keys, or is still at it when the next one comes."""
    figures, known = Figures(), ""
    gaps = [key.gap_ms for key in recording.keys[1 : keys + 1]]
    for number, (key, text) in enumerate(zip(recording.keys, recording.texts(), strict=True)):
        if number >= len(gaps):
            break
        place = Snapshot(text=text, offset=key.cursor, language=recording.language)
        if not key.inserted or triggers.refusal(place, typing=True):
            continue
        if known.startswith(text[: key.cursor]) and len(known) > key.cursor:
            figures.known += 1
            continue
        request = dataclasses.replace(context.build(place, Settings()), mode=mode)
        try:
            result = engine.infill(request, cancelled=_after(int(gaps[number] / forward_ms)))
        except Cancelled:
            figures.cancelled += 1
            continue
        known = text[: key.cursor] + result.text
        figures.answers[number] = result.text
        figures.forwards += result.forwards
        figures.decode_ms += result.timings_ms["decode"]
    return figures


def _after(forwards: int) -> Callable[[], bool]:
    """True from when it is asked once more than so many times."""
    left = iter(range(forwards))
    return lambda: next(left, None) is None


def compared(warm: Sequence[Figures], cold: Sequence[Figures]) -> dict[str, Any]:
    """Both summaries, and of the keys that both answered: how many, and how many alike."""
    both = [
        (ours.answers[number], theirs.answers[number])
        for ours, theirs in zip(warm, cold, strict=True)
        for number in ours.answers.keys() & theirs.answers.keys()
    ]
    return {
        "warm": _together(warm).summary(),
        "cold": _together(cold).summary(),
        "answered_by_both": len(both),
        "alike": sum(ours == theirs for ours, theirs in both),
    }


def _together(figures: Sequence[Figures]) -> Figures:
    total = Figures()
    for part, some in enumerate(figures):
        total.known += some.known
        total.cancelled += some.cancelled
        total.forwards += some.forwards
        total.decode_ms += some.decode_ms
        total.answers |= {part << 32 | number: text for number, text in some.answers.items()}
    return total


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recording", type=Path, nargs="*", default=sorted(RECORDINGS.glob("*")))
    parser.add_argument("--keys", type=int, default=100, help="of each recording")
    parser.add_argument("--mode", type=Mode, default=Mode.AUTO, help="fim, causal or diffusion")
    parser.add_argument("--forward-ms", type=float, default=30.0)
    parser.add_argument("--model", default=EngineSettings().model)
    options = parser.parse_args()
    # As the engine's process sets it; read when torch is first imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    from engine.pull import resolve_model
    from engine.runtime import Engine

    config = EngineConfig(model=resolve_model(options.model))
    figures: dict[bool, list[Figures]] = {True: [], False: []}
    begun = time.perf_counter()
    for warm, several in figures.items():
        engine = Engine.load(dataclasses.replace(config, warm_start=warm, canvas_warm_start=warm))
        for path in options.recording:
            recording = Recording.load(path)
            several.append(
                replay(
                    recording,
                    engine,
                    options.keys,
                    forward_ms=options.forward_ms,
                    mode=options.mode,
                )
            )
    summary = compared(figures[True], figures[False])
    for name, value in summary.items():
        print(f"{name}: {value}")
    took = round(time.perf_counter() - begun)
    print(json.dumps({"bench": "warm_start", "mode": options.mode, **summary, "seconds": took}))


if __name__ == "__main__":
    main()

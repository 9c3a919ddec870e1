"""The real engine process around a scripted engine: `python -m tests.scripted_engine ARGS`.

What it does is written in the request's prefix, so that every test says its own script:
    "slow N"     N steps of 20 ms, a draft at each; polls `cancelled` between them
    "hold FILE"  the same, as long as the file is there
    "fail TEXT"  raises EngineError(TEXT)
    "bug"        raises ValueError quoting the prefix
    "die"        ends the process as a crash would
    "# say TEXT" anywhere, the last one: answers with the text, in which \\n is a line end
    other        echoes the request
`--model` scripts the loading: "load-slow", "load-fail", "load-bug", "load-no-torch".
"load-slow" goes on as long as the file named by SCRIPTED_ENGINE_HOLD, where set, is there.
Each finished step is written to the file named by SCRIPTED_ENGINE_STEPS, where set.
"""

import itertools
import os
import sys
import time
from pathlib import Path

from engine import server
from engine.errors import Cancelled, EngineError
from engine.request import Draft, InfillResult, Mode, StopReason

STEP_S = 0.02


class ScriptedEngine:
    def __init__(self, model):
        self.model = model
        steps = os.environ.get("SCRIPTED_ENGINE_STEPS")
        self.steps = Path(steps) if steps else None

    def describe(self):
        return {
            "model": self.model,
            "device": "cpu",
            "mode": "causal",
            "trained_for_diffusion": False,
        }

    def rest(self):
        pass

    def infill(self, request, *, cancelled, on_draft=None):
        word, _, rest = request.prefix.partition(" ")
        if word == "fail":
            raise EngineError(rest)
        if word == "bug":
            raise ValueError(f"cannot handle {request.prefix!r}")
        if word == "die":
            os._exit(9)
        steps = int(rest) if word == "slow" else 1
        begun, stop = time.monotonic(), StopReason.COMPLETE
        for step in itertools.count() if word == "hold" else range(steps):
            if cancelled():
                self.log("cancelled")
                raise Cancelled(f"cancelled before step {step}")
            if word in ("slow", "hold"):
                time.sleep(STEP_S)
            self.log(f"step {step}")
            if on_draft:
                on_draft(Draft(text="x" * step, step=step))
            spent_ms = 1000 * (time.monotonic() - begun)
            if request.deadline_ms is not None and spent_ms >= request.deadline_ms:
                stop = StopReason.DEADLINE
                break
            if word == "hold" and not Path(rest).exists():
                break
        _, say, text = request.prefix.rpartition("# say ")
        said = text.partition("\n")[0].replace("\\n", "\n")
        return InfillResult(
            text=said if say else f"[{request.prefix}|{request.suffix}]",
            stop=stop,
            mode=Mode.CAUSAL,
            model=self.model,
            confidence=0.5,
            tokens=len(request.prefix),
            forwards=step + 1,
            prompt_tokens=7,
            cached_tokens=3,
            timings_ms={"decode": 1000 * (time.monotonic() - begun), "total": 1.0},
        )

    def log(self, line):
        if self.steps:
            with self.steps.open("a") as file:
                file.write(line + "\n")


def load(model):
    def load_(progress):
        if model == "load-slow":
            hold, step = os.environ.get("SCRIPTED_ENGINE_HOLD"), 0
            while step < 10 or (hold and Path(hold).exists()):
                progress(step % 10 / 10, f"part {step % 10}")
                time.sleep(0.05)
                step += 1
        if model == "load-fail":
            raise EngineError("the weights are missing; run `dg-lsp pull load-fail`")
        if model == "load-bug":
            raise KeyError("secret")
        return ScriptedEngine(model)

    return load_


if __name__ == "__main__":
    model = sys.argv[sys.argv.index("--model") + 1]
    sys.exit(server.main(load=load(model)))

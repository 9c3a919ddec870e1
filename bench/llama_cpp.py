"""llama.cpp on a GGUF file as a system: the same text before the cursor, continued greedily.

Needs the package `xllamacpp` (extra `bench`). It gets about as much prefix as our engine takes on a
CPU, and of healing the part that decides most: blanks at the prefix's end are left to the model to
write. Text is cut by the engine's own rules after the fact.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from bench import systems
from bench.holes import Hole
from bench.systems import Answer, System
from engine import endings
from engine.errors import EngineError

_PREFIX_CHARS = 3000  # about the 1,024 tokens that our engine takes on a CPU
_CONTEXT = 4096  # tokens: room even where each character is one


def of_gguf(file: Path, *, threads: int) -> dict[str, System]:
    """The system by its name; loads the model. Raises EngineError saying what is missing."""
    try:
        import xllamacpp
    except ModuleNotFoundError:
        raise EngineError(
            "xllamacpp is not installed, which --gguf needs; pip install -e '.[bench]'"
        ) from None
    if not file.is_file():
        raise EngineError(f"{file} is no file; give the path of a GGUF model")
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx = _CONTEXT
    params.n_parallel = 1
    params.verbosity = 0
    for pool in (params.cpuparams, params.cpuparams_batch):
        pool.poll = 0  # threads that spin take the cores from everything else
        if threads:
            pool.n_threads = threads
    server = xllamacpp.Server(params)
    return {f"llama.cpp {file.stem}": lambda hole: _fill(server, hole)}


def _fill(server: Any, hole: Hole) -> Answer:
    request = systems.asked(hole)
    prompt = request.prefix[-_PREFIX_CHARS:].rstrip(" \t")
    blanks = request.prefix[len(request.prefix.rstrip(" \t")) :]
    started = time.perf_counter()
    told = server.handle_completions(
        {
            "prompt": prompt,
            "n_predict": request.max_tokens,
            "temperature": 0,
            "stop": ["\n"] if request.single_line else [],
        }
    )
    spent = (time.perf_counter() - started) * 1000
    if "choices" not in told:
        return Answer(text="", ms=spent, error=str(told)[:200])
    choice, tokens = told["choices"][0], told["usage"]["completion_tokens"]
    text = choice["text"].removeprefix(blanks)
    end = endings.find_end(text, request.suffix, single_line=request.single_line)
    return Answer(
        text=text[: end[0]] if end else text,
        ms=spent,
        decode_ms=told["timings"]["predicted_ms"],
        forwards=tokens,
        tokens=tokens,
        stop=str(end[1]) if end else choice["finish_reason"],
    )

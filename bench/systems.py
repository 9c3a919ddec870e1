"""What fills holes: the copy rule without a model, and the engine in this process.

A system is a name and a function from a hole to an answer. What the engine is asked comes from
`dg_lsp.context`, as in an editor. Knows nothing of scores.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from bench.holes import Hole
from dg_lsp import context
from dg_lsp.document import Snapshot
from dg_lsp.settings import Settings
from engine import endings
from engine.errors import EngineError
from engine.request import InfillRequest, Mode

System = Callable[[Hole], "Answer"]
Kind = Literal["engine", "causal", "oracle"]
KINDS: tuple[Kind, ...] = ("engine", "causal", "oracle")
_LONGEST_MATCH = 500
_COPIED_LINES = 8
_ONE_LINE_TOKENS, _MORE_TOKENS = 64, 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Text for a hole and what it took; `error` says why there is none."""

    text: str
    ms: float
    decode_ms: float = 0.0
    forwards: int = 0
    tokens: int = 0
    stop: str = ""
    error: str = ""


def snapshot(hole: Hole) -> Snapshot:
    """The hole as an editor's document, with the cursor in it."""
    text = hole.prefix + hole.suffix
    return Snapshot(text=text, offset=len(hole.prefix), path=hole.path, language="python")


def copy(hole: Hole) -> Answer:
    """The copy rule as a system."""
    started = time.perf_counter()
    text = copied(hole.prefix, hole.suffix, one_line=hole.one_line)
    return Answer(text=text, ms=(time.perf_counter() - started) * 1000)


def copied(prefix: str, suffix: str, *, one_line: bool) -> str:
    """What follows the longest other occurrence of the text before the cursor.

    The nearest before the cursor, else the first behind it. It goes on to its line's end, or to
    where it begins to repeat the suffix, for at most _COPIED_LINES.
    """

    def found(length: int) -> str | None:
        tail = prefix[len(prefix) - length :]
        place = prefix.rfind(tail, 0, len(prefix) - 1)
        if place >= 0:
            return prefix[place + length :]
        place = suffix.find(tail)
        return suffix[place + length :] if place >= 0 else None

    # Where a tail occurs, each shorter one does too.
    lengths = range(1, min(len(prefix), _LONGEST_MATCH) + 1)
    longest = bisect.bisect_left(lengths, True, key=lambda length: found(length) is None)
    text = found(longest) if longest else None
    if text is None:
        return ""
    text = "".join(text.splitlines(keepends=True)[:_COPIED_LINES])
    end = endings.find_end(text, suffix, single_line=one_line)
    return text[: end[0]] if end else text


def of_model(
    directory: Path,
    kinds: tuple[Kind, ...],
    *,
    device: Literal["auto", "cpu", "cuda"],
    threads: int,
) -> dict[str, System]:
    """The systems one model directory gives, by name; loads the model.

    `engine` fills as an editor would have it; `causal` is a diffusion model writing from left to
    right; `oracle` a diffusion model that is told how many tokens the hole has. The last two are
    left out for a model that only writes from left to right.
    """
    from engine.config import EngineConfig
    from engine.runtime import Engine
    from engine.tokenizer import Tokenizer

    engine = Engine.load(EngineConfig(model=directory, device=device, threads=threads))
    tokenizer = Tokenizer.from_directory(directory)
    told = engine.describe()
    if not told["trained_for_diffusion"]:
        kinds = tuple(kind for kind in kinds if kind == "engine")

    def fill(hole: Hole, kind: Kind) -> Answer:
        started = time.perf_counter()
        request = asked(hole)
        if kind == "causal":
            request = replace(request, mode=Mode.CAUSAL)
        try:
            if kind == "oracle":
                length = max(1, len(tokenizer.encode(hole.middle)))
                request = replace(request, hole_tokens=length)
            result = engine.infill(request, cancelled=lambda: False)
        except (EngineError, ValueError) as error:  # such as a hole longer than the canvas
            spent = (time.perf_counter() - started) * 1000
            return Answer(text="", ms=spent, error=str(error))
        return Answer(
            text=result.text,
            ms=result.timings_ms["total"],
            decode_ms=result.timings_ms["decode"],
            forwards=result.forwards,
            tokens=result.tokens,
            stop=str(result.stop),
        )

    def system(kind: Kind) -> System:
        return lambda hole: fill(hole, kind)

    return {f"{kind} {told['model']}": system(kind) for kind in kinds}


def asked(hole: Hole) -> InfillRequest:
    """The request an editor's server would make, but for what the split says of the length."""
    most = _ONE_LINE_TOKENS if hole.one_line else _MORE_TOKENS
    request = context.build(snapshot(hole), Settings(max_tokens=most))
    return replace(request, single_line=hole.one_line)

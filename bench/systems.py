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
from typing import TYPE_CHECKING, Literal

from bench.holes import Hole
from dg_lsp import context, ghost_text
from dg_lsp.document import Snapshot
from dg_lsp.settings import Settings
from engine import endings
from engine.errors import EngineError
from engine.request import InfillRequest, Mode

if TYPE_CHECKING:
    from engine.runtime import Engine

System = Callable[[Hole], "Answer"]
Kind = Literal["engine", "causal", "diffusion", "fim", "oracle"]
# The mode of each kind by its value: an engine may have fewer. `oracle` is told the length too.
_MODES: dict[Kind, str] = {
    "engine": "auto",
    "causal": "causal",
    "diffusion": "diffusion",
    "fim": "fim",
    "oracle": "diffusion",
}
KINDS: tuple[Kind, ...] = tuple(_MODES)
_LONGEST_MATCH = 500
_COPIED_LINES = 8
_ONE_LINE_TOKENS, _MORE_TOKENS = 64, 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Text for a hole and what it took; `error` says why there is none.

    `mode` is how the engine filled the hole; empty for what is no engine of ours.
    """

    text: str
    ms: float
    mode: str = ""
    decode_ms: float = 0.0
    forwards: int = 0
    tokens: int = 0
    stop: str = ""
    error: str = ""


def snapshot(hole: Hole) -> Snapshot:
    """The hole as an editor's document, with the cursor in it."""
    text = hole.prefix + hole.suffix
    return Snapshot(text=text, offset=len(hole.prefix), path=hole.path, language=hole.language)


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


def load(directory: Path, *, device: Literal["auto", "cpu", "cuda"], threads: int) -> Engine:
    """The engine of a model directory, in this process."""
    from engine.config import EngineConfig
    from engine.runtime import Engine

    return Engine.load(EngineConfig(model=directory, device=device, threads=threads))


def of_model(engine: Engine, kinds: tuple[Kind, ...]) -> tuple[dict[str, System], list[str]]:
    """The systems one engine gives, by name, and why others are left out.

    `engine` fills as an editor would have it, `causal`, `diffusion` and `fim` in that mode, and
    `oracle` is `diffusion` told how many tokens the hole has. Left out is what the model cannot
    do, and what does the same as an earlier one.
    """
    from engine.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_directory(engine.config.model)
    model = engine.config.model.name

    def system(kind: Kind, mode: Mode) -> System:
        def fill(hole: Hole) -> Answer:
            request = replace(asked(hole), mode=mode)
            if kind == "oracle":
                length = max(1, len(tokenizer.encode(hole.middle)))
                return filled(engine, request, length)
            return filled(engine, request)

        return fill

    systems: dict[str, System] = {}
    notes: list[str] = []
    same: dict[object, Kind] = {}  # as what a kind is run already
    for kind in kinds:
        try:
            mode = Mode(_MODES[kind])
            does = (_modes_taken(engine, mode), kind == "oracle")
        except (EngineError, ValueError) as error:  # ValueError: no such mode
            notes.append(f"{model} is left out as {kind}: {error}")
            continue
        if does in same:
            notes.append(f"{model} is left out as {kind}: that is what {same[does]} does")
            continue
        same[does] = kind
        systems[f"{kind} {model}"] = system(kind, mode)
    return systems, notes


def _modes_taken(engine: Engine, mode: Mode) -> tuple[Mode, ...]:
    """How the engine really fills one line, and more, when asked for `mode`: it may choose."""
    probe = InfillRequest(prefix="def probe(", suffix="\n", max_tokens=1, mode=mode)
    both = (replace(probe, single_line=single) for single in (True, False))
    return tuple(engine.infill(request, cancelled=lambda: False).mode for request in both)


def filled(
    engine: Engine,
    request: InfillRequest,
    length: int | None = None,
    valid: Callable[[str], bool] | None = None,
) -> Answer:
    """What the engine answers, told the hole's length in tokens or not, and which texts are valid."""
    started = time.perf_counter()
    try:
        request = replace(request, hole_tokens=length)
        result = engine.infill(request, cancelled=lambda: False, valid=valid)
    except (EngineError, ValueError) as error:  # such as a hole longer than the canvas
        spent = (time.perf_counter() - started) * 1000
        return Answer(text="", ms=spent, error=str(error))
    return Answer(
        text=result.text,
        ms=result.timings_ms["total"],
        mode=str(result.mode),
        decode_ms=result.timings_ms["decode"],
        forwards=result.forwards,
        tokens=result.tokens,
        stop=str(result.stop),
    )


def is_valid(hole: Hole) -> Callable[[str], bool]:
    """Whether an editor would show something of a text: that it parses."""
    place = snapshot(hole)
    return lambda text: bool(ghost_text.apply(text, place))


def asked(hole: Hole) -> InfillRequest:
    """The request an editor's server would make, but for what the split says of the length."""
    most = _ONE_LINE_TOKENS if hole.one_line else _MORE_TOKENS
    request = context.build(snapshot(hole), Settings(max_tokens=most))
    return replace(request, single_line=hole.one_line)

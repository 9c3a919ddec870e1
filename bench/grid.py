"""The grid: one model's weights under several configurations, on the same holes.

What each part of filling by denoising is worth: a row is a name and what it changes in
`EngineConfig`, most of them beside what the row above has. Knows nothing of how answers are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from bench import systems
from bench.holes import Hole
from bench.metrics import difference
from bench.systems import Answer, System
from engine import chosen
from engine.config import InfillConfig, LongHoleConfig, ModelConfig
from engine.request import Mode

if TYPE_CHECKING:
    from engine.runtime import Engine

Result = Mapping[str, Any]  # a row of results


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the grid and its `changes` of EngineConfig.

    With `told` the engine knows how many tokens the hole has, with `checked` which texts parse; with
    `typing` it has filled the same hole one keystroke earlier, which is not timed. `only` says for
    which models there is such a row.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    told: bool = False
    checked: bool = False
    typing: bool = False
    only: Callable[[ModelConfig], bool] = lambda model: True


def _chats(model: ModelConfig) -> bool:
    return model.family == "diffusion_gemma"


def _renoises(model: ModelConfig) -> bool:
    return model.canvas is not None and model.canvas.noise == "uniform"


_FIXED = InfillConfig(probe=False)
_SEARCHED = InfillConfig(probe=True)  # and all that comes with it
_REPAIRED = replace(_SEARCHED, verify=False)
_JOINED = replace(_REPAIRED, repairs=0)
_PROBED = replace(_JOINED, judged=0, read=0)
_COLD = {"canvas_drafts": False, "canvas_warm_start": False, "long_holes": None}
_WHOLE = {**_COLD, "infill": _SEARCHED}
_FAIR = {**_COLD, "infill": replace(_SEARCHED, leave_one_out=True)}
_DRAFTED = {**_WHOLE, "canvas_drafts": True}
_LONG = {**_WHOLE, "long_holes": LongHoleConfig()}
ROWS = (
    Row(name="oracle", changes=_COLD, told=True),
    Row(name="fixed 32", changes={**_COLD, "infill": _FIXED}),
    Row(name="probe", changes={**_COLD, "infill": _PROBED}),
    Row(name="+ junction", changes={**_COLD, "infill": _JOINED}),
    Row(name="+ repair", changes={**_COLD, "infill": _REPAIRED}),
    Row(name="+ verify", changes=_WHOLE, checked=True),
    Row(name="verify + leave one out", changes=_FAIR, checked=True, only=_renoises),
    Row(name="verify + long holes", changes=_LONG, checked=True, only=_chats),
    Row(
        name="verify + raw prefix", changes={**_WHOLE, "template": "raw"}, checked=True, only=_chats
    ),
    Row(name="hole in the chat", changes={**_COLD, "template": "hole"}, only=_chats),
    Row(name="+ drafts", changes=_DRAFTED, checked=True),
    Row(
        name="+ warm start",
        changes={**_DRAFTED, "canvas_warm_start": True},
        checked=True,
        typing=True,
    ),
)


def of_model(loaded: Engine) -> dict[str, System]:
    """The rows there are for this model as systems by name, over the weights of one engine."""
    from engine import hf_config
    from engine.tokenizer import Tokenizer

    model = hf_config.read_model_config(loaded.config.model)
    tokenizer = Tokenizer.from_directory(loaded.config.model)

    @lru_cache(maxsize=1)  # rows are run one after the other, and each engine keeps what it encodes
    def engine(place: int) -> Engine:
        return loaded.under(replace(loaded.config, cache_prefixes=1, **ROWS[place].changes))

    def system(place: int, row: Row) -> System:
        def fill(hole: Hole) -> Answer:
            request = replace(systems.asked(hole), mode=Mode.DIFFUSION)
            length = len(tokenizer.encode(hole.middle)) if row.told else 0
            if row.typing:
                systems.filled(engine(place), replace(request, prefix=request.prefix[:-1]))
            told = max(1, length) if row.told else None
            valid = systems.is_valid(hole) if row.checked else None
            return systems.filled(engine(place), request, told, valid)

        return fill

    name = loaded.config.model.name
    rows = ((place, row) for place, row in enumerate(ROWS) if row.only(model))
    return {_title(row, name): system(place, row) for place, row in rows}


def best(results: Sequence[Result], model: str) -> Row:
    """The best row of `model` that is not told the length.

    Best is what is right most often, of equal rows what takes the fewest forwards. An answer is right
    if it passes the hole's tests or, where there are none, if it is the text that was taken out.
    """
    return _ranked(results, model)[0][0]


def recommended(results: Sequence[Result], model: str) -> str:
    """What to set for `model`, in Markdown: the best row, and how far the others are behind."""
    (first, right), *others = _ranked(results, model)
    lines = [
        f"### Recommended for {model}: {first.name}",
        "",
        "`" + ", ".join(f"{name}={_shown(value)}" for name, value in first.changes.items()) + "`",
        "",
        "Right, all holes together, and how much more often than in the other rows (95 % interval):",
        "",
        f"- {first.name}: {100 * _worth(right)[0]:.1f} %",
    ]
    for row, results_of_row in others:
        gap = difference(
            [
                (_right(one), _right(other))
                for one, other in zip(right, results_of_row, strict=True)
            ],
            [result["cluster"] for result in right],
        )
        lines.append(
            f"- {row.name}: {100 * _worth(results_of_row)[0]:.1f} %, "
            f"{100 * gap.value:+.1f} [{100 * gap.low:+.0f} to {100 * gap.high:+.0f}]"
        )
    return "\n".join(lines)


def _ranked(results: Sequence[Result], model: str) -> list[tuple[Row, list[Result]]]:
    """The rows that are not told the length with their results, the best first."""
    found = [
        (row, own)
        for row in ROWS
        if not row.told and (own := [r for r in results if r["system"] == _title(row, model)])
    ]
    return sorted(found, key=lambda pair: _worth(pair[1]), reverse=True)


def _shown(value: object) -> str:
    """A value as it is written in Python; of a dataclass only what differs from its defaults."""
    if not isinstance(value, InfillConfig | LongHoleConfig):
        return repr(value)
    given = chosen.differing(value).items()
    return f"{type(value).__name__}({', '.join(f'{name}={one!r}' for name, one in given)})"


def _title(row: Row, model: str) -> str:
    return f"{row.name}, {model}"


def _worth(results: Sequence[Result]) -> tuple[float, float]:
    """How much of it is right, and forwards as a loss."""
    count = len(results)
    return sum(map(_right, results)) / count, -sum(row["forwards"] for row in results) / count


def _right(result: Result) -> float:
    passed = result["raw"]["passed"]
    return float(result["raw"]["exact"] if passed is None else passed)

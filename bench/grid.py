"""The grid: one model's weights under several configurations, on the same holes.

What each part of filling by denoising is worth: a row is a name and what it changes in
`EngineConfig`, most of them beside what the row above has. Knows nothing of how answers are scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from bench import systems
from bench.holes import Hole
from bench.metrics import difference
from bench.systems import Answer, System
from engine.config import InfillConfig
from engine.request import Mode

if TYPE_CHECKING:
    from engine.runtime import Engine

Result = Mapping[str, Any]  # a row of results


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the grid and its `changes` of EngineConfig.

    With `told` the engine knows how many tokens the hole has; with `typing` it has filled the same
    hole one keystroke earlier, which is not timed.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    told: bool = False
    typing: bool = False


_FIXED = InfillConfig(probe=False)
_SEARCHED = InfillConfig(probe=True)  # and all that comes with it
_REPAIRED = replace(_SEARCHED, verify=False)
_JOINED = replace(_REPAIRED, repairs=0)
_PROBED = replace(_JOINED, judged=0)
_COLD = {"canvas_drafts": False, "canvas_warm_start": False}
_DRAFTED = {**_COLD, "canvas_drafts": True, "infill": _SEARCHED}
ROWS = (
    Row(name="oracle", changes=_COLD, told=True),
    Row(name="fixed 32", changes={**_COLD, "infill": _FIXED}),
    Row(name="probe", changes={**_COLD, "infill": _PROBED}),
    Row(name="+ junction", changes={**_COLD, "infill": _JOINED}),
    Row(name="+ repair", changes={**_COLD, "infill": _REPAIRED}),
    Row(name="+ verify", changes={**_COLD, "infill": _SEARCHED}),
    Row(name="+ drafts", changes=_DRAFTED),
    Row(name="+ warm start", changes={**_DRAFTED, "canvas_warm_start": True}, typing=True),
)


def of_model(loaded: Engine) -> dict[str, System]:
    """The rows as systems by name, over the weights of one engine."""
    from engine.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_directory(loaded.config.model)

    @lru_cache(maxsize=1)  # rows are run one after the other, and each engine keeps what it encodes
    def engine(row: int) -> Engine:
        return loaded.under(replace(loaded.config, cache_prefixes=1, **ROWS[row].changes))

    def system(place: int, row: Row) -> System:
        def fill(hole: Hole) -> Answer:
            request = replace(systems.asked(hole), mode=Mode.DIFFUSION)
            length = len(tokenizer.encode(hole.middle)) if row.told else 0
            if row.typing:
                systems.filled(engine(place), replace(request, prefix=request.prefix[:-1]))
            return systems.filled(engine(place), request, max(1, length) if row.told else None)

        return fill

    name = loaded.config.model.name
    return {_title(row, name): system(place, row) for place, row in enumerate(ROWS)}


def recommended(results: Sequence[Result], model: str) -> str:
    """What to set for `model`, in Markdown: the best row that is not told the length.

    Best is what is right most often, of equal rows what takes the fewest forwards. An answer is right
    if it passes the hole's tests or, where there are none, if it is the text that was taken out.
    """
    of_row = {
        row.name: [result for result in results if result["system"] == _title(row, model)]
        for row in ROWS
        if not row.told
    }
    by_worth = sorted(of_row, key=lambda name: _worth(of_row[name]), reverse=True)
    best, *others = by_worth
    changes = next(row.changes for row in ROWS if row.name == best)
    lines = [
        f"### Recommended for {model}: {best}",
        "",
        "`" + ", ".join(f"{name}={_shown(value)}" for name, value in changes.items()) + "`",
        "",
        "Right, all holes together, and how much more often than in the other rows (95 % interval):",
        "",
        f"- {best}: {100 * _worth(of_row[best])[0]:.1f} %",
    ]
    for name in others:
        gap = difference(
            [
                (_right(one), _right(other))
                for one, other in zip(of_row[best], of_row[name], strict=True)
            ],
            [result["cluster"] for result in of_row[best]],
        )
        lines.append(
            f"- {name}: {100 * _worth(of_row[name])[0]:.1f} %, "
            f"{100 * gap.value:+.1f} [{100 * gap.low:+.0f} to {100 * gap.high:+.0f}]"
        )
    return "\n".join(lines)


def _shown(value: object) -> str:
    """A value as it is written in Python; of a dataclass only what differs from its defaults."""
    if not isinstance(value, InfillConfig):
        return repr(value)
    given = (
        (f.name, getattr(value, f.name))
        for f in fields(value)
        if f.default != getattr(value, f.name)
    )
    return f"InfillConfig({', '.join(f'{name}={one!r}' for name, one in given)})"


def _title(row: Row, model: str) -> str:
    return f"{row.name}, {model}"


def _worth(results: Sequence[Result]) -> tuple[float, float]:
    """How much of it is right, and forwards as a loss."""
    count = len(results)
    return sum(map(_right, results)) / count, -sum(row["forwards"] for row in results) / count


def _right(result: Result) -> float:
    passed = result["raw"]["passed"]
    return float(result["raw"]["exact"] if passed is None else passed)

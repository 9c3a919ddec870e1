"""What became of each request to the engine in a replay, and whether it wrote what was typed.

Pure: of what was written down of the requests, and the text that the typist had in mind.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from bench.scripted import Work
from dg_lsp import choice
from dg_lsp.document import Snapshot

AS_TYPED = 4  # characters that must be right


@dataclass(slots=True)
class Fate:
    """Requests that ended alike: their seconds, and how many wrote what was typed then."""

    seconds: list[float] = field(default_factory=list)
    right: int = 0

    def __add__(self, other: Fate) -> Fate:
        return Fate(self.seconds + other.seconds, self.right + other.right)

    def row(self) -> dict[str, Any]:
        """How many, their seconds in all and at the median, and how many were right."""
        ordered = sorted(self.seconds)
        return {
            "requests": len(ordered),
            "s": round(sum(ordered), 1),
            "median_ms": round(1000 * ordered[len(ordered) // 2]),
            "right": self.right,
        }


def fates(works: Iterable[Work], final: str, least: float) -> dict[str, Fate]:
    """By name, as `fate` gives it; `least` is the confidence of what is shown unasked."""
    found: defaultdict[str, Fate] = defaultdict(Fate)
    for work in works:
        kind = found[fate(work, least)]
        kind.seconds.append(work.seconds)
        kind.right += is_as_typed(work, final)
    return dict(found)


def fate(work: Work, least: float) -> str:
    """How far a request came: prepared, cancelled (reading, writing), finished, shown."""
    if work.asked.prepare:
        return "prepared"
    if work.shown:
        return "shown"
    if work.result is None:
        return "cancelled while it wrote" if work.draft else "cancelled before a word"
    asked = work.asked
    place = Snapshot(
        text=asked.prefix + asked.suffix, offset=len(asked.prefix), language=asked.language
    )
    offers = choice.offers(work.result, place, least)
    if not offers:
        return "finished: nothing the filters left"
    if all(offer.confidence < least or choice.too_short(offer.text) for offer in offers):
        return "finished: unlikely or short"
    return "finished: not shown"


def is_as_typed(work: Work, final: str) -> bool:
    """Whether what was written, as far as it came, goes on as the typist does."""
    prefix = work.asked.prefix
    at = final.find(prefix[-400:])
    text = work.result.text if work.result is not None else work.draft
    if at < 0 or not text.strip():
        return False
    return final.startswith(text[:AS_TYPED], at + len(prefix[-400:]))

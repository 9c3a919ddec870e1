"""WHICH of what the engine found is offered: the best text whole, and its first statement alone.

Each with how likely it is wanted, by which it is shown unasked or not. Knows nothing of LSP, and
nothing of how the texts came about.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from dg_lsp import ghost_text, indentation
from dg_lsp.document import LINE_END, Snapshot
from dg_lsp.syntax import window
from engine.request import Candidate, InfillResult

logger = logging.getLogger(__name__)

MIN_CHARS = 4  # fewer are typed sooner than read

_NEARLY = 0.05  # of confidence: no reason to prefer one text to another
_BROKEN = 0.5  # what is left of a score where the text brings errors into the syntax tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Text to offer, and how likely it is wanted: 0 to 1, the engine's confidence if it parses."""

    text: str
    confidence: float
    parses: bool

    @property
    def score(self) -> float:
        """What is held against the setting `minScore`."""
        return self.confidence * (1.0 if self.parses else _BROKEN)


def offers(result: InfillResult, place: Snapshot) -> tuple[Offer, ...]:
    """What of an engine's answer can be offered at `place`, the one to show first first."""
    own = Candidate(text=result.text, confidence=result.confidence)
    best = _best((own, *result.alternatives), place)
    line = result.line if best is own else None  # of no other text is it judged alone
    kept = ghost_text.apply(best.text, place)
    found = tuple(_offer(text, best, line, place) for text in answers(kept, place))
    for offer in found:
        logger.debug(
            "score %.3f: confidence %.3f, stop %s, parses %s, %d characters",
            *(offer.score, offer.confidence, result.stop, offer.parses, len(offer.text)),
        )
    return found


def _best(candidates: Sequence[Candidate], place: Snapshot) -> Candidate:
    """The likeliest; of several that are nearly as likely, one that leaves something that parses."""
    if len(candidates) == 1:
        return candidates[0]
    highest = max(candidate.confidence for candidate in candidates)
    near = [each for each in candidates if each.confidence >= highest - _NEARLY]

    def rank(candidate: Candidate) -> tuple[bool, bool, float]:
        kept = ghost_text.apply(candidate.text, place)
        return bool(kept), _parses(kept, place), candidate.confidence

    return max(near, key=rank)


def _offer(text: str, whole: Candidate, line: Candidate | None, place: Snapshot) -> Offer:
    """`text`, which is left of `whole`, rated like the first line alone where it is no more."""
    judged = line if line and "\n" not in text.strip() else whole
    return Offer(text=text, confidence=judged.confidence, parses=_parses(text, place))


def _parses(text: str, place: Snapshot) -> bool:
    return not window(place).breaks(LINE_END.sub("\n", text))


def answers(text: str, snapshot: Snapshot) -> tuple[str, ...]:
    """What the filters left, and its first statement alone: the one to show first, then the other.

    A block comes first where a block is due: on an empty line and behind what opens one. On a
    line that is begun the rest of that line does.
    """
    if not text:
        return ()
    first = _first_statement(text, snapshot)
    if first == text or not first.strip() or window(snapshot).breaks(first):
        return (text,)
    left = snapshot.line_left
    last = LINE_END.split(left + first)[-1]
    header = left if LINE_END.match(first) else last
    block = not left.strip() or indentation.opens_block(header)
    return (text, first) if block else (first, text)


def too_short(text: str) -> bool:
    """Whether unasked-for text is not worth the look; of what was asked for all is shown."""
    return len("".join(text.split())) < MIN_CHARS


def _first_statement(text: str, snapshot: Snapshot) -> str:
    """The first line that says something, and those it takes to close what it opens."""
    here = window(snapshot)
    depth, end = len(here.state().stack), -1
    for line in text.split("\n"):
        end += 1 + len(line)
        state = here.state(LINE_END.sub("\n", text[:end]))
        if line.strip() and len(state.stack) <= depth and not state.inside:
            break
    return text[:end].rstrip()

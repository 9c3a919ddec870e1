"""WHICH of what the engine found is offered: the best text, whole and its first statement, and others.

Each with how likely it is wanted, by which it is shown unasked or not. Knows nothing of LSP, and
nothing of how the texts came about.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from dg_lsp import ghost_text, indentation
from dg_lsp.document import LINE_END, Snapshot
from dg_lsp.syntax import window
from engine.request import InfillResult

logger = logging.getLogger(__name__)

MIN_CHARS = 4  # fewer are typed sooner than read
_WORD_END = re.compile(r"\w(?=\W)|[)\]}\"'`]")
_TRIES = 3  # beginnings that are looked at
OTHERS = 2  # texts beside the best, to choose from and to be found again if one types them


@dataclass(frozen=True, slots=True)
class Offer:
    """Text to offer, and how likely it is right as far as it goes: held against `minScore`."""

    text: str
    confidence: float


def offers(result: InfillResult, place: Snapshot, least: float) -> tuple[Offer, ...]:
    """What of an engine's answer can be offered at `place`, the one to show first first.

    Of texts that are nearly as likely, one of which the filters leave something: that it parses. Where
    it is less likely than `least`, which is what it takes to be shown unasked, a beginning follows that
    is not. So do other texts that would be shown unasked: who types one of them finds it again, while
    of the rest the engine knows more by then.
    """
    result = result.preferring(lambda text: bool(ghost_text.apply(text, place)))
    kept = ghost_text.apply(result.text, place)
    found = [Offer(text, _confidence(text, result)) for text in answers(kept, place)]
    if found and not any(offer.confidence >= least for offer in found):
        found += _sure_beginning(result, place, least)
    likely = (other for other in result.alternatives if other.confidence >= least)
    for other in islice(likely, OTHERS if found else 0):
        text = next(iter(answers(ghost_text.apply(other.text, place), place)), "")
        if not too_short(text) and all(text != offer.text for offer in found):
            found.append(Offer(text, other.confidence))
    for offer in found:
        logger.debug(
            "confidence %.3f, stop %s, %d characters",
            *(offer.confidence, result.stop, len(offer.text)),
        )
    return tuple(found)


def _confidence(text: str, result: InfillResult) -> float:
    """That in `text`, which is left of the result: of its first line, where it is no more."""
    one_line = result.beginnings and "\n" not in text.strip()
    return result.beginnings[-1].confidence if one_line else result.confidence


def _sure_beginning(result: InfillResult, place: Snapshot, least: float) -> list[Offer]:
    """The longest beginning of the first line that is likely enough and can stand as it is, if any."""
    likely = [each for each in result.beginnings if each.confidence >= least]
    text = _longest([each.text for each in likely], place)
    same = (each for each in reversed(likely) if each.text.split() == text.split())
    return [Offer(text, each.confidence) for each in islice(same, 1 if text else 0)]


def so_far(text: str, place: Snapshot) -> str:
    """What can be shown at `place` of a text that is still being written; empty for nothing.

    Of its first line what goes to a word's end, as another word may not be whole yet.
    """
    blank = len(text) - len(text.lstrip())
    end = text.find("\n", blank)
    ends = [
        found.end() for found in _WORD_END.finditer(text, blank, end if end >= 0 else len(text))
    ]
    if end >= 0:
        ends.append(end)
    return _longest([text[:end] for end in ends], place)


def _longest(beginnings: Sequence[str], place: Snapshot) -> str:
    """The longest of a text's beginnings that goes into the document as it is; empty if none does.

    That is one of which the filters leave all and to which they add nothing. Only the longest few
    that close what they open are tried, since filters take time.
    """
    here = window(place)
    whole = (text for text in reversed(beginnings) if here.imbalance(text) <= here.imbalance())
    for text in islice(whole, _TRIES):
        kept = ghost_text.apply(text, place)
        if kept.split() == text.split() and not too_short(kept):
            return kept
    return ""


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

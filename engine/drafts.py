"""Drafts: an earlier answer, or text copied from near the cursor, as a first guess at what comes next.

Where the end of the text before the cursor stands once more, what followed there may follow here
(prompt lookup). `engine.causal` verifies a draft in one forward: it costs or saves time and leaves
the text as it is, but where bfloat16 gives two tokens the same logit and rounding decides. What the
text is may lean towards a copy as well: a small model knows little that the file does not say.
Knows nothing of models or requests.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine import endings
from engine.request import StopReason
from engine.tokenizer import Tokenizer

MOST_TOKENS = 15  # with the token before them, 16 rows
_CHARS = 6 * MOST_TOKENS
_LEAST_MATCH, _LONGEST_MATCH = 2, 200
_AGAIN = 0.95  # of an earlier answer's tokens, so many are written again if those before them are
_STEP = 1.05
# Enough of what follows a hole to look for: blanks and line ends alone stand everywhere.
_SHOWN = re.compile(r"\s*\S(?:\s*\S){0,2}")
_BRIDGE_CHARS, _LEAST_BRIDGED = 600, 4
_RIVAL_MATCH = 32  # characters; all copies that beat an answer had more (LOG.md)


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """What follows another occurrence of the text before the cursor, `matched` characters long."""

    text: str
    matched: int

    @property
    def probability(self) -> float:
        """Roughly how likely each next token of the text is right if those before it are.

        Fitted to what SmolLM2-135M writes in 85 holes of jinja2, fsspec and networkx: of 8 tokens
        it agreed to 1.4 after a match of 4 to 7 characters, 3.5 after 16 to 31, 6.0 from 64 on.
        """
        return min(0.9, self.matched / (self.matched + 10))

    @property
    def bonus(self) -> float:
        """How many nats its next token may be behind the model's own and still be the better guess.

        Fitted to SmolLM2-135M on 5,215 tokens of boltons, more-itertools and tomlkit: where the two
        differ, the copied one is right more often within 1 nat after a match of 4 to 31 characters,
        within 4 after 32 to 63 and within 6 from 64 on (LOG.md).
        """
        return 0.0 if self.matched < 4 else min(6.0, max(1.0, self.matched / 12))


def find(before: str, elsewhere: Sequence[str]) -> Copy | None:
    """What follows the longest other occurrence of the end of `before`.

    Looked for in `before` itself, the nearest first, then in the texts `elsewhere`, where only a
    longer one counts.
    """
    found, wanted = None, _LEAST_MATCH
    for text in (before, *elsewhere):
        end = len(text) - 1  # something has to follow
        while wanted <= min(len(before), _LONGEST_MATCH):
            at = text.rfind(before[-wanted:], 0, end)
            if at < 0:
                break
            end = at + wanted
            matched = _shared_end(before, text, end)
            found = Copy(text=text[end : end + _CHARS], matched=matched)
            # Any other that ends here is a part of this one: go on to the left of it.
            wanted, end = matched + 1, end - 1
    return found


def bridge(before: str, after: str, elsewhere: Sequence[str], *, single_line: bool) -> Copy | None:
    """What stands between the end of `before` and the start of `after` where both occur once more.

    Of several, the one with the most text around it that is the same; `matched` counts both sides.
    With `single_line` only text without a line end.
    """
    shown = _SHOWN.match(after)
    if shown is None:
        return None
    best = None
    for text in (before, *elsewhere):
        at = text.find(shown[0])
        while at >= 0:
            left = text[max(0, at - _BRIDGE_CHARS) : at]
            if matched := _longest_tail(before, left):
                middle = left[left.rfind(before[-matched:]) + matched :]
                matched += _shared_start(after, text[at : at + _LONGEST_MATCH])
                fits = middle.strip() and not (single_line and "\n" in middle)
                if fits and (best is None or matched > best.matched):
                    best = Copy(text=middle, matched=matched)
            at = text.find(shown[0], at + 1)
    return best


def rivals(
    before: str, after: str, elsewhere: Sequence[str], *, single_line: bool
) -> tuple[str, ...]:
    """Whole texts to copy that may be better than what a model writes; mostly none.

    With as much around them that is the same as here, their ends known: a bridge, and what `find`
    finds up to where it would end.
    """
    middle = bridge(before, after, elsewhere, single_line=single_line)
    copy = find(before, elsewhere)
    texts = []
    if middle and middle.matched >= _RIVAL_MATCH:
        texts.append(middle.text)
    if copy and copy.matched >= _RIVAL_MATCH:
        end = endings.find_end(copy.text, after, single_line=single_line)
        texts += [copy.text[: end[0]]] if end else []
    return tuple(dict.fromkeys(text for text in texts if text.strip()))


def worthwhile(probability: float, most: int, cost: Callable[[int], float]) -> int:
    """How many draft tokens to verify at once, 0 to `most`, for the most text in a given time.

    `cost` is that of a forward of so many rows, in forwards of one. Each token is right with
    `probability` if those before it are; the forward gives one token more than are right.
    """
    best, gain, written = 0, 1.0, 1.0
    for count in range(1, most + 1):
        written += probability**count
        if written / cost(count + 1) > gain:
            best, gain = count, written / cost(count + 1)
    return best


class Pace:
    """What a forward of several rows costs here, in forwards of one: learnt while decoding.

    Each measurement moves its figure one step of 5 % up or down, so that figures follow the median
    and a stall does no harm.
    """

    def __init__(self, several_rows: float) -> None:
        self._one: float | None = None  # seconds
        # By the bits of rows - 1: 2, 3 to 4, 5 to 8, 9 to 16 rows.
        self._several = dict.fromkeys(range(1, MOST_TOKENS.bit_length() + 1), several_rows)

    def saw(self, rows: int, seconds: float) -> None:
        """Learns from one forward."""
        if rows == 1:
            self._one = seconds if self._one is None else _towards(self._one, seconds)
        elif self._one:
            size = (rows - 1).bit_length()
            self._several[size] = _towards(self._several[size], seconds / self._one)

    def cost(self, rows: int) -> float:
        """Time of a forward of `rows`, 1 to 16, over that of one row."""
        return 1.0 if rows == 1 else self._several[(rows - 1).bit_length()]


class Drafter:
    """Proposes drafts for one answer, left to right.

    `before` is the text the model was given, `healed` what it has to write first, `after` the text
    behind the hole, `elsewhere` other texts to copy from, the most useful first; `earlier` is what is
    left of an earlier answer. `end` is the id that ends a hole, if one does. `stop_at` says where the
    answer will end.
    """

    def __init__(
        self,
        before: str,
        healed: str,
        after: str,
        elsewhere: Sequence[str],
        tokenizer: Tokenizer,
        stop_at: Callable[[Sequence[int]], StopReason | None],
        pace: Pace,
        *,
        single_line: bool,
        end: int | None,
        earlier: str = "",
    ) -> None:
        self._before = before
        self._earlier = earlier
        self._healed = healed
        self._elsewhere = (after, *elsewhere)
        self._tokenizer = tokenizer
        self._end = end
        self._stop_at = stop_at
        self._pace = pace
        self._bridge = bridge(before + healed, after, self._elsewhere, single_line=single_line)

    def propose(self, ids: Sequence[int], room: int) -> list[int]:
        """The next ids after those written so far that are worth verifying, at most `room`."""
        written = self._tokenizer.decode(ids)
        required = self._healed[len(written) :]
        text, probability = self._likely(written + required)
        draft = self._tokenizer.encode(required + text)[: min(room, MOST_TOKENS)] if text else []
        draft = draft[: self._useful(ids, draft)]
        return draft[: worthwhile(probability, len(draft), self._pace.cost)]

    def favoured(self, ids: Sequence[int]) -> tuple[int, float] | None:
        """The token that a copy goes on with after the ids written so far, and its bonus in nats."""
        written = self._tokenizer.decode(ids)
        if len(written) < len(self._healed):
            return None
        copy = self._copy(written)
        if copy is None or not copy.bonus:
            return None
        if not copy.text:
            return None if self._end is None else (self._end, copy.bonus)
        return self._tokenizer.encode(copy.text)[0], copy.bonus

    def _likely(self, written: str) -> tuple[str, float]:
        """What may follow `written`, and how likely each token of it is: first an earlier answer."""
        filled = written[len(self._healed) :]
        if self._earlier.startswith(filled) and len(self._earlier) > len(filled):
            return self._earlier[len(filled) :], _AGAIN
        copy = self._copy(written)
        return (copy.text, copy.probability) if copy else ("", 0.0)

    def _copy(self, written: str) -> Copy | None:
        """What may follow `written`: the rest of the bridge while the text keeps to it."""
        filled = written[len(self._healed) :]
        if self._bridge and self._bridge.text.startswith(filled):
            matched = self._bridge.matched + len(filled)
            return Copy(text=self._bridge.text[len(filled) :], matched=matched)
        return find(self._before + written, self._elsewhere)

    def _useful(self, ids: Sequence[int], draft: Sequence[int]) -> int:
        """How many of `draft` are worth a row: of the token that ends the answer nothing follows."""
        for count in range(len(draft)):
            if self._stop_at([*ids, *draft[: count + 1]]):
                return count
        return len(draft)


def _longest_tail(before: str, text: str) -> int:
    """How many characters of the end of `before` occur in `text`; 0 for fewer than three."""
    lengths = range(_LEAST_BRIDGED, min(len(before), _LONGEST_MATCH) + 1)
    found = bisect.bisect_left(lengths, True, key=lambda n: before[-n:] not in text)
    return lengths[found - 1] if found else 0


def _shared_start(one: str, other: str) -> int:
    """How many characters the starts of two texts share."""
    differ = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differ, min(len(one), len(other)))


def _shared_end(before: str, text: str, end: int) -> int:
    """How many characters the ends of `before` and of `text[:end]` share."""
    most = min(len(before), end, _LONGEST_MATCH)
    length = 0
    while length < most and before[-1 - length] == text[end - 1 - length]:
        length += 1
    return length


def _towards(old: float, new: float) -> float:
    return old * _STEP if new > old else old / _STEP

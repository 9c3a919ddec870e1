"""What one training example asks: a window of text and several holes cut out of it. Pure numpy.

The window runs through the encoder once; every hole sees the part of it before its cursor. So one
sequence [window | hole 1 | hole 2 ...] with a block mask trains all of them in one forward. A hole
stands there several times, each a `part` with rows of its own, over one suffix:

    suffix   what follows the hole; causal, does not see the hole: encoded once per request
    written  [token before the hole | middle], causal: left to right, the suffix in view
    canvas   [token before the hole | middle, EMPTY ... up to a bucket], partly noised, open

What is written is predicted one row earlier, and so is a canvas where its logits are shifted; where
they are aligned, its rows predict themselves. Knows nothing of the model, torch or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.config import CanvasConfig

Ids = NDArray[np.int64]
NO_TARGET = -1
SUFFIX, WRITTEN, CANVAS = 0, 1, 2  # parts of a hole; further canvases count on


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How holes are cut and noised; shares are probabilities, lengths are tokens.

    Rows of weight 0 have no target: they cost no logits. Not all of it is this file's: with
    `few_steps` canvases are those of `engine.train.distil`.
    """

    window: int = 1024
    holes: int = 12
    buckets: tuple[int, ...] = (8, 16, 32, 64)
    canvases: int = 2  # of each hole, with noise of their own
    few_steps: int = 0  # instead: of each hole, as filling shows them before these first forwards
    longest_canvas: int = 64  # holes of a larger bucket are only written
    suffix: tuple[int, int] = (8, 64)  # drawn anew for each hole
    min_prefix: int = 16
    rest_of_line: float = 0.40
    whole_lines: float = 0.35
    empty_middle: float = 0.05  # the rest of 1 is random spans
    one_line: float = 0.5  # of whole lines; the others have 2 to 6
    no_suffix: float = 0.10  # then the text goes on to the end of the hole
    tight: float = 0.5  # holes in the smallest bucket that they fit into
    exact: float = 0.15  # holes without EMPTY slots: their length was known
    all_noised: float = 0.35
    left_to_right: float = 0.35  # noise from some slot on; the rest of 1: anywhere
    random_noise: float = 0.10  # of noised slots, the others show the mask
    empty_weight: float = 0.1  # of EMPTY slots behind the first
    clean_weight: float = 0.0  # of slots that were not noised
    self_conditioning: float = 0.0  # of examples show canvases what a first pass believed
    canvas_weight: float = 0.5  # of a slot on a canvas, against one in the written part
    hole_weight: float = 2.0  # of all holes together, against
    causal_weight: float = 1.0  # the window as plain text
    shifted: bool = True  # a canvas' logits, by one row

    @property
    def canvas(self) -> int:
        """The most rows a canvas takes with its suffix."""
        return 1 + max(self.buckets) + self.suffix[1]


@dataclass(frozen=True, slots=True)
class Example:
    """One sequence; all arrays are [length].

    `segment` is 0 for the window and 1.. for holes, -1 for padding; `part` says which part of the
    hole a row is of; `sees` is how many window tokens it may look at; `targets` are what the row
    predicts (NO_TARGET: nothing), with `weights`; `noised` marks rows that predict a noised slot.
    """

    tokens: Ids
    positions: Ids
    segment: Ids
    part: Ids
    sees: Ids
    targets: Ids
    weights: NDArray[np.float32]
    noised: NDArray[np.bool_]


def example(
    window: Ids,
    newline: NDArray[np.bool_],
    vocab_size: int,
    canvas: CanvasConfig,
    recipe: Recipe,
    rng: np.random.Generator,
) -> Example:
    """Cuts holes into `window` [recipe.window] and draws the noise of their canvases.

    `newline` [vocab_size] says of each id whether its text has a line end.
    """
    holes = cut(window, newline, canvas, recipe, rng)
    drawn = [
        [_noise(hole, vocab_size, recipe, rng) for _ in range(recipe.canvases)]
        if hole.has_canvases(recipe)
        else []
        for hole in holes
    ]
    return laid_out(window, holes, drawn, recipe)


def cut(
    window: Ids,
    newline: NDArray[np.bool_],
    canvas: CanvasConfig,
    recipe: Recipe,
    rng: np.random.Generator,
) -> list[Hole]:
    """`recipe.holes` holes, drawn anywhere in `window`."""
    assert len(window) == recipe.window, f"window of {len(window)}, recipe says {recipe.window}"
    assert canvas.sealed_suffix, "this objective seals suffixes"
    assert canvas.mask_id is not None, "this objective noises with a mask"
    assert canvas.empty_id is not None, "this objective fills the hole with empty slots"
    line_ends = np.flatnonzero(newline[window])
    numbers = range(1, recipe.holes + 1)
    return [Hole.cut(window, line_ends, number, canvas, recipe, rng) for number in numbers]


def laid_out(
    window: Ids, holes: Sequence[Hole], canvases: Sequence[Sequence[Noised]], recipe: Recipe
) -> Example:
    """[window | hole 1: suffix, written, canvases | hole 2 ...], and what each part weighs."""
    parts = []
    for hole, copies in zip(holes, canvases, strict=True):
        parts += [hole.suffix(), hole.written()]
        parts += [hole.canvas(CANVAS + copy, noised, recipe) for copy, noised in enumerate(copies)]
    whole = joined(window, parts, recipe.causal_weight)
    asked = whole.weights * (whole.segment > 0)
    # Flat over the tokens of all holes, which together weigh as much as the window or more.
    whole.weights[whole.segment > 0] *= recipe.hole_weight / max(1.0, float(asked.sum()))
    whole.targets[whole.weights == 0] = NO_TARGET
    return whole


def may_see(segment: Ids, part: Ids, sees: Ids) -> NDArray[np.bool_]:
    """[length, length], true where a row may look (the definition; slow, for short sequences)."""
    place = np.arange(len(segment))
    earlier = place[None] <= place[:, None]
    in_window = segment == 0
    causal = in_window[:, None] & in_window[None] & earlier
    prefix = (segment > 0)[:, None] & in_window[None] & (place[None] < sees[:, None])
    same = (segment > 0)[:, None] & (segment[:, None] == segment[None])
    known = (part == SUFFIX)[None] | (part[:, None] == part[None])
    own = same & known & (earlier | (part >= CANVAS)[:, None])
    padding = (segment < 0)[:, None] & (place[:, None] == place[None])  # a row must see something
    mask: NDArray[np.bool_] = causal | prefix | own | padding
    return mask


def padded(example: Example, length: int) -> Example:
    """The example with padding up to `length` rows."""
    spare = length - len(example.tokens)
    filled = {
        name: np.pad(getattr(example, name), (0, spare), constant_values=blank)
        for name, blank in (
            ("tokens", 0), ("positions", 0), ("segment", -1), ("part", 0), ("sees", 0),
            ("targets", NO_TARGET), ("weights", 0), ("noised", False),
        )
    }  # fmt: skip
    return Example(**filled)


@dataclass(frozen=True, slots=True)
class Noised:
    """A canvas before a forward: what its slots hold, what they show, which hide it; all [slots]."""

    slots: Ids
    shown: Ids
    hidden: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Hole:
    """window[start:end], taken out of a window. `slots` are the middle and its EMPTY ones."""

    window: Ids
    number: int
    start: int
    end: int
    slots: Ids
    known: int  # tokens of the suffix that are shown
    setup: CanvasConfig

    @classmethod
    def cut(
        cls,
        window: Ids,
        line_ends: Ids,
        number: int,
        setup: CanvasConfig,
        recipe: Recipe,
        rng: np.random.Generator,
    ) -> Hole:
        """A hole drawn from the recipe."""
        start, end = _span(len(window), line_ends, recipe, rng)
        fitting = [bucket for bucket in recipe.buckets if bucket >= end - start]
        size = fitting[0] if rng.random() < recipe.tight else int(rng.choice(fitting))
        known = int(rng.integers(*recipe.suffix, endpoint=True))
        if rng.random() < recipe.no_suffix:
            # Nothing says where such a hole ends, so the text fills it.
            end, known = min(len(window), start + size), 0
        if known == 0 or (end > start and rng.random() < recipe.exact):
            size = end - start
        slots = np.full(size, setup.empty_id, np.int64)
        slots[: end - start] = window[start:end]
        return cls(window, number, start, end, slots, known, setup)

    def has_canvases(self, recipe: Recipe) -> bool:
        """Whether it is short enough for them; a longer one is only written."""
        return len(self.slots) <= recipe.longest_canvas

    def suffix(self) -> Example:
        """Its rows behind the hole; they predict nothing."""
        tokens = self.window[self.end : self.end + self.known]
        return self._part(SUFFIX, tokens, self.start + len(self.slots))

    def written(self) -> Example:
        """The middle from left to right, then the first EMPTY slot, where there is one."""
        return self._written(self.slots[: self.end - self.start], self.slots)

    def draft(self, slots: Ids) -> Example:
        """The same with other text in all slots, each of which has a row that predicts it."""
        return self._written(slots, slots)

    def canvas(self, part: int, noised: Noised, recipe: Recipe) -> Example:
        """One noised copy. Slot i stands at row i + 1, and row i predicts it where logits are shifted."""
        tokens = np.concatenate((self._lead, noised.shown))
        behind = np.append(False, noised.slots[:-1] == self.setup.empty_id)
        weights = recipe.canvas_weight * np.where(behind, recipe.empty_weight, 1.0)
        weights[~noised.hidden] *= recipe.clean_weight
        spare = (0, 1) if self.setup.shifted else (1, 0)  # the row that predicts nothing
        return self._part(
            part,
            tokens,
            self.start - 1,
            np.pad(noised.slots, spare, constant_values=NO_TARGET),
            np.pad(weights, spare),
            np.pad(noised.hidden, spare),
        )

    def _written(self, text: Ids, slots: Ids) -> Example:
        targets = np.append(slots, NO_TARGET)[: len(text) + 1]
        tokens = np.concatenate((self._lead, text))
        return self._part(WRITTEN, tokens, self.start - 1, targets, targets != NO_TARGET)

    @property
    def _lead(self) -> Ids:
        return self.window[self.start - 1 : self.start]

    def _part(
        self,
        part: int,
        tokens: Ids,
        position: int,
        targets: Ids | None = None,
        weights: NDArray[Any] | None = None,
        noised: NDArray[np.bool_] | None = None,
    ) -> Example:
        return _rows(tokens, self.number, part, self.start - 1, position, targets, weights, noised)


def _rows(
    tokens: Ids,
    segment: int,
    part: int,
    sees: int,
    position: int,
    targets: Ids | None = None,
    weights: NDArray[Any] | None = None,
    noised: NDArray[np.bool_] | None = None,
) -> Example:
    count = len(tokens)
    return Example(
        tokens=tokens,
        positions=np.arange(position, position + count),
        segment=np.full(count, segment),
        part=np.full(count, part),
        sees=np.full(count, sees),
        targets=np.full(count, NO_TARGET) if targets is None else targets,
        weights=np.zeros(count, np.float32) if weights is None else weights.astype(np.float32),
        noised=np.zeros(count, np.bool_) if noised is None else noised,
    )


def joined(window: Ids, parts: Sequence[Example], weight: float = 0.0) -> Example:
    """[window | parts of holes]; the window as plain text weighs `weight`."""
    targets, weights = np.append(window[1:], NO_TARGET), np.zeros(len(window))
    weights[:-1] = weight / (len(window) - 1)
    every = [_rows(window, 0, SUFFIX, 0, 0, targets, weights), *parts]
    names = [field.name for field in fields(Example)]
    return Example(*(np.concatenate([getattr(part, name) for part in every]) for name in names))


def _span(length: int, line_ends: Ids, recipe: Recipe, rng: np.random.Generator) -> tuple[int, int]:
    """Start and end of the middle: the rest of a line, whole lines, nothing, or any span."""
    most = max(recipe.buckets)
    start = int(rng.integers(recipe.min_prefix, length - 1))
    kind = rng.random()
    if kind < recipe.rest_of_line:
        return start, _line_end(line_ends, start, length, most, lines=1)
    kind -= recipe.rest_of_line
    if kind < recipe.whole_lines:
        # From a line's end: the token of a line end often holds the next line's indentation.
        begins = line_ends[(line_ends >= recipe.min_prefix) & (line_ends < length - 1)]
        if len(begins):
            start = int(rng.choice(begins))
            lines = 1 if rng.random() < recipe.one_line else int(rng.integers(2, 7))
            return start, _line_end(line_ends, start + 1, length, most - 1, lines=lines)
    elif kind - recipe.whole_lines < recipe.empty_middle:
        return start, start
    return start, min(length, start + int(rng.integers(1, most + 1)))


def _line_end(line_ends: Ids, start: int, length: int, most: int, *, lines: int) -> int:
    """Where `lines` lines from `start` on end, but at most `most` tokens on."""
    following = [*line_ends[np.searchsorted(line_ends, start) :].tolist(), length]
    ends = [end for end in following[:lines] if end - start <= most]
    return ends[-1] if ends else min(length, start + most)


def _noise(hole: Hole, vocab_size: int, recipe: Recipe, rng: np.random.Generator) -> Noised:
    """A canvas of the hole with noise drawn from the recipe: EMPTY slots always have it."""
    assert hole.setup.mask_id is not None, "checked by cut()"
    slots = hole.slots
    kind = rng.random()
    empty = slots == hole.setup.empty_id
    if kind < recipe.left_to_right:
        hidden = np.arange(len(slots)) >= rng.integers(0, len(slots) - empty.sum() + 1)
    else:
        level = 1.0 if kind < recipe.left_to_right + recipe.all_noised else rng.random()
        hidden = rng.random(len(slots)) < level
    hidden |= empty
    noise = rng.integers(0, vocab_size, len(slots))
    noise[rng.random(len(slots)) >= recipe.random_noise] = hole.setup.mask_id
    return Noised(slots, np.where(hidden, noise, slots), hidden)

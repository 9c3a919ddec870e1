"""What one training example asks: a window of text and several canvases cut out of it. Pure numpy.

The window runs through the encoder once; every canvas sees the part of it before its cursor and
itself. So one sequence [window | canvas 1 | canvas 2 ...] with a block mask trains all of them in
one forward. Knows nothing of the model, torch or files.

    canvas = [token before the hole | hole, partly noised | suffix]      (logits shifted by one)
    hole   = [middle | EMPTY ... up to a bucket]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.config import CanvasConfig

Ids = NDArray[np.int64]
NO_TARGET = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How canvases are cut and noised; shares are probabilities, lengths are tokens.

    Rows of weight 0 have no target: they cost no logits.
    """

    window: int = 1024
    canvases: int = 12
    buckets: tuple[int, ...] = (8, 16, 32, 64)
    suffix: int = 32
    min_prefix: int = 16
    rest_of_line: float = 0.35
    whole_lines: float = 0.25
    empty_middle: float = 0.10  # the rest of 1 is random spans
    no_suffix: float = 0.15
    all_noised: float = 0.28
    left_to_right: float = 0.25  # noise from some slot on; the rest of 1: anywhere
    random_noise: float = 0.15  # of noised slots, the others show the mask
    empty_weight: float = 0.1  # of EMPTY slots behind the first
    clean_weight: float = 0.2  # of slots that were not noised
    suffix_weight: float = 0.05
    causal_weight: float = 1.0

    @property
    def canvas(self) -> int:
        """The longest canvas: the token before the hole, hole, suffix."""
        return 1 + max(self.buckets) + self.suffix

    @property
    def length(self) -> int:
        """Tokens of one example, all canvases at their longest."""
        return self.window + self.canvases * self.canvas


@dataclass(frozen=True, slots=True)
class Example:
    """One sequence; all arrays are [length]. Padding has segment -1 and no target.

    `segment` is 0 for the window and 1.. for canvases; `sees` is how many window tokens a
    canvas token may look at; `targets` are what the row predicts (NO_TARGET: nothing), with
    `weights`; `noised` marks rows that predict a slot that was noised.
    """

    tokens: Ids
    positions: Ids
    segment: Ids
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
    """Cuts `recipe.canvases` holes into `window` [recipe.window].

    `newline` [vocab_size] says of each id whether its text has a line end.
    """
    assert len(window) == recipe.window, f"window of {len(window)}, recipe says {recipe.window}"
    assert canvas.shifted, "this objective shifts the logits by one"
    assert canvas.mask_id is not None, "this objective noises with a mask"
    assert canvas.empty_id is not None, "this objective fills the hole with empty slots"
    made = _blank(recipe.length)
    made.tokens[: recipe.window] = window
    made.positions[: recipe.window] = np.arange(recipe.window)
    made.segment[: recipe.window] = 0
    made.targets[: recipe.window - 1] = window[1:]
    made.weights[: recipe.window - 1] = recipe.causal_weight / (recipe.window - 1)
    line_ends = np.flatnonzero(newline[window])
    for index in range(recipe.canvases):
        start, end = _span(len(window), line_ends, recipe, rng)
        at = recipe.window + index * recipe.canvas
        _place(made, at, index + 1, window, start, end, vocab_size, canvas, recipe, rng)
    made.targets[made.weights == 0] = NO_TARGET
    return made


def block_mask(segment: Ids, sees: Ids, window: int) -> NDArray[np.bool_]:
    """[length, length], true where a row may look (the definition; slow, for short sequences)."""
    place = np.arange(len(segment))
    in_window = segment == 0
    causal = in_window[:, None] & in_window[None] & (place[None] <= place[:, None])
    prefix = (segment > 0)[:, None] & in_window[None] & (place[None] < sees[:, None])
    same = (segment > 0)[:, None] & (segment[:, None] == segment[None])
    padding = (segment < 0)[:, None] & (place[:, None] == place[None])  # a row must see something
    mask: NDArray[np.bool_] = causal | prefix | same | padding
    return mask


def _blank(length: int) -> Example:
    whole = np.zeros(length, np.int64)
    return Example(
        tokens=whole.copy(),
        positions=whole.copy(),
        segment=whole - 1,
        sees=whole.copy(),
        targets=whole + NO_TARGET,
        weights=np.zeros(length, np.float32),
        noised=np.zeros(length, np.bool_),
    )


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
            lines = int(rng.integers(1, 7))
            return start, _line_end(line_ends, start + 1, length, most - 1, lines=lines)
    elif kind - recipe.whole_lines < recipe.empty_middle:
        return start, start
    return start, min(length, start + int(rng.integers(1, most + 1)))


def _line_end(line_ends: Ids, start: int, length: int, most: int, *, lines: int) -> int:
    """Where `lines` lines from `start` on end, but at most `most` tokens on."""
    following = [*line_ends[np.searchsorted(line_ends, start) :].tolist(), length]
    ends = [end for end in following[:lines] if end - start <= most]
    return ends[-1] if ends else start + most


def _place(
    made: Example,
    at: int,
    segment: int,
    window: Ids,
    start: int,
    end: int,
    vocab_size: int,
    canvas: CanvasConfig,
    recipe: Recipe,
    rng: np.random.Generator,
) -> None:
    """Writes the canvas of window[start:end] at place `at` of the example."""
    assert canvas.empty_id is not None, "checked by example()"
    size = int(rng.choice([bucket for bucket in recipe.buckets if bucket >= end - start]))
    hole = np.full(size, canvas.empty_id, np.int64)
    hole[: end - start] = window[start:end]
    suffix = window[end : end + recipe.suffix]
    if rng.random() < recipe.no_suffix:
        suffix = suffix[:0]
    shown, noised = _noise(hole, vocab_size, canvas, recipe, rng)
    tokens = np.concatenate((window[start - 1 : start], shown, suffix))
    rows = slice(at, at + len(tokens))
    made.tokens[rows] = tokens
    made.positions[rows] = np.arange(start - 1, start - 1 + len(tokens))
    made.segment[rows] = segment
    made.sees[rows] = start - 1
    # Row i predicts what belongs at row i + 1: first the hole's slots, then the suffix.
    weights = np.where(np.arange(size) > end - start, recipe.empty_weight, 1.0)
    weights[~noised] *= recipe.clean_weight
    share = 1.0 / recipe.canvases
    made.targets[at : at + size] = hole
    made.weights[at : at + size] = share * weights / max(1.0, weights.sum())
    made.noised[at : at + size] = noised
    if len(suffix):
        made.targets[at + size : at + size + len(suffix)] = suffix
        made.weights[at + size : at + size + len(suffix)] = (
            share * recipe.suffix_weight / len(suffix)
        )


def _noise(
    hole: Ids,
    vocab_size: int,
    canvas: CanvasConfig,
    recipe: Recipe,
    rng: np.random.Generator,
) -> tuple[Ids, NDArray[np.bool_]]:
    """The hole as it is shown, and which slots are noised: EMPTY ones always."""
    assert canvas.mask_id is not None, "checked by example()"
    kind = rng.random()
    empty = hole == canvas.empty_id
    if kind < recipe.left_to_right:
        noised = np.arange(len(hole)) >= rng.integers(0, len(hole) - empty.sum() + 1)
    else:
        level = 1.0 if kind < recipe.left_to_right + recipe.all_noised else rng.random()
        noised = rng.random(len(hole)) < level
    noised |= empty
    noise = rng.integers(0, vocab_size, len(hole))
    noise[rng.random(len(hole)) >= recipe.random_noise] = canvas.mask_id
    return np.where(noised, noise, hole), noised

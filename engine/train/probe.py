"""A small infill probe: what a model in training makes of holes in text that it never sees.

Each hole is asked for written from left to right, on a canvas that shows nothing, and on one that
shows some of its text, all in one forward over its window. What is written greedily is the true text
exactly where each of its tokens is the likeliest behind the ones before, so one forward tells. Knows
nothing of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from engine.model import Transformer
from engine.train import objective
from engine.train.objective import CANVAS, NO_TARGET, WRITTEN, Hole, Ids, Noised, Recipe
from engine.train.passes import Batch, Passes

FIGURES = (
    "written loss", "written right", "written end right", "written exact",
    "all noised: right", "all noised: end right", "all noised: exact", "some noised: right",
)  # fmt: skip
_KINDS = {WRITTEN: "written", CANVAS: "all noised", CANVAS + 1: "some noised"}


@dataclass(frozen=True, slots=True)
class Probe:
    """The same holes in `windows` with the same noise, however often and of whatever model it asks.

    `newline` [vocab_size] says of each id whether its text has a line end.
    """

    windows: Sequence[Ids]
    newline: NDArray[np.bool_]
    recipe: Recipe

    def figures(self, model: Transformer) -> dict[str, float]:
        """FIGURES of `model`, but for those that no hole was asked about."""
        tally = Tally()
        for number, window in enumerate(self.windows):
            passes = Passes(model, [window])
            draw = np.random.default_rng([17, number])
            holes = objective.cut(window, self.newline, passes.canvas, self.recipe, draw)
            tally.add(passes, holes, draw, self.recipe)
        return tally.figures()


@dataclass(slots=True)
class Tally:
    """Answers to the holes of several windows, figure by figure."""

    answers: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in FIGURES})

    @torch.no_grad()
    def add(
        self, passes: Passes, holes: Sequence[Hole], draw: np.random.Generator, recipe: Recipe
    ) -> None:
        """Asks for `holes` of the only window of `passes`, noised by `draw`."""
        canvases = [
            _canvases(hole, passes.mask_id, draw) if hole.has_canvases(recipe) else []
            for hole in holes
        ]
        made = objective.laid_out(passes.windows[0], holes, canvases, recipe)
        batch = Batch.of([made], passes.device)
        states = passes.states(batch)
        if passes.canvas.self_conditioning:  # as filling has it from its second forward on
            states = passes.states(batch, passes.beliefs(states, batch))
        logits = passes.model.logits(states[batch.asked])
        targets = batch.targets[batch.asked]
        losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none").cpu().numpy()
        logits[:, passes.mask_id] = -torch.inf
        best, wanted = logits.argmax(-1).cpu().numpy(), targets.cpu().numpy()
        asked = (made.targets != NO_TARGET) & (made.segment > 0)
        part, segment = made.part[asked], made.segment[asked]
        for hole in holes:
            for number, kind in _KINDS.items():
                rows = (segment == hole.number) & (part == number)
                if rows.any():
                    self.count(kind, best[rows], wanted[rows], losses[rows], passes.empty_id)

    def count(
        self, kind: str, best: Ids, wanted: Ids, losses: NDArray[np.float32], empty: int
    ) -> None:
        """Adds one part of a hole: `best` against `wanted`, all [slots]."""
        ends = wanted == empty
        right = best == wanted
        if kind == "some noised":
            self.answers["some noised: right"] += right[~ends].tolist()
            return
        last = int(np.argmax(ends)) + 1 if ends.any() else len(ends)
        exact = float(right[:last].all())
        if kind == "written":
            self.answers["written loss"] += losses.tolist()
            self.answers["written right"] += right[~ends].tolist()
            self.answers["written end right"] += right[ends].tolist()
            self.answers["written exact"].append(exact)
        else:
            self.answers["all noised: right"] += right[~ends].tolist()
            if ends.any():
                same = np.argmax(ends) == np.argmax(best == empty) and bool((best == empty).any())
                self.answers["all noised: end right"].append(float(same))
            self.answers["all noised: exact"].append(exact)

    def figures(self) -> dict[str, float]:
        """Means of all figures that have answers."""
        return {
            name: round(float(np.mean(values)), 4)
            for name, values in self.answers.items()
            if values
        }


def _canvases(hole: Hole, mask_id: int, draw: np.random.Generator) -> list[Noised]:
    """The canvas with nothing shown, and one with some of the text shown."""
    some = draw.random(len(hole.slots)) < draw.random()
    some |= hole.slots == hole.setup.empty_id
    every = np.ones(len(hole.slots), np.bool_)
    return [
        Noised(hole.slots, np.where(hidden, mask_id, hole.slots), hidden)
        for hidden in (every, some)
    ]

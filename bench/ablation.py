"""`python -m bench.ablation --corpus DIR --steps N`: what each choice of the training recipe is worth.

Short runs from one base, each with one thing changed, on the same windows of text and the same seed;
then all of them fill the same held-out holes, which no run has seen. Figures of one run differ by
chance as well: "another seed" is the measure of that. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.loading import choose_device, native_dtype
from engine.pull import resolve_model
from engine.tokenizer import Tokenizer
from engine.train import objective, shards
from engine.train.adapt import DOCUMENT, adapt, newline_table
from engine.train.objective import CANVAS, NO_TARGET, WRITTEN, Hole, Ids, Noised, Recipe
from engine.train.passes import Batch, Passes
from engine.train.trainer import Options, Trainer

RECIPE = Recipe(
    window=320, holes=8, buckets=(8, 16, 32), longest_canvas=32, suffix=(8, 32), canvases=1,
    causal_weight=0.0,
)  # fmt: skip
# What is asked of every variant: both kinds of noise in every hole, whatever it was trained on.
ASKED = replace(RECIPE, canvases=2, random_noise=0.0)
HELD_OUT = 5_000  # windows on in the corpus; no short run comes so far
FIGURES = (
    "written loss", "written right", "written end right",
    "all noised: right", "all noised: end right", "all noised: exact", "some noised: right",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One run: what it changes of RECIPE, and how it trains."""

    recipe: Recipe = RECIPE
    rank: int = 32  # of the adapters; 0 trains all weights
    rate: float = 1e-3
    share: float = 1.0  # of the steps
    seed: int = 0


def _changed(**changes: Any) -> Variant:
    return Variant(recipe=replace(RECIPE, **changes))


VARIANTS = {
    "as it is": Variant(),
    "another seed": Variant(seed=1),
    "logits aligned": _changed(shifted=False),
    "all noise masks": _changed(random_noise=0.0),
    "30 % of noise random": _changed(random_noise=0.3),
    "10 % of canvases all noised": _changed(all_noised=0.1),
    "65 % all noised, none at a level": _changed(all_noised=0.65),
    "EMPTY slots weigh 1": _changed(empty_weight=1.0),
    "one bucket, of 32": _changed(buckets=(32,)),
    "self-conditioning 0.5": _changed(self_conditioning=0.5),
    "as it is, a third of the steps": Variant(share=1 / 3),
    "all weights, a third of the steps": Variant(rank=0, rate=1e-4, share=1 / 3),
}


class Corpus:
    """Windows of text: those that all runs learn from, and those held out."""

    def __init__(self, folder: Path, separator: int, held_out: int) -> None:
        self._windows = shards.windows(folder, RECIPE.window, separator, seed=0)
        self.held_out = list(itertools.islice(self._windows(HELD_OUT), held_out))

    def training(self) -> Iterator[Ids]:
        """From the first on."""
        return self._windows(0)


def measure(
    name: str, variant: Variant, base: Path, corpus: Corpus, steps: int, device: torch.device
) -> dict[str, float]:
    """Trains `variant` and returns its figures on the held-out holes."""
    dtype = native_dtype(device) if variant.rank else torch.float32
    model, tokenizer = adapt(base, variant.recipe, device, rank=variant.rank, dtype=dtype)
    steps = max(1, round(steps * variant.share))
    options = Options(
        out=Path(), steps=steps, batch=1, rate=variant.rate, warmup=max(1, steps // 20),
        seed=variant.seed, recipe=variant.recipe,
    )  # fmt: skip
    newline = newline_table(tokenizer, model.config.vocab_size)
    trainer = Trainer(model, newline, options)
    started = time.monotonic()
    for window in itertools.islice(corpus.training(), steps):
        trainer.advance([window])
        sys.stderr.write(f"\r{name}: step {trainer.step} of {steps}    ")
    seconds = time.monotonic() - started
    sys.stderr.write("\n")
    tally = Tally()
    for number, window in enumerate(corpus.held_out):
        passes = Passes(model, [window])
        draw = np.random.default_rng([17, number])
        holes = objective.cut(window, newline, passes.canvas, ASKED, draw)
        tally.add(passes, holes, draw)
    return {**tally.figures(), "steps": steps, "seconds a step": round(seconds / steps, 1)}


@dataclass(slots=True)
class Tally:
    """Answers on held-out holes, figure by figure."""

    answers: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in FIGURES})

    @torch.no_grad()
    def add(self, passes: Passes, holes: Sequence[Hole], draw: np.random.Generator) -> None:
        """Fills `holes` of the only window of `passes`, noised by `draw`."""
        canvases = [_canvases(hole, passes.mask_id, draw) for hole in holes]
        made = objective.laid_out(passes.windows[0], holes, canvases, ASKED)
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
            for number, kind in (
                (WRITTEN, "written"),
                (CANVAS, "all noised"),
                (CANVAS + 1, "some noised"),
            ):
                rows = (segment == hole.number) & (part == number)
                self.count(kind, best[rows], wanted[rows], losses[rows], passes.empty_id)

    def count(
        self, kind: str, best: Ids, wanted: Ids, losses: NDArray[np.float32], empty: int
    ) -> None:
        """Adds one part of a hole: `best` against `wanted`, all [slots]."""
        ends = wanted == empty
        right = best == wanted
        if kind == "written":
            self.answers["written loss"] += losses.tolist()
            self.answers["written right"] += right[~ends].tolist()
            self.answers["written end right"] += right[ends].tolist()
        elif kind == "some noised":
            self.answers["some noised: right"] += right[~ends].tolist()
        else:
            self.answers["all noised: right"] += right[~ends].tolist()
            if ends.any():
                same = np.argmax(ends) == np.argmax(best == empty) and bool((best == empty).any())
                self.answers["all noised: end right"].append(float(same))
            last = int(np.argmax(ends)) + 1 if ends.any() else len(ends)
            self.answers["all noised: exact"].append(float(right[:last].all()))

    def figures(self) -> dict[str, float]:
        """Means of all figures."""
        return {name: round(float(np.mean(values)), 4) for name, values in self.answers.items()}


def _canvases(hole: Hole, mask_id: int, draw: np.random.Generator) -> list[Noised]:
    """The canvas with nothing shown, and one with some of the text shown."""
    some = draw.random(len(hole.slots)) < draw.random()
    some |= hole.slots == hole.setup.empty_id
    every = np.ones(len(hole.slots), np.bool_)
    return [
        Noised(hole.slots, np.where(hidden, mask_id, hole.slots), hidden)
        for hidden in (every, some)
    ]


def table(results: dict[str, dict[str, float]]) -> str:
    """The results as Markdown, losses in nats and the rest in percent."""
    names = [*FIGURES, "steps", "seconds a step"]
    lines = ["| run | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for run, figures in results.items():
        cells = [
            f"{figures[name]:.2f}" if "loss" in name
            else f"{100 * figures[name]:.1f}" if name in FIGURES
            else f"{figures[name]:g}"
            for name in names
        ]  # fmt: skip
        lines.append(f"| {run} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the variants one after the other; a table and one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m bench.ablation", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--held-out", type=int, default=24, metavar="N", help="windows of 8 holes")
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), choices=VARIANTS, metavar="RUN",
                        help="; ".join(VARIANTS).replace("%", "%%"))  # fmt: skip
    given = parser.parse_args(arguments)
    if not 0 < given.steps <= HELD_OUT:
        parser.error(f"--steps must be 1 to {HELD_OUT}, where the held-out text begins")
    device, base = choose_device(given.device), resolve_model(given.base)
    separator = Tokenizer.from_directory(base).special(DOCUMENT)
    corpus = Corpus(given.corpus, separator, given.held_out)
    results = {}
    for name in given.only:
        results[name] = measure(name, VARIANTS[name], base, corpus, given.steps, device)
        sys.stderr.write(f"{json.dumps(results[name])}\n")
    print(table(results))
    print(json.dumps({"steps": given.steps, "held_out": given.held_out, "runs": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

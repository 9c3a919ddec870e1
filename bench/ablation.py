"""`python -m bench.ablation --corpus DIR --steps N`: what each choice of the training recipe is worth.

Short runs from one base, each with one thing changed, on the same windows of text and the same seed;
then all of them fill the same holes in files that no run sees (`engine.train.probe`). Figures of one run differ by
chance as well: "another seed" is the measure of that. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from engine.loading import choose_device, native_dtype
from engine.pull import resolve_model
from engine.tokenizer import Tokenizer
from engine.train import shards
from engine.train.adapt import DOCUMENT, adapt, newline_table
from engine.train.objective import Ids, Recipe
from engine.train.probe import FIGURES, Probe
from engine.train.trainer import Options, Trainer

RECIPE = Recipe(
    window=320, holes=8, buckets=(8, 16, 32), longest_canvas=32, suffix=(8, 32), canvases=1,
    causal_weight=0.0,
)  # fmt: skip
# What is asked of every variant: both kinds of noise in every hole, whatever it was trained on.
ASKED = replace(RECIPE, canvases=2, random_noise=0.0)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """What all runs learn from, from the n-th window on, and the windows that none sees."""

    windows: Callable[[int], Iterator[Ids]]
    held_out: Sequence[Ids]


def measure(
    name: str, variant: Variant, base: Path, text: Text, steps: int, device: torch.device
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
    for window in itertools.islice(text.windows(0), steps):
        trainer.advance([window])
        sys.stderr.write(f"\r{name}: step {trainer.step} of {steps}    ")
    seconds = time.monotonic() - started
    sys.stderr.write("\n")
    figures = Probe(text.held_out, newline, ASKED).figures(model)
    return {**figures, "steps": steps, "seconds a step": round(seconds / steps, 1)}


def table(results: dict[str, dict[str, float]]) -> str:
    """The results as Markdown, losses in nats and the rest in percent."""
    names = [*FIGURES, "steps", "seconds a step"]
    lines = ["| run | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for run, figures in results.items():
        cells = [_cell(name, figures[name]) if name in figures else "" for name in names]
        lines.append(f"| {run} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(name: str, value: float) -> str:
    if name not in FIGURES:
        return f"{value:g}"
    return f"{value:.2f}" if "loss" in name else f"{100 * value:.1f}"


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
    device, base = choose_device(given.device), resolve_model(given.base)
    separator = Tokenizer.from_directory(base).special(DOCUMENT)
    text = Text(
        windows=shards.windows(given.corpus, RECIPE.window, separator, seed=0),
        held_out=shards.held_out(given.corpus, RECIPE.window, separator, given.held_out),
    )
    results = {}
    for name in given.only:
        results[name] = measure(name, VARIANTS[name], base, text, given.steps, device)
        sys.stderr.write(f"{json.dumps(results[name])}\n")
    print(table(results))
    print(json.dumps({"steps": given.steps, "held_out": given.held_out, "runs": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How much the engine's confidence tells, and the curve that it is made with, fitted anew.

    python -m bench.confidence --out DIR --tree DIR... [--model NAME_OR_DIR] [--holes N] [--seed N]

Digs N Python holes of each split in the trees and has the engine fill them as an editor would ask.
A text is right if what stood in the hole, and behind it, goes on with it: accepting it leaves
nothing to take back. The whole answer is judged, and its first line. Answers are appended to
DIR/answers.jsonl as they come, so a run that was broken off goes on; take a new DIR after a change
of code or model. Ends with how well the confidence sorts and what it promises, what `minScore` would
show of what is offered unasked, and the curve (`engine.confidence.CALIBRATION`) that fits these
answers best: do not fit it on what it is then measured on.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from bench import holes, metrics, systems
from bench.holes import Hole, HolesError
from dg_lsp import choice, context
from dg_lsp.settings import EngineSettings, Settings
from engine.config import EngineConfig
from engine.errors import EngineError
from engine.pull import resolve_model
from engine.request import Candidate
from engine.runtime import Engine

Row = dict[str, Any]
_BINS = 5
_GATES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fills what is still to fill, then reports on all of it."""
    options = _parser().parse_args(arguments)
    try:
        dug = holes.from_trees(options.tree, options.holes, options.seed)
        rows = _answered([hole for hole in dug if hole.language == "python"], options)
    except (EngineError, HolesError) as error:
        sys.stderr.write(f"bench.confidence: {error}\n")
        return 1
    print(report(rows))
    return 0


class Judged(NamedTuple):
    """A text's surprise, the mean probability of its tokens, its confidence, and whether it is right."""

    surprise: float
    probability: float
    confidence: float
    right: bool


def stands(text: str, rest: str) -> bool:
    """Whether `rest`, what stood behind the cursor, goes on with the `text`, to a word's end."""
    text = text.rstrip()
    cut = text[-1:].isidentifier() and rest[len(text) : len(text) + 1].isidentifier()
    return bool(text) and rest.startswith(text) and not cut


def auc(scores: Sequence[float], right: Sequence[bool]) -> float:
    """How often a right one has the higher score of a right and a wrong one; ties count half."""
    higher = [s for s, r in zip(scores, right, strict=True) if r]
    lower = [s for s, r in zip(scores, right, strict=True) if not r]
    assert higher and lower, "there must be right and wrong ones"
    wins = sum((h > low) + 0.5 * (h == low) for h in higher for low in lower)
    return wins / (len(higher) * len(lower))


def fit(surprises: Sequence[float], right: Sequence[bool]) -> tuple[float, float]:
    """The bias and slope of `engine.confidence.Calibration` under which these are likeliest.

    Newton's steps on the logistic loss, with a prior of variance 100 that keeps them finite.
    """
    x = np.stack((np.ones(len(surprises)), -np.sqrt(surprises)), 1)  # [N, 2]
    y = np.array(right, dtype=float)
    weights = np.zeros(2)
    for _ in range(30):
        p = 1 / (1 + np.exp(-x @ weights))
        gradient = x.T @ (p - y) + weights / 100
        curvature = (x * (p * (1 - p))[:, None]).T @ x + np.eye(2) / 100
        weights -= np.linalg.solve(curvature, gradient)
    return float(weights[0]), float(weights[1])


def report(rows: Sequence[Row]) -> str:
    """The tables of a run, as Markdown."""
    judged = [Judged(**text) for row in rows for text in row["texts"]]
    right = [one.right for one in judged]
    bias, slope = fit([one.surprise for one in judged], right)
    lines = [
        f"{len(rows)} holes; {sum(right)} of {len(judged)} texts (answers and first lines) right",
        "",
        "| sorts by | right above wrong (AUC) | log loss |",
        "|---|---|---|",
    ]
    refitted = [1 / (1 + math.exp(slope * math.sqrt(one.surprise) - bias)) for one in judged]
    for name, scores in (
        ("mean probability of tokens", [one.probability for one in judged]),
        ("confidence", [one.confidence for one in judged]),
        ("confidence, refitted here", refitted),
    ):
        lines.append(f"| {name} | {auc(scores, right):.3f} | {_log_loss(scores, right):.3f} |")
    lines += ["", "| confidence | texts | promised | right |", "|---|---|---|---|"]
    for low in range(_BINS):
        inside = [one for one in judged if low <= one.confidence * _BINS < low + 1]
        if inside:
            promised = sum(one.confidence for one in inside) / len(inside)
            share = sum(one.right for one in inside) / len(inside)
            span = f"{low / _BINS:.1f} to {(low + 1) / _BINS:.1f}"
            lines.append(f"| {span} | {len(inside)} | {promised:.0%} | {share:.0%} |")
    return "\n".join([*lines, "", *_gates(rows), "", f"fitted: {bias=:.2f} {slope=:.2f}"])


def _gates(rows: Sequence[Row]) -> Iterator[str]:
    """What each `minScore` shows unasked: in how many holes, and how often what stands first is right."""
    yield "| minScore | holes with something shown | right first | right ones shown |"
    yield "|---|---|---|---|"
    for gate in _GATES:
        verdicts = [_shown_right(row, gate) for row in rows]
        shown = [verdict for verdict in verdicts if verdict is not None]
        good = metrics.mean(shown, [str(n) for n in range(len(shown))]) if shown else None
        share = f"{good.value:.0%} ({good.low:.0%} to {good.high:.0%})" if good else "–"
        yield f"| {gate} | {len(shown) / len(rows):.0%} | {share} | {sum(shown)} |"


def _shown_right(row: Row, gate: float) -> bool | None:
    """Whether the first of what a gate lets through is right; None where it lets nothing through."""
    passed = (offer["right"] for offer in row["offers"] if offer["confidence"] >= gate)
    return next(passed, None)


def _log_loss(scores: Sequence[float], right: Sequence[bool]) -> float:
    """The mean of -log p of what came true, in nats."""
    sure = 1e-6
    bounded = [min(1 - sure, max(sure, score)) for score in scores]
    pairs = zip(bounded, right, strict=True)
    return -math.fsum(math.log(p if r else 1 - p) for p, r in pairs) / len(right)


def _answered(dug: Sequence[Hole], options: argparse.Namespace) -> list[Row]:
    """The rows of all holes: those that are there, and the others, filled now."""
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "answers.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    done = {row["hole"]: row for row in map(json.loads, lines)}
    missing = [hole for hole in dug if hole.fingerprint not in done]
    if missing:
        directory = resolve_model(options.model)
        config = EngineConfig(model=directory, device=options.device, threads=options.threads)
        engine = Engine.load(config)
        with path.open("a", encoding="utf-8") as out:
            for hole in tqdm(missing, unit="hole"):
                done[hole.fingerprint] = answered(engine, hole)
                out.write(json.dumps(done[hole.fingerprint]) + "\n")
                out.flush()
    return [done[hole.fingerprint] for hole in dug]


def answered(engine: Engine, hole: Hole) -> Row:
    """What an editor would have got for a hole, and what of it is right."""
    place, rest = systems.snapshot(hole), hole.middle + hole.suffix
    result = engine.infill(context.build(place, Settings()), cancelled=lambda: False)
    whole = Candidate(text=result.text, confidence=result.confidence, evidence=result.evidence)
    line = result.beginnings[-1:]
    texts = [whole, *(first for first in line if first.text != whole.text)]
    return {
        "hole": hole.fingerprint,
        "split": hole.split,
        "texts": [
            Judged(
                surprise=each.evidence.surprise,
                probability=each.evidence.probability,
                confidence=each.confidence,
                right=stands(each.text, rest),
            )._asdict()
            for each in texts
            if each.text.strip()
        ],
        "offers": [
            {"right": stands(offer.text, rest), "confidence": offer.confidence}
            for offer in choice.offers(result, place, math.inf)
            if not choice.too_short(offer.text)
        ],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.confidence",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the answers")
    parser.add_argument("--tree", type=Path, nargs="+", required=True, help="sources")
    parser.add_argument("--model", default=EngineSettings().model, help="a name or a directory")
    parser.add_argument("--holes", type=int, default=50, help="of each split")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, default=0)
    return parser


if __name__ == "__main__":
    sys.exit(main())

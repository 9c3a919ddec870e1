"""Where holes come from: HumanEval-Infilling files, and source trees dug at syntax boundaries.

The same trees, seed and number give the same holes, and a larger number only adds to them. Where
in a source a hole can be is `bench.syntax`'s matter. Knows nothing of models or scores.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tree_sitter import Tree

from bench import syntax
from dg_lsp import grammars

HUMANEVAL_SPLITS = {
    "HumanEval single-line": "HumanEval-SingleLineInfilling.jsonl.gz",
    "HumanEval multi-line": "HumanEval-MultiLineInfilling.jsonl.gz",
    "HumanEval random span": "HumanEval-RandomSpanInfillingLight.jsonl.gz",
}
_ONE_LINE_SPLITS = (syntax.REST_OF_LINE, syntax.ONE_LINE, "HumanEval single-line")
_MAX_BYTES, _MAX_LINE = 200_000, 300
_NOT_OURS = re.compile(r"(^|/)(\.|_?vendor(ed)?/|__pycache__/|node_modules/|site-packages/)")
_GENERATED = re.compile(r"generated (by|from|file)|do not edit|@generated", re.IGNORECASE)
# Of other languages than Python: what was built, borrowed or only declares.
_BUILT = re.compile(
    r"(^|/)(bower_components|build|dist|out|target|third_party)/|[.-]min\.|\.d\.[cm]?ts$"
)
_COMPILED = re.compile(rb"__esModule|sourceMappingURL=|__webpack_require__")


class HolesError(ValueError):
    """Files that hold no holes; the message says which and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """A hole and what stood in it. `cluster` is the function or problem it is part of.

    `check` is the source of unit tests that call what the filled text defines; empty for none.
    """

    key: str
    split: str
    cluster: str
    path: str
    prefix: str
    middle: str
    suffix: str
    check: str = ""

    @property
    def language(self) -> str:
        """The language of the file, as editors call it."""
        return grammars.language_of(self.path)

    @property
    def one_line(self) -> bool:
        """Whether the split says that the hole ends with its line."""
        return self.split in _ONE_LINE_SPLITS

    @property
    def original(self) -> str:
        """The text without a hole."""
        return self.prefix + self.middle + self.suffix

    @property
    def fingerprint(self) -> str:
        """Changes with anything in the hole or around it."""
        return _hash(0, "\0".join((self.key, self.prefix, self.middle, self.suffix, self.check)))


class _Spot(NamedTuple):
    """A hole not yet cut out: bytes `start` to `end` of a file."""

    split: str
    language: str
    cluster: str
    file: Path
    shown: str
    start: int
    end: int

    @property
    def key(self) -> str:
        return f"{self.split}:{self.shown}:{self.start}-{self.end}"


def from_trees(trees: Sequence[Path], per_split: int, seed: int = 0) -> list[Hole]:
    """`per_split` holes of each split and language, one a function at most.

    The languages take turns, and within each of them the trees.
    """
    groups = [_grouped(_spots(tree)) for tree in trees]
    chosen: list[_Spot] = []
    for split in syntax.SPLITS:
        by_language = []
        for language in syntax.LANGUAGES:
            queues = [_drawn(spots.get((split, language), ()), seed) for spots in groups]
            by_language.append(itertools.islice(_in_turn(queues), per_split))
        chosen += _in_turn(by_language)
    return [_cut_out(spot) for spot in chosen]


def from_humaneval(directory: Path, per_split: int, seed: int = 0) -> list[Hole]:
    """`per_split` holes of each of the three splits of HumanEval-Infilling in `directory`."""
    holes: list[Hole] = []
    for split, name in HUMANEVAL_SPLITS.items():
        if not (directory / name).is_file():
            raise HolesError(f"{directory} has no {name}; give the folder of HumanEval-Infilling")
        with gzip.open(directory / name, "rt", encoding="utf-8") as lines:
            problems = [_problem(split, json.loads(line)) for line in lines]
        problems.sort(key=lambda hole: _hash(seed, hole.key))
        holes += problems[:per_split]
    return holes


def _problem(split: str, row: dict[str, str]) -> Hole:
    """The line end behind the hole goes to the suffix: in an editor it stands there already."""
    middle, suffix = row["canonical_solution"], row["suffix"]
    if split != "HumanEval random span" and middle.endswith("\n"):
        middle, suffix = middle[:-1], "\n" + suffix
    return Hole(
        key=row["task_id"],
        split=split,
        cluster="/".join(row["task_id"].split("/")[1:3]),
        path="solution.py",
        prefix=row["prompt"],
        middle=middle,
        suffix=suffix,
        check=f"{row['test']}\ncheck({row['entry_point']})\n",
    )


def _spots(tree: Path) -> list[_Spot]:
    if not tree.is_dir():
        raise HolesError(f"{tree} is no directory; give the folder of a source tree")
    root = tree.resolve()
    spots: list[_Spot] = []
    for file in sorted(root.rglob("*")):
        inner = file.relative_to(root).as_posix()
        shown = f"{root.name}/{inner}"
        name = grammars.language_of(shown)
        # Stubs of Python are another dialect: they have no bodies.
        if name not in syntax.LANGUAGES or inner.endswith(".pyi") or _NOT_OURS.search(shown):
            continue
        if (name != "python" and _BUILT.search(inner)) or not file.is_file():
            continue
        source = file.read_bytes()
        if tree_of_file := _readable(source, name):
            spots += [
                _Spot(split, name, f"{shown}:{function}", file, shown, start, end)
                for split, function, start, end in syntax.spans(
                    tree_of_file, source, syntax.LANGUAGES[name]
                )
            ]
    if not spots:
        names = ", ".join(syntax.LANGUAGES)
        raise HolesError(f"{tree} has no source with holes to dig ({names}); give another folder")
    return spots


def _readable(source: bytes, language: str) -> Tree | None:
    """The syntax tree; None where it is not UTF-8, broken, minified, generated or huge."""
    if len(source) > _MAX_BYTES or b"\r" in source:
        return None
    try:
        text = source.decode()
    except UnicodeDecodeError:
        return None
    if _GENERATED.search(text[:1000]) or max(map(len, text.split("\n"))) > _MAX_LINE:
        return None
    if language != "python" and _COMPILED.search(source):
        return None
    tree = grammars.parse(source, language, limit_s=math.inf)
    return None if tree is None or tree.root_node.has_error else tree


def _grouped(spots: Iterable[_Spot]) -> dict[tuple[str, str], list[_Spot]]:
    """The spots by split and language."""
    groups: dict[tuple[str, str], list[_Spot]] = {}
    for spot in spots:
        groups.setdefault((spot.split, spot.language), []).append(spot)
    return groups


def _in_turn(queues: Sequence[Iterable[_Spot]]) -> Iterator[_Spot]:
    """One spot of each queue, then the next of each."""
    turns = itertools.zip_longest(*queues)
    return (spot for turn in turns for spot in turn if spot is not None)


def _drawn(spots: Iterable[_Spot], seed: int) -> list[_Spot]:
    """The spots in an order that only seed and spot decide, the first of each function."""
    first: dict[str, _Spot] = {}
    for spot in sorted(spots, key=lambda spot: _hash(seed, spot.key)):
        first.setdefault(spot.cluster, spot)
    return list(first.values())


def _cut_out(spot: _Spot) -> Hole:
    source = spot.file.read_bytes()
    return Hole(
        key=spot.key,
        split=spot.split,
        cluster=spot.cluster,
        path=spot.shown,
        prefix=source[: spot.start].decode(),
        middle=source[spot.start : spot.end].decode(),
        suffix=source[spot.end :].decode(),
    )


def _hash(seed: int, text: str) -> str:
    return hashlib.blake2b(f"{seed}:{text}".encode(), digest_size=12).hexdigest()

"""Where holes come from: HumanEval-Infilling files, and source trees dug at syntax boundaries.

The same trees, seed and number give the same holes, and a larger number only adds to them. Knows
nothing of models or scores. Python only, so far.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tree_sitter import Node

from bench.metrics import python_tree

REST_OF_LINE, ONE_LINE, BLOCK = "rest of line", "1 line", "block"
FEW_LINES, MORE_LINES = "2-3 lines", "4-8 lines"
TREE_SPLITS = (REST_OF_LINE, ONE_LINE, FEW_LINES, MORE_LINES, BLOCK)
HUMANEVAL_SPLITS = {
    "HumanEval single-line": "HumanEval-SingleLineInfilling.jsonl.gz",
    "HumanEval multi-line": "HumanEval-MultiLineInfilling.jsonl.gz",
    "HumanEval random span": "HumanEval-RandomSpanInfillingLight.jsonl.gz",
}
_ONE_LINE_SPLITS = (REST_OF_LINE, ONE_LINE, "HumanEval single-line")
_BLOCK_LINES = range(2, 21)
_MAX_BYTES, _MAX_LINE = 200_000, 300
_NOT_OURS = re.compile(r"(^|/)(\.|_?vendor(ed)?/|__pycache__/|node_modules/|site-packages/)")
_GENERATED = re.compile(r"generated (by|from|file)|do not edit|@generated", re.IGNORECASE)


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
    cluster: str
    file: Path
    shown: str
    start: int
    end: int

    @property
    def key(self) -> str:
        return f"{self.split}:{self.shown}:{self.start}-{self.end}"


def from_trees(trees: Sequence[Path], per_split: int, seed: int = 0) -> list[Hole]:
    """`per_split` holes of each split, the trees taking turns, one hole a function at most."""
    found = [_spots(tree) for tree in trees]
    chosen: list[_Spot] = []
    for split in TREE_SPLITS:
        queues = [_drawn((s for s in spots if s.split == split), seed) for spots in found]
        turns = itertools.zip_longest(*queues)
        spots = (spot for turn in turns for spot in turn if spot is not None)
        chosen += itertools.islice(spots, per_split)
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
    for file in sorted(root.rglob("*.py")):
        shown = f"{root.name}/{file.relative_to(root).as_posix()}"
        if not _NOT_OURS.search(shown) and (source := _readable(file)):
            spots += _dig(source, file, shown)
    if not spots:
        raise HolesError(f"{tree} has no Python source with holes to dig; give another folder")
    return spots


def _readable(file: Path) -> bytes:
    """The source, or nothing where it is not UTF-8, broken, minified, generated or huge."""
    source = file.read_bytes()
    if len(source) > _MAX_BYTES or b"\r" in source:
        return b""
    try:
        text = source.decode()
    except UnicodeDecodeError:
        return b""
    if _GENERATED.search(text[:1000]) or max(map(len, text.split("\n"))) > _MAX_LINE:
        return b""
    return b"" if python_tree(source).root_node.has_error else source


def _dig(source: bytes, file: Path, shown: str) -> Iterator[_Spot]:
    nodes = list(_walk(python_tree(source).root_node))
    torn = {  # rows that end inside a string
        row
        for node, _ in nodes
        if node.type == "string"
        for row in range(node.start_point.row, node.end_point.row)
    }
    for node, function in nodes:
        found: Iterable[tuple[str, Node, int]] = ()
        if node.type in ("block", "module"):
            found = _statement_holes(node, source)
        elif (node.type == "string" or not node.children) and node.start_point.row not in torn:
            end = _line_end(source, node.start_byte)
            if _opens_rest_of_line(node, source, end):
                found = [(REST_OF_LINE, node, end)]
        for split, first, end in found:
            inside = _name(first) if function == "module" else function
            yield _Spot(split, f"{shown}:{inside}", file, shown, first.start_byte, end)


def _statement_holes(body: Node, source: bytes) -> Iterator[tuple[str, Node, int]]:
    """Runs of whole statements in one body, lines that head a compound one, the whole body."""
    statements = [child for child in body.children if child.is_named]
    if statements and _is_docstring(statements[0]):
        del statements[0]
    whole = [_fills_its_lines(node, source) and node.type != "comment" for node in statements]
    for i, first in enumerate(statements):
        if not whole[i] or first.type.startswith(("import", "future_import")):
            continue  # which modules a file wants, nothing around the cursor tells
        if (head := _head_end(first)) and source[head : _line_end(source, head)].strip() == b"":
            yield ONE_LINE, first, head
        for j in range(i, len(statements)):
            lines = statements[j].end_point.row - first.start_point.row + 1
            if lines > 8:
                break
            if whole[j]:
                split = ONE_LINE if lines == 1 else FEW_LINES if lines <= 3 else MORE_LINES
                yield split, first, statements[j].end_byte
    if body.type == "block" and statements and whole[0] and whole[-1]:
        first, last = statements[0], statements[-1]
        if last.end_point.row - first.start_point.row + 1 in _BLOCK_LINES:
            yield BLOCK, first, last.end_byte


def _opens_rest_of_line(node: Node, source: bytes, end: int) -> bool:
    """Whether code of some substance goes from this token to the end of its line."""
    rest = source[node.start_byte : end]
    line = source[source.rfind(b"\n", 0, node.start_byte) + 1 : node.start_byte]
    return node.type != "comment" and line.strip() != b"" and len(rest.strip()) >= 3


def _fills_its_lines(node: Node, source: bytes) -> bool:
    before = source[source.rfind(b"\n", 0, node.start_byte) + 1 : node.start_byte]
    after = source[node.end_byte : _line_end(source, node.end_byte)]
    return not before.strip() and not after.strip() and node.end_byte > node.start_byte


def _head_end(node: Node) -> int | None:
    """Where the first line of a compound statement ends, if its body is below that line."""
    colon = next((child for child in node.children if child.type == ":"), None)
    if colon is None or colon.start_point.row != node.start_point.row:
        return None
    return colon.end_byte if node.end_point.row > node.start_point.row else None


def _name(node: Node) -> str:
    """What holes in the node count as one cluster with: a function by its line, or the module."""
    return str(node.start_point.row + 1) if node.type == "function_definition" else "module"


def _is_docstring(node: Node) -> bool:
    inner = node.named_children[:1]
    return node.type == "expression_statement" and [n.type for n in inner] == ["string"]


def _walk(root: Node) -> Iterator[tuple[Node, str]]:
    """All nodes but those inside strings, each with the outermost function around it."""
    nodes = [(root, "module")]
    while nodes:
        node, function = nodes.pop()
        yield node, function
        if node.type == "string":
            continue
        inside = _name(node) if function == "module" else function
        nodes += [(child, inside) for child in reversed(node.children)]


def _line_end(source: bytes, start: int) -> int:
    end = source.find(b"\n", start)
    return len(source) if end < 0 else end


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

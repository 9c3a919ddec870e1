"""What the evaluation uses, read so that the corpus can be kept clear of it.

Knows the two forms evaluation data has here: problems as JSON lines, and source trees. HumanEval's
problems are forbidden without their files: `humaneval.npz` has the hashes of their lines, written by
`python -m engine.train.leaks DIR` from a folder of HumanEval-Infilling.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from engine.errors import EngineError
from engine.train.dedup import Forbidden
from engine.train.languages import language_of
from engine.train.sources import SourceFile

_FIELDS = ("prompt", "canonical_solution", "suffix")
_HUMANEVAL = Path(__file__).with_name("humaneval.npz")


def humaneval() -> Forbidden:
    """HumanEval's problems."""
    with np.load(_HUMANEVAL, allow_pickle=False) as hashes:
        return Forbidden(set(hashes["windows"].tolist()), set(hashes["lines"].tolist()))


def forbidden(paths: Iterable[Path], found: Forbidden | None = None) -> Forbidden:
    """Everything in the problem files (`*.jsonl`, `*.jsonl.gz`) and source trees given.

    With `found` it is added to that.
    """
    found = found or Forbidden()
    for path in paths:
        if path.is_dir():
            inner = [p for p in sorted(path.rglob("*")) if p.is_file()]
            problems = [p for p in inner if p.name.endswith((".jsonl", ".jsonl.gz"))]
            sources = [p for p in inner if language_of(p.name)]
            if not problems and not sources:
                raise EngineError(f"--exclude {path} holds neither *.jsonl[.gz] nor sources")
        elif path.name.endswith((".jsonl", ".jsonl.gz")):
            problems, sources = [path], []
        else:
            raise EngineError(
                f"--exclude {path} is no folder and no *.jsonl or *.jsonl.gz file; give one"
            )
        for file in problems:
            _forbid_problems(found, file)
        for file in sources:
            found.add(file.read_text(encoding="utf-8", errors="replace"))
    return found


def forbid_files(found: Forbidden, files: Iterable[SourceFile]) -> None:
    """Forbids every file of a package that is kept for the evaluation."""
    for file in files:
        found.add(file.data.decode("utf-8", errors="replace"))


def _forbid_problems(found: Forbidden, path: Path) -> None:
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        rows = [json.loads(line) for line in data.decode("utf-8").split("\n") if line.strip()]
        problems = {("".join(row[name] for name in _FIELDS), row["entry_point"]) for row in rows}
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"--exclude {path} is not a file of infilling problems ({error!r}); each line needs "
            f"{', '.join(_FIELDS)} and entry_point"
        ) from None
    for text, entry_point in sorted(problems):
        start = f"def {entry_point}("
        found.add(text, next((line for line in text.split("\n") if line.startswith(start)), ""))


def main(folder: Path) -> None:
    """Writes the hashes of the problems in `folder`, the same bytes each time."""
    found = forbidden([folder])
    hashes = {
        name: np.array(sorted(some), np.uint64)
        for name, some in (("windows", found.windows), ("lines", found.lines))
    }
    np.savez(_HUMANEVAL, **hashes)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(Path(sys.argv[1]))

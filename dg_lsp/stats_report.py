"""The local figures summed up, in numbers and in words: what `dg-lsp stats` prints.

Knows the lines that `stats` keeps; nothing of how they come about.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dg_lsp.stats import Statistics

Line = Mapping[str, Any]

_KINDS = ("full", "partial", "typed")


def run(options: argparse.Namespace) -> int:
    """Prints the figures, or deletes them."""
    book = Statistics()
    if options.delete:
        try:
            gone = book.delete()
        except OSError as error:
            sys.stderr.write(f"dg-lsp: {book.path} cannot be deleted: {error}\n")
            return 1
        sys.stdout.write(f"deleted {book.path}\n" if gone else "there are no statistics\n")
    elif options.json:
        sys.stdout.write(json.dumps({**summary(book.read()), "path": str(book.path)}) + "\n")
    else:
        sys.stdout.write(report(summary(book.read()), book.path))
    return 0


def summary(lines: Iterable[Line]) -> dict[str, Any]:
    """The figures of all lines together; shares are 0 to 1, None where nothing was counted."""
    lines = list(lines)
    counts = Counter(str(line["event"]) for line in lines)
    outcomes = [line for line in lines if line["event"] == "outcome"]
    how = Counter(str(line.get("how")) for line in outcomes)
    completed, typed = _sum(outcomes, "accepted"), _sum(lines, "typed")
    waits = sorted(float(line["ms"]) for line in lines if line["event"] == "shown" and "ms" in line)
    kept = {
        int(after): _share(_sum(at, "kept"), _sum(at, "of"))
        for after in sorted({line.get("after_s", 0) for line in lines} - {0})
        if (at := [line for line in lines if line.get("after_s") == after])
    }
    return {
        "since": min((int(line["at"]) for line in lines), default=None),
        "shown": counts["shown"],
        "rejected": how["rejected"],
        "accepted": {kind: how[kind] for kind in _KINDS},
        "acceptance": _share(how["full"] + how["partial"], counts["shown"]),
        "completed_share": _share(completed, completed + typed),
        "retained_after_s": kept,
        "latency_ms": {"p50": _quantile(waits, 0.5), "p95": _quantile(waits, 0.95)},
    }


def report(figures: Mapping[str, Any], path: Path) -> str:
    """A summary in lines for people."""
    if not figures["since"]:
        return f"no statistics yet (in {path})\n"
    accepted, latency = figures["accepted"], figures["latency_ms"]
    kept = ", ".join(
        f"{_percent(share)} after {after} s" for after, share in figures["retained_after_s"].items()
    )
    return (
        f"since {time.strftime('%Y-%m-%d', time.localtime(figures['since']))} (in {path})\n"
        f"shown      {figures['shown']}\n"
        f"accepted   {accepted['full']} whole, {accepted['partial']} in part"
        f" ({_percent(figures['acceptance'])}); {accepted['typed']} typed as shown\n"
        f"retained   {kept or 'not known yet'}\n"
        f"completed  {_percent(figures['completed_share'])} of what was written\n"
        f"latency    p50 {_ms(latency['p50'])}, p95 {_ms(latency['p95'])}\n"
    )


def _sum(lines: Iterable[Line], key: str) -> float:
    return sum(float(line.get(key, 0)) for line in lines)


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 3) if whole else None


def _quantile(values: list[float], share: float) -> float | None:
    if len(values) < 2:
        return values[0] if values else None
    points = statistics.quantiles(values, n=100, method="inclusive")
    return round(points[int(100 * share) - 1], 1)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f} ms"

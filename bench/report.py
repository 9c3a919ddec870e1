"""Rows of results -> Markdown tables and one JSON object: pure.

Tables by split, by the length of what stood in the hole, and by language where there are several.
`raw` is the text as it came,
`shown` what the ghost-text filters leave of it; an answer that failed counts as an empty one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bench.metrics import Mean, mean, percentile

Row = dict[str, Any]
Groups = dict[str, dict[str, dict[str, Any]]]  # split, length or language -> system -> summary
_BUCKETS = ((15, "1-15"), (40, "16-40"), (100, "41-100"), (250, "101-250"))
_LONGEST = "over 250"
_HEAD = (
    *("system", "holes", "exact raw", "exact shown", "pass@1 raw", "pass@1 shown"),
    *("similarity raw", "parses raw", "parses shown", "forwards", "tokens a forward"),
    *("ms p50", "ms p95", "decode ms p50"),
)


def of(rows: Sequence[Row], isolation: str) -> tuple[str, dict[str, Any]]:
    """The report on `rows` as Markdown and as JSON values."""
    splits = _grouped(rows, lambda row: str(row["split"]))
    by_length = _grouped(rows, lambda row: length_bucket(row["length"]))
    names = (*(name for _, name in _BUCKETS), _LONGEST)
    lengths = {name: by_length[name] for name in names if name in by_length}
    languages = _grouped(rows, lambda row: str(row["language"]))
    tables = [_table("By split", splits), _table("By characters of the hole", lengths)]
    if len(languages) > 1:
        tables.append(_table("By language", languages))
    notes = [
        "Percent, with 95 % intervals clustered by function or problem. Times include encoding "
        "the prompt; `decode` does not, as with a warm prefix. Where the split says that a hole "
        "ends with its line, the systems are told.",
        isolation,
        *(f"{n} answers of {name} failed: {why}" for (name, why), n in _failures(rows).items()),
    ]
    figures = {
        "bench": "quality",
        "isolation": isolation,
        "splits": splits,
        "lengths": lengths,
        "languages": languages,
    }
    return "\n\n".join([*tables, *notes]) + "\n", figures


def length_bucket(characters: int) -> str:
    """The name of the bucket for what stood in a hole, a scale no tokenizer decides."""
    return next((name for most, name in _BUCKETS if characters <= most), _LONGEST)


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """The figures for one system in one group; pass@1 is None where nothing could be run."""
    clusters = [row["cluster"] for row in rows]

    def share(kind: str, name: str) -> Mean | None:
        pairs = [
            (float(row[kind][name]), cluster)
            for row, cluster in zip(rows, clusters, strict=True)
            if row[kind][name] is not None
        ]
        return mean([value for value, _ in pairs], [c for _, c in pairs]) if pairs else None

    forwards = sum(row["forwards"] for row in rows)
    figures: dict[str, Any] = {"holes": len(rows), "clusters": len(set(clusters))}
    for kind in ("raw", "shown"):
        for name in ("exact", "passed", "similarity", "parses"):
            found = share(kind, name)
            figures[f"{name}_{kind}"] = found and [round(v, 4) for v in found[:3]]
    return figures | {
        "forwards": round(forwards / len(rows), 2),
        "tokens_per_forward": round(sum(row["tokens"] for row in rows) / max(1, forwards), 2),
        "ms_p50": round(percentile([row["ms"] for row in rows], 50), 2),
        "ms_p95": round(percentile([row["ms"] for row in rows], 95), 2),
        "decode_ms_p50": round(percentile([row["decode_ms"] for row in rows], 50), 2),
    }


def _grouped(rows: Sequence[Row], group: Callable[[Row], str]) -> Groups:
    """Summaries by group and system, both in the order in which they first appear."""
    kept: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        kept.setdefault(group(row), {}).setdefault(row["system"], []).append(row)
    return {
        name: {system: summary(some) for system, some in by_system.items()}
        for name, by_system in kept.items()
    }


def _failures(rows: Sequence[Row]) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for row in rows:
        if row["error"]:
            key = (row["system"], row["error"])
            counts[key] = counts.get(key, 0) + 1
    return counts


def _table(title: str, groups: Groups) -> str:
    lines = [f"### {title}", "", _line(("", *_HEAD)), _line(("---",) * (len(_HEAD) + 1))]
    for group, by_system in groups.items():
        lines += [_line((group, *_cells(system, s))) for system, s in by_system.items()]
    return "\n".join(lines)


def _cells(system: str, figures: dict[str, Any]) -> tuple[str, ...]:
    def percent(name: str, *, interval: bool = False) -> str:
        if figures[name] is None:
            return ""
        value, low, high = (100 * part for part in figures[name])
        return f"{value:.1f} [{low:.0f}-{high:.0f}]" if interval else f"{value:.1f}"

    timed = (figures[name] for name in ("ms_p50", "ms_p95", "decode_ms_p50"))
    counted = (figures[name] for name in ("forwards", "tokens_per_forward"))
    return (
        system,
        str(figures["holes"]),
        percent("exact_raw", interval=True),
        percent("exact_shown"),
        percent("passed_raw", interval=True),
        percent("passed_shown"),
        percent("similarity_raw"),
        percent("parses_raw"),
        percent("parses_shown"),
        *(f"{value:g}" for value in counted),
        *(f"{value:.0f}" if value >= 10 else f"{value:.1f}" for value in timed),
    )


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"

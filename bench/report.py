"""Rows of results -> Markdown tables and one JSON object: pure.

Tables by split, by the length of what stood in the hole, and by language where there are several.
`raw` is the text as it came,
`shown` what the ghost-text filters leave of it; an answer that failed counts as an empty one. Where
a diffusion model was told the length of the hole too, tables say what that was worth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bench.metrics import Mean, difference, mean, percentile

Row = dict[str, Any]
Groups = dict[str, dict[str, dict[str, Any]]]  # split, length or language -> system -> summary
_BUCKETS = ((15, "1-15"), (40, "16-40"), (100, "41-100"), (250, "101-250"))
_LONGEST = "over 250"
_GAP_SCORES = (("exact", "exact"), ("passed", "pass@1"), ("similarity", "similarity"))
_GAP_HEAD = (
    *("model", "holes", "text"),
    *(f"{title}: {what}" for _, title in _GAP_SCORES for what in ("oracle", "unknown", "gap")),
)
_HEAD = (
    *("system", "holes", "exact raw", "exact shown", "pass@1 raw", "pass@1 shown"),
    *("similarity raw", "similarity shown", "parses raw", "parses shown"),
    *("forwards", "tokens a forward"),
    *("ms p50", "ms p95", "decode ms p50"),
)


def of(rows: Sequence[Row], isolation: str) -> tuple[str, dict[str, Any]]:
    """The report on `rows` as Markdown and as JSON values."""
    splits = _grouped(rows, _split)
    lengths = _by_length(_grouped(rows, _length))
    languages = _grouped(rows, _language)
    tables = [
        _table("All holes", _grouped(rows, lambda row: "all")),
        _table("By split", splits),
        _table("By characters of the hole", lengths),
    ]
    if len(languages) > 1:
        tables.append(_table("By language", languages))
    gaps = {"splits": _gaps(rows, _split), "lengths": _by_length(_gaps(rows, _length))}
    if gaps["splits"]:
        tables.append(
            _gap_table("The length of the hole known (oracle) or not, by split", gaps["splits"])
        )
        tables.append(_gap_table("The same by characters of the hole", gaps["lengths"]))
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
        "gaps": gaps,
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


def gap(pairs: Sequence[tuple[Row, Row]]) -> dict[str, Any]:
    """The figures for answers with the length known beside those to the same holes without.

    Each is (oracle, unknown, (gap, low, high)); None where nothing could be run.
    """
    figures: dict[str, Any] = {"holes": len(pairs)}
    for kind in ("raw", "shown"):
        for name, _ in _GAP_SCORES:
            scored = [
                (float(oracle[kind][name]), float(unknown[kind][name]), oracle["cluster"])
                for oracle, unknown in pairs
                if oracle[kind][name] is not None
            ]
            if not scored:
                figures[f"{name}_{kind}"] = None
                continue
            found = difference([(o, u) for o, u, _ in scored], [c for *_, c in scored])
            both = (sum(score[i] for score in scored) / len(scored) for i in (0, 1))
            figures[f"{name}_{kind}"] = [
                *(round(value, 4) for value in both),
                [round(value, 4) for value in found[:3]],
            ]
    return figures


def _split(row: Row) -> str:
    return str(row["split"])


def _length(row: Row) -> str:
    return length_bucket(row["length"])


def _language(row: Row) -> str:
    return str(row["language"])


def _by_length(groups: Groups) -> Groups:
    """The groups in the order of length."""
    names = (*(name for _, name in _BUCKETS), _LONGEST)
    return {name: groups[name] for name in names if name in groups}


def _gaps(rows: Sequence[Row], group: Callable[[Row], str]) -> Groups:
    """What knowing the length is worth, by group and model."""
    kept: dict[str, dict[str, list[tuple[Row, Row]]]] = {}
    for model, pairs in _paired(rows).items():
        for pair in pairs:
            kept.setdefault(group(pair[0]), {}).setdefault(model, []).append(pair)
    return {
        name: {model: gap(pairs) for model, pairs in by_model.items()}
        for name, by_model in kept.items()
    }


def _paired(rows: Sequence[Row]) -> dict[str, list[tuple[Row, Row]]]:
    """By model, answers with the length known, each with that to the same hole without."""
    by_system: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_system.setdefault(row["system"], {})[row["hole"]] = row
    found: dict[str, list[tuple[Row, Row]]] = {}
    for system, told in by_system.items():
        kind, _, model = system.partition(" ")
        for name in (f"diffusion {model}", f"engine {model}") if kind == "oracle" else ():
            untold = by_system.get(name, {})
            modes = {row["mode"] for row in untold.values() if not row["error"]}
            if modes == {"diffusion"} and model not in found:
                found[model] = [(told[hole], untold[hole]) for hole in told if hole in untold]
    return found


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


def _gap_table(title: str, groups: Groups) -> str:
    lines = [f"### {title}", "", _line(("", *_GAP_HEAD)), _line(("---",) * (len(_GAP_HEAD) + 1))]
    for group, by_model in groups.items():
        for model, figures in by_model.items():
            for kind in ("raw", "shown"):
                cells = [group, model, str(figures["holes"]), kind]
                for name, _ in _GAP_SCORES:
                    cells += _gap_cells(figures[f"{name}_{kind}"])
                lines.append(_line(cells))
    return "\n".join(lines)


def _gap_cells(figure: Any) -> tuple[str, str, str]:
    if figure is None:
        return ("", "", "")
    oracle, unknown, (value, low, high) = figure
    between = f"{100 * value:+.1f} [{100 * low:+.0f} to {100 * high:+.0f}]"
    return (f"{100 * oracle:.1f}", f"{100 * unknown:.1f}", between)


def _cells(system: str, figures: dict[str, Any]) -> tuple[str, ...]:
    def percent(name: str) -> str:
        if figures[name] is None:
            return ""
        value, low, high = (100 * part for part in figures[name])
        return f"{value:.1f} [{low:.0f}-{high:.0f}]"

    def bare(name: str) -> str:
        return percent(name).partition(" ")[0]

    timed = (figures[name] for name in ("ms_p50", "ms_p95", "decode_ms_p50"))
    counted = (figures[name] for name in ("forwards", "tokens_per_forward"))
    return (
        system,
        str(figures["holes"]),
        *map(percent, ("exact_raw", "exact_shown", "passed_raw", "passed_shown")),
        *map(bare, ("similarity_raw", "similarity_shown", "parses_raw", "parses_shown")),
        *(f"{value:g}" for value in counted),
        *(f"{value:.0f}" if value >= 10 else f"{value:.1f}" for value in timed),
    )


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"

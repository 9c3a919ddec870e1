"""The local figures as a page of HTML: bars drawn in SVG, no scripts, nothing fetched.

Colours are those of the editor that shows it, as VS Code names them. Knows nothing of what is
counted or of where it is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

_LABEL, _FULL, _ROW = 210, 260, 24  # pixels: where labels end, the longest bar, a line's height
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
svg { display: block; max-width: 44em; font: 13px var(--vscode-font-family, sans-serif); }
text { fill: var(--vscode-foreground, black); } rect { fill: var(--vscode-charts-blue, steelblue); }
code { color: var(--vscode-descriptionForeground, dimgray); }"""

Bar = tuple[str, float | None]


def page(figures: Mapping[str, Any], path: Path) -> str:
    """A whole page of the figures that `stats.summary` makes; `path` is the file they are from."""
    if figures["since"]:
        since = time.strftime("%Y-%m-%d", time.localtime(figures["since"]))
        charts = "\n".join([f"<p>Since {since}.</p>", *_charts(figures)])
    else:
        charts = "<p>No figures yet: they appear with the first completions.</p>"
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>dg-lsp</title>
<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><style>{_STYLE}
</style></head><body><h1>Completions on this machine</h1>
{charts}
<p><code>{escape(str(path))}</code> never leaves this machine;
<code>dg-lsp stats --delete</code> deletes it.</p></body></html>
"""


def _charts(figures: Mapping[str, Any]) -> list[str]:
    accepted, latency = figures["accepted"], figures["latency_ms"]
    kept = [(f"after {after} s", share) for after, share in figures["retained_after_s"].items()]
    counts = [
        ("shown", figures["shown"]),
        ("accepted whole", accepted["full"]),
        ("accepted in part", accepted["partial"]),
        ("typed as shown", accepted["typed"]),
        ("rejected", figures["rejected"]),
    ]
    shares = [
        ("of what was shown, accepted", figures["acceptance"]),
        ("of what was written, completed", figures["completed_share"]),
    ]
    waits = [("half of them within", latency["p50"]), ("95 % within", latency["p95"])]
    return [
        _chart("Completions", "{:.0f}".format, counts),
        _chart("Share", "{:.0%}".format, shares, most=1),
        _chart("Of what was accepted, still there", "{:.0%}".format, kept, most=1),
        _chart("Wait for an answer", "{:.0f} ms".format, waits),
    ]


def _chart(title: str, show: Callable[[float], str], bars: Sequence[Bar], most: float = 0) -> str:
    """Horizontal bars; `most` is the value of a full one, by default the greatest there is."""
    most = most or max((value or 0 for _, value in bars), default=0) or 1
    rows = []
    for row, (name, value) in enumerate(bars):
        y, width = _ROW * row, round(_FULL * (value or 0) / most)
        shown = "–" if value is None else show(value)
        rows.append(
            f'<text x="{_LABEL}" y="{y + 16}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{_LABEL + 10}" y="{y + 3}" width="{width}" height="17" rx="2"/>'
            f'<text x="{_LABEL + 18 + width}" y="{y + 16}">{shown}</text>'
        )
    size = f'viewBox="0 0 600 {_ROW * len(bars)}" role="img"'
    return f"<h2>{escape(title)}</h2>\n<svg {size}>" + "\n".join(rows) + "</svg>"

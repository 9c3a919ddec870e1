"""Draws a report's figures: score and latency against the length of the hole, one line a system."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")  # files only: there may be no screen

from matplotlib import pyplot as plt  # after the choice of how to draw

_SCORES = (
    ("exact_raw", "exact match, %"),
    ("passed_raw", "pass@1, %"),
    ("similarity_raw", "edit similarity, %"),
)


def draw(figures: dict[str, Any], directory: Path) -> list[Path]:
    """Writes quality.png and latency.png for what `bench.report.of` gave."""
    lengths = figures["lengths"]
    names = list(dict.fromkeys(name for by_system in lengths.values() for name in by_system))
    quality, axes = plt.subplots(1, len(_SCORES), figsize=(5 * len(_SCORES), 4), sharey=True)
    for axis, (figure, title) in zip(axes, _SCORES, strict=True):
        for name in names:
            _score(axis, name, lengths, figure)
        axis.set(title=title, ylim=(0, 100), xlabel="characters of the hole")
    axes[0].legend()
    latency, axis = plt.subplots(figsize=(6, 4))
    for name in names:
        for percent, style in (("ms_p50", "-o"), ("ms_p95", ":o")):
            points = [(x, s[name][percent]) for x, s in lengths.items() if name in s]
            axis.plot(*zip(*points, strict=True), style, label=f"{name}, {percent[3:]}")
    axis.set(yscale="log", xlabel="characters of the hole", ylabel="ms, prompt included")
    axis.legend()
    written = []
    for picture, name in ((quality, "quality.png"), (latency, "latency.png")):
        picture.tight_layout()
        picture.savefig(directory / name, dpi=120)
        plt.close(picture)
        written.append(directory / name)
    return written


def _score(axis: Any, name: str, lengths: dict[str, Any], figure: str) -> None:
    """One system's line, with its intervals as bars."""
    points = [(x, s[name][figure]) for x, s in lengths.items() if name in s and s[name][figure]]
    if not points:
        return
    values = [100 * value for _, (value, _, _) in points]
    below = [100 * (value - low) for _, (value, low, _) in points]
    above = [100 * (high - value) for _, (value, _, high) in points]
    axis.errorbar([x for x, _ in points], values, (below, above), label=name, marker="o", capsize=3)

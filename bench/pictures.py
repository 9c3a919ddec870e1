"""Draws a report's figures: score and latency against the length of the hole, one colour a system."""

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
    """Writes quality.png and latency.png for what `bench.report.of` gave.

    Latency is of the systems that ask a model: the copy rule's tenth of a millisecond says nothing.
    """
    lengths = figures["lengths"]
    names = list(dict.fromkeys(name for by_system in lengths.values() for name in by_system))
    quality, axes = plt.subplots(1, len(_SCORES), figsize=(5 * len(_SCORES), 4), sharey=True)
    latency, clock = plt.subplots(figsize=(6, 4))
    for place, name in enumerate(names):
        shift = 0.5 * (
            (place + 0.5) / len(names) - 0.5
        )  # beside each other, so that no bar hides another
        points = [(x + shift, s[name]) for x, s in enumerate(lengths.values()) if name in s]
        for axis, (figure, _) in zip(axes, _SCORES, strict=True):
            _score(axis, name, [(x, s[figure]) for x, s in points if s[figure]], f"C{place}")
        if any(s["forwards"] for _, s in points):
            for percent, style in (("ms_p50", "-o"), ("ms_p95", ":o")):
                values = [(x, s[percent]) for x, s in points]
                label = f"{name}, {percent[3:]}"
                clock.plot(*zip(*values, strict=True), style, color=f"C{place}", label=label)
    for axis, (_, title) in zip(axes, _SCORES, strict=True):
        axis.set(title=title, ylim=(0, 100))
    clock.set(ylim=0, ylabel="ms, prompt included")
    for axis in (*axes, clock):
        axis.set(xlabel="characters of the hole")
        axis.set_xticks(range(len(lengths)), lengths)
    for axis in (axes[0], clock):
        if axis.get_legend_handles_labels()[0]:
            axis.legend()
    written = []
    for picture, file in ((quality, "quality.png"), (latency, "latency.png")):
        picture.tight_layout()
        picture.savefig(directory / file, dpi=120)
        plt.close(picture)
        written.append(directory / file)
    return written


def _score(axis: Any, name: str, points: list[tuple[float, Any]], colour: str) -> None:
    """One system's line, with its intervals as bars."""
    if not points:
        return
    values = [100 * value for _, (value, _, _) in points]
    below = [100 * (value - low) for _, (value, low, _) in points]
    above = [100 * (high - value) for _, (value, _, high) in points]
    axis.errorbar(
        [x for x, _ in points], values, (below, above),
        label=name, marker="o", capsize=3, color=colour,
    )  # fmt: skip

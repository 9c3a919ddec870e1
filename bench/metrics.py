"""Scores of a fill, means over many, and differences of means: pure, no model and no file.

Each comes with a 95 % interval that takes the holes of one function (or problem) as one
observation's worth of luck, since what is easy in one place of a function is easy in the next.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein

from dg_lsp import grammars

_Z = 1.959964  # of a 95 % interval


class Mean(NamedTuple):
    """A mean of values and its interval; `n` values in `clusters` clusters."""

    value: float
    low: float
    high: float
    n: int
    clusters: int


def mean(values: Sequence[float], clusters: Sequence[str]) -> Mean:
    """The mean of values in 0..1 with Wilson's interval at the effective sample size under clustering.

    The effective size is that of independent values with the same variance of the mean; where the
    values do not vary at all it is the number of clusters, so 0 and 1 keep an honest width.
    """
    assert len(values) == len(clusters) > 0, f"{len(values)} values, {len(clusters)} clusters"
    n = len(values)
    value = math.fsum(values) / n
    residuals: dict[str, float] = defaultdict(float)
    for one, cluster in zip(values, clusters, strict=True):
        residuals[cluster] += one - value
    count = len(residuals)
    variance = math.fsum(r * r for r in residuals.values()) / n**2 * count / max(1, count - 1)
    size = min(n, value * (1 - value) / variance) if variance > 1e-12 else count
    low, high = _wilson(value, size)
    return Mean(value, low, high, n, count)


def difference(pairs: Sequence[tuple[float, float]], clusters: Sequence[str]) -> Mean:
    """How much higher the first values of pairs are than the second, on average: -1 to 1.

    The interval is Agresti's and Min's for pairs, with the clustered variance: half a pair of each
    of the four kinds is imagined, which keeps it honest where few or none differ.
    """
    assert len(pairs) == len(clusters) > 0, f"{len(pairs)} pairs, {len(clusters)} clusters"
    n = len(pairs)
    total = math.fsum(one - other for one, other in pairs)
    shrunk = total / (n + 2)
    residuals: dict[str, float] = defaultdict(float)
    for (one, other), cluster in zip(pairs, clusters, strict=True):
        residuals[cluster] += one - other - shrunk
    count = len(residuals)
    squares = math.fsum(r * r for r in residuals.values()) * count / max(1, count - 1)
    half = _Z * math.sqrt(squares + 1 + 2 * shrunk**2) / (n + 2)
    low, high = max(-1.0, shrunk - half), min(1.0, shrunk + half)
    return Mean(total / n, min(low, total / n), max(high, total / n), n, count)


def exact(fill: str, middle: str) -> bool:
    """Whether the fill is what stood in the hole, blanks at its end aside."""
    return fill.rstrip() == middle.rstrip()


def similarity(fill: str, middle: str) -> float:
    """1 - edit distance / the longer length, in characters."""
    return float(Levenshtein.normalized_similarity(fill.rstrip(), middle.rstrip()))


def parses(filled: str, original: str, language: str) -> bool:
    """Whether the fill brought no syntax error that the original text has not."""
    return errors(filled, language) <= errors(original, language)


def errors(source: str, language: str) -> int:
    """How many nodes of the syntax tree are errors or missing."""
    tree = grammars.parse(source.encode(), language, limit_s=math.inf)
    assert tree is not None, f"no grammar for {language!r}: no hole is dug in it"
    found, nodes = 0, [tree.root_node]
    while nodes:
        node = nodes.pop()
        found += node.is_error or node.is_missing
        if node.has_error:
            nodes += node.children
    return found


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the values lie, between neighbours by proportion."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _wilson(value: float, size: float) -> tuple[float, float]:
    middle = value + _Z**2 / (2 * size)
    half = _Z * math.sqrt(value * (1 - value) / size + _Z**2 / (4 * size**2))
    scale = 1 + _Z**2 / size
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)

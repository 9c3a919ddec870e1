"""Which lengths of a hole are worth denoising: pure decisions on figures of canvases tried.

Knows token ids, lengths and nats; nothing of tensors, the model or the loop, which is
`engine.search`. All numbers are `InfillConfig`'s.

Source: the score that takes the trend over lengths out of a canvas's certainty is LR-DLLM's; the
judgement by what is clamped behind the hole is ours (see `sampler.leave_one_out`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from engine.config import InfillConfig


@dataclass(frozen=True, slots=True)
class Tried:
    """A canvas with a hole of some length after a few steps, in nats.

    `entropy` is the mean over the hole, `junction` the mean log-probability of the first tokens
    behind it; None where they were not judged.
    """

    entropy: float
    junction: float | None = None


def trend(certainty: Mapping[int, float]) -> tuple[float, float]:
    """The line c + k ln L through certainties of holes of L tokens, by least squares: c, k."""
    points = [(math.log(length), value) for length, value in certainty.items() if length]
    if not points:
        return 0.0, 0.0
    x, y = (math.fsum(column) / len(points) for column in zip(*points, strict=True))
    spread = math.fsum((a - x) ** 2 for a, _ in points)
    k = math.fsum((a - x) * (b - y) for a, b in points) / spread if spread else 0.0
    return y - k * x, k


def scores(tried: Mapping[int, Tried], junction_weight: float) -> dict[int, float]:
    """How well each length fits, in nats: its certainty without the trend, and its junction.

    Long holes are less certain whatever belongs there; k is that of this request. A hole of no
    tokens has no certainty and stands on the trend.
    """
    certainty = {length: -one.entropy for length, one in tried.items()}
    start, k = trend(certainty)
    return {
        length: (certainty[length] - k * math.log(length) if length else start)
        + junction_weight * (one.junction or 0.0)
        for length, one in tried.items()
    }


def chosen(scored: Mapping[int, float], config: InfillConfig, bounds: range) -> tuple[int, ...]:
    """The best lengths of a probe and the neighbours of the first, the most important ones first."""
    best = sorted(scored, key=lambda length: (-scored[length], length))[: config.kept]
    near = [best[0] + sign * distance for distance in config.neighbours for sign in (-1, 1)]
    return tuple(dict.fromkeys([*best, *(n for n in near if n in bounds)]))


def batches(lengths: Iterable[int], slots: int) -> list[list[int]]:
    """`lengths` in their order, as many in a batch as have at most `slots` together.

    Memory is planned for the distributions of one canvas; a longer hole stands alone.

    >>> batches([48, 64, 32, 64], slots=128)
    [[48, 64], [32, 64]]
    """
    found: list[list[int]] = []
    for length in lengths:
        if not found or sum(found[-1]) + length > slots:
            found.append([])
        found[-1].append(length)
    return found


def overlap(ids: Sequence[int], suffix: Sequence[int]) -> int:
    """How many tokens the end of `ids` and the beginning of `suffix` share at most.

    >>> overlap([1, 2, 3], [2, 3, 4])
    2
    """
    longest = min(len(ids), len(suffix))
    same = (n for n in range(longest, 0, -1) if list(ids[-n:]) == list(suffix[:n]))
    return next(same, 0)


def trimmed(ids: Sequence[int], suffix: Sequence[int], config: InfillConfig) -> int:
    """The length to which `ids` are cut so that their end does not repeat the suffix's head."""
    length = len(ids)
    while config.overlap and (shared := overlap(ids[:length], suffix)) >= config.overlap:
        length -= shared
    return length


def is_surprising(junction: float | None, config: InfillConfig) -> bool:
    """Whether the text behind the hole does not follow."""
    return junction is not None and junction < -config.surprise


def repaired(
    ids: Sequence[int],
    suffix: Sequence[int],
    junction: float | None,
    tried: Collection[int],
    bounds: range,
    config: InfillConfig,
    repair: int,
) -> int | None:
    """The length to try instead of the one that gave `ids`; None where it seems right.

    Shorter by what repeats the suffix's head, which where the junction is surprising may be a token
    or two; else, there, longer by some, twice as many with each `repair` (from 0 on), as far as
    there is room. None for what was `tried` before.
    """
    length, shared = len(ids), overlap(ids, suffix)
    surprising = is_surprising(junction, config)
    if config.overlap and shared >= (1 if surprising else config.overlap):
        wanted = length - shared
    elif config.lengthen and surprising:
        wanted = min(length + (config.lengthen << repair), bounds[-1])
    else:
        return None
    return wanted if wanted in bounds and wanted not in tried else None

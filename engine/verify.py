"""Verification: which of several fills of one hole a causal reading finds best.

Denoising decides neighbouring slots at once, each of which fits and both of which do not; read from
left to right the second one is improbable, and so is what follows a hole that was filled wrongly.
Knows nothing of how the fills were found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from engine import causal
from engine.cache import PrefixCache
from engine.infill import Filled
from engine.model import Transformer


@dataclass(frozen=True, slots=True, kw_only=True)
class Verify:
    """Ranks fills by sum log p(suffix | prefix, fill) + `beta` · mean log p(fill | prefix), in nats.

    The suffix's first `suffix_tokens` tokens are read. They are the same for all fills, so their
    sum compares; fills differ in length, so of theirs the mean does.
    """

    suffix_tokens: int = 16
    beta: float = 3.0  # of 0 to 12, tried on answers and copies: LOG.md

    def __post_init__(self) -> None:
        assert self.suffix_tokens >= 0, f"suffix_tokens is {self.suffix_tokens}; 0 reads none"

    def rank(
        self,
        model: Transformer,
        cache: PrefixCache,
        fills: Sequence[Filled],
        suffix: Sequence[int],
        lead: Sequence[int] = (),
    ) -> list[Filled]:
        """The fills between the cached prefix with `lead` and `suffix`, the best first.

        One causal forward for all of them; the cache is left as it was. Each gets the reading's
        `junction`, the mean over the suffix's tokens, and where it has none of its own the reading's
        log-probabilities.
        """
        near = suffix[: self.suffix_tokens]
        pairs = list(zip(fills, _readings(model, cache, fills, near, lead), strict=True))
        pairs.sort(key=lambda pair: -self.score(pair[1], len(pair[0].ids)))
        return [_read(fill, reading) for fill, reading in pairs]

    def score(self, reading: Tensor, length: int) -> float:
        """Of the log-probabilities [N] of a fill of `length` tokens and of the suffix behind it."""
        own = float(reading[:length].mean()) if length else 0.0
        return float(reading[length:].sum()) + self.beta * own


def judged(
    model: Transformer,
    cache: PrefixCache,
    fills: Sequence[Filled],
    suffix: Sequence[int],
    lead: Sequence[int] = (),
) -> list[Filled]:
    """`fills` in their order, each with the `junction` to all of `suffix` by a causal reading.

    One forward for all of them; the cache is left as it was.
    """
    readings = _readings(model, cache, fills, suffix, lead)
    return [_read(fill, reading) for fill, reading in zip(fills, readings, strict=True)]


def _readings(
    model: Transformer,
    cache: PrefixCache,
    fills: Sequence[Filled],
    suffix: Sequence[int],
    lead: Sequence[int],
) -> list[Tensor]:
    """Log-probabilities [N] of the tokens of each fill and of `suffix` behind it."""
    return causal.read(model, cache, [(*fill.ids, *suffix) for fill in fills], lead)


def _read(fill: Filled, reading: Tensor) -> Filled:
    own, behind = reading[: len(fill.ids)].tolist(), reading[len(fill.ids) :]
    return replace(
        fill,
        log_probabilities=fill.log_probabilities or tuple(own),
        junction=float(behind.mean()) if len(behind) else None,
    )

"""Verification: what a causal reading says of several fills for one hole.

Denoising decides neighbouring slots at once, each of which fits and both of which do not; read from
left to right the second one is improbable, and so is what follows a hole that was filled wrongly.
Token ids in, scores out. Knows nothing of how the fills were found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine import causal
from engine.cache import PrefixCache
from engine.model import Transformer


@dataclass(frozen=True, slots=True, kw_only=True)
class Verify:
    """Rates fills by sum log p(suffix | prefix, fill) + `beta` · mean log p(fill | prefix), in nats.

    The suffix's first `suffix_tokens` tokens are read. They are the same for all fills, so their
    sum compares; fills differ in length, so of theirs the mean does.
    """

    suffix_tokens: int = 16
    beta: float = 1.0

    def __post_init__(self) -> None:
        assert self.suffix_tokens >= 0, f"suffix_tokens is {self.suffix_tokens}; 0 reads none"

    def scores(
        self,
        model: Transformer,
        cache: PrefixCache,
        fills: Sequence[Sequence[int]],
        suffix: Sequence[int],
        lead: Sequence[int] = (),
    ) -> list[float]:
        """The score of each of `fills` between the cached prefix with `lead` and `suffix`.

        One causal forward for all of them; the cache is left as it was.
        """
        near = tuple(suffix[: self.suffix_tokens])
        readings = causal.read(model, cache, [(*fill, *near) for fill in fills], lead)
        return [
            self._score(reading.tolist(), len(fill))
            for reading, fill in zip(readings, fills, strict=True)
        ]

    def _score(self, reading: Sequence[float], length: int) -> float:
        """Of the log-probabilities of a fill of `length` tokens and of the suffix behind it."""
        own = sum(reading[:length]) / max(1, length)
        return sum(reading[length:]) + self.beta * own

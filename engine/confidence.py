"""Confidence: how likely a text is what belongs in a hole, by what the model thought of its tokens.

Pure numbers. Knows nothing of text, tokens' ids or how they were decoded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine.request import Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A logistic curve over the root of the surprise: at 0 nats it gives sigmoid(`bias`)."""

    bias: float
    slope: float

    def of(self, evidence: Evidence) -> float:
        """How likely a text with this evidence is right as far as it goes, 0 to 1."""
        return 1 / (1 + math.exp(self.slope * math.sqrt(evidence.surprise) - self.bias))


# Fitted to dg-mini writing with the suffix in view (`python -m bench.confidence`, LOG.md). The sum
# says more than the mean: a long text has more places to be wrong in.
CALIBRATION = Calibration(bias=1.08, slope=1.56)


def evidence(log_probabilities: Sequence[float], end: float | None, count: int) -> Evidence:
    """That of a text spelled by the first `count` of the tokens written.

    What comes behind them, the rest or the `end` of all, has ended it.
    """
    own = log_probabilities[:count]
    behind = log_probabilities[count] if count < len(log_probabilities) else end
    return Evidence(
        tokens=len(own),
        surprise=max(0.0, -math.fsum(own)),
        worst=min(own, default=0.0),
        end=behind,
    )

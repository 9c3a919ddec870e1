"""Confidence: how likely a text is what belongs in a hole, by what the model thought of its tokens.

Knows nothing of text, or of how it was found.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.infill import Filled
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
CALIBRATION = Calibration(bias=2.63, slope=2.86)


def evidence(filled: Filled) -> Evidence:
    """That of a text spelled by all that was written."""
    logs = filled.log_probabilities
    return Evidence(
        tokens=len(logs),
        surprise=max(0.0, -math.fsum(logs)),
        worst=min(logs, default=0.0),
        end=filled.end,
        junction=filled.junction,
    )

"""A model that knows the text, and lies about it in given ways: decisions are tested without weights.

It has the part of `Transformer`'s interface that the denoising loop needs. Hidden states are the
logits themselves. Right, it writes the text that stands between prefix and suffix from the left, and
the suffix's own words where the hole is too long; it is the less sure the more the length is wrong,
and surprised at the suffix there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import torch
from torch import Tensor

from engine.config import CanvasConfig, ModelConfig
from engine.steps import Canvas
from tests.engine.test_cache import make_config

VOCAB = 100
OTHER = 99  # what it writes where the text has ended


def config(length: int = 256) -> ModelConfig:
    return replace(make_config(), canvas=CanvasConfig(length=length))


@dataclass
class Lies:
    """How it errs. All figures are logits: the margin of a token over all others."""

    sure: float = 9.0  # of the text, where the length is right
    unsure: float = 7.0  # the same where it is wrong
    slope: float = 0.05  # and less for each token that it is wrong by
    sure_of: frozenset[int] = frozenset()  # wrong lengths it is surer of than of the right one
    believes_noise: float = 0.0  # for any token shown in the hole, on top of its evidence
    blind_first: bool = False  # before self-conditioning it is surest of holes that are too short
    jumbled: frozenset[int] = frozenset()  # lengths where the text comes out as something else


@dataclass
class ScriptedDenoiser:
    """`middle` is the text of the hole, `suffix` all that is clamped behind it, `seen` are the canvases it was shown, and
    `batches` the rows of each forward.
    """

    middle: Sequence[int]
    suffix: Sequence[int]
    lies: Lies = field(default_factory=Lies)
    config: ModelConfig = field(default_factory=config)
    seen: list[list[int]] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    embed_tokens: object = field(default_factory=lambda: SimpleNamespace(weight=torch.zeros(1)))

    def layout(self, hole: int) -> Canvas:
        room = self.config.canvas_length - hole
        return Canvas(hole=hole, clamped=tuple(self.suffix[:room]))

    def embed(self, ids: Tensor) -> Tensor:
        return torch.zeros(*ids.shape, 1)

    def soft_embedding(self, probabilities: Tensor) -> Tensor:
        return torch.ones(*probabilities.shape[:-1], 1)

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden.clone()

    def canvas(self, ids, cache, soft, *, sizes, suffixes) -> Tensor:
        self.batches.append(ids.shape[1])
        first = soft is None
        return torch.cat([self._one(part, first) for part in torch.split(ids[0], sizes)])[None]

    def _one(self, ids: Tensor, first: bool) -> Tensor:
        shown = ids.tolist()
        self.seen.append(shown)
        hole = max(0, len(shown) - len(self.suffix))
        hole = next(n for n in range(hole, len(shown) + 1) if self._fits(shown, n))
        right, lies = hole == len(self.middle), self.lies
        text = [*self.middle, *self.suffix, *[OTHER] * len(shown)][:hole]
        if hole in lies.jumbled:
            text = text[::-1]
        sure = lies.unsure - lies.slope * abs(hole - len(self.middle))
        if first and lies.blind_first:
            sure = lies.unsure + 2 * (hole == min(len(self.middle) // 2, hole))
        elif right:
            sure = lies.sure
        elif hole in lies.sure_of:
            sure = lies.sure + 3
        logits = torch.zeros(len(shown), VOCAB)
        logits[torch.arange(hole), torch.tensor(text, dtype=torch.long)] = sure
        noisy = max(1, sum(a != b for a, b in zip(text, shown, strict=False)))
        clean = 1 - noisy / max(2, len(shown))
        evidence = torch.log1p(torch.tensor(VOCAB * clean / (1 - clean)))
        if lies.believes_noise:
            at = torch.arange(hole), ids[:hole]
            logits[at] += evidence + lies.believes_noise
        behind = torch.arange(hole, len(shown))
        logits[behind, ids[hole:]] += evidence + (9.0 if right else 0.0)
        return logits

    def _fits(self, shown: list[int], hole: int) -> bool:
        clamped = self.layout(hole).clamped
        return hole + len(clamped) == len(shown) and tuple(shown[hole:]) == clamped

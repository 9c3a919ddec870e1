"""A model that knows the text, and lies about it in given ways: decisions are tested without weights.

It has the part of `Transformer`'s interface that the denoising loop needs. Hidden states are the
logits themselves. Right, it writes the text that stands between prefix and suffix from the left, and
the suffix's own words where the hole is too long; it is the less sure the more the length is wrong,
and surprised at the suffix there. A `SealedDenoiser` never sees hole and suffix together; read from
left to right it knows what follows the text so far, and that nothing follows any other text.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import torch
from torch import Tensor

from engine.cache import Suffix
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
    """Knows the text of the hole, `middle`, and all that is clamped behind it, `suffix`.

    `seen` are the canvases it was shown, `batches` the rows of each forward.
    """

    middle: Sequence[int]
    suffix: Sequence[int]
    lies: Lies = field(default_factory=Lies)
    config: ModelConfig = field(default_factory=config)
    seen: list[list[int]] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    embed_tokens: object = field(default_factory=lambda: SimpleNamespace(weight=torch.zeros(1)))

    def layout(self, hole: int) -> Canvas:
        """The canvas with a hole of this length, and of the suffix what there is room for."""
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

    def _hole(self, shown: list[int]) -> int:
        """How many of the tokens on a canvas are the hole's."""
        return len(shown) - len(self.suffix)

    def _one(self, ids: Tensor, first: bool) -> Tensor:
        """Logits [C, V] of one canvas [C]."""
        shown = ids.tolist()
        self.seen.append(shown)
        hole = self._hole(shown)
        text = self._text(hole)
        logits = torch.zeros(len(shown), VOCAB)
        logits[torch.arange(hole), torch.tensor(text, dtype=torch.long)] = self._sure(hole, first)
        # What a shown token says for itself, were the model to know which ones are noise.
        noisy = max(1, sum(a != b for a, b in zip(text, shown, strict=False)))
        clean = 1 - noisy / max(2, len(shown))
        evidence = math.log1p(VOCAB * clean / (1 - clean))
        if self.lies.believes_noise:
            logits[torch.arange(hole), ids[:hole]] += evidence + self.lies.believes_noise
        follows = 9.0 if hole == len(self.middle) else 0.0
        logits[torch.arange(hole, len(shown)), ids[hole:]] += evidence + follows
        return logits

    def _text(self, hole: int) -> list[int]:
        text = [*self.middle, *self.suffix, *[OTHER] * hole][:hole]
        return text[::-1] if hole in self.lies.jumbled else text

    def _sure(self, hole: int, first: bool) -> float:
        lies, right = self.lies, len(self.middle)
        if first and lies.blind_first:
            return lies.unsure + 2 * (hole <= right // 2)
        if hole == right:
            return lies.sure
        if hole in lies.sure_of:
            return lies.sure + 3
        return lies.unsure - lies.slope * abs(hole - right)


class SealedDenoiser(ScriptedDenoiser):
    """The same with the suffix sealed. `encoded` are the suffixes, `read` the texts that were."""

    def __init__(self, middle: Sequence[int], suffix: Sequence[int], lies: Lies) -> None:
        own = replace(config(), canvas=CanvasConfig(length=256, sealed_suffix=True))
        super().__init__(middle, suffix, lies, own)
        self.encoded: list[list[int]] = []
        self.read: list[list[int]] = []

    def encode(self, ids, cache, **place) -> None:
        self.encoded.append(list(ids))
        cache.commit(ids)

    def moved(self, suffix: Suffix, by: int) -> Suffix:
        return replace(suffix, room=suffix.room + by)

    def canvas(self, ids, cache, soft, *, sizes, suffixes) -> Tensor:
        for size, suffix in zip(sizes, suffixes, strict=True):
            assert suffix.ids == tuple(self.suffix)
            assert suffix.room == size, "the suffix does not stand behind its hole"
        return super().canvas(ids, cache, soft, sizes=sizes, suffixes=suffixes)

    def tree(self, ids, depths, cache, trunk, seen: Tensor, **how) -> Tensor:
        """Logits [N, V] of rows that see the tokens before them; first that of the prefix."""
        self.batches.append(len(ids))
        whole = [*self.middle, *self.suffix, OTHER]
        logits = torch.zeros(len(ids), VOCAB)
        for row in range(len(ids)):
            shown = [ids[place] for place in seen[row].nonzero()[:, 0].tolist()][1:]
            self.read.append(shown)
            follows = shown == whole[: len(shown)] and len(shown) < len(whole)
            logits[row, whole[len(shown)] if follows else OTHER] = 9.0
        return logits

    def _hole(self, shown: list[int]) -> int:
        return len(shown)


class Ids:
    """A prefix without keys and values, for models that need none."""

    def __init__(self) -> None:
        self.ids, self.suffix = [7], None

    @property
    def length(self) -> int:
        return len(self.ids)

    def commit(self, ids: Sequence[int]) -> None:
        self.ids.extend(ids)

    def truncate(self, length: int) -> None:
        del self.ids[length:]

    @contextmanager
    def without_last(self) -> Iterator[list[int]]:
        last = self.ids.pop()
        yield [last]
        self.ids.append(last)

    def last(self, count: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        return (), ()

"""The forwards of training: every row of several examples at once, as filling would compute it.

All weights: one masked pass over windows and holes. Adapters: each window is encoded once, without
gradient, by the frozen base, and the holes continue it. Knows nothing of losses and steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from engine.attention import Branch
from engine.cache import PrefixCache
from engine.config import CanvasConfig
from engine.model import Transformer
from engine.train import objective
from engine.train.objective import NO_TARGET, Example, Ids


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples, one a window, and their arrays as tensors [B, T], the shorter ones padded."""

    examples: Sequence[Example]
    tokens: Tensor
    positions: Tensor
    segment: Tensor
    part: Tensor
    sees: Tensor
    targets: Tensor
    weights: Tensor
    noised: Tensor

    @classmethod
    def of(cls, examples: Sequence[Example], device: torch.device) -> Batch:
        """Stacks `examples` on `device`."""
        longest = max(len(example.tokens) for example in examples)
        padded = [objective.padded(example, longest) for example in examples]
        arrays = {
            field.name: np.stack([getattr(example, field.name) for example in padded])
            for field in fields(Example)
        }
        tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        return cls(examples, **tensors)

    @property
    def asked(self) -> Tensor:
        """[B, T], true in rows of holes that have a target."""
        return (self.targets != NO_TARGET) & (self.segment > 0)


class Passes:
    """Forwards over the same windows, [window] each; with adapters these are encoded once for all."""

    def __init__(self, model: Transformer, windows: Sequence[Ids]) -> None:
        self.model = model
        self.windows = windows
        self._caches: list[PrefixCache] = []
        if self.canvas.adapter_rank:
            self._caches = [self._encoded(window) for window in windows]

    @property
    def canvas(self) -> CanvasConfig:
        """How the model denoises."""
        assert self.model.config.canvas, "the trainer's model has a canvas"
        return self.model.config.canvas

    @property
    def mask_id(self) -> int:
        """What a hidden slot shows."""
        assert self.canvas.mask_id is not None, "training noises with a mask"
        return self.canvas.mask_id

    @property
    def empty_id(self) -> int:
        """What belongs into slots that the text does not fill."""
        assert self.canvas.empty_id is not None, "training fills holes with empty slots"
        return self.canvas.empty_id

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.embed_tokens.weight.device

    def states(self, batch: Batch, soft: Tensor | None = None) -> Tensor:
        """Final hidden states [B, T, D] of all rows; with adapters zero in those of windows.

        `soft` [B, T, D] is the self-conditioning signal, as `beliefs` gives it.
        """
        if not self._caches:
            mask = may_see(batch.segment, batch.part, batch.sees)
            states: Tensor = self.model(batch.tokens, batch.positions, mask, soft)
            return states
        found: list[Tensor] = []
        for row, (example, cache) in enumerate(zip(batch.examples, self._caches, strict=True)):
            holes = batch.segment[row] > 0
            of_holes = self._continued(example, cache, None if soft is None else soft[row][holes])
            whole = of_holes.new_zeros(len(holes), of_holes.shape[-1])
            found.append(whole.index_put((holes.nonzero()[:, 0],), of_holes))
        return torch.stack(found)

    def beliefs(self, states: Tensor, batch: Batch) -> Tensor:
        """The self-conditioning signal [B, T, D]: what the forward of `states` believed of each slot.

        On the token before the hole it is that token; in all rows beside the canvases it is zero.
        """
        soft = torch.zeros_like(states)
        canvas = batch.part >= objective.CANVAS
        first = canvas & (batch.part != batch.part.roll(1, 1))
        slots = canvas & ~first
        rows = slots.roll(-1, 1) if self.canvas.shifted else slots
        believed = self.model.logits(states[rows]).softmax(-1)
        soft[slots] = self.model.soft_embedding(believed).to(soft.dtype)
        soft[first] = self.model.embed(batch.tokens[first]).to(soft.dtype)
        return soft

    def _encoded(self, window: Ids) -> PrefixCache:
        cache = PrefixCache(self.model.config, self.device, self.model.embed_tokens.weight.dtype)
        with torch.no_grad():
            self.model.encode(window.tolist(), cache)
        return cache

    def _continued(self, made: Example, cache: PrefixCache, soft: Tensor | None) -> Tensor:
        """Final hidden states of an example's hole rows, behind what each sees of its window."""
        if made.segment.max() <= 0:  # no hole is left in this window
            return torch.zeros(
                0, self.model.config.hidden_size, dtype=self.model.dtype, device=self.device
            )
        branches = []
        for number in np.unique(made.segment[made.segment > 0]):
            rows = made.segment == number
            mask = objective.may_see(made.segment[rows], made.part[rows], made.sees[rows] * 0)
            seen = torch.from_numpy(mask).to(self.device)
            branches.append(Branch(int(made.sees[rows][0]), seen))
        holes = made.segment > 0
        ids, positions = (
            torch.from_numpy(array[holes]).to(self.device)
            for array in (made.tokens, made.positions)
        )
        return self.model.branches(ids, positions, cache, branches, soft)


def may_see(segment: Tensor, part: Tensor, sees: Tensor) -> Tensor:
    """`objective.may_see` for a batch on the device: [B, T] each -> [B, T, T]."""
    place = torch.arange(segment.shape[1], device=segment.device)
    earlier = place <= place[:, None]
    query, key = segment[:, :, None], segment[:, None, :]
    causal = (query == 0) & (key == 0) & earlier
    prefix = (query > 0) & (key == 0) & (place < sees[:, :, None])
    known = (part == objective.SUFFIX)[:, None, :] | (part[:, :, None] == part[:, None, :])
    open_rows = (part >= objective.CANVAS)[:, :, None]
    own = (query > 0) & (query == key) & known & (earlier | open_rows)
    padding = (query < 0) & (place == place[:, None])
    return causal | prefix | own | padding

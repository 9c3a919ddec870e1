"""One denoising step after the other in plain torch: forward, belief, decision.

`plain` is the definition; `engine.graphs` makes the same steps on a CUDA device without its
processor waiting for ours. What is decided, and when it is the answer, is `engine.sampler`'s; who
wants it, `engine.infill`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine import sampler
from engine.cache import PrefixCache
from engine.config import SamplerConfig
from engine.model import Transformer
from engine.noise import Noise
from engine.sampler import Prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """[lead | hole | clamped]: known ids, `hole` undecided positions, known ids.

    `lead` is the last token of the prefix where the model predicts one position earlier
    (`CanvasConfig.shifted`) or seals the suffix: it is then on the canvas and not in the cache. `guess` is what the
    hole's first positions show before the first step, instead of noise. `begin` are the ids the
    hole may begin with; none stands for all. `sees` is how many tokens of the prefix a sealed
    suffix sees; None stands for all.
    """

    hole: int
    clamped: tuple[int, ...] = ()
    lead: tuple[int, ...] = ()
    guess: tuple[int, ...] = ()
    begin: tuple[int, ...] = ()
    sees: int | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known after a step: the hole's best ids and their log-probabilities, each [H]."""

    best: Tensor
    log_best: Tensor
    done: bool


# One report a step, at most `max_steps`; the last argument is the shift of positions.
Steps = Callable[[Transformer, PrefixCache, Canvas, SamplerConfig, Noise, int], Iterator[Seen]]


def plain(
    model: Transformer,
    cache: PrefixCache,
    canvas: Canvas,
    config: SamplerConfig,
    noise: Noise,
    shift: int,
) -> Iterator[Seen]:
    """Logits and self-conditioning are computed for the hole's rows only.

    What a step decides is a matter of the noise the model was trained on.
    """
    own = model.config.canvas
    assert own
    device = noise.ids.device
    hole = noise.ids[:1] if own.mask_id is None else torch.full_like(noise.ids[:1], own.mask_id)
    hole = torch.cat((_ids(canvas.guess, device), hole[:, len(canvas.guess) :]), 1)
    process = (_Unmasked if own.noise == "mask" else _Renoised)(model, config, noise)
    before, after = (_ids(part, device) for part in (canvas.lead, canvas.clamped))
    before_soft, after_soft = model.embed(before), model.embed(after)
    first = before.shape[1] - own.shifted
    assert first >= 0, "shifted logits need the token before the hole on the canvas"
    begin = torch.tensor(canvas.begin, device=device)
    soft = None
    for step in range(1, config.max_steps + 1):
        hidden = model.canvas(torch.cat((before, hole, after), 1), cache, soft, shift=shift)
        logits = model.logits(hidden[:, first : first + canvas.hole])
        if own.mask_id is not None:
            logits[..., own.mask_id] = -torch.inf
        if canvas.begin:
            allowed = logits[0, 0, begin]
            logits[0, 0] = -torch.inf
            logits[0, 0, begin] = allowed
        belief = sampler.predict(logits, process.temperature(step))
        hole, done = process.decide(belief, hole, step)
        yield Seen(process.best[0], process.log_best, done)
        if own.self_conditioning:
            believed = model.soft_embedding(belief.probabilities)
            soft = torch.cat((before_soft, believed, after_soft), 1)


class _Renoised:
    """Uniform noise: nothing is ever frozen, and the answer is the argmax of the last step."""

    def __init__(self, model: Transformer, config: SamplerConfig, noise: Noise) -> None:
        self._config = config
        self._noise = noise
        self._unchanged = torch.zeros(1, dtype=torch.long, device=noise.ids.device)
        self.best = torch.full_like(noise.ids[:1], -1)

    def temperature(self, step: int) -> float:
        """Of the step with this number, from 1 on."""
        return sampler.temperature(self._config, self._config.max_steps + 1 - step)

    def decide(self, belief: Prediction, hole: Tensor, step: int) -> tuple[Tensor, bool]:
        """The next hole [1, H] and whether this one was the last."""
        accepted = sampler.accept(belief.entropy, self._config.entropy_bound)
        uniform, ids = self._noise.uniform[step - 1, None], self._noise.ids[step, None]
        hole = sampler.renoise(belief.probabilities, accepted, uniform, ids)
        self._unchanged = sampler.unchanged(belief.best, self.best, self._unchanged)
        self.best, self.log_best = belief.best, belief.log_best[0]
        stable = self._unchanged >= self._config.stability
        return hole, bool(stable & sampler.is_confident(belief.entropy, self._config.confidence))


class _Unmasked:
    """Mask noise: what is decided stays. What stands behind the first empty slot is empty too."""

    def __init__(self, model: Transformer, config: SamplerConfig, noise: Noise) -> None:
        assert model.config.canvas and model.config.canvas.mask_id is not None
        self._canvas = model.config.canvas
        self._config = config
        self._mask_id = model.config.canvas.mask_id
        self._decided: Tensor | None = None

    def temperature(self, step: int) -> float:
        """That of training."""
        return 1.0

    def decide(self, belief: Prediction, hole: Tensor, step: int) -> tuple[Tensor, bool]:
        """The next hole [1, H] and whether this one was the last."""
        if self._decided is None:
            self._decided = torch.zeros_like(hole, dtype=torch.bool)
            self._log_best = belief.log_best
        earlier = self._decided
        hole, self._decided = sampler.unmask(belief, hole, earlier, self._config.certainty)
        self._log_best = torch.where(earlier, self._log_best, belief.log_best)
        self.best = torch.where(self._decided, hole, belief.best)
        empty = -1 if self._canvas.empty_id is None else self._canvas.empty_id
        ends = self.best == empty
        behind = ends.cumsum(-1) - ends.int() > 0
        self.best = self.best.masked_fill(behind, empty)
        self.log_best = self._log_best[~behind]
        done = sampler.is_filled(hole, self._decided, empty)
        # A guess that was not decided has done its work: from now on its slots are open.
        return hole.masked_fill(~self._decided, self._mask_id), bool(done)


def _ids(ids: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor(list(ids), dtype=torch.long, device=device)[None]

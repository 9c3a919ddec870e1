"""One denoising step's decisions: temperature, accept, renoise, stop. Pure functions of tensors.

Shapes: B rows (candidates), H hole positions, V vocabulary. Random numbers are passed in. Knows
nothing of the model, the suffix or the loop, which is `engine.infill.denoise`.

Source: transformers `models/diffusion_gemma/generation_diffusion_gemma.py` (entropy-bound
sampler, arXiv:2505.24857); under the same draws every function gives the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.config import SamplerConfig

ROWS = 64  # distributions of which there is a second copy for a moment: all would take too much


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model believes at one step, under that step's temperature."""

    probabilities: Tensor  # [B, H, V] fp32
    entropy: Tensor  # [B, H] nats
    best: Tensor  # [B, H] argmax ids
    log_best: Tensor  # [B, H] log-probability of `best`

    def split(self, holes: Sequence[int]) -> list[Prediction]:
        """Those of several holes of these lengths, which lie one after the other."""
        whole = (self.probabilities, self.entropy, self.best, self.log_best)
        parts = (torch.split(tensor, list(holes), 1) for tensor in whole)
        return [Prediction(*tensors) for tensors in zip(*parts, strict=True)]


def temperature(config: SamplerConfig, steps_left: int) -> float:
    """The temperature with `steps_left` steps to go, this one counted (max_steps .. 1)."""
    return config.t_min + (config.t_max - config.t_min) * steps_left / config.max_steps


def predict(logits: Tensor, temperature: float | Tensor) -> Prediction:
    """Distribution, entropy and argmax of fp32 `logits` [B, H, V] at `temperature`, in their memory.

    With z = logits / T less its maximum, entropy = log Z - E[z]: one pass over the vocabulary
    less than summing p log p, and exact where the distribution is peaked.
    """
    z = logits.flatten(0, 1).div_(temperature)
    highest, best = z.max(-1, keepdim=True)
    # 0 · -inf would be NaN: a token that cannot come adds no entropy.
    z.sub_(highest).clamp_(min=-1e4)
    log_totals, entropies = zip(*(_normalised(some) for some in torch.split(z, ROWS)), strict=True)
    shape = logits.shape[:-1]
    return Prediction(
        probabilities=z.view(logits.shape),
        entropy=torch.cat(entropies).view(shape),
        best=best.view(shape),
        log_best=-torch.cat(log_totals).view(shape),
    )


def _normalised(z: Tensor) -> tuple[Tensor, Tensor]:
    """Makes z [N, V] probabilities; log Z and entropy [N]."""
    shares = z.exp()
    total = shares.sum(-1, keepdim=True)
    shares.div_(total)
    log_total = total.log().squeeze(-1)
    entropy = log_total - torch.einsum("nv,nv->n", shares, z)
    z.copy_(shares)
    return log_total, entropy


def leave_one_out(logits: Tensor, shown: Tensor, clean: float | Tensor) -> Tensor:
    """`logits` [B, N, V] less what each token that is `shown` [B, N] says for itself.

    Uniform noise leaves a token as it is with probability `clean` (a tensor: [B, 1]), else any of the V
    stands there: that one is seen multiplies its odds by 1 + V · clean / (1 - clean), whatever the
    others say.
    """
    clean = torch.as_tensor(clean, device=logits.device)
    evidence = torch.log1p(logits.shape[-1] * clean / (1 - clean)).to(logits.dtype)
    said = evidence.expand(shown.shape)[..., None]
    return logits.scatter_add(-1, shown[..., None], -said)


def accept(entropy: Tensor, bound: float) -> Tensor:
    """Mask [B, H] of the positions to keep: lowest entropies first, within the bound.

    A position is kept while the entropies before it sum to at most `bound` nats: their joint
    mutual information is bounded by that sum, so they may be decided independently.
    """
    ordered, order = entropy.sort(dim=-1)
    within = ordered.cumsum(-1) - ordered <= bound
    return torch.zeros_like(within).scatter(-1, order, within)


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """One id [N] from each distribution [N, V]: its cumulative sum, inverted at `uniform` [N]."""
    parts = zip(torch.split(probabilities, ROWS), torch.split(uniform, ROWS), strict=True)
    return torch.cat([_inverted(some.cumsum(-1), at) for some, at in parts])


def _inverted(cumulative: Tensor, uniform: Tensor) -> Tensor:
    # 1 - u lies in (0, 1], and the sum is taken as rounded: no token of probability 0 is drawn.
    value = (1 - uniform)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, value).squeeze(-1)


def renoise(probabilities: Tensor, accepted: Tensor, uniform: Tensor, noise: Tensor) -> Tensor:
    """The next canvas [B, H]: accepted positions drawn, all others from `noise` [B, H].

    Draws only where they are kept: drawing from the whole vocabulary at every position was two
    thirds of a step on a CPU. `uniform` [B, H] is the randomness of the draws.
    """
    drawn = draw(probabilities[accepted], uniform[accepted])
    return noise.masked_scatter(accepted, drawn)


def unmask(
    belief: Prediction, hole: Tensor, decided: Tensor, certainty: float
) -> tuple[Tensor, Tensor]:
    """Mask noise: decides slots for good, and returns the next canvas and what is decided [B, H].

    Those whose best token is at least `certainty` likely, and always the leftmost that is open:
    a small model writes well from left to right, and in parallel only what is plain.
    """
    leftmost = (~decided).cumsum(-1) == 1
    new = ~decided & (leftmost | (belief.log_best >= math.log(certainty)))
    return torch.where(new, belief.best, hole), decided | new


def is_filled(hole: Tensor, decided: Tensor, empty_id: int | None) -> Tensor:
    """Mask [B]: every slot is decided that stands before the first one decided to be empty."""
    ended = (decided & (hole == (-1 if empty_id is None else empty_id))).cumsum(-1) > 0
    return (decided | ended).all(-1)


def unchanged(best: Tensor, earlier: Tensor, count: Tensor) -> Tensor:
    """For how many steps [B] `best` has been the same everywhere: `count` up to `earlier`, the last."""
    return (count + 1) * (best == earlier).all(-1)


def is_confident(entropy: Tensor, threshold: float) -> Tensor:
    """Mask [B]: the mean entropy of the hole is below `threshold` nats."""
    return entropy.mean(-1) < threshold

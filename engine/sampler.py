"""One denoising step's decisions: temperature, accept, renoise, stop. Pure functions of tensors.

Shapes: B rows (candidates), H hole positions, V vocabulary. Randomness comes only from the
generator that is passed in. Knows nothing of the model, the suffix or the loop, which is
`engine.infill.denoise`.

Source: transformers `models/diffusion_gemma/generation_diffusion_gemma.py` (entropy-bound
sampler, arXiv:2505.24857); under the same draws every function gives the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.config import SamplerConfig


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model believes at one step, under that step's temperature."""

    probabilities: Tensor  # [B, H, V] fp32
    entropy: Tensor  # [B, H] nats
    best: Tensor  # [B, H] argmax ids
    log_best: Tensor  # [B, H] log-probability of `best`


def temperature(config: SamplerConfig, steps_left: int) -> float:
    """The temperature with `steps_left` steps to go, this one counted (max_steps .. 1)."""
    return config.t_min + (config.t_max - config.t_min) * steps_left / config.max_steps


def predict(logits: Tensor, temperature: float) -> Prediction:
    """Distribution, entropy and argmax of fp32 `logits` [B, H, V] at `temperature`."""
    log_probabilities = (logits / temperature).log_softmax(-1)
    probabilities = log_probabilities.exp()
    log_best, best = log_probabilities.max(-1)
    # 0 · -inf would be NaN: a token that cannot come adds no entropy.
    floor = torch.finfo(log_probabilities.dtype).min
    entropy = -(probabilities * log_probabilities.clamp_(min=floor)).sum(-1)
    return Prediction(probabilities, entropy, best, log_best)


def initial_noise(shape: tuple[int, ...], vocab_size: int, generator: torch.Generator) -> Tensor:
    """Uniformly random token ids: the canvas before the first step."""
    return torch.randint(vocab_size, shape, generator=generator, device=generator.device)


def draw(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """One id [B, H] from each distribution [B, H, V]."""
    flat = probabilities.flatten(0, 1)
    return torch.multinomial(flat, 1, generator=generator).view(probabilities.shape[:2])


def accept(entropy: Tensor, bound: float) -> Tensor:
    """Mask [B, H] of the positions to keep: lowest entropies first, within the bound.

    A position is kept while the entropies before it sum to at most `bound` nats: their joint
    mutual information is bounded by that sum, so they may be decided independently.
    """
    ordered, order = entropy.sort(dim=-1)
    within = ordered.cumsum(-1) - ordered <= bound
    return torch.zeros_like(within).scatter(-1, order, within)


def renoise(drawn: Tensor, accepted: Tensor, vocab_size: int, generator: torch.Generator) -> Tensor:
    """The next canvas [B, H]: accepted positions as drawn, the others random again."""
    noise = initial_noise(tuple(drawn.shape), vocab_size, generator)
    return torch.where(accepted, drawn, noise)


def is_stable(best: Tensor, history: Sequence[Tensor], stability: int) -> Tensor:
    """Mask [B]: `best` equals the argmax of each of the last `stability` steps everywhere."""
    rows = torch.ones(best.shape[0], dtype=torch.bool, device=best.device)
    if len(history) < stability:
        return ~rows
    for earlier in history[len(history) - stability :]:
        rows &= (earlier == best).all(-1)
    return rows


def is_confident(entropy: Tensor, threshold: float) -> Tensor:
    """Mask [B]: the mean entropy of the hole is below `threshold` nats."""
    return entropy.mean(-1) < threshold

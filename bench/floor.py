"""What a denoising step takes at the least: each part's bytes or arithmetic, whichever is slower.

Pure arithmetic on a configuration and a device's two rates; the figures it predicts stand beside what
is measured. Bytes count once, as if nothing stayed in a cache; activations are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine import plan, storage
from engine.config import ModelConfig
from engine.plan import BF16, Form, Precision

_BF16_BYTES = 2


@dataclass(frozen=True, slots=True)
class Rates:
    """What a device reads in a second (bytes) and multiplies in a second (FLOP, bf16)."""

    bandwidth: float
    flops: float


def step_seconds(
    config: ModelConfig,
    precision: Precision,
    rates: Rates,
    *,
    rows: int,
    prefix: int,
    experts: float | None = None,
) -> float:
    """The least time of a step with `rows` rows, all of the hole, behind `prefix` tokens.

    `experts` are the distinct ones that a layer's rows ask for; None stands for uniform routing.
    """
    parts = step_parts(config, precision, rows=rows, prefix=prefix, experts=experts)
    return sum(max(moved / rates.bandwidth, flops / rates.flops) for moved, flops in parts.values())


def step_parts(
    config: ModelConfig,
    precision: Precision,
    *,
    rows: int,
    prefix: int,
    experts: float | None = None,
) -> dict[str, tuple[float, float]]:
    """Bytes that must be read and FLOP that must be done, for each part of a step."""
    counted = plan.parameters(config)
    parts = {
        "linears": _product(counted.linears, precision.linears, rows),
        "head": _product(counted.embedding, precision.head or BF16, rows),
        "self-conditioning": _mean_embedding(config, rows),
        "attention": _attention(config, rows, prefix),
    }
    if e := config.experts:
        hit = distinct_experts(config, rows) if experts is None else experts
        moved = counted.experts.nbytes(precision.experts) * hit / e.count
        parts["experts"] = (moved, 2.0 * rows * counted.experts.values * e.top_k / e.count)
    return parts


def distinct_experts(config: ModelConfig, rows: int) -> float:
    """How many experts of a layer so many rows hit, if each chose as by lot."""
    assert config.experts
    missed = 1 - config.experts.top_k / config.experts.count
    return float(config.experts.count * (1 - missed**rows))


def _product(weights: plan.Weights, form: Form, rows: int) -> tuple[float, float]:
    return float(weights.nbytes(form)), 2.0 * rows * weights.values


def _mean_embedding(config: ModelConfig, rows: int) -> tuple[float, float]:
    """Under the last step's beliefs: of a few tokens a row, or of the whole table once more."""
    few = config.canvas.soft_tokens if config.canvas else None
    moved = config.hidden_size * (few * rows if few else config.vocab_size)
    return float(moved * _BF16_BYTES), 2.0 * rows * config.hidden_size * (few or config.vocab_size)


def _attention(config: ModelConfig, rows: int, prefix: int) -> tuple[float, float]:
    moved, flops = 0.0, 0.0
    for layer in config.layers:
        seen = prefix if layer.window is None else min(prefix, layer.window - 1)
        moved += (seen + rows) * storage.position_bytes(layer, _BF16_BYTES)
        flops += 4.0 * rows * (seen + rows) * layer.heads * layer.head_dim
    return moved, flops

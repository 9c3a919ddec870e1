"""The operations of the model. Which implementation runs is decided here and nowhere else."""

from engine.kernels.reference import (
    attention,
    attention_by_products,
    experts,
    gated,
    rms_norm,
    rotary_table,
    rotate,
    route,
    softcap,
)

__all__ = [
    "attention",
    "attention_by_products",
    "experts",
    "gated",
    "rms_norm",
    "rotary_table",
    "rotate",
    "route",
    "softcap",
]

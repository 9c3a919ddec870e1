"""The operations of the model. Which implementation runs is decided here and nowhere else."""

from engine.kernels.reference import (
    attention,
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
    "experts",
    "gated",
    "rms_norm",
    "rotary_table",
    "rotate",
    "route",
    "softcap",
]

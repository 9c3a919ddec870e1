"""The operations of the model. Which implementation runs is decided here and nowhere else."""

from engine.kernels import int8, reference
from engine.kernels.int8 import cpu_multiplies_bytes
from engine.kernels.reference import (
    attention,
    attention_by_products,
    experts,
    gated,
    linear,
    quantize_rows,
    rms_norm,
    rotary_table,
    rotate,
    route,
    softcap,
)

int8_linear = int8.int8_linear if cpu_multiplies_bytes() else reference.int8_linear

__all__ = [
    "attention",
    "attention_by_products",
    "cpu_multiplies_bytes",
    "experts",
    "gated",
    "int8_linear",
    "linear",
    "quantize_rows",
    "rms_norm",
    "rotary_table",
    "rotate",
    "route",
    "softcap",
]

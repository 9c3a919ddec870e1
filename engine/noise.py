"""The random numbers of one canvas: each a function of seed, canvas, step and slot, and nothing else.

Counter-based: no state goes from one draw to the next, so that a slot gets the same numbers on any
device, in a batch, beside padding and in a replayed graph. Knows nothing of what they decide.

Source: SplitMix64 (Steele, Lea and Flood, 2014).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31
_STREAMS = 1 << 24  # steps in a canvas and slots in a step are fewer


@dataclass(frozen=True, slots=True)
class Noise:
    """What the steps 1 .. S of one canvas of H slots draw from."""

    uniform: Tensor  # [S, H] fp32 in [0, 1): row s - 1 is step s
    ids: Tensor  # [S + 1, H] random ids: row 0 is the first canvas, row s what step s puts


def draw(
    seed: int, steps: int, slots: int, vocab_size: int, device: torch.device, *, canvas: int = 0
) -> Noise:
    """The numbers of the canvas with this number, in an answer with this seed."""
    uniform = _bits(seed, 2 * canvas, steps, slots, device) >> 8  # float32 has 24 bits
    ids = _bits(seed, 2 * canvas + 1, steps + 1, slots, device) * vocab_size >> 32
    return Noise(uniform.float() * 2.0**-24, ids)


def _bits(seed: int, stream: int, steps: int, slots: int, device: torch.device) -> Tensor:
    """32 random bits [steps, slots] as int64."""
    counter = torch.arange(steps, device=device)[:, None] * _STREAMS
    counter = counter + torch.arange(slots, device=device)
    # One round for the seed and the stream keeps neighbouring seeds from sharing numbers.
    key = _mixed(torch.tensor(_signed(seed * _GOLDEN + stream + 1)))
    return _shifted(_mixed(counter * _signed(_GOLDEN) + key.item()), 32)


def _mixed(x: Tensor) -> Tensor:
    for shift, factor in _MIX:
        x = (x ^ _shifted(x, shift)) * _signed(factor)
    return x ^ _shifted(x, _LAST_SHIFT)


def _shifted(x: Tensor, places: int) -> Tensor:
    """`x` as 64 bits without a sign, shifted to the right."""
    return (x >> places) & ((1 << (64 - places)) - 1)


def _signed(value: int) -> int:
    """The lowest 64 bits of `value`, as torch's int64 has them."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value

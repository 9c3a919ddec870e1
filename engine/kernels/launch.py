"""Starting a kernel: the only call of Triton's launcher, and what is known of the device.

`bench.compile_kernels` replaces `run` and `device_of`: it sees each launch with its real constants,
for a device that is not at hand, on tensors without memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Device:
    """`processors` run programs side by side, each with up to `shared_memory` bytes of its own."""

    processors: int
    shared_memory: int


# Triton's interpreter: one program after the other.
INTERPRETER = Device(processors=4, shared_memory=1 << 20)


def device_of(x: Tensor) -> Device:
    """The device that holds `x`."""
    return _cuda(x.device.index or 0) if x.is_cuda else INTERPRETER


def run(kernel: Any, grid: tuple[int, ...], *args: Any, **constants: Any) -> None:
    """Starts one program for each point of `grid`; `constants` choose what is compiled."""
    kernel[grid](*args, **constants)


def power_of_two(n: int) -> int:
    """The least power of two that is at least `n`: Triton's blocks have no other sizes."""
    return 1 << (n - 1).bit_length()


@cache
def _cuda(index: int) -> Device:
    properties: Any = torch.cuda.get_device_properties(index)
    return Device(properties.multi_processor_count, properties.shared_memory_per_block_optin)

"""What a device reaches at copying and multiplying, and how its time is taken."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bench.floor import Rates

_TIMES = 8  # in a row, so that starting them counts for nothing


def measured(device: torch.device, nbytes: int) -> Rates:
    """What copying `nbytes` and one large product reach here."""
    source = torch.randint(0, 256, (nbytes,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    side = 8192 if device.type == "cuda" else 256
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    matrix = torch.randn(side, side, device=device, dtype=dtype)  # ones would be quicker
    copied, multiplied = [], []
    for _ in range(6):
        with timed(device) as seconds:
            for _ in range(_TIMES):
                target.copy_(source)
        copied += seconds
        with timed(device) as seconds:
            for _ in range(_TIMES):
                matrix @ matrix
        multiplied += seconds
    return Rates(2 * nbytes * _TIMES / min(copied), 2 * side**3 * _TIMES / min(multiplied))


@contextmanager
def timed(device: torch.device) -> Iterator[list[float]]:
    """The seconds that the body takes, in a list that is filled when it is done."""
    wait(device)
    seconds: list[float] = []
    started = time.perf_counter()
    yield seconds
    wait(device)
    seconds.append(time.perf_counter() - started)


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def device_name(device: torch.device) -> str:
    """As its maker calls it."""
    if device.type != "cuda":
        return "CPU"
    return torch.cuda.get_device_name(device)

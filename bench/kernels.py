"""Times every kernel at the released shapes on this GPU: `python -m bench.kernels`.

Beside each time stands the floor that this GPU's measured copy bandwidth and matrix rate set, and the
time of the plain twin. Ends with one JSON line. `--tiny --device cpu` interprets them in small where
TRITON_INTERPRET is 1, to see that all of this runs: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import torch

from bench import kernel_cases, rates

_ROUNDS = 20


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--tiny", action="store_true")
    options, _ = parser.parse_known_args()  # what else bench.step is told
    device = torch.device(options.device)
    assert device.type != "cuda" or torch.cuda.is_available(), "bench.kernels needs a CUDA device"
    with mock.patch.multiple(kernel_cases, **(kernel_cases.TINY if options.tiny else {})):
        run(device, (2,) if options.tiny else (64, 256), 1 << (20 if options.tiny else 30))


def run(device: torch.device, rows: tuple[int, ...], copied: int) -> None:
    """Times all cases, and the device's copy of so many bytes."""
    reached, name = rates.measured(device, copied), rates.device_name(device)
    bandwidth, rate = reached.bandwidth, reached.flops
    print(f"\n### Kernels on {name}: {bandwidth / 1e12:.2f} TB/s, {rate / 1e12:.0f} TFLOP/s\n")
    print("| kernel | µs | floor | of the floor | GB/s | TFLOP/s | plain torch |")
    print("|---|---|---|---|---|---|---|")
    figures: list[dict[str, Any]] = []
    with torch.inference_mode():
        for case in kernel_cases.cases(device, rows):
            floor = max(case.moved / bandwidth, case.flops / rate)
            seconds = timed(partial(case.fast, *case.args), device)
            plain = timed(partial(case.plain, *case.args), device, rounds=5)
            figures.append(
                {"kernel": case.name, "s": seconds, "floor_s": floor, "plain_s": plain}
                | {"bytes": case.moved, "flops": case.flops}
            )
            print(
                f"| {case.name} | {1e6 * seconds:.1f} | {1e6 * floor:.1f} | {seconds / floor:.1f}× "
                f"| {case.moved / seconds / 1e9:.0f} | {case.flops / seconds / 1e12:.1f} "
                f"| {1e6 * plain:.1f} |",
                flush=True,
            )
    print(json.dumps({"device": name, "bandwidth": bandwidth, "rate": rate, "kernels": figures}))


def timed(call: Callable[[], Any], device: torch.device, rounds: int = _ROUNDS) -> float:
    """Median seconds of a call on the device; a GPU's caches are cold, as between layers."""
    if device.type != "cuda":
        with rates.timed(device) as seconds:
            call()
        return seconds[0]
    flushed = torch.empty(256 << 20, dtype=torch.uint8, device=device)
    for _ in range(3):
        call()
    event: Any = torch.cuda.Event
    spent: list[float] = []
    for _ in range(rounds):
        flushed.zero_()
        start, end = (event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        spent.append(start.elapsed_time(end) / 1000)
    return statistics.median(spent)


if __name__ == "__main__":
    main()

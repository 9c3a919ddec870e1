"""Times every kernel at the released shapes on this GPU: `python -m bench.kernels`.

Beside each time stands the floor that this GPU's measured copy bandwidth and matrix rate set, and the
time of the plain twin. Ends with one JSON line.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from bench import rates
from bench.kernel_cases import cases

_ROUNDS = 20


def main() -> None:
    """See the module."""
    assert torch.cuda.is_available(), "bench.kernels needs a CUDA device"
    device = torch.device("cuda")
    reached, name = rates.measured(device, 1 << 30), rates.device_name(device)
    bandwidth, rate = reached.bandwidth, reached.flops
    print(f"\n### Kernels on {name}: {bandwidth / 1e12:.2f} TB/s, {rate / 1e12:.0f} TFLOP/s\n")
    print("| kernel | µs | floor | of the floor | GB/s | TFLOP/s | plain torch |")
    print("|---|---|---|---|---|---|---|")
    figures: list[dict[str, Any]] = []
    with torch.inference_mode():
        for case in cases(device):
            floor = max(case.moved / bandwidth, case.flops / rate)
            seconds = timed(partial(case.fast, *case.args))
            plain = timed(partial(case.plain, *case.args), rounds=5)
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


def timed(call: Callable[[], Any], rounds: int = _ROUNDS) -> float:
    """Median seconds of a call on the device; the caches are cold, as between layers."""
    flushed = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
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

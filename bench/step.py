"""DiffusionGemma with random weights at its released size: is the fast path right, and how fast is it?

    python -m bench.step [--device cuda|cpu] [--precisions NAME,...] [--soft-tokens N] [--tiny]
        [--no-reference] [--out FILE]

For each precision, the aim's first: captured steps against plain ones step by step under the same noise;
a step's time by rows; an infill's, cold and warm; causal decoding on the same weights; distinct experts;
peak memory behind 8k tokens. In bf16 also transformers on the same tensors. The predicted floor stands
beside each step. Tables in Markdown, and one JSON line at the end, which FILE has of all that is measured
so far; the exit code is 1 where the paths disagree, or a GPU did not capture.
`--tiny` has the same layers in small, to see that all of this runs: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from operator import ge
from pathlib import Path
from typing import Any

import torch

from bench import full_size, rates
from bench.floor import Rates
from bench.step_figures import HOLE, STEPS, SUFFIX, Bench, Figures, Size, full, tiny
from engine import plan
from engine.plan import PRECISIONS, Precision

# The last one has no FP8 copy of the head: the smallest that is planned.
BY_NAME = {p.name if p.head or p.name == "bf16" else f"{p.name}-bf16-head": p for p in PRECISIONS}
ORDER = ("int4", "bf16", "fp8", "int4-bf16-head")  # a run may be cut short
# How the first two steps must agree, of a model whose rounding grows from layer to layer (LOG.md,
# 2026-11-30): best ids, and the mean distance of the first step's log-probabilities in nats.
LEAST_AGREEMENT = (0.9, 0.5)
MOST_OFF = 0.15


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    size = (tiny() if options.tiny else full()).with_soft_tokens(options.soft_tokens)
    device = torch.device(options.device)
    started = time.perf_counter()
    reached = rates.measured(device, 1 << (20 if options.tiny else 30))
    figures: Figures = {
        "device": rates.device_name(device),
        "torch": torch.__version__,
        "tiny": options.tiny,
        "soft_tokens": options.soft_tokens,
        "bandwidth_gb_s": reached.bandwidth / 1e9,
        "bf16_tflop_s": reached.flops / 1e12,
        "precisions": {},
        "agreed": True,
    }
    for name in options.precisions.split(","):
        precision = BY_NAME[name]
        measured: Figures = {}
        figures["precisions"][name] = measured
        needed = plan.plan(size.config, precision, size.long_prefix).total
        if device.type == "cuda" and needed > torch.cuda.mem_get_info()[0]:
            measured["skipped"] = f"needs {needed / 1e9:.1f} GB"
            continue
        with_reference = name == "bf16" and not options.no_reference
        try:
            for part, value in measure(size, precision, device, reached, with_reference):
                measured[part] = value
                figures["seconds"] = time.perf_counter() - started
                figures["agreed"] = _agree(figures["precisions"].values())
                print(f"{name} {part}: {json.dumps(value)}", flush=True)
                if options.out:
                    options.out.write_text(json.dumps(figures) + "\n", encoding="utf-8")
            print_tables(name, size, measured)
        except Exception as error:  # noqa: BLE001 - the other precisions are worth having
            measured["error"] = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        free(device)
    print(json.dumps(figures))
    if options.out:
        options.out.write_text(json.dumps(figures) + "\n", encoding="utf-8")
    whole = all(
        "error" not in one and (device.type != "cuda" or one["captured"])
        for one in figures["precisions"].values()
        if "skipped" not in one
    )
    return 0 if figures["agreed"] and whole else 1


def free(device: torch.device) -> None:
    """Gives back what nothing refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _agree(measured: Iterable[Figures]) -> bool:
    """Whether the paths agree in all that is measured so far."""
    seen = [one["parity"] for one in measured if "parity" in one]
    return all(
        one["first_step_log_probability_off"] <= MOST_OFF
        and all(map(ge, one["first_steps"], LEAST_AGREEMENT))
        for one in seen
    )


def measure(
    size: Size, precision: Precision, device: torch.device, reached: Rates, with_reference: bool
) -> Iterator[tuple[str, Any]]:
    """All figures of one precision by name, as they come."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    started = time.perf_counter()
    model = full_size.random_model(
        size.config,
        precision.name,
        dtype=dtype,
        device=device,
        head_copy=precision.head is not None,
    )
    rates.wait(device)
    yield "made_s", time.perf_counter() - started
    bench = Bench(model, size, device)
    yield "parity", bench.parity()
    yield "captured", device.type == "cuda" and not bench.graphs.refused
    yield "step_ms", bench.step_times(precision, reached)
    infill = bench.infills()
    yield "infill", infill
    yield "experts", bench.distinct_experts()
    causal = bench.causal_token()
    yield "causal_token_ms", causal
    yield "tokens_s", {"infill, warm": 1000 * HOLE / infill["warm_ms"], "causal": 1000 / causal}
    yield "long_prefix", bench.long_prefix()
    if with_reference:
        theirs = bench.reference_infill()
        yield "transformers_ms", theirs
        yield (
            "transformers_ratio",
            {"cold": theirs / infill["cold_ms"], "warm": theirs / infill["warm_ms"]},
        )


def print_tables(name: str, size: Size, figures: Figures) -> None:
    """One precision's figures in Markdown."""
    print(f"\n### {name}, prefix {size.prefix}\n")
    print("| rows | captured step (ms) | plain (ms) | floor (ms) | captured / floor |")
    print("|---|---|---|---|---|")
    for row in figures["step_ms"]:
        cells = (row["captured"], row["plain"], row["floor"], row["by floor"])
        print(f"| {row['rows']} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |")
    whole, first = (
        ", ".join(f"{share:.2f}" for share in figures["parity"][key])
        for key in ("agreement", "first_steps")
    )
    experts, long = figures["experts"], figures["long_prefix"]
    lines: list[tuple[str, str]] = [
        ("steps were captured", str(figures["captured"])),
        ("same best ids as the plain path: first two steps, four walks", first),
        (
            "log-probability of the best off by, first step (mean, nats)",
            f"{figures['parity']['first_step_log_probability_off']:.3f}",
        ),
        ("one whole walk, by step", whole),
        (
            f"distinct experts, {experts['rows']} rows: first / last step / by lot",
            f"{experts['first step']:.0f} / {experts['last step']:.0f} / {experts['by lot']:.0f}",
        ),
        (
            f"infill, hole {HOLE} + suffix {SUFFIX}, {STEPS} steps: cold / warm (ms)",
            f"{figures['infill']['cold_ms']:.1f} / {figures['infill']['warm_ms']:.1f}",
        ),
        ("causal decoding, per token (ms)", f"{figures['causal_token_ms']:.2f}"),
        (
            "tokens a second: infill / causal",
            " / ".join(f"{value:.0f}" for value in figures["tokens_s"].values()),
        ),
        (f"warm infill behind {long['tokens']} tokens (ms)", f"{long['warm_ms']:.1f}"),
    ]
    if "peak_reserved_bytes" in long:
        used = f"{long['peak_reserved_bytes'] / 1e9:.1f} / {long['device_used_bytes'] / 1e9:.1f}"
        lines.append(("peak memory: torch's / the device's (GB)", used))
    if "transformers_ms" in figures:
        ratio = figures["transformers_ratio"]
        lines.append(
            (
                f"transformers, one canvas of {size.config.canvas_length}: ms, by our cold / warm",
                f"{figures['transformers_ms']:.0f}, {ratio['cold']:.1f} / {ratio['warm']:.1f}",
            )
        )
    print("\n| figure | value |\n|---|---|")
    for label, value in lines:
        print(f"| {label} | {value} |")
    print(flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--precisions", default=",".join(ORDER), help="of " + ", ".join(BY_NAME))
    parser.add_argument(
        "--soft-tokens",
        type=int,
        help="self-conditioning by the N likeliest tokens, without logits",
    )
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--no-reference", action="store_true", help="without transformers")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the JSON line, as it grows")
    return parser


if __name__ == "__main__":
    sys.exit(main())

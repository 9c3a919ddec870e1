"""DiffusionGemma with random weights at its released size: is the fast path right, and how fast is it?

    python -m bench.step [--device cuda|cpu] [--precisions NAME,...] [--tiny] [--no-reference]

For each precision: captured steps against plain ones step by step under the same noise; a step's time
by rows; an infill's, cold and warm; causal decoding on the same weights; distinct experts; peak memory
behind 8k tokens. In bf16 also transformers on the same tensors. The predicted floor stands beside each
step. Tables in Markdown, and one JSON line at the end; the exit code is 1 where the paths disagree.
`--tiny` has the same layers in small, to see that all of this runs: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any
from unittest import mock

import torch

from bench import floor, full_size
from bench.floor import Rates
from engine import causal, infill, kernels, noise, plan, released, steps
from engine.cache import PrefixCache
from engine.config import ModelConfig, SamplerConfig
from engine.graphs import Graphs
from engine.infill import Control
from engine.model import Transformer
from engine.plan import PRECISIONS, Precision
from engine.steps import Canvas, Seen, Steps

# The last one has no FP8 copy of the head: the smallest that is planned.
BY_NAME = {p.name if p.head or p.name == "bf16" else f"{p.name}-bf16-head": p for p in PRECISIONS}
STEPS = 8
HOLE, SUFFIX = 32, 48
_NEVER_SURE = 1e-30  # nats: the stop rule does not fire
# In bf16 a near tie may fall the other way; that a path is wrong shows in most rows at once.
LEAST_AGREEMENT = 0.9
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Size:
    """What is measured at one size of the model."""

    description: dict[str, Any]
    config: ModelConfig
    prefix: int
    long_prefix: int
    rows: tuple[int, ...]
    causal_tokens: int
    rounds: int


def full() -> Size:
    """The release's."""
    return Size(released.CONFIG, released.config(), 1024, 8192, (16, 32, 64, 128, 256), 32, 3)


def tiny() -> Size:
    """All kinds of layers in small."""
    changes = {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "global_head_dim": 32,
        "num_global_key_value_heads": 1,
        "sliding_window": 16,
        "num_experts": 4,
        "top_k_experts": 2,
        "moe_intermediate_size": 32,
        "max_position_embeddings": 4096,
        "eos_token_id": None,
    }
    text = {**released.CONFIG["text_config"], **changes}
    description = {**released.CONFIG, "text_config": text}
    return Size(description, ModelConfig.from_hf(description, {}), 40, 100, (16,), 4, 1)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    size = tiny() if options.tiny else full()
    device = torch.device(options.device)
    started = time.perf_counter()
    rates = measured_rates(device, 1 << (20 if options.tiny else 30))
    figures: Figures = {
        "device": device_name(device),
        "torch": torch.__version__,
        "tiny": options.tiny,
        "bandwidth_gb_s": rates.bandwidth / 1e9,
        "bf16_tflop_s": rates.flops / 1e12,
        "precisions": {},
    }
    for name in options.precisions.split(","):
        precision = BY_NAME[name]
        needed = plan.plan(size.config, precision, size.long_prefix).total
        if device.type == "cuda" and needed > torch.cuda.mem_get_info()[0]:
            figures["precisions"][name] = {"skipped": f"needs {needed / 1e9:.1f} GB"}
            continue
        with_reference = name == "bf16" and not options.no_reference
        measured = measure(size, precision, device, rates, with_reference)
        figures["precisions"][name] = measured
        print_tables(name, size, measured)
    figures["seconds"] = time.perf_counter() - started
    figures["agreed"] = all(
        min(one["parity"]["first_steps"]) >= LEAST_AGREEMENT
        for one in figures["precisions"].values()
        if "parity" in one
    )
    print(json.dumps(figures))
    return 0 if figures["agreed"] else 1


def measure(
    size: Size, precision: Precision, device: torch.device, rates: Rates, with_reference: bool
) -> Figures:
    """All figures of one precision."""
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
    _wait(device)
    figures: Figures = {"made_s": time.perf_counter() - started}
    bench = _Bench(model, size, device)
    figures["parity"] = bench.parity()
    figures["experts"] = bench.distinct_experts()
    figures["step_ms"] = bench.step_times(precision, rates)
    figures["captured"] = device.type == "cuda" and not bench.graphs.refused
    figures["infill"] = bench.infills()
    figures["causal_token_ms"] = bench.causal_token()
    warm = figures["infill"]["warm_ms"]
    figures["tokens_s"] = {
        "infill, warm": 1000 * HOLE / warm,
        "causal": 1000 / figures["causal_token_ms"],
    }
    figures["long_prefix"] = bench.long_prefix()
    if with_reference:
        theirs = bench.reference_infill()
        figures["transformers_ms"] = theirs
        figures["transformers_ratio"] = {
            "cold": theirs / figures["infill"]["cold_ms"],
            "warm": theirs / warm,
        }
    del bench, model
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return figures


class _Bench:
    """One model behind a prefix, and what is measured of it."""

    def __init__(self, model: Transformer, size: Size, device: torch.device) -> None:
        self.model = model
        self.graphs = Graphs(model, size.long_prefix)
        self._size = size
        self._device = device
        draw = torch.Generator().manual_seed(1)
        vocabulary = size.config.vocab_size
        self._ids = torch.randint(5, vocabulary, (size.long_prefix,), generator=draw).tolist()
        self._cache = self._encoded(size.prefix)
        self._canvas = Canvas(hole=HOLE, clamped=tuple(self._ids[:SUFFIX]))

    def parity(self) -> Figures:
        """How many of the hole's best ids are the plain path's under the same noise.

        Over a whole walk, where one near tie changes all that follows; and over the first two steps
        of several walks, the second with self-conditioning, which must agree.
        """
        config = SamplerConfig(max_steps=STEPS, confidence=_NEVER_SURE)

        def both(seed: int, count: int) -> list[tuple[Seen, Seen]]:
            plain, fast = (
                self._walk(make, self._canvas, config, seed=seed, count=count)
                for make in (steps.plain, self.graphs)
            )
            return list(zip(plain, fast, strict=True))

        starts = [both(seed, 2) for seed in range(1, 5)]
        off = max(
            float((one.log_best.cpu() - other.log_best.cpu()).abs().max())
            for one, other in (start[0] for start in starts)
        )
        return {
            "agreement": [_same(one, other) for one, other in both(0, STEPS)],
            "first_steps": [
                statistics.mean(_same(*start[step]) for start in starts) for step in (0, 1)
            ],
            "first_step_log_probability_off": off,
        }

    def distinct_experts(self) -> dict[str, float]:
        """The mean over layers of how many experts a first and a last step ask for."""
        counts: list[int] = []
        route = kernels.route

        def counted(*args: Any) -> Any:
            weights, indices = route(*args)
            counts.append(len(set(indices.flatten().tolist())))
            return weights, indices

        config = SamplerConfig(max_steps=STEPS, confidence=_NEVER_SURE)
        with mock.patch.object(kernels, "route", counted):
            self._walk(steps.plain, self._canvas, config)
        layers = len(self._size.config.layers)
        return {
            "rows": HOLE + SUFFIX,
            "first step": statistics.mean(counts[:layers]),
            "last step": statistics.mean(counts[-layers:]),
            "by lot": floor.distinct_experts(self._size.config, HOLE + SUFFIX),
        }

    def step_times(self, precision: Precision, rates: Rates) -> list[Figures]:
        """Milliseconds of a step by rows, all of them the hole's: captured, plain, and the floor."""
        rows = []
        for count in self._size.rows:
            canvas = Canvas(hole=count)
            least = floor.step_seconds(
                self._size.config, precision, rates, rows=count, prefix=self._size.prefix
            )
            fast = self._step_ms(self.graphs, canvas, STEPS, self._size.rounds)
            plain = self._step_ms(steps.plain, canvas, 2, 1)
            rows.append(
                {
                    "rows": count,
                    "captured": fast,
                    "plain": plain,
                    "floor": 1000 * least,
                    "by floor": fast / (1000 * least),
                }
            )
        return rows

    def infills(self) -> dict[str, float]:
        """A hole of HOLE tokens before a suffix in STEPS steps, its prefix to be encoded or at hand."""
        config = SamplerConfig(max_steps=STEPS, confidence=_NEVER_SURE)

        def run(cache: PrefixCache) -> None:
            infill.infill(self.model, cache, self._canvas, config, 0, Control(), self.graphs)

        return {
            "cold_ms": self._ms(lambda: run(self._encoded(self._size.prefix))),
            "warm_ms": self._ms(lambda: run(self._cache)),
        }

    def causal_token(self) -> float:
        """Milliseconds of a token written from left to right."""
        length, most = self._cache.length, self._size.causal_tokens
        counts: list[int] = []
        with torch.inference_mode():
            hidden = self.model.encode(self._ids[:1], self._cache)

        def run() -> None:
            written = self._cache.length
            filled = causal.decode(
                self.model, self._cache, hidden, most, lambda ids: None, Control()
            )
            counts.append(max(1, len(filled.ids)))
            self._cache.truncate(written)

        spent = self._ms(run)
        self._cache.truncate(length)
        return spent / counts[-1]

    def long_prefix(self) -> Figures:
        """Peak memory, and an infill's time, behind the longest prefix."""
        cache = self._encoded(self._size.long_prefix)
        config = SamplerConfig(max_steps=STEPS, confidence=_NEVER_SURE)
        warm = self._ms(
            lambda: infill.infill(
                self.model, cache, self._canvas, config, 0, Control(), self.graphs
            )
        )
        figures: Figures = {"tokens": self._size.long_prefix, "warm_ms": warm}
        if self._device.type == "cuda":
            free, total = torch.cuda.mem_get_info()
            figures["peak_allocated_bytes"] = torch.cuda.max_memory_allocated()
            figures["peak_reserved_bytes"] = torch.cuda.max_memory_reserved()
            figures["device_used_bytes"] = total - free
        return figures

    def reference_infill(self) -> float:
        """Milliseconds of transformers for one canvas in STEPS steps, on the same tensors."""
        theirs = full_size.reference(self.model, self._size.description)
        prompt = torch.tensor([self._ids[: self._size.prefix]], device=self._device)

        def run() -> None:
            theirs.generate(
                prompt,
                max_new_tokens=self._size.config.canvas_length,
                max_denoising_steps=STEPS,
                confidence_threshold=_NEVER_SURE,
                eos_token_id=None,
            )

        return self._ms(run)

    def _step_ms(self, make: Steps, canvas: Canvas, count: int, rounds: int) -> float:
        """The time of a step: what `count` more steps take, so that what begins a walk is left out."""

        def walk(steps_: int) -> float:
            config = SamplerConfig(max_steps=steps_, confidence=_NEVER_SURE)
            return self._ms(lambda: self._walk(make, canvas, config), rounds)

        return (walk(1 + count) - walk(1)) / count

    def _walk(
        self,
        make: Steps,
        canvas: Canvas,
        config: SamplerConfig,
        *,
        seed: int = 0,
        count: int | None = None,
    ) -> list[Seen]:
        """What the first `count` steps report, or all."""
        size = self._size.config.vocab_size
        drawn = noise.draw(seed, config.max_steps, canvas.hole, size, self._device)
        with torch.inference_mode():
            reports = make(self.model, self._cache, [canvas], config, drawn, lambda number: True)
            return [report[0] for report in islice(reports, count)]

    def _encoded(self, length: int) -> PrefixCache:
        cache = PrefixCache(self._size.config, self._device, self.model.dtype)
        causal.encode(self.model, cache, self._ids[:length], 512, Control())
        return cache

    def _ms(self, run: Callable[[], object], rounds: int | None = None) -> float:
        """The median of some runs; one before them compiles, captures and allocates."""
        spent = []
        for _ in range((rounds or self._size.rounds) + 1):
            with _timed(self._device) as seconds:
                run()
            spent.append(1000 * seconds[0])
        return statistics.median(spent[1:])


def _same(one: Seen, other: Seen) -> float:
    """The share of slots with the same best id."""
    return float((one.best.cpu() == other.best.cpu()).float().mean())


@contextmanager
def _timed(device: torch.device) -> Iterator[list[float]]:
    _wait(device)
    seconds: list[float] = []
    started = time.perf_counter()
    yield seconds
    _wait(device)
    seconds.append(time.perf_counter() - started)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def measured_rates(device: torch.device, nbytes: int) -> Rates:
    """What copying `nbytes` and one large product reach here."""
    source = torch.zeros(nbytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    side = 8192 if device.type == "cuda" else 256
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    matrix = torch.ones(side, side, device=device, dtype=dtype)
    copied, multiplied = [], []
    for _ in range(6):
        with _timed(device) as seconds:
            target.copy_(source)
        copied += seconds
        with _timed(device) as seconds:
            matrix @ matrix
        multiplied += seconds
    return Rates(2 * nbytes / min(copied), 2 * side**3 / min(multiplied))


def device_name(device: torch.device) -> str:
    """As its maker calls it."""
    if device.type != "cuda":
        return "CPU"
    return torch.cuda.get_device_name(device)


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
    parser.add_argument("--precisions", default=",".join(BY_NAME), help="of " + ", ".join(BY_NAME))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--no-reference", action="store_true", help="without transformers")
    return parser


if __name__ == "__main__":
    sys.exit(main())

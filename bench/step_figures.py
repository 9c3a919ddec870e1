"""What is measured of DiffusionGemma with random weights behind a prefix, in full size and in small."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any
from unittest import mock

import torch

from bench import floor, full_size, rates
from bench.floor import Rates
from engine import causal, hf_config, infill, kernels, noise, plan, released, steps, storage
from engine.cache import PrefixCache
from engine.config import ModelConfig, SamplerConfig
from engine.graphs import Graphs
from engine.infill import Control
from engine.model import Transformer
from engine.plan import Precision
from engine.steps import Canvas, Seen, Steps

STEPS = 8
HOLE, SUFFIX = 32, 48
CHUNK = 512  # tokens of a prompt that are encoded at once
_NEVER_SURE = 1e-30  # nats: the stop rule does not fire
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

    def with_soft_tokens(self, count: int | None) -> Size:
        """Self-conditioning by so many of the likeliest tokens; None: by all."""
        assert self.config.canvas
        own = replace(self.config.canvas, soft_tokens=count)
        return replace(self, config=replace(self.config, canvas=own))


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
    return Size(description, hf_config.model_config(description, {}), 40, 100, (16,), 4, 1)


class Bench:
    """One model behind a prefix, and what is measured of it."""

    def __init__(self, model: Transformer, size: Size, device: torch.device) -> None:
        self.model = model
        rows = plan.most_rows(size.config, size.long_prefix, CHUNK)
        pools = storage.allocate(size.config, size.long_prefix, rows, device, model.dtype)
        self.graphs = Graphs(model, pools)
        self._size = size
        self._device = device
        draw = torch.Generator().manual_seed(1)
        vocabulary = size.config.vocab_size
        self._ids = torch.randint(5, vocabulary, (size.long_prefix,), generator=draw).tolist()
        self._cache = PrefixCache(size.config, device, model.dtype, pools=pools)
        self._encode(size.prefix)
        self._canvas = Canvas(hole=HOLE, clamped=tuple(self._ids[:SUFFIX]))

    def parity(self) -> Figures:
        """How many of the hole's best ids are the plain path's under the same noise.

        Over a whole walk, where one near tie changes all that follows; and over the first two steps
        of several walks, the second with self-conditioning, which must agree. A hole's best ids in the
        first step are those it shows, whatever a layer does: so their log-probabilities are compared.
        """
        config = SamplerConfig(max_steps=STEPS, confidence=_NEVER_SURE)

        def both(seed: int, count: int) -> list[tuple[Seen, Seen]]:
            plain, fast = (
                self._walk(make, self._canvas, config, seed=seed, count=count)
                for make in (steps.plain, self.graphs)
            )
            return list(zip(plain, fast, strict=True))

        starts = [both(seed, 2) for seed in range(1, 5)]
        off = statistics.mean(
            float((one.log_best.cpu() - other.log_best.cpu()).abs().mean())
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

    def step_times(self, precision: Precision, reached: Rates) -> list[Figures]:
        """Milliseconds of a step by rows, all of them the hole's: captured, plain, and the floor."""
        rows = []
        for count in self._size.rows:
            canvas = Canvas(hole=count)
            least = floor.step_seconds(
                self._size.config, precision, reached, rows=count, prefix=self._size.prefix
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

        def run() -> None:
            infill.infill(self.model, self._cache, self._canvas, config, 0, Control(), self.graphs)

        def cold() -> None:
            self._encode(self._size.prefix)
            run()

        return {"cold_ms": self._ms(cold), "warm_ms": self._ms(run)}

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
        """Peak memory, and an infill's time, behind the longest prefix; the last thing measured.

        What other measurements left is freed before, so that it is what an engine would hold.
        """
        self.graphs.clear()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        self._encode(self._size.long_prefix)
        config = SamplerConfig(max_steps=STEPS, confidence=_NEVER_SURE)
        warm = self._ms(
            lambda: infill.infill(
                self.model, self._cache, self._canvas, config, 0, Control(), self.graphs
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

    def _encode(self, length: int) -> None:
        """Makes the first `length` tokens the prefix, encoded anew."""
        self._cache.truncate(0)
        causal.encode(self.model, self._cache, self._ids[:length], CHUNK, Control())

    def _ms(self, run: Callable[[], object], rounds: int | None = None) -> float:
        """The median of some runs; one before them compiles, captures and allocates."""
        spent = []
        for _ in range((rounds or self._size.rounds) + 1):
            with rates.timed(self._device) as seconds:
                run()
            spent.append(1000 * seconds[0])
        return statistics.median(spent[1:])


def _same(one: Seen, other: Seen) -> float:
    """The share of slots with the same best id."""
    return float((one.best.cpu() == other.best.cpu()).float().mean())

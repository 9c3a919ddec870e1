"""What one step of the small model costs on a CPU in each precision, and where the time goes.

Holes of several lengths with their suffix, one causal token and a prefill. The precisions take turns
in one process and the least of many rounds counts, so that ratios hold on a busy machine; the memory
of each is a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

DTYPES = ("float32", "bfloat16", "int8")
HOLES = (8, 16, 32, 64)
SUFFIX, PREFIX, PREFILL = 32, 600, 512
PARTS = ("linears", "attention", "head", "rest")
Parts = dict[str, float]


def bench_steps(model: str, rounds: int) -> dict[str, Any]:
    """Milliseconds of each kind of forward in each precision, parts of the time, memory."""
    import torch

    loaded = {dtype: _Loaded(model, dtype) for dtype in DTYPES}
    best: dict[tuple[str, str], float] = {}
    parts: dict[tuple[str, str], Parts] = {}
    with torch.inference_mode():
        for round_ in range(rounds + 1):  # the first warms up
            for name in next(iter(loaded.values())).runs:
                if name == _prefill_name() and round_ % 4 > 1:
                    continue
                for dtype, one in loaded.items():
                    spent, where = one.timed(name)
                    if round_ and spent < best.get((name, dtype), 1e9):
                        best[name, dtype], parts[name, dtype] = spent, where
    memory = {dtype: _memory(model, dtype) for dtype in DTYPES}
    return {
        "prefix": PREFIX,
        "suffix": SUFFIX,
        "threads": torch.get_num_threads(),
        "ms": _nested({key: 1000 * value for key, value in best.items()}),
        "share": _nested({key: _shares(value) for key, value in parts.items()}),
        "memory_mb": memory,
    }


def print_steps(figures: dict[str, Any]) -> None:
    """Prints the figures as Markdown tables."""
    print(f"\n### One forward behind {figures['prefix']} tokens, {figures['threads']} threads\n")
    print("| ms | " + " | ".join(DTYPES) + " | float32 / int8 |\n|---|" + "---|" * 4)
    for name, row in figures["ms"].items():
        values = " | ".join(f"{row[dtype]:.1f}" for dtype in DTYPES)
        print(f"| {name} | {values} | {row['float32'] / row['int8']:.1f} |")
    memory = " | ".join(f"{figures['memory_mb'][dtype]:.0f}" for dtype in DTYPES)
    print(f"| process (MB) | {memory} | |")
    print("\n| share of the time, int8 | " + " | ".join(PARTS) + " |\n|---|" + "---|" * 4)
    for name, row in figures["share"].items():
        print(f"| {name} | " + " | ".join(f"{row['int8'][part]:.0%}" for part in PARTS) + " |")
    print()


class _Loaded:
    """The model in one precision behind a prefix, and what is timed of it."""

    def __init__(self, model: str, dtype: str) -> None:
        import torch

        from engine.cache import PrefixCache
        from engine.config import CanvasConfig
        from engine.loading import load_model
        from engine.pull import resolve_model

        cpu = torch.device("cpu")
        self.model = load_model(resolve_model(model), dtype=getattr(torch, dtype), device=cpu)
        # A canvas needs no weights of its own: a causal model takes as long over one.
        canvas = CanvasConfig(length=256, noise="mask", mask_id=0, self_conditioning=False)
        config = self.model.config
        self.model.config = config if config.canvas else replace(config, canvas=canvas)
        self.ids = torch.randint(5, config.vocab_size, (PREFIX,)).tolist()
        self.cache = PrefixCache(config, cpu, self.model.dtype)
        self.empty = PrefixCache(config, cpu, self.model.dtype)
        with torch.inference_mode():
            self.model.encode(self.ids, self.cache)
        self.runs: dict[str, Callable[[], None]] = {
            **{f"step, hole {hole} + {SUFFIX}": self._step(hole) for hole in HOLES},
            "one causal token": self._token,
            _prefill_name(): self._prefill,
        }

    def timed(self, name: str) -> tuple[float, Parts]:
        """Seconds of one run, and of its parts."""
        with _watched(self.model) as parts:
            started = time.perf_counter()
            self.runs[name]()
            spent = time.perf_counter() - started
        parts["rest"] = spent - sum(parts.values())
        return spent, parts

    def _step(self, hole: int) -> Callable[[], None]:
        import torch

        from engine import sampler

        ids = torch.tensor([self.ids[: hole + SUFFIX]])

        def step() -> None:
            hidden = self.model.canvas(ids, self.cache, None)
            sampler.predict(self.model.logits(hidden[:, :hole]), 1.0)

        return step

    def _token(self) -> None:
        hidden = self.model.encode(self.ids[:1], self.cache)
        self.model.logits(hidden[0]).log_softmax(-1).argmax(-1).tolist()
        self.cache.truncate(PREFIX)

    def _prefill(self) -> None:
        self.model.encode(self.ids[:PREFILL], self.empty)
        self.empty.truncate(0)


@contextmanager
def _watched(model: Any) -> Iterator[Parts]:
    """Counts the seconds that the model spends in each of PARTS but the rest."""
    from engine import kernels
    from engine.modules import Projection
    from engine.quant import Int8Linear

    parts: Parts = dict.fromkeys(PARTS, 0.0)

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            result = function(*args, **options)
            parts[part] += time.perf_counter() - started
            return result

        return run

    with ExitStack() as patches:
        for layer in model.layers.modules():
            if isinstance(layer, (Projection, Int8Linear)):
                forward = timed("linears", layer.forward)
                patches.enter_context(mock.patch.object(layer, "forward", forward))
        for part, owner, name in (("attention", kernels, "attention"), ("head", model, "logits")):
            patches.enter_context(mock.patch.object(owner, name, timed(part, getattr(owner, name))))
        yield parts


def _memory(model: str, dtype: str) -> float:
    """Resident megabytes of an engine's process with the prefix encoded, idle."""
    code = f"from bench.steps import report; report({model!r}, {dtype!r})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def report(model: str, dtype: Any) -> None:
    """Prints this process' resident megabytes after a start as the engine's and one answer."""
    import psutil

    from engine import api
    from engine.config import EngineConfig
    from engine.pull import resolve_model
    from engine.request import InfillRequest
    from engine.runtime import Engine

    assert api  # it and what it imports are part of the engine's process
    config = EngineConfig(model=resolve_model(model), device="cpu", dtype=dtype)
    engine = Engine.load(config)
    request = InfillRequest(prefix="x = compute(a, b)\n" * 100, max_tokens=4)
    engine.infill(request, cancelled=lambda: False)
    print(psutil.Process().memory_info().rss / 1e6)


def _prefill_name() -> str:
    return f"prefill of {PREFILL}"


def _shares(parts: Parts) -> dict[str, float]:
    return {part: parts[part] / sum(parts.values()) for part in PARTS}


def _nested(flat: dict[tuple[str, str], Any]) -> dict[str, dict[str, Any]]:
    """{(name, dtype): value} as {name: {dtype: value}}."""
    nested: dict[str, dict[str, Any]] = {}
    for (name, dtype), value in flat.items():
        nested.setdefault(name, {})[dtype] = value
    return nested

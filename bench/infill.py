"""How fast a hole is filled: the installed model end to end, and our loop against transformers.

    python -m bench.infill [--device cpu|cuda] [--rounds N] [--only engine|steps|reference]

`engine` goes the user's way: language server and engine as processes, the first answer with the
engine's start in it, then, in lines from all over a file, one answer at the line's beginning and two
warm ones as somebody types it. `steps`, on a CPU, times single forwards
in each precision and says where the time goes (`bench.steps`). `reference` fills with the same tiny
random DiffusionGemma, the same number of steps and the same prompt in transformers' `generate`
and in ours, in turn. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from bench.steps import bench_steps, print_steps
from dg_lsp.settings import EngineSettings

Device = Literal["cpu", "cuda"]
STEPS = 8
PROMPT_TOKENS = 512
HOLE, SUFFIX = 32, 48
REST_S = 4  # by then the engine has noticed that nobody asks
TINY_TEXT: dict[str, Any] = {
    "vocab_size": 32_768,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "global_head_dim": 64,
    "num_global_key_value_heads": 2,
    "sliding_window": 256,
    "num_experts": 16,
    "top_k_experts": 4,
    "moe_intermediate_size": 128,
    "eos_token_id": None,
}
TINY_VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 16,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("engine", "steps", "reference"))
    parser.add_argument(
        "--model", default=EngineSettings().model, help="for `steps`: a name or directory"
    )
    options = parser.parse_args()
    wanted = (options.only,) if options.only else ("engine", "steps", "reference")
    # As the engine's process sets it; read when torch is first imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    figures: dict[str, Any] = {"machine": machine(options.device)}
    if "engine" in wanted:
        figures["engine"] = asyncio.run(bench_engine(options.device, options.rounds))
        table(f"Engine and language server, model {EngineSettings().model}", figures["engine"])
    if "steps" in wanted and options.device == "cpu":
        figures["steps"] = bench_steps(options.model, options.rounds)
        print_steps(figures["steps"])
    if "reference" in wanted:
        figures["reference"] = bench_reference(options.device, options.rounds)
        table("Tiny DiffusionGemma against transformers", figures["reference"])
    print(json.dumps(figures))


def machine(device: Device) -> str:
    """One line on what this ran on."""
    names = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    cpu = names[0].partition(":")[2].strip() if names else platform.processor()
    text = f"{cpu}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"
    if device == "cuda":
        import torch

        text += f", {torch.cuda.get_device_name()}, torch {torch.__version__}"
    return text


def table(title: str, figures: dict[str, Any]) -> None:
    """Prints figures as a Markdown table."""
    print(f"\n### {title}\n\n| figure | value |\n|---|---|")
    for name, value in figures.items():
        print(f"| {name} | {value:.1f} |" if isinstance(value, float) else f"| {name} | {value} |")
    print()


def code_lines(text: str, count: int) -> list[tuple[int, int]]:
    """Where `count` lines of some length start and end, from the file's beginning to its end."""
    places, start = [], 0
    for line in text.split("\n"):
        if len(line.strip()) >= 24:
            places.append((start, start + len(line)))
        start += len(line) + 1
    return places[:: max(1, len(places) // count)][:count]


async def bench_engine(device: Device, rounds: int) -> dict[str, Any]:
    """First and warm answers through the client, and the memory of both processes."""
    with tempfile.TemporaryDirectory(prefix="dgb") as private:
        os.environ["DG_LSP_RUNTIME_DIR"] = private
        from dg_lsp.client import EngineClient
        from engine.request import InfillRequest

        source = Path(__file__).parent.parent / "engine" / "sampler.py"
        text = source.read_text(encoding="utf-8")
        client = EngineClient(EngineSettings(device=device))

        async def answer(start: int, typed: int, end: int) -> tuple[float, Any]:
            request = InfillRequest(
                prefix=text[: start + typed],
                suffix=text[end:],
                single_line=True,
                max_tokens=24,
            )
            started = time.perf_counter()
            result = await client.infill(request)
            return (time.perf_counter() - started) * 1000, result

        try:
            first, _ = await answer(0, 0, 0)
            begun, warm, steps, lengths = [], [], [], []
            for start, end in code_lines(text, rounds):
                blank = len(text[start:end]) - len(text[start:end].lstrip())
                spent, _ = await answer(start, blank, end)
                begun.append(spent)
                for share in (1, 2):  # thirds of the line that are typed already
                    typed = blank + (end - start - blank) * share // 3
                    spent, result = await answer(start, typed, end)
                    warm.append(spent)
                    lengths.append(result.tokens)
                    steps.append(result.timings_ms["decode"] / result.forwards)
            busy = await client.health() or {}
            server = await asyncio.to_thread(server_memory, text)
            await asyncio.sleep(REST_S)
            idle = await client.health() or {}
        finally:
            await client.stop()
            await client.aclose()
        return {
            "first answer, engine start included (ms)": first,
            "a line's first answer, median (ms)": statistics.median(begun),
            "warm answer while typing, median (ms)": statistics.median(warm),
            "warm answer while typing, slowest (ms)": max(warm),
            "tokens of a warm answer, median": statistics.median(lengths),
            "per forward (ms)": statistics.median(steps),
            "prompt tokens": result.prompt_tokens,
            "of them from the cache": result.cached_tokens,
            "engine memory, right after an answer (MB)": busy["rss_bytes"] / 1e6,
            "engine memory, at rest (MB)": idle["rss_bytes"] / 1e6,
            "language server memory (MB)": server / 1e6,
        }


def server_memory(text: str) -> int:
    """Resident bytes of the real language server once it has answered through the engine."""
    import psutil

    from bench.server import URI, Connection, leave

    server = Connection("from dg_lsp.cli import main; main(['serve'])")
    server.request("initialize", {"processId": None, "rootUri": None, "capabilities": {}})
    server.notify("initialized", {})
    document = {"uri": URI, "languageId": "python", "version": 0, "text": text}
    server.notify("textDocument/didOpen", {"textDocument": document})
    place = {"line": 20, "character": 0}
    asked = {"textDocument": {"uri": URI}, "position": place, "context": {"triggerKind": 1}}
    server.request("textDocument/inlineCompletion", asked)
    resident: int = psutil.Process(server.process.pid).memory_info().rss
    leave(server)
    return resident


def bench_reference(device: Device, rounds: int) -> dict[str, Any]:
    """One infill in transformers and in ours: same weights, prompt and number of steps."""
    import torch
    from transformers import DiffusionGemmaForBlockDiffusion
    from transformers.models.diffusion_gemma import DiffusionGemmaConfig, DiffusionGemmaTextConfig
    from transformers.models.gemma4 import Gemma4VisionConfig

    from engine import infill
    from engine.cache import PrefixCache
    from engine.config import SamplerConfig
    from engine.loading import load_model
    from engine.steps import Canvas

    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    place = torch.device(device)
    config: Any = DiffusionGemmaConfig(
        text_config=DiffusionGemmaTextConfig(**TINY_TEXT),
        vision_config=Gemma4VisionConfig(**TINY_VISION),
        canvas_length=256,
    )
    torch.manual_seed(0)
    reference: Any = DiffusionGemmaForBlockDiffusion(config)
    reference = reference.eval().to(place, dtype)
    with tempfile.TemporaryDirectory() as directory:
        reference.save_pretrained(directory)
        ours = load_model(Path(directory), dtype=dtype, device=place)
    prompt = torch.randint(32_768, (PROMPT_TOKENS,)).tolist()
    canvas = Canvas(hole=HOLE, clamped=tuple(torch.randint(32_768, (SUFFIX,)).tolist()))
    sampler = SamplerConfig(max_steps=STEPS, confidence=1e-30)

    def theirs() -> None:
        reference.generate(
            torch.tensor([prompt], device=place),
            max_new_tokens=256,
            max_denoising_steps=STEPS,
            confidence_threshold=1e-30,
        )

    def fresh() -> PrefixCache:
        cache = PrefixCache(ours.config, place, dtype)
        with torch.inference_mode():
            ours.encode(prompt, cache)
        return cache

    kept = fresh()

    runs: dict[str, Callable[[], object]] = {
        "theirs": theirs,
        "cold": lambda: infill.infill(ours, fresh(), canvas, sampler, seed=0),
        "warm": lambda: infill.infill(ours, kept, canvas, sampler, seed=0),
        "canvas": lambda: infill.generate(ours, fresh(), 256, sampler, seed=0),
    }
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(rounds + 1):  # the first round warms up and does not count
        for name, run in runs.items():  # in turn, so that a slow moment hits all alike
            started = time.perf_counter()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            if round_:
                spent[name].append((time.perf_counter() - started) * 1000)
    median = {name: statistics.median(values) for name, values in spent.items()}
    return {
        "steps": STEPS,
        "transformers generate, 512 prompt + 256 canvas (ms)": median["theirs"],
        "ours, 512 prompt + hole 32 + suffix 48 (ms)": median["cold"],
        "ours, the same with the prefix cached (ms)": median["warm"],
        "ours, generate, 512 prompt + 256 canvas (ms)": median["canvas"],
        "ours per step, hole 32 + suffix 48 (ms)": median["warm"] / STEPS,
        "ratio per infill, cold": median["theirs"] / median["cold"],
        "ratio per infill, warm": median["theirs"] / median["warm"],
        "ratio on the same 256 canvas": median["theirs"] / median["canvas"],
    }


if __name__ == "__main__":
    main()

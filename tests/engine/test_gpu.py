"""The plain-torch path on a CUDA device against the same on the CPU.

The CPU twins are test_model, test_infill and test_runtime, which run everywhere.
"""

from dataclasses import replace

import pytest
import torch

from engine import infill, noise, steps, storage
from engine.cache import PrefixCache
from engine.config import EngineConfig, SamplerConfig
from engine.graphs import Graphs
from engine.loading import load_model
from engine.request import InfillRequest
from engine.runtime import Engine
from engine.steps import Canvas
from tests.engine import tiny
from tests.engine.test_model import fresh_cache, random_ids

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("gemma")
    # Experts that the kernels cover: a step that waits for the device would not be captured.
    tiny.diffusion_gemma(directory, seed=3, gain=0.35, moe_intermediate_size=32)
    return directory


@pytest.fixture(autouse=True)
def exact_float32(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


@pytest.mark.parametrize("length", [1, tiny.WINDOW, 37])
def test_encoder_and_canvas_equal_the_cpus(directory, length):
    ids, canvas = random_ids(length, seed=1), torch.tensor([random_ids(tiny.CANVAS, seed=2)])
    cpu = tiny.load_ours(directory)
    gpu = load_model(directory, dtype=torch.float32, device=torch.device("cuda"))
    ours, theirs = PrefixCache(gpu.config, torch.device("cuda"), torch.float32), fresh_cache(cpu)
    with torch.inference_mode():
        for mine, reference in (
            (gpu.encode(ids, ours), cpu.encode(ids, theirs)),
            (gpu.canvas(canvas.cuda(), ours, None), cpu.canvas(canvas, theirs, None)),
        ):
            torch.testing.assert_close(mine.cpu(), reference, rtol=1e-3, atol=1e-3)


@torch.inference_mode()
def test_pages_are_read_as_buffers_are(directory):
    gpu, ids = load_model(directory, dtype=torch.float32, device=torch.device("cuda")), []
    for pools in (tiny.pools(gpu, longest=300), None):
        cache = PrefixCache(gpu.config, torch.device("cuda"), torch.float32, pools=pools)
        states = [gpu.encode(random_ids(90, seed=n), cache) for n in range(3)]
        fork = cache.fork(cache.length - 5)
        states.append(gpu.encode(random_ids(9, seed=4), cache))
        states.append(gpu.encode(random_ids(7, seed=5), fork))
        ids.append(torch.cat(states, 1))
    torch.testing.assert_close(*ids, rtol=1e-4, atol=1e-4)


def test_a_hole_is_filled_on_the_device(directory):
    gpu = load_model(directory, dtype=torch.float32, device=torch.device("cuda"))
    cache = PrefixCache(gpu.config, torch.device("cuda"), torch.float32)
    with torch.inference_mode():
        gpu.encode(random_ids(9, seed=1), cache)
    answers = {
        infill.infill(
            gpu,
            cache,
            Canvas(hole=8, clamped=tuple(random_ids(5, seed=2))),
            SamplerConfig(max_steps=6),
            7,
        ).ids
        for _ in range(2)
    }
    assert len(answers) == 1, "the same seed gives the same answer"


def test_the_engine_takes_the_device_by_itself(directory):
    engine = Engine.load(EngineConfig(model=directory, sampler=SamplerConfig(max_steps=4)))
    assert engine.describe()["device"].startswith("cuda")
    assert engine.describe()["dtype"] == "bfloat16"
    assert {pool.parts[0].device.type for pool in engine._pools.values()} == {"cuda"}
    request = InfillRequest(prefix="a = ", suffix="\n", max_tokens=8)
    assert engine.infill(request, cancelled=lambda: False).tokens == 8


def test_random_numbers_are_those_of_the_cpu():
    cpu, gpu = (
        noise.draw(9, 6, 40, tiny.VOCAB, torch.device(d), canvas=2) for d in ("cpu", "cuda")
    )
    assert torch.equal(cpu.ids, gpu.ids.cpu())
    assert torch.equal(cpu.uniform, gpu.uniform.cpu())


@pytest.mark.parametrize("soft_tokens", [None, 4])
@pytest.mark.parametrize("prefix", [9, 3 * storage.PAGE + 5])
def test_captured_steps_equal_plain_ones(directory, prefix, soft_tokens):
    device = torch.device("cuda")
    model = load_model(directory, dtype=torch.float32, device=device, soft_tokens=soft_tokens)
    pools = tiny.pools(model, longest=300)
    cache = PrefixCache(model.config, device, torch.float32, pools=pools)
    graphs, config = Graphs(model, pools), SamplerConfig(max_steps=6, confidence=1e-30)
    one, other = Canvas(hole=5, clamped=(5, 9, 30), judged=2), Canvas(hole=16, clamped=(5, 9))
    several = [one, Canvas(hole=0, clamped=(7, 8), judged=2), replace(other, judged=2)]
    with torch.inference_mode():
        model.encode(random_ids(prefix, seed=1), cache)
        for canvases in (
            [one],
            [other],
            several,
            [one],
        ):  # the last replays what the first captured
            drawn = noise.draw(3, 6, max(c.hole for c in canvases), tiny.VOCAB, device)
            fast, plain = (
                list(make(model, cache, canvases, config, drawn)) for make in (graphs, steps.plain)
            )
            assert not graphs.refused
            for seen, expected in zip(fast, plain, strict=True):
                for row in range(len(canvases)):
                    assert seen[row].best.tolist() == expected[row].best.tolist()
                    wanted = expected[row].junction
                    assert seen[row].junction == (wanted and pytest.approx(wanted, abs=1e-2))


def test_steps_that_would_wait_for_the_device_are_not_captured_and_break_nothing(tmp_path):
    """Experts of 24 have no kernel; plain torch asks the device how many rows each one has."""
    device = torch.device("cuda")
    tiny.diffusion_gemma(tmp_path, seed=3)
    model = load_model(tmp_path, dtype=torch.float32, device=device)
    pools = tiny.pools(model)
    cache = PrefixCache(model.config, device, torch.float32, pools=pools)
    config, graphs = SamplerConfig(max_steps=3), Graphs(model, pools)
    drawn = noise.draw(3, 3, 5, tiny.VOCAB, device)
    mode = torch.cuda.get_sync_debug_mode()
    with torch.inference_mode():
        model.encode(random_ids(9, seed=1), cache)
        fast, plain = (
            [seen[0].best.tolist() for seen in make(model, cache, [Canvas(hole=5)], config, drawn)]
            for make in (graphs, steps.plain)
        )
    assert graphs.refused and fast == plain
    assert torch.cuda.get_sync_debug_mode() == mode


def test_all_captured_steps_share_their_memory(directory):
    device = torch.device("cuda")
    model = load_model(directory, dtype=torch.float32, device=device)
    pools, held = tiny.pools(model), []
    cache = PrefixCache(model.config, device, torch.float32, pools=pools)
    config, graphs = SamplerConfig(max_steps=2), Graphs(model, pools)
    with torch.inference_mode():
        model.encode(random_ids(9, seed=1), cache)
        for hole in (64, 48, 32, 16, 8):
            drawn = noise.draw(3, 2, hole, tiny.VOCAB, device)
            list(graphs(model, cache, [Canvas(hole=hole, clamped=(5,) * hole)], config, drawn))
            held.append(torch.cuda.memory_reserved())
    assert held[-1] - held[0] <= 8 << 20, held

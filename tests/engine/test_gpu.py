"""The plain-torch path on a CUDA device against the same on the CPU.

The CPU twins are test_model, test_infill and test_runtime, which run everywhere.
"""

import pytest
import torch

from engine import infill, noise, steps
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
    tiny.diffusion_gemma(directory, seed=3)
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
    request = InfillRequest(prefix="a = ", suffix="\n", max_tokens=8)
    assert engine.infill(request, cancelled=lambda: False).tokens == 8


def test_random_numbers_are_those_of_the_cpu():
    cpu, gpu = (
        noise.draw(9, 6, 40, tiny.VOCAB, torch.device(d), canvas=2) for d in ("cpu", "cuda")
    )
    assert torch.equal(cpu.ids, gpu.ids.cpu())
    assert torch.equal(cpu.uniform, gpu.uniform.cpu())


@pytest.mark.parametrize("prefix", [9, 37])
def test_captured_steps_equal_plain_ones(tmp_path, prefix):
    tiny.diffusion_gemma(tmp_path, seed=3, gain=0.35)
    model = load_model(tmp_path, dtype=torch.float32, device=torch.device("cuda"))
    cache = PrefixCache(model.config, torch.device("cuda"), torch.float32)
    graphs, config = Graphs(model, longest_prefix=64), SamplerConfig(max_steps=6, confidence=1e-30)
    with torch.inference_mode():
        model.encode(random_ids(prefix, seed=1), cache)
        for hole in (5, 16, 5):  # the last one replays what the first has captured
            canvas = Canvas(hole=hole, clamped=(5, 9, 30))
            drawn = noise.draw(hole, 6, hole, tiny.VOCAB, torch.device("cuda"))
            fast, plain = (
                [report[0] for report in make(model, cache, [canvas], config, drawn)]
                for make in (graphs, steps.plain)
            )
            assert [s.best.tolist() for s in fast] == [s.best.tolist() for s in plain]

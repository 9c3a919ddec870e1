"""How many kernels a step of the released model starts: each costs microseconds, whatever it does."""

from collections import Counter
from dataclasses import replace
from unittest import mock

import pytest
import torch

from bench.compile_kernels import TARGETS
from engine import formats, joining, kernels, released, storage
from engine.config import SamplerConfig
from engine.kernels import launch
from engine.model import Transformer
from engine.static_steps import Shape, Step
from engine.weights import FP8, Fp8Weight, Int4Weight

META = torch.device("meta")


def model(soft_tokens):
    """4-bit experts, FP8 rest and head, without memory."""
    config = released.config()
    config = replace(config, canvas=replace(config.canvas, soft_tokens=soft_tokens))
    with META:
        empty = Transformer(config)
    shapes = {name: tuple(value.shape) for name, value in empty.state_dict().items()}
    shapes["lm_head.weight"] = config.vocab_size, config.hidden_size
    empty.load({name: weight(name, shape) for name, shape in shapes.items()})
    joining.join(empty)
    return empty.requires_grad_(False)


def weight(name, shape):
    def some(*shape, dtype=torch.float32):
        return torch.empty(shape, dtype=dtype, device=META)

    *outputs, inputs = shape
    match formats.target(name, "int4"):
        case "fp8":
            return Fp8Weight(some(*shape, dtype=FP8), some(*outputs))
        case "int4":
            codes = some(*outputs, inputs // 2, dtype=torch.uint8)
            return Int4Weight(codes, some(*outputs, inputs // 32, dtype=FP8), some(*outputs))
    return some(*shape, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("soft_tokens", "rows", "most"), [(None, 64, 608), (None, 256, 547), (16, 64, 613)]
)
def test_a_step_starts_few_kernels(soft_tokens, rows, most):
    made = model(soft_tokens)
    pools = storage.allocate(made.config, 1024, rows, META, made.dtype)
    step = Step(made, SamplerConfig(max_steps=8), Shape.of(rows, 0), pools)
    started = Counter()
    with (
        mock.patch.object(
            launch, "run", lambda kernel, *_, **__: started.update([kernel.__name__])
        ),
        mock.patch.object(launch, "device_of", lambda _: TARGETS[90]),
        mock.patch.object(kernels, "_takes_triton", lambda *_: True),
        torch.inference_mode(),
    ):
        step.run()
    assert started["_gate_up"] == started["_down"] == started["_attend"] == 30
    # Attention reads and writes, the MLP reads and writes; self-conditioning and perhaps the head.
    assert started["_linear"] in (4 * 30 + 2, 4 * 30 + 3)
    # Where K is split: what attention reads and the MLP writes, and self-conditioning. Gate and up are
    # summed by what rounds their product, an expert's slots by the norm behind them.
    assert started["_sum"] <= 2 * 30 + 1
    # A row is rounded once for all that read it, and as it comes out of the gate.
    assert started["_fp8_rows"] + started["_fp8_gated_rows"] <= 4 * 30 + 4
    assert sum(started.values()) <= most, started

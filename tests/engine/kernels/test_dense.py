"""Linear layers over packed weights against plain torch."""

import pytest
import torch

from engine.kernels import dense, reference, tiles
from tests.engine.kernels.packed import PACKED, compare

# rows, inputs, outputs
SMALL = [(1, 64, 63), (5, 320, 60), (33, 2048, 8)]
RELEASED = [
    pytest.param(shape, marks=pytest.mark.gpu)
    for shape in ((1, 2816, 4096), (64, 2816, 8192), (64, 8192, 2816), (256, 2112, 2816))
]


@pytest.mark.parametrize("form", PACKED)
@pytest.mark.parametrize("shape", [*SMALL, *RELEASED])
def test_products_equal_plain_torch(shape, form, device):
    rows, inputs, outputs = shape
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    x = torch.randn(rows, inputs, device=device, dtype=dtype)
    weight = PACKED[form](torch.randn(outputs, inputs, device=device))
    compare(dense.linear(x, weight), reference.linear(x, weight), form, dtype)


@pytest.mark.parametrize("form", PACKED)
def test_half_precision_and_further_dims(form, device):
    x = torch.randn(2, 3, 64, device=device, dtype=torch.float16) / 8
    weight = PACKED[form](torch.randn(60, 64, device=device))
    ours = dense.linear(x, weight)
    assert ours.shape == (2, 3, 60)
    compare(ours, reference.linear(x, weight), form, torch.float16)


@pytest.mark.parametrize("form", PACKED)
def test_each_code_of_a_weight_counts_at_its_own_place(form, device):
    """Products with unit rows are the weight itself, to the last bit: every nibble in its place."""
    weight = PACKED[form](torch.randn(32, 64, device=device))
    ours = dense.linear(torch.eye(64, device=device), weight)
    torch.testing.assert_close(ours.t(), weight.dequantize(torch.float32), rtol=1e-6, atol=0)


@pytest.mark.parametrize("activation", ["gelu_tanh", "silu"])
@pytest.mark.parametrize(
    "shape",  # rows, width, inner
    [(1, 64, 32), (5, 1024, 96), pytest.param((64, 2816, 2112), marks=pytest.mark.gpu)],
)
def test_gated_mlps_equal_plain_torch(shape, activation, device):
    """1,024 inputs are split among programs, whose parts what rounds the product sums."""
    rows, width, inner = shape
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    x = torch.randn(1, rows, width, device=device, dtype=dtype) / width**0.5
    gate_up = PACKED["int4 by 32"](torch.randn(2 * inner, width, device=device))
    down = PACKED["fp8"](torch.randn(width, inner, device=device))
    ours = dense.gated_mlp(x, gate_up, down, activation)
    assert ours.shape == x.shape
    compare(ours, reference.gated_mlp(x, gate_up, down, activation), "fp8", dtype)


def test_the_parts_of_a_split_cover_k_once():
    for programs, steps, processors in ((1, 22, 132), (44, 22, 132), (88, 33, 170), (400, 1, 4)):
        splits = dense._splits(programs, steps, processors)
        assert splits >= 1 and steps // splits >= min(4, steps)
        assert splits == 1 or programs * splits <= 2 * processors


def test_rows_of_zeros_and_of_great_size(device):
    weight = PACKED["fp8"](torch.randn(60, 64, device=device))
    x = torch.zeros(2, 64, device=device)
    x[1, 3] = 1e9
    ours = dense.linear(x, weight)
    assert (ours[0] == 0).all()
    torch.testing.assert_close(ours, reference.linear(x, weight))


def test_inputs_that_do_not_match_are_refused(device):
    weight = PACKED["fp8"](torch.randn(60, 64, device=device))
    with pytest.raises(AssertionError, match=r"32 inputs for a weight of \(60, 64\)"):
        tiles.operand(torch.zeros(2, 32, device=device), weight)
    with pytest.raises(AssertionError, match="130 for gate and up of 64"):
        tiles.gated_operand(torch.zeros(1, 2, 130, device=device), weight, "silu")
    with pytest.raises(AssertionError, match="one matrix"):
        dense.linear(torch.zeros(2, 64, device=device), PACKED["fp8"](torch.ones(2, 3, 64)))

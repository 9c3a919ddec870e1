"""How 4-bit codes become weights in bfloat16, which Triton's interpreter does not multiply in."""

import pytest
import torch

from engine.kernels.tiles import LIFT
from engine.weights import FP4_VALUES, FP8


@pytest.fixture
def units():
    """All positive scales that e4m3 has, [126]."""
    return torch.arange(1, 127, dtype=torch.uint8).view(FP8).float()


@pytest.mark.parametrize("further", [0, 4])
def test_one_product_of_a_codes_bits_is_the_weight_exactly(further, units):
    codes = torch.arange(16)
    numbers = (codes << further).to(torch.int16).view(torch.bfloat16).double()
    unit = (units * 2.0 ** (LIFT.value - further)).bfloat16().double()
    zero = (units * -8.0 * 2.0 ** (LIFT.value - 133)).bfloat16().double()
    weights = numbers[:, None] * unit + zero  # rounded once by the device
    expected = (codes - 8)[:, None] * units.double() * 2.0 ** (LIFT.value - 133)
    assert torch.equal(weights, expected)
    assert torch.equal(weights.bfloat16().double(), weights), "there is nothing to round"


def test_the_bits_of_e2m1_are_a_small_float(units):
    codes = torch.arange(16)
    bits = ((codes & 8) << 12 | (codes & 7) << 6).to(torch.int32)
    numbers = (bits - (bits >> 15 << 16)).to(torch.int16).view(torch.bfloat16).double()
    weights = numbers[:, None] * (units * 2.0**LIFT.value).bfloat16().double()
    values = torch.tensor(FP4_VALUES).double()
    expected = torch.cat((values, -values))[:, None] * units * 2.0 ** (LIFT.value - 126)
    assert torch.equal(weights, expected)
    assert torch.equal(weights.bfloat16().double(), weights), "there is nothing to round"

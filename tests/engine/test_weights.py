"""Packed weights: codes decoded one by one as the formats define them, and rounding errors as small
as the bits allow."""

import math

import pytest
import torch
import torch.nn.functional as F

from engine.errors import CheckpointError
from engine.kernels import reference
from engine.weights import (
    FP8,
    Fp4Weight,
    Fp8Weight,
    Int4Weight,
    PackedWeight,
    to_fp4,
    to_fp8,
    to_int4,
)

SHAPE = (2, 5, 128)
E2M1 = (0, 0.5, 1, 1.5, 2, 3, 4, 6)


def random(*shape, seed=0):
    """A few rows far larger than the others, as in real weights."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * torch.rand(*shape[:-1], 1, generator=generator)


def random_codes(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, shape, generator=generator, dtype=torch.uint8)


def nibble(codes, row, k):
    byte = int(codes[row][k // 2])
    return byte >> 4 if k % 2 else byte & 15


def error(packed: PackedWeight, wanted: torch.Tensor) -> float:
    return float((packed.dequantize(torch.float32) - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("group", [32, 64])
@pytest.mark.parametrize("with_factor", [False, True])
def test_an_int4_value_is_its_nibble_less_8_times_its_groups_scale(group, with_factor):
    codes, scale = random_codes(3, 64), random(3, 128 // group)
    factor = torch.tensor([0.5, 2.0, 3.0]) if with_factor else None
    weight = Int4Weight(codes, scale.to(FP8 if with_factor else torch.bfloat16), factor)
    values = weight.dequantize(torch.float32)
    assert weight.shape == values.shape == (3, 128)
    assert weight.group == group
    for row in range(3):
        for k in range(128):
            unit = float(weight.scale[row, k // group]) * (float(factor[row]) if with_factor else 1)
            assert values[row, k] == pytest.approx((nibble(codes, row, k) - 8) * unit)


def test_an_fp4_value_is_an_e2m1_nibble_times_its_groups_scale_and_its_rows_factor():
    codes, scale, factor = random_codes(3, 32), random(3, 4).to(FP8), torch.tensor([0.5, 2.0, 3.0])
    weight = Fp4Weight(codes, scale, factor)
    values = weight.dequantize(torch.float32)
    assert weight.shape == values.shape == (3, 64)
    for row in range(3):
        for k in range(64):
            code = nibble(codes, row, k)
            value = (-1 if code & 8 else 1) * E2M1[code & 7]
            unit = float(scale[row, k // 16]) * float(factor[row])
            assert values[row, k] == pytest.approx(value * unit)


def test_an_fp8_value_is_its_code_times_its_outputs_scale():
    codes = random(3, 4).to(FP8)
    scale = torch.tensor([0.5, 2.0, 3.0])
    values = Fp8Weight(codes, scale).dequantize(torch.float32)
    for row in range(3):
        assert values[row].tolist() == [float(code) * float(scale[row]) for code in codes[row]]


@pytest.mark.parametrize(
    ("rounded", "bits", "most"),
    [
        (to_fp8, 8.25, 0.03),
        (lambda w: to_int4(w, 32), 4.5, 0.09),
        (lambda w: to_int4(w, 64), 4.375, 0.1),
        (lambda w: to_int4(w, 32, torch.bfloat16), 4.5, 0.09),
        (to_fp4, 4.75, 0.11),
    ],
)
def test_rounding_keeps_what_the_bits_can_hold(rounded, bits, most):
    weight = random(*SHAPE)
    packed = rounded(weight)
    assert packed.shape == SHAPE
    assert packed.nbytes <= weight.numel() * bits / 8
    assert error(packed, weight) < most
    assert error(rounded(weight.bfloat16()), weight) < most + 0.005
    for expert in range(2):  # rows do not see each other's experts
        assert torch.equal(
            packed[expert].dequantize(torch.float32), packed.dequantize(torch.float32)[expert]
        )


def test_a_searched_int4_scale_is_better_than_that_of_the_largest_value():
    weight = random(64, 256)
    grouped = weight.view(64, -1, 32)
    scale = grouped.abs().amax(-1, keepdim=True) / 7
    plain = (grouped / scale).round() * scale
    assert error(to_int4(weight), weight) < 0.9 * float((plain - grouped).norm() / weight.norm())


@pytest.mark.parametrize("rounded", [to_fp8, to_int4, to_fp4])
def test_rows_of_zeros_and_of_very_small_values_stay_numbers(rounded):
    weight = torch.stack((torch.zeros(64), torch.full((64,), 1e-30), random(64)))
    values = rounded(weight).dequantize(torch.float32)
    assert values.isfinite().all()
    assert not values[0].any()


def test_long_rows_are_rounded_in_chunks_to_the_same(monkeypatch):
    weight = random(3, 7, 64)
    whole = to_int4(weight)
    monkeypatch.setattr("engine.weights._AT_ONCE", 128)
    for name, part in to_int4(weight).parts().items():
        assert torch.equal(part.float(), whole.parts()[name].float()), name


def test_parts_that_do_not_belong_together_are_refused():
    codes = random_codes(3, 64)
    with pytest.raises(CheckpointError, match="1 groups of 128 values: take 32 or 64"):
        Int4Weight(codes, torch.ones(3, 1).bfloat16())
    with pytest.raises(CheckpointError, match=r"is torch\.float32, not"):
        Fp8Weight(torch.ones(3, 4), torch.ones(3))
    with pytest.raises(CheckpointError, match=r"\[4\], not \[3\]"):
        Fp8Weight(torch.ones(3, 4).to(FP8), torch.ones(4))
    with pytest.raises(CheckpointError, match="rows of 48 values cannot be cut into groups of 32"):
        to_int4(torch.ones(2, 48))


@pytest.mark.parametrize("rounded", [to_int4, to_fp4])
def test_a_product_with_4_bits_is_that_with_the_values(rounded):
    x, weight = random(2, 3, 64, seed=1), rounded(random(7, 64))
    expected = F.linear(x, weight.dequantize(torch.float32))
    torch.testing.assert_close(reference.linear(x, weight), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_in_fp8_rounds_each_row_of_the_input_by_itself(dtype):
    x, weight = random(2, 3, 64, seed=1).to(dtype), to_fp8(random(7, 64))
    x[0, 1] *= 1000
    x[1, 2] = 0
    out = reference.linear(x, weight)
    assert out.dtype is dtype
    expected = F.linear(x.float(), weight.dequantize(torch.float32))
    assert not out[1, 2].any()
    for row, wanted in zip(out.flatten(0, 1)[:-1], expected.flatten(0, 1)[:-1], strict=True):
        assert float((row - wanted).norm() / wanted.norm()) < 0.06
    unit = x[0, 0].float().abs().max() / 448
    rounded = (x[0, 0].float() / unit).to(FP8).float() * unit
    torch.testing.assert_close(
        out[0, 0].float(), weight.dequantize(torch.float32) @ rounded, rtol=1e-2, atol=1e-3
    )


@pytest.mark.parametrize("rounded", [to_fp8, to_int4, to_fp4])
def test_packed_experts_are_the_experts_of_their_values(rounded):
    gate_up, down = rounded(random(4, 2 * 64, 32 * 2)), rounded(random(4, 64, 64, seed=1))
    x, weights = random(9, 64, seed=2), torch.rand(9, 2)
    indices = torch.stack([torch.randperm(4)[:2] for _ in range(9)])
    plain = (gate_up.dequantize(torch.float32), down.dequantize(torch.float32))
    expected = reference.experts(x, weights, indices, *plain, "gelu_tanh")
    out = reference.experts(x, weights, indices, gate_up, down, "gelu_tanh")
    most = 0.06 if rounded is to_fp8 else 1e-5
    assert float((out - expected).norm() / expected.norm()) < most
    assert math.isfinite(float(out.sum()))

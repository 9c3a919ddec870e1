"""The int8 linear layer against its plain-torch twin, and that against exact arithmetic."""

import pytest
import torch
from torch import Tensor

from engine.kernels import cpu_multiplies_bytes, int8, int8_linear, quantize_rows, reference

SHAPES = [(1, 1, 1), (1, 576, 960), (3, 63, 5), (48, 60, 129), (17, 1536, 576), (700, 64, 3)]


def drawn(rows: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of very different size, and a weight in int8."""
    x = torch.randn(rows, inputs) * torch.logspace(-4, 3, rows)[:, None]
    weight, scale = quantize_rows(torch.randn(outputs, inputs) * torch.rand(outputs, 1))
    return x, weight, scale[:, 0]


@pytest.mark.parametrize("eps", [None, 1e-5])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_fast_one_equals_the_plain_one(shape, eps):
    if not cpu_multiplies_bytes():
        pytest.skip("this CPU would saturate; `kernels` takes the plain one there")
    x, weight, scale = drawn(*shape)
    expected = reference.int8_linear(x, weight, scale, eps)
    error = (int8.int8_linear(x, weight, scale, eps) - expected).abs()
    # Normed before it is rounded or after: what lies half-way between two steps may go either way.
    step = 0 if eps is None else reference.rms_norm(x, None, eps).abs().amax(-1, keepdim=True) / 127
    largest = weight.abs().amax(-1) * scale
    assert (error <= 1e-5 + 1e-5 * expected.abs() + 1.01 * step * largest).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_each_row_is_as_exact_as_its_own_steps_allow(shape):
    x, weight, scale = drawn(*shape)
    weights = weight.double() * scale.double()[:, None]
    error = (int8_linear(x, weight, scale).double() - x.double() @ weights.t()).abs()
    half_a_step = x.abs().amax(-1, keepdim=True).double() / 254
    assert (error <= half_a_step * weights.abs().sum(-1) * (1 + 1e-5)).all()


def test_rows_do_not_depend_on_each_other():
    x, weight, scale = drawn(9, 64, 32)
    alone = torch.cat([int8_linear(row[None], weight, scale) for row in x])
    torch.testing.assert_close(int8_linear(x, weight, scale), alone, rtol=0, atol=0)
    shaped = int8_linear(x.view(3, 3, 64), weight, scale)
    torch.testing.assert_close(shaped, alone.view(3, 3, 32), rtol=0, atol=0)


def test_the_largest_sums_do_not_overflow_or_saturate():
    weight = torch.full((8, 4096), 127, dtype=torch.int8)
    weight[1::2] = -127
    out = int8_linear(torch.full((2, 4096), -3.0), weight, torch.full((8,), 1 / 127))
    expected = 3.0 * 4096 * torch.tensor([-1.0, 1.0] * 4)
    torch.testing.assert_close(out, expected.expand(2, 8), rtol=1e-5, atol=0)


def test_what_is_not_a_number_stays_visible_and_in_its_row():
    x, weight, scale = drawn(4, 64, 32)
    clean = int8_linear(x, weight, scale)
    x[2, 5] = torch.nan
    spoilt = int8_linear(x, weight, scale)
    assert spoilt[2].isnan().all()
    rest = [0, 1, 3]
    torch.testing.assert_close(spoilt[rest], clean[rest], rtol=0, atol=0)


def test_a_row_of_zeros_gives_zeros():
    weight, scale = quantize_rows(torch.randn(32, 64))
    out = int8_linear(torch.zeros(2, 64), weight, scale[:, 0])
    assert (out == 0).all()
    rows, unit = quantize_rows(torch.zeros(2, 64))
    assert (rows == 0).all() and unit.isfinite().all()


def test_rounding_uses_all_steps_and_no_more():
    x = torch.randn(50, 33) * 1e-3
    rows, unit = quantize_rows(x)
    assert rows.dtype is torch.int8
    assert (rows.abs().amax(-1) == 127).all()
    assert ((rows * unit - x).abs() <= unit / 2 * (1 + 1e-4)).all()

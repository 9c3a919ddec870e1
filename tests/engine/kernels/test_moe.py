"""Routing, sorting and the experts' grouped products against plain torch."""

import pytest
import torch

from engine.kernels import moe, reference, routing
from tests.engine.kernels.packed import FORMS, compare

EPS = 1e-6
# rows, hidden, inner, experts, chosen
SMALL = [(1, 64, 32, 4, 2), (17, 128, 96, 5, 2), (3, 64, 160, 5, 1)]
RELEASED = [
    pytest.param((rows, 2816, 704, 128, 8), marks=pytest.mark.gpu) for rows in (1, 32, 64, 256)
]


def fp32_or_bf16(device):
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def chosen(rows, count, top, device):
    """Distinct experts for each row, some far more popular than others."""
    popular = torch.randn(rows, count, device=device) + 2 * torch.randn(count, device=device)
    return popular.topk(top, -1).indices


@pytest.mark.parametrize("shape", [*SMALL, (5, 63, 1, 7, 4), *RELEASED])
def test_the_same_experts_are_chosen_with_the_same_weights(shape, device):
    rows, width, _, count, top = shape
    dtype = torch.float32
    x = 5 * torch.randn(rows, width, device=device, dtype=dtype)
    scale, per_expert = torch.rand(width, device=device), torch.rand(count, device=device) + 0.5
    proj = torch.randn(count, width, device=device, dtype=dtype)
    weights, indices = routing.route(x, scale, proj, per_expert, top, EPS)
    expected, theirs = reference.route(x, scale, proj, per_expert, top, EPS)
    assert torch.equal(indices, theirs)
    torch.testing.assert_close(weights, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("tile", [16, 32])
@pytest.mark.parametrize("shape", [(1, 4, 2), (63, 6, 3), (60, 1, 1), (40, 9, 8)])
def test_slots_are_sorted_stably_and_cut_into_tiles_of_one_expert(shape, tile, device):
    rows, count, top = shape
    indices = chosen(rows, count, top, device)
    order, bounds = routing.sort_slots(indices, count, tile)
    expected_order, expected = reference.sort_slots(indices, count, tile)
    assert torch.equal(order, expected_order)
    assert torch.equal(bounds[:, : expected.shape[1]], expected)
    assert (bounds[:, expected.shape[1] :] == -1).all()


def test_the_room_for_tiles_is_enough_for_any_choice(device):
    """The most tiles: one full one for each further `tile` slots, one begun for each expert."""
    for slots in (1, 15, 16, 17, 60):
        indices = torch.arange(slots, device=device)[:, None] % 5
        _, bounds = routing.sort_slots(indices, 5, 16)
        _, expected = reference.sort_slots(indices, 5, 16)
        assert torch.equal(bounds[:, : expected.shape[1]], expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [*SMALL, *RELEASED])
def test_experts_equal_plain_torch(shape, form, device):
    rows, width, inner, count, top = shape
    if form == "int4 by 64" and inner % 64:
        width, inner = 128, 64
    dtype = fp32_or_bf16(device)
    x = torch.randn(rows, width, device=device, dtype=dtype)
    indices = chosen(rows, count, top, device)
    weights = torch.rand(rows, top, device=device)
    gate_up = FORMS[form](torch.randn(count, 2 * inner, width, device=device, dtype=dtype))
    down = FORMS[form](torch.randn(count, width, inner, device=device, dtype=dtype))
    args = (x / width**0.5, weights, indices, gate_up, down, "gelu_tanh")
    compare(moe.experts(*args), reference.experts(*args), form, dtype)


def test_half_precision(device):
    x = torch.randn(5, 64, device=device, dtype=torch.float16) / 8
    indices, weights = chosen(5, 4, 2, device), torch.rand(5, 2, device=device)
    for form in ("whole", "int4 by 32", "fp4"):
        gate_up = FORMS[form](torch.randn(4, 128, 64, device=device, dtype=torch.float16))
        down = FORMS[form](torch.randn(4, 64, 64, device=device, dtype=torch.float16))
        args = (x, weights, indices, gate_up, down, "gelu_tanh")
        compare(moe.experts(*args), reference.experts(*args), form, torch.float16)


def test_wider_tiles_for_more_than_128_rows_and_silu(device):
    dtype = fp32_or_bf16(device)
    x = torch.randn(131, 64, device=device, dtype=dtype) / 8
    indices, weights = chosen(131, 3, 1, device), torch.rand(131, 1, device=device)
    gate_up = torch.randn(3, 64, 64, device=device, dtype=dtype)
    down = torch.randn(3, 64, 32, device=device, dtype=dtype)
    args = (x, weights, indices, gate_up, down, "silu")
    compare(moe.experts(*args), reference.experts(*args), "whole", dtype)


def test_shapes_that_do_not_match_are_refused_with_their_numbers(device):
    x, weights = torch.zeros(2, 64, device=device), torch.zeros(2, 1, device=device)
    indices = torch.zeros(2, 1, dtype=torch.int64, device=device)
    gate_up, down = torch.zeros(4, 128, 64, device=device), torch.zeros(4, 64, 64, device=device)
    with pytest.raises(AssertionError, match=r"down \(4, 64, 32\) for 64 inputs"):
        moe.experts(x, weights, indices, gate_up, down[..., :32], "silu")
    with pytest.raises(AssertionError, match=r"2 rows, weights \(1, 1\)"):
        moe.experts(x, weights[:1], indices, gate_up, down, "silu")
    with pytest.raises(AssertionError, match="unknown activation 'relu'"):
        moe.experts(x, weights, indices, gate_up, down, "relu")
    with pytest.raises(AssertionError, match="4097 slots"):
        routing.sort_slots(torch.zeros(4097, 1, dtype=torch.int64, device=device), 4, 16)
    with pytest.raises(AssertionError, match="multiple of 32, got 24"):
        odd = torch.zeros(4, 64, 24, device=device)
        moe.experts(x, weights, indices, torch.zeros(4, 48, 64, device=device), odd, "silu")

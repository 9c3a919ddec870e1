"""Fused norms against plain torch."""

import pytest
import torch

from engine.kernels import norms, reference

EPS = 1e-6
WIDTHS = [(1, 1, 64), (3, 7, 60), (1, 5, 63)]
RELEASED = pytest.param((1, 64, 2816), marks=pytest.mark.gpu)
# rows, query heads, KV heads, dims of a head, dims that turn
HEADS = [((1, 3), 4, 2, 16, 16), ((2, 5), 4, 1, 60, 14)]
RELEASED_HEADS = [
    pytest.param(((1, 64), 16, 8, 256, 256), marks=pytest.mark.gpu),
    pytest.param(((4, 64), 16, 2, 512, 128), marks=pytest.mark.gpu),
]


def close(ours, theirs, dtype):
    limit = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]
    for mine, reference_ in zip(ours, theirs, strict=True):
        assert mine.dtype is reference_.dtype
        torch.testing.assert_close(mine, reference_, rtol=limit, atol=limit)


def dtypes(device):
    return [torch.bfloat16] if device.type == "cuda" else [torch.float32, torch.float16]


@pytest.mark.parametrize("shape", [*WIDTHS, RELEASED])
def test_joining_attention_equals_plain_torch(shape, device):
    for dtype in dtypes(device):
        x, attended = (torch.randn(shape, device=device, dtype=dtype) for _ in range(2))
        weights = [torch.rand(shape[-1], device=device, dtype=dtype) for _ in range(3)]
        ours = norms.join_attention(x, 30 * attended, *weights, EPS)
        close(ours, reference.join_attention(x, 30 * attended, *weights, EPS), dtype)


@pytest.mark.parametrize("shape", [*WIDTHS, RELEASED])
def test_joining_the_mlps_equals_plain_torch(shape, device):
    for dtype in dtypes(device):
        x, dense = (torch.randn(shape, device=device, dtype=dtype) for _ in range(2))
        routed = torch.randn(*shape[:-1], 3, shape[-1], device=device, dtype=dtype)
        weights = tuple(torch.rand(shape[-1], device=device, dtype=dtype) for _ in range(4))
        scalar = torch.tensor([0.37], device=device, dtype=dtype)
        ours = norms.join_feedforward(x, 9 * dense, 0.1 * routed, weights, scalar, EPS)
        theirs = reference.join_feedforward(x, 9 * dense, 0.1 * routed, weights, scalar, EPS)
        close(ours, theirs, dtype)


@pytest.mark.parametrize("fused", [False, True], ids=["apart", "views of one projection"])
@pytest.mark.parametrize("shape", [*HEADS, *RELEASED_HEADS])
def test_heads_are_normed_and_turned_as_in_plain_torch(shape, fused, device):
    rows, heads, kv_heads, dim, turning = shape
    positions = torch.arange(1000, 1000 + rows[1], device=device)
    for dtype in dtypes(device):
        counts = (heads, kv_heads, kv_heads)
        projected = torch.randn(*rows, sum(counts), dim, device=device, dtype=dtype)
        q, k, v = projected.split(counts, 2)
        if not fused:
            q, k, v = q.contiguous(), k.contiguous(), k.contiguous()  # values are keys
        cos, sin = reference.rotary_table(positions, dim, turning, 1e4, dtype)
        weights = [torch.rand(dim, device=device, dtype=dtype) for _ in range(2)]
        ours = norms.prepare_heads(q, k, v, *weights, cos, sin, EPS)
        close(ours, reference.prepare_heads(q, k, v, *weights, cos, sin, EPS), dtype)


def test_a_row_of_zeros_stays_zero(device):
    x = torch.zeros(2, 60, device=device)
    ones = torch.ones(60, device=device)
    for out in norms.join_attention(x, x, ones, ones, ones, EPS):
        assert (out == 0).all()


def test_rows_that_do_not_match_are_refused(device):
    x, ones = torch.zeros(2, 60, device=device), torch.ones(60, device=device)
    with pytest.raises(AssertionError, match=r"\(2, 60\) and \(3, 60\)"):
        norms.join_attention(x, torch.zeros(3, 60, device=device), ones, ones, ones, EPS)
    with pytest.raises(AssertionError, match=r"60 dims has weight \(59,\)"):
        norms.join_attention(x, x, ones[1:], ones, ones, EPS)
    with pytest.raises(AssertionError, match="must be contiguous"):
        norms.join_attention(x.t().contiguous().t(), x, ones, ones, ones, EPS)

"""Canvas attention against plain torch."""

import pytest
import torch

from engine.kernels import reference
from engine.kernels.attending import canvas_attention

PAGE = 64
# batch, rows, query heads, KV heads, dims, and of the prefix the first position that is seen and its end
SMALL = [
    (1, 5, 4, 2, 16, 0, 0),
    (1, 1, 2, 2, 32, 0, 1),
    (2, 7, 4, 1, 16, 0, 3 * PAGE - 1),
    (1, 19, 4, 2, 16, 53, 60),
    (1, 3, 2, 2, 16, 31, 2 * PAGE + 33),
    (1, 3, 2, 1, 16, PAGE, PAGE),
]
RELEASED = [
    pytest.param(shape, marks=pytest.mark.gpu)
    for shape in (
        (1, 64, 16, 8, 256, 277, 1300),
        (4, 96, 16, 2, 512, 0, 1024),
        (1, 256, 16, 2, 512, 0, 8191),
    )
]


def drawn(shape, device, dtype):
    """Arguments, with pages in no order and NaN where nothing may look."""
    batch, rows, heads, kv_heads, dim, first, end = shape

    def some(*shape):
        return torch.randn(shape, device=device, dtype=dtype)

    count = end // PAGE + 1
    table = torch.randperm(count + 2, device=device)[:count]  # among others' pages
    stored = [torch.full((kv_heads, count + 2, PAGE, dim), torch.nan) for _ in range(2)]
    stored = [tensor.to(device, dtype) for tensor in stored]
    place = torch.arange(first, end, device=device)
    for tensor in stored:
        tensor[:, table[place // PAGE], place % PAGE] = some(kv_heads, end - first, dim)
    bounds = torch.tensor([first, end], dtype=torch.int32, device=device)
    q = some(batch, rows, heads, dim)
    # Keys as a layer has them: heads within rows.
    own = [some(batch, rows, kv_heads, dim).transpose(1, 2) for _ in range(2)]
    return q, *stored, table.int(), bounds, *own, dim**-0.5


@pytest.mark.parametrize("shape", [*SMALL, *RELEASED])
def test_every_row_sees_the_visible_prefix_and_its_canvas(shape, device):
    cuda = device.type == "cuda"
    for dtype in [torch.bfloat16] if cuda else [torch.float32, torch.float16]:
        args = drawn(shape, device, dtype)
        ours, theirs = canvas_attention(*args), reference.canvas_attention(*args)
        limit = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]
        assert ours.dtype is dtype
        torch.testing.assert_close(ours, theirs, rtol=limit, atol=limit)


@pytest.mark.parametrize("hole", [1, 33])
def test_padding_of_a_canvas_is_seen_by_nobody(hole, device):
    """A hole in room for 48 with a suffix in room for 16: as if there were no room."""
    q, *prefix, k, v, scale = drawn((1, 64, 4, 2, 16, 14, 21), device, torch.float32)
    stretches = torch.tensor([[[0, hole], [48, 53]]], dtype=torch.int32, device=device)
    seen = [*range(hole), *range(48, 53)]
    ours = canvas_attention(q, *prefix, k, v, scale, stretches)
    theirs = reference.canvas_attention(
        q[:, seen], *prefix, *(t[:, :, seen] for t in (k, v)), scale
    )
    torch.testing.assert_close(ours[:, seen], theirs, rtol=1e-5, atol=1e-5)
    masked = reference.canvas_attention(q, *prefix, k, v, scale, stretches)
    torch.testing.assert_close(masked[:, seen], theirs, rtol=1e-5, atol=1e-5)


def test_large_scores_do_not_overflow(device):
    q, *rest = drawn(SMALL[3], device, torch.float32)
    ours, theirs = canvas_attention(1e3 * q, *rest), reference.canvas_attention(1e3 * q, *rest)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_shapes_that_do_not_match_are_refused(device):
    q, k, v, table, bounds, *rest = drawn(SMALL[0], device, torch.float32)
    with pytest.raises(AssertionError, match="2\\^n dims, got 15"):
        parts = [t[..., :15] for t in (q, k, v, *rest[:2])]
        canvas_attention(parts[0], *parts[1:3], table, bounds, *parts[3:], *rest[2:])
    with pytest.raises(AssertionError, match="4 query heads for 3 KV heads"):
        canvas_attention(q, k[:1].repeat(3, 1, 1, 1), v, table, bounds, *rest)
    with pytest.raises(AssertionError, match=r"table \(1,\) of torch.int64, bounds \(2,\)"):
        canvas_attention(q, k, v, table.long(), bounds, *rest)
    with pytest.raises(AssertionError, match="pages of 48 positions are no whole blocks of 32"):
        canvas_attention(q, k[:, :, :48], v[:, :, :48], table, bounds, *rest)
    with pytest.raises(AssertionError, match=r"two stretches of each canvas are seen, not \(4,\)"):
        stretches = torch.ones(4, dtype=torch.bool, device=device)
        canvas_attention(q, k, v, table, bounds, *rest, stretches)

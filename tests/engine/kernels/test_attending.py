"""Canvas attention against plain torch."""

import pytest
import torch

from engine.kernels import reference
from engine.kernels.attending import canvas_attention

# batch, rows, query heads, KV heads, dims, prefix, window
SMALL = [
    (1, 5, 4, 2, 16, 0, None),
    (1, 1, 2, 2, 32, 1, 8),
    (2, 7, 4, 1, 16, 63, None),
    (1, 19, 4, 2, 16, 60, 8),
]
RELEASED = [
    pytest.param(shape, marks=pytest.mark.gpu)
    for shape in (
        (1, 64, 16, 8, 256, 3000, 1024),
        (4, 96, 16, 2, 512, 1024, None),
        (1, 256, 16, 2, 512, 8192, None),
    )
]


def drawn(shape, device, dtype):
    """Arguments, with a prefix longer than its length and NaN where nothing may look."""
    batch, rows, heads, kv_heads, dim, prefix, window = shape

    def some(*shape):
        return torch.randn(shape, device=device, dtype=dtype)

    stored = [some(kv_heads, prefix + 40, dim) for _ in range(2)]
    first = 0 if window is None else max(0, prefix - (window - 1))
    for tensor in stored:
        tensor[:, prefix:] = torch.nan
        tensor[:, :first] = torch.nan
    length = torch.tensor([prefix], dtype=torch.int32, device=device)
    q = some(batch, rows, heads, dim)
    # Keys as a layer has them: heads within rows.
    own = [some(batch, rows, kv_heads, dim).transpose(1, 2) for _ in range(2)]
    return q, *stored, length, *own, dim**-0.5, window


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
    q, k, v, length, *own, scale, window = drawn((1, 64, 4, 2, 16, 21, 8), device, torch.float32)
    stretches = torch.tensor([[[0, hole], [48, 53]]], dtype=torch.int32, device=device)
    seen = [*range(hole), *range(48, 53)]
    ours = canvas_attention(q, k, v, length, *own, scale, window, stretches)
    theirs = reference.canvas_attention(
        q[:, seen], k, v, length, *(t[:, :, seen] for t in own), scale, window
    )
    torch.testing.assert_close(ours[:, seen], theirs, rtol=1e-5, atol=1e-5)
    masked = reference.canvas_attention(q, k, v, length, *own, scale, window, stretches)
    torch.testing.assert_close(masked[:, seen], theirs, rtol=1e-5, atol=1e-5)


def test_large_scores_do_not_overflow(device):
    q, *rest = drawn(SMALL[3], device, torch.float32)
    ours, theirs = canvas_attention(1e3 * q, *rest), reference.canvas_attention(1e3 * q, *rest)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_shapes_that_do_not_match_are_refused(device):
    q, k, v, length, *rest = drawn(SMALL[0], device, torch.float32)
    with pytest.raises(AssertionError, match="2\\^n dims, got 15"):
        parts = [t[..., :15] for t in (q, k, v, *rest[:2])]
        canvas_attention(parts[0], *parts[1:3], length, *parts[3:], *rest[2:])
    with pytest.raises(AssertionError, match="4 query heads for 3 KV heads"):
        canvas_attention(q, k[:1].repeat(3, 1, 1), v, length, *rest)
    with pytest.raises(AssertionError, match=r"length is torch.int64"):
        canvas_attention(q, k, v, length.long(), *rest)
    with pytest.raises(AssertionError, match=r"two stretches of each canvas are seen, not \(4,\)"):
        canvas_attention(q, k, v, length, *rest, torch.ones(4, dtype=torch.bool, device=device))

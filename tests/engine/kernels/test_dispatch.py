"""Which implementation runs: kernels have no backward pass, so what is learned stays in plain torch."""

import pytest
import torch

from engine import kernels

D, E, V, DIM, EPS = 32, 4, 40, 16, 1e-6
CHOSEN = torch.tensor([[0, 1], [1, 3], [2, 0]])
PAGES = torch.tensor([0], dtype=torch.int32)
BOUNDS = torch.tensor([0, 5], dtype=torch.int32)


def some(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape))) + 0.1


ROWS, HEADS, ANGLES = some(1, 3, D), some(1, 3, 2, DIM), some(3, DIM // 2)
KEYS, PREFIX, NORM, TABLE = some(1, 2, 3, DIM), some(2, 1, 5, DIM), some(D), some(V, D)
# Each function over all of its tensors that may be learned.
CALLS = {
    "route": (
        lambda *tensors: kernels.route(*tensors, 2, EPS)[0],
        (ROWS[0], NORM, some(E, D), some(E)),
    ),
    "experts": (
        lambda x, weights, up, down: kernels.experts(x, weights, CHOSEN, up, down, "silu"),
        (ROWS[0], some(3, 2), some(E, 2 * D, D), some(E, D, D)),
    ),
    "linear": (kernels.linear, (ROWS, some(V, D))),
    "join_attention": (
        lambda *tensors: torch.cat(kernels.join_attention(*tensors, EPS)),
        (ROWS, ROWS + 1, NORM, NORM, NORM),
    ),
    "join_feedforward": (
        lambda x, dense, routed, *rest: torch.cat(
            kernels.join_feedforward(x, dense, routed, rest[:4], rest[4], EPS)
        ),
        (ROWS, ROWS + 1, some(1, 3, 2, D), NORM, NORM, NORM, NORM, some(1)),
    ),
    "prepare_heads": (
        lambda *tensors: torch.cat(kernels.prepare_heads(*tensors, ANGLES, ANGLES, EPS)),
        (HEADS, HEADS, HEADS, some(DIM), some(DIM)),
    ),
    "canvas_attention": (
        lambda q, k, v, *own: kernels.canvas_attention(q, k, v, PAGES, BOUNDS, *own, None),
        (HEADS, PREFIX, PREFIX, KEYS, KEYS),
    ),
    "soft_embedding": (
        lambda table, shares: kernels.soft_embedding(table, CHOSEN, shares, 2.0),
        (TABLE, some(3, 2)),
    ),
}


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    """As if all tensors were on one."""
    monkeypatch.setattr(kernels, "_is_on_gpu", lambda x: True)
    monkeypatch.setattr(kernels, "_triton_is_wanted", lambda: True)


@pytest.mark.parametrize(
    ("name", "place"), [(name, n) for name, (_, given) in CALLS.items() for n in range(len(given))]
)
def test_each_learned_tensor_gets_its_gradient(name, place):
    call, given = CALLS[name]
    tensors = [tensor.clone() for tensor in given]
    learned = tensors[place].requires_grad_()
    out = call(*tensors)
    (out * some(*out.shape)).sum().backward()
    assert learned.grad is not None and (learned.grad != 0).any()


def test_parameters_do_not_keep_kernels_from_running_where_nothing_is_learned():
    weight = torch.nn.Parameter(TABLE)
    assert not kernels._takes_triton(ROWS, weight)
    with torch.no_grad():
        assert kernels._takes_triton(ROWS, weight)
    with torch.inference_mode():
        assert kernels._takes_triton(ROWS, weight)
    assert kernels._takes_triton(ROWS, weight.detach())

"""Acceptance by entropy against plain torch and the sampler."""

import pytest
import torch

from engine import sampler
from engine.kernels import deciding, reference


@pytest.mark.parametrize("bound", [1e-6, 0.1, 2.0, 1e6])
@pytest.mark.parametrize("shape", [(1, 1), (3, 17), (2, 63), (1, 256)])
def test_the_same_positions_are_kept(shape, bound, device):
    entropy = torch.rand(shape, device=device) ** 4
    drawn = torch.randint(0, 1000, shape, device=device)
    noise = torch.randint(1000, 2000, shape, device=device)
    canvas, accepted = deciding.accept_and_renoise(entropy, drawn, noise, bound)
    expected, theirs = reference.accept_and_renoise(entropy, drawn, noise, bound)
    assert torch.equal(accepted, theirs)
    assert torch.equal(accepted, sampler.accept(entropy, bound))
    assert torch.equal(canvas, expected)


def test_equal_entropies_are_taken_in_the_order_of_their_places(device):
    entropy = torch.full((1, 20), 0.5, device=device)
    ids = torch.zeros(1, 20, dtype=torch.int64, device=device)
    _, accepted = deciding.accept_and_renoise(entropy, ids, ids, 1.0)
    assert accepted[0].nonzero().flatten().tolist() == [0, 1, 2]


def test_shapes_that_do_not_match_are_refused(device):
    entropy, ids = torch.zeros(1, 257, device=device), torch.zeros(1, 257, device=device)
    with pytest.raises(AssertionError, match="at most, got 257"):
        deciding.accept_and_renoise(entropy, ids, ids, 0.1)
    with pytest.raises(AssertionError, match=r"drawn \(1, 256\)"):
        deciding.accept_and_renoise(entropy, ids[:, 1:], ids, 0.1)

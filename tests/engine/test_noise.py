"""Random numbers that depend on seed, canvas, step and slot, and on nothing else."""

import pytest
import torch

from engine import noise

CPU = torch.device("cpu")
VOCAB = 61


def test_a_slot_gets_the_same_numbers_beside_padding_and_further_steps():
    small = noise.draw(7, 4, 10, VOCAB, CPU)
    large = noise.draw(7, 48, 64, VOCAB, CPU)
    assert torch.equal(small.uniform, large.uniform[:4, :10])
    assert torch.equal(small.ids, large.ids[:5, :10])


def test_seeds_canvases_steps_and_slots_all_count():
    draws = [
        noise.draw(seed, 3, 40, VOCAB, CPU, canvas=canvas)
        for seed in (0, 1, 2, 2**63 - 1)
        for canvas in (0, 1)
    ]
    rows = [tuple(row.tolist()) for some in draws for row in some.uniform]
    assert len(set(rows)) == 4 * 2 * 3
    assert len({value for row in rows for value in row}) > 0.99 * len(rows) * 40
    assert not torch.equal(draws[0].uniform, draws[0].ids[1:] / VOCAB)


def test_ids_cover_the_whole_vocabulary_evenly():
    ids = noise.draw(0, 99, 300, VOCAB, CPU).ids
    counts = ids.flatten().bincount(minlength=VOCAB)
    assert len(counts) == VOCAB
    assert (counts - ids.numel() / VOCAB).abs().max() < 6 * (ids.numel() / VOCAB) ** 0.5


@pytest.mark.parametrize("seed", [0, 5])
def test_uniform_numbers_are_uniform_and_below_one(seed):
    uniform = noise.draw(seed, 100, 300, VOCAB, CPU).uniform.flatten()
    assert uniform.min() >= 0
    assert uniform.max() < 1
    tenths = (uniform * 10).long().bincount(minlength=10)
    assert (tenths - 3000).abs().max() < 6 * 3000**0.5
    # Neighbouring slots, steps and draws have nothing to do with each other.
    for distance in (1, 300):
        together = torch.corrcoef(torch.stack((uniform[:-distance], uniform[distance:])))[0, 1]
        assert together.abs() < 0.03

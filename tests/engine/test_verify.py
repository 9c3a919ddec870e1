"""What a causal reading says of fills, over a scripted model that knows which token follows which."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine import causal
from engine.infill import Control, Filled
from engine.request import StopReason
from engine.verify import Verify
from tests.engine import tiny
from tests.engine.test_causal import reference_reading
from tests.engine.test_model import fresh_cache, random_ids

NOWHERE: Any = SimpleNamespace(length=0, commit=lambda ids: None)
OTHER = -8.0  # nats, of what does not follow


class Follows:
    """A model that is sure which tokens follow which: one of `pairs`, each as likely."""

    def __init__(self, *pairs: tuple[int, int], size: int = 40) -> None:
        self.embed_tokens = SimpleNamespace(weight=torch.zeros(1))
        self._logits = torch.full((size, size), OTHER)
        for before, after in pairs:
            self._logits[before, after] = 0.0

    def tree(self, ids, *place, **how):
        return torch.tensor(ids)[:, None].float()

    def logits(self, states):
        return self._logits[states[..., 0].long()]


NEW, SAN, YORK, FRANCISCO, IN, DOT = range(10, 16)
CITIES = Follows((IN, NEW), (IN, SAN), (NEW, YORK), (SAN, FRANCISCO), (YORK, DOT), (FRANCISCO, DOT))


def filled(*ids: int, logs: tuple[float, ...] = ()) -> Filled:
    return Filled(ids=ids, stop=StopReason.COMPLETE, forwards=1, log_probabilities=logs)


def test_neighbours_that_fit_alone_and_not_together_rank_below_those_that_do():
    """Each slot alone is sure of its tokens, so denoising both at once mixes two names."""
    sure = (0.0, 0.0)
    mixed = [filled(NEW, FRANCISCO, logs=sure), filled(SAN, YORK, logs=sure)]
    names = [filled(NEW, YORK, logs=sure), filled(SAN, FRANCISCO, logs=sure)]
    ranked = Verify().rank(CITIES, NOWHERE, [*mixed, *names], [DOT], lead=[IN])
    assert [each.ids for each in ranked] == [each.ids for each in (*names, *mixed)]


def test_a_fill_to_which_the_suffix_is_no_sequel_ranks_below_one_that_leads_there():
    """A fill may be as likely as can be and still leave no way to what stands behind it."""
    model = Follows((1, 2), (2, 3), (1, 4), (4, 9), (9, 9))
    ranked = Verify().rank(model, NOWHERE, [filled(2), filled(4)], [9, 9], lead=[1])
    assert [each.ids for each in ranked] == [(4,), (2,)]
    assert ranked[0].junction > ranked[1].junction


def test_of_fills_alike_the_first_stays_first():
    ranked = Verify().rank(CITIES, NOWHERE, [filled(SAN), filled(NEW)], [30], lead=[IN])
    assert [each.ids for each in ranked] == [(SAN,), (NEW,)]


def test_only_the_head_of_the_suffix_is_read():
    model = Follows((1, 2), (2, 3), (3, 4))
    (first,), (second,) = (
        Verify(suffix_tokens=2).rank(model, NOWHERE, [filled(2)], suffix, lead=[1])
        for suffix in ([3, 4, 30], [3, 4, 31, 32])
    )
    assert first == second


def test_a_fill_keeps_its_own_log_probabilities_and_a_copy_gets_those_of_the_reading():
    written, copied = filled(NEW, logs=(-0.5,)), filled(SAN)
    found = {
        each.ids: each for each in Verify().rank(CITIES, NOWHERE, [written, copied], [], lead=[IN])
    }
    assert found[written.ids].log_probabilities == (-0.5,)
    assert found[copied.ids].log_probabilities == pytest.approx((-math.log(2),), abs=0.02)
    assert {each.junction for each in found.values()} == {None}, "nothing stands behind the hole"


@pytest.mark.parametrize("family", ["llama", "gemma"])
@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_the_ranking_is_that_of_one_reading_after_the_other(family, beta, tmp_path):
    make = {"llama": tiny.llama, "gemma": tiny.diffusion_gemma}[family]
    pair = make(tmp_path, seed=4)
    ids, suffix = random_ids(13, seed=1), random_ids(20, seed=2)
    fills = [filled(*random_ids(count, seed=count)) for count in (5, 2, 8, 0, 7, 3)]
    cache = fresh_cache(pair.ours)
    causal.encode(pair.ours, cache, ids, 64, Control())
    ranked = Verify(beta=beta).rank(pair.ours, cache, fills, suffix)

    def naive(fill: Filled) -> float:
        own = reference_reading(pair, ids, list(fill.ids))
        behind = reference_reading(pair, [*ids, *fill.ids], suffix[:16])
        return sum(behind) + beta * (sum(own) / len(own) if own else 0.0)

    assert [each.ids for each in ranked] == [each.ids for each in sorted(fills, key=naive)[::-1]]
    for each in ranked:
        behind = reference_reading(pair, [*ids, *each.ids], suffix[:16])
        assert each.junction == pytest.approx(sum(behind) / 16, abs=1e-3)

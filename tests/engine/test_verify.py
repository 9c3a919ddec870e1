"""What a causal reading says of fills, over a scripted model that knows which token follows which."""

from types import SimpleNamespace

import pytest
import torch

from engine import causal
from engine.infill import Control
from engine.verify import Verify
from tests.engine import tiny
from tests.engine.test_causal import reference_reading
from tests.engine.test_model import fresh_cache, random_ids

OTHER = -8.0  # nats, of what does not follow


class Follows:
    """A model that is sure which tokens follow which: one of `pairs`, each as likely."""

    def __init__(self, *pairs: tuple[int, int], size: int = 40) -> None:
        self.embed_tokens = SimpleNamespace(weight=torch.zeros(1))
        self._logits = torch.full((size, size), OTHER)
        for before, after in pairs:
            self._logits[before, after] = 0.0

    def continuations(self, ids, cache):
        return ids[..., None].float()

    def logits(self, states):
        return self._logits[states[..., 0].long()]


NEW, SAN, YORK, FRANCISCO, IN, DOT = range(10, 16)
CITIES = Follows((IN, NEW), (IN, SAN), (NEW, YORK), (SAN, FRANCISCO), (YORK, DOT), (FRANCISCO, DOT))


def test_neighbours_that_fit_alone_and_not_together_rate_below_those_that_do():
    """Each slot alone is sure of its tokens, so denoising both at once mixes two names."""
    fills = [(NEW, FRANCISCO), (NEW, YORK), (SAN, YORK), (SAN, FRANCISCO)]
    scores = Verify().scores(CITIES, None, fills, [DOT], lead=[IN])
    assert min(scores[1], scores[3]) > max(scores[0], scores[2]) - OTHER / 4


def test_what_the_suffix_does_not_follow_rates_below_a_likelier_fill_would():
    """A fill may be as likely as can be and still leave no way to what stands behind it."""
    model = Follows((1, 2), (2, 3), (1, 4), (4, 9), (9, 9))
    stops_short, leads_there = Verify(beta=1.0).scores(model, None, [(2,), (4,)], [9, 9], lead=[1])
    assert leads_there > stops_short - OTHER / 2


def test_only_the_head_of_the_suffix_is_read():
    model = Follows((1, 2), (2, 3), (3, 4))
    first, second = (
        Verify(suffix_tokens=2).scores(model, None, [(2,)], suffix, lead=[1])
        for suffix in ([3, 4, 30], [3, 4, 31, 32])
    )
    assert first == second


@pytest.mark.parametrize("family", ["llama", "gemma"])
@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_scores_are_those_of_one_reading_after_the_other(family, beta, tmp_path):
    make = {"llama": tiny.llama, "gemma": tiny.diffusion_gemma}[family]
    pair = make(tmp_path, seed=4)
    ids, suffix = random_ids(13, seed=1), random_ids(20, seed=2)
    fills = [random_ids(count, seed=count) for count in (5, 2, 8, 0)]
    cache = fresh_cache(pair.ours)
    causal.encode(pair.ours, cache, ids, 64, Control())
    scores = Verify(beta=beta).scores(pair.ours, cache, fills, suffix)
    for score, fill in zip(scores, fills, strict=True):
        own = reference_reading(pair, ids, fill)
        behind = reference_reading(pair, ids + fill, suffix[:16])
        mean = sum(own) / len(own) if own else 0.0
        assert score == pytest.approx(sum(behind) + beta * mean, abs=1e-3)

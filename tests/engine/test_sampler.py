"""The sampler against transformers' own sampler classes, on the same tensors and draws."""

import math

import pytest
import torch
from transformers.models.diffusion_gemma.generation_diffusion_gemma import (
    EntropyBoundSampler,
    EntropyBoundSamplerConfig,
    LinearTemperatureScheduleLogitsProcessor,
    StableAndConfidentStoppingCriteria,
)

from engine import sampler
from engine.config import SamplerConfig

VOCAB, HOLE, ROWS = 61, 17, 3


def random_logits(seed: int, scale: float = 6.0) -> torch.Tensor:
    return scale * torch.randn(ROWS, HOLE, VOCAB, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("steps_left", [1, 7, 48])
def test_temperature_and_belief_equal_the_reference(steps_left):
    logits = random_logits(steps_left)
    processor = LinearTemperatureScheduleLogitsProcessor(0.4, 0.8, 48)
    processed = processor(None, logits, torch.tensor(steps_left))
    dist = torch.distributions.Categorical(logits=processed)
    ours = sampler.predict(logits.clone(), sampler.temperature(SamplerConfig(), steps_left))
    torch.testing.assert_close(ours.probabilities, dist.probs)
    torch.testing.assert_close(ours.entropy, dist.entropy(), rtol=1e-4, atol=1e-5)
    assert torch.equal(ours.best, processed.argmax(-1))
    torch.testing.assert_close(ours.log_best, dist.log_prob(ours.best), rtol=1e-4, atol=1e-5)


def test_a_certain_distribution_has_no_entropy_and_no_nan():
    logits = torch.full((1, 2, VOCAB), -math.inf)
    logits[..., 5] = 0.0
    belief = sampler.predict(logits, 0.4)
    assert belief.entropy.tolist() == [[0.0, 0.0]]
    assert belief.best.tolist() == [[5, 5]]


def test_beliefs_and_draws_are_the_same_some_rows_at_a_time(monkeypatch):
    logits, uniform = random_logits(3), torch.rand(ROWS * HOLE)
    whole = sampler.predict(logits.clone(), 0.7)
    monkeypatch.setattr(sampler, "ROWS", 3)
    parts = sampler.predict(logits.clone(), 0.7)
    for name in ("probabilities", "entropy", "best", "log_best"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))
    flat = whole.probabilities.flatten(0, 1)
    drawn = sampler.draw(flat, uniform)
    monkeypatch.undo()
    assert torch.equal(drawn, sampler.draw(flat, uniform))


@pytest.mark.parametrize("bound", [1e-6, 0.1, 2.0, 1e6])
@pytest.mark.parametrize("seed", range(5))
def test_accept_and_renoise_equal_the_reference_under_the_same_draws(bound, seed):
    logits = random_logits(seed)
    belief = sampler.predict(logits.clone(), 1.0)
    uniform = torch.rand(ROWS, HOLE)
    drawn = sampler.draw(belief.probabilities.flatten(0, 1), uniform.flatten()).view(ROWS, HOLE)
    reference = EntropyBoundSampler(EntropyBoundSamplerConfig(bound), HOLE, VOCAB, 48)
    kept = reference.accept_canvas(torch.zeros_like(drawn), drawn, logits, 1)
    torch.manual_seed(seed)
    theirs = reference.renoise_canvas(kept, 1)
    torch.manual_seed(seed)
    noise = torch.randint(VOCAB, (ROWS, HOLE))

    accepted = sampler.accept(belief.entropy, bound)
    ours = sampler.renoise(belief.probabilities, accepted, uniform, noise)
    assert torch.equal(accepted, reference.accepted_token_mask)
    assert torch.equal(ours, theirs)


def test_draws_follow_the_distribution():
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0])
    uniform = torch.rand(20_000, generator=torch.Generator().manual_seed(1))
    drawn = sampler.draw(probabilities.expand(20_000, -1), uniform)
    frequency = drawn.bincount(minlength=6) / 20_000
    torch.testing.assert_close(frequency, probabilities, atol=0.015, rtol=0)


def test_a_token_of_probability_zero_is_never_drawn():
    probabilities = torch.tensor([[0.0, 0.6, 0.4, 0.0]])
    extremes = torch.tensor([0.0, 1 - 2**-24, 0.4, 0.6])
    drawn = sampler.draw(probabilities.expand(4, -1), extremes)
    assert set(drawn.tolist()) <= {1, 2}


def test_the_surest_position_is_always_accepted():
    assert sampler.accept(torch.tensor([[3.0, 2.0, 9.0]]), 0.1).tolist() == [[False, True, False]]


@pytest.mark.parametrize("stability", [0, 1, 2])
def test_the_stop_rule_equals_the_reference_over_a_trajectory(stability):
    reference = StableAndConfidentStoppingCriteria(stability, 1.0)
    earlier = torch.full((ROWS, HOLE), -1)
    unchanged = torch.zeros(ROWS, dtype=torch.long)
    stops = []
    for seed in (1, 1, 2, 2, 2, 3):
        belief = sampler.predict(random_logits(seed, scale=40.0), 1.0)
        theirs = reference(belief.best, belief.probabilities.log())
        unchanged = sampler.unchanged(belief.best, earlier, unchanged)
        ours = (unchanged >= stability) & sampler.is_confident(belief.entropy, 1.0)
        earlier = belief.best
        assert torch.equal(ours, theirs)
        stops.append(bool(ours.all()))
    assert True in stops
    assert (False in stops) == (stability > 0)

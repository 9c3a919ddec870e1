"""Left-to-right decoding and scoring against transformers' Llama on the same weights."""

import time

import pytest
import torch

from engine import causal
from engine.errors import Cancelled
from engine.infill import Control
from engine.request import StopReason
from tests.engine import tiny
from tests.engine.test_model import fresh_cache, random_ids


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> tiny.Pair:
    return tiny.llama(tmp_path_factory.mktemp("llama"), seed=4)


def start(pair: tiny.Pair, ids: list[int]):
    cache = fresh_cache(pair.ours)
    return cache, causal.encode(pair.ours, cache, ids, 7, Control())


def greedy(pair: tiny.Pair, ids: list[int], count: int) -> list[int]:
    with torch.no_grad():
        out = pair.reference.generate(
            torch.tensor([ids]), max_new_tokens=count, do_sample=False, eos_token_id=None
        )
    return out[0, len(ids) :].tolist()


def test_greedy_ids_equal_the_references(llama):
    ids = random_ids(19, seed=1)
    expected = greedy(llama, ids, 24)
    assert 1 not in expected
    cache, hidden = start(llama, ids)
    filled = causal.decode(llama.ours, cache, hidden, 24, lambda ids: None, Control())
    assert list(filled.ids) == expected
    assert filled.stop is StopReason.LENGTH
    assert cache.ids == ids + expected[:-1]


def test_decoding_stops_when_the_caller_says_so(llama):
    cache, hidden = start(llama, random_ids(19, seed=1))
    filled = causal.decode(
        llama.ours,
        cache,
        hidden,
        24,
        lambda ids: StopReason.LINE if len(ids) == 3 else None,
        Control(),
    )
    assert (len(filled.ids), filled.stop) == (3, StopReason.LINE)


def test_an_end_token_ends_the_text_and_is_not_part_of_it(llama):
    cache, hidden = start(llama, random_ids(19, seed=1))
    only_eos = torch.tensor([1])
    filled = causal.decode(
        llama.ours,
        cache,
        hidden,
        24,
        lambda ids: None,
        Control(),
        allowed=lambda ids: only_eos if len(ids) == 2 else None,
    )
    assert (len(filled.ids), filled.stop) == (2, StopReason.COMPLETE)


def test_allowed_ids_bound_the_choice(llama):
    cache, hidden = start(llama, random_ids(19, seed=1))
    choices = torch.tensor([5, 6, 7])
    filled = causal.decode(
        llama.ours, cache, hidden, 8, lambda ids: None, Control(), allowed=lambda ids: choices
    )
    assert set(filled.ids) <= {5, 6, 7}


def test_cancel_is_seen_between_tokens_and_between_prefill_chunks(llama):
    cache, hidden = start(llama, random_ids(19, seed=1))
    seen = []
    control = Control(cancelled=lambda: len(seen) >= 2, on_draft=lambda ids, n: seen.append(n))
    with pytest.raises(Cancelled):
        causal.decode(llama.ours, cache, hidden, 24, lambda ids: None, control)
    assert seen == [1, 2]

    cache, asked = fresh_cache(llama.ours), []
    control = Control(cancelled=lambda: asked.append(1) or len(asked) > 2)
    with pytest.raises(Cancelled):
        causal.encode(llama.ours, cache, random_ids(19, seed=1), 4, control)
    assert cache.length == 8, "what was encoded before the cancel is kept"


def test_a_passed_deadline_gives_the_text_so_far(llama):
    cache, hidden = start(llama, random_ids(19, seed=1))
    control = Control(deadline=time.monotonic() - 1)
    filled = causal.decode(llama.ours, cache, hidden, 24, lambda ids: None, control)
    assert (len(filled.ids), filled.stop) == (1, StopReason.DEADLINE)


def test_scores_are_the_references_log_probabilities_and_leave_the_cache_alone(llama):
    ids, continuation = random_ids(11, seed=2), random_ids(6, seed=3)
    with torch.no_grad():
        logits = llama.reference(torch.tensor([ids + continuation])).logits[0]
    expected = logits.log_softmax(-1)[10:16].gather(-1, torch.tensor(continuation)[:, None])
    cache, hidden = start(llama, ids)
    scores = causal.score(llama.ours, cache, hidden, continuation)
    torch.testing.assert_close(scores, expected[:, 0], rtol=1e-4, atol=1e-4)
    assert cache.ids == ids


def test_a_diffusion_model_decodes_causally_too(tmp_path):
    pair = tiny.diffusion_gemma(tmp_path, seed=5)
    ids = random_ids(13, seed=6)
    with torch.no_grad():
        states = pair.reference.model.encoder(input_ids=torch.tensor([ids])).last_hidden_state
        logits = torch.tanh(pair.reference.lm_head(states[0, -1]) / 30) * 30
    cache, hidden = start(pair, ids)
    filled = causal.decode(pair.ours, cache, hidden, 1, lambda ids: None, Control())
    assert filled.ids == (int(logits.argmax()),)
    assert filled.log_probability == pytest.approx(float(logits.log_softmax(-1).max()), abs=1e-4)

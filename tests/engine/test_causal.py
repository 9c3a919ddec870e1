"""Left-to-right decoding and scoring against transformers' Llama on the same weights."""

import random
import time
from dataclasses import replace

import pytest
import torch

from engine import causal
from engine.cache import Suffix
from engine.errors import Cancelled
from engine.infill import Control, Filled
from engine.model import Transformer
from engine.request import StopReason
from tests.engine import tiny
from tests.engine.test_model import fresh_cache, random_ids


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> tiny.Pair:
    return tiny.llama(tmp_path_factory.mktemp("llama"), seed=4)


@pytest.fixture(scope="module")
def gemma(tmp_path_factory) -> tiny.Pair:
    return tiny.diffusion_gemma(tmp_path_factory.mktemp("gemma"), seed=5)


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
    again, _ = start(llama, random_ids(19, seed=1))
    *written, end = causal.read(llama.ours, again, [[*filled.ids, 1]])[0].tolist()
    assert filled.log_probabilities == pytest.approx(written, abs=1e-4)
    assert filled.end == pytest.approx(end, abs=1e-4)


def test_what_a_limit_ends_has_no_end_to_be_sure_of(llama):
    cache, hidden = start(llama, random_ids(19, seed=1))
    filled = causal.decode(llama.ours, cache, hidden, 3, lambda ids: None, Control())
    assert filled.end is None
    assert len(filled.log_probabilities) == 3
    assert filled.log_probability == pytest.approx(sum(filled.log_probabilities) / 3)


def test_allowed_ids_bound_the_choice(llama):
    cache, hidden = start(llama, random_ids(19, seed=1))
    choices = torch.tensor([5, 6, 7])
    filled = causal.decode(
        llama.ours, cache, hidden, 8, lambda ids: None, Control(), allowed=lambda ids: choices
    )
    assert set(filled.ids) <= {5, 6, 7}


def test_a_favoured_id_is_taken_where_it_is_near_enough_to_the_best(llama):
    ids = random_ids(19, seed=1)
    cache, hidden = start(llama, ids)
    beliefs = llama.ours.logits(hidden[0, -1:]).log_softmax(-1)[0]
    best, second = beliefs.topk(2).indices.tolist()
    gap = float(beliefs[best] - beliefs[second])
    for bonus, allowed, expected in (
        (gap + 0.01, None, second),
        (gap - 0.01, None, best),
        (gap + 0.01, torch.tensor([best]), best),
    ):
        cache, hidden = start(llama, ids)
        filled = causal.decode(
            llama.ours, cache, hidden, 1, lambda ids: None, Control(),
            favoured=lambda ids, bonus=bonus: (second, bonus),
            allowed=lambda ids, allowed=allowed: allowed,
        )  # fmt: skip
        assert filled.ids == (expected,)
        assert filled.log_probability == pytest.approx(float(beliefs[expected]), abs=1e-4)


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


def reference_reading(pair: tiny.Pair, before: list[int], text: list[int]) -> list[float]:
    """Log-probabilities of `text` behind `before`, by the reference in one pass of its own."""
    ids = torch.tensor([before + text])
    with torch.no_grad():
        if pair.config.is_diffusion:
            states = pair.reference.model.encoder(input_ids=ids).last_hidden_state[0]
            logits = torch.tanh(pair.reference.lm_head(states) / 30) * 30
        else:
            logits = pair.reference(ids).logits[0]
    beliefs = logits.log_softmax(-1)[len(before) - 1 : -1]
    return [float(row[token]) for row, token in zip(beliefs, text, strict=True)]


@pytest.mark.parametrize("family", ["llama", "gemma"])
@pytest.mark.parametrize("lead", [(), (7,)])
def test_texts_are_read_at_once_as_the_reference_reads_each_alone(family, lead, request):
    pair = request.getfixturevalue(family)
    ids = random_ids(2 * tiny.WINDOW + 1, seed=2)
    texts = [random_ids(count, seed=count) for count in (6, 1, 11, 0)]
    for some in (texts, texts[:1]):
        cache, _ = start(pair, ids)
        read = causal.read(pair.ours, cache, some, lead)
        for own, text in zip(read, some, strict=True):
            expected = reference_reading(pair, [*ids, *lead], text)
            assert own.tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma"])
@pytest.mark.parametrize("count", [1, 3])
def test_reading_leaves_the_cache_as_it_was(family, count, request):
    pair = request.getfixturevalue(family)
    for ids in (random_ids(19, seed=1), [5]):
        untouched, _ = start(pair, ids)
        cache, _ = start(pair, ids)
        cache.suffix = kept = Suffix(ids=(1,), sees=len(ids), room=1, keys=(), values=())
        causal.read(pair.ours, cache, [random_ids(9, seed=n) for n in range(count)])
        assert (cache.ids, cache.suffix) == (ids, kept)
        with torch.inference_mode():
            ours, theirs = (pair.ours.encode([9, 8], each) for each in (cache, untouched))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_diffusion_model_decodes_causally_too(gemma):
    ids = random_ids(13, seed=6)
    with torch.no_grad():
        states = gemma.reference.model.encoder(input_ids=torch.tensor([ids])).last_hidden_state
        logits = torch.tanh(gemma.reference.lm_head(states[0, -1]) / 30) * 30
    cache, hidden = start(gemma, ids)
    filled = causal.decode(gemma.ours, cache, hidden, 1, lambda ids: None, Control())
    assert filled.ids == (int(logits.argmax()),)
    assert filled.log_probability == pytest.approx(float(logits.log_softmax(-1).max()), abs=1e-4)


class Guesser:
    """Drafts of what `truth` says comes next, each token wrong with probability `wrong`."""

    def __init__(self, truth: list[int], wrong: float, seed: int):
        self.truth = truth
        self.wrong = wrong
        self.random = random.Random(seed)
        self.rows: list[int] = []

    def propose(self, ids, room: int) -> list[int]:
        rest = self.truth[len(ids) :][: self.random.randint(0, min(room, 9))]
        return [
            self.random.randrange(tiny.VOCAB) if self.random.random() < self.wrong else token
            for token in rest
        ]

    def timed(self, rows: int, seconds: float) -> None:
        assert seconds > 0
        self.rows.append(rows)


def decode_both_ways(
    pair: tiny.Pair, model: Transformer, wrong: float, seed: int, **rules
) -> tuple[Filled, Filled, Guesser]:
    """Without drafts, then with; asserts that nothing but the number of forwards differs."""
    prompt, truth = random_ids(13, seed=seed), greedy_ids(pair.ours, random_ids(13, seed=seed), 30)
    stop_at = rules.pop("stop_at", lambda ids: None)
    guesser = Guesser(truth, wrong, seed)
    runs = []
    for drafted in ({}, {"propose": guesser.propose, "timed": guesser.timed}):
        cache = fresh_cache(model)
        hidden = causal.encode(model, cache, prompt, 64, Control())
        shown: list[list[int]] = []
        control = Control(on_draft=lambda ids, n, shown=shown: shown.append(list(ids)))
        filled = causal.decode(model, cache, hidden, 24, stop_at, control, **rules, **drafted)
        with torch.inference_mode():
            after = model.logits(model.encode([7], cache)[0, -1])
        runs.append((filled, cache.ids, shown, after))
    (plain, *seen), (drafted, *seen_too) = runs
    assert (drafted.ids, drafted.stop) == (plain.ids, plain.stop)
    assert drafted.log_probability == pytest.approx(plain.log_probability, abs=1e-4)
    assert seen_too[:2] == seen[:2], "the cache's tokens, and every state of the text"
    torch.testing.assert_close(seen_too[2], seen[2], rtol=1e-3, atol=1e-3)
    assert drafted.forwards == 1 + len(guesser.rows) <= plain.forwards
    return plain, drafted, guesser


def greedy_ids(model: Transformer, prompt: list[int], count: int) -> list[int]:
    free = Transformer(replace(model.config, eos_ids=()))
    free.load_state_dict(model.state_dict())
    cache = fresh_cache(free)
    hidden = causal.encode(free, cache, prompt, 64, Control())
    return list(causal.decode(free, cache, hidden, count, lambda ids: None, Control()).ids)


@pytest.mark.parametrize("family", ["llama", "gemma"])
def test_drafts_change_nothing_but_the_number_of_forwards(family, request):
    pair = request.getfixturevalue(family)
    some = torch.arange(0, tiny.VOCAB, 3)
    for seed, wrong in enumerate((0.0, 0.2, 1.0) if family == "llama" else (0.2,)):
        plain, drafted, guesser = decode_both_ways(pair, pair.ours, wrong, seed)
        assert wrong > 0.2 or drafted.forwards < plain.forwards
        assert max(guesser.rows) > 1, "wrong drafts have to be seen to be refused"
        decode_both_ways(
            pair, pair.ours, wrong, seed, allowed=lambda ids: some if len(ids) % 3 == 0 else None
        )


@pytest.mark.parametrize("end", [0, 5, 11])
def test_drafts_do_not_move_the_end(llama, end):
    for seed in range(2):
        truth = greedy_ids(llama.ours, random_ids(13, seed=seed), 24)
        stopped, *_ = decode_both_ways(
            llama,
            llama.ours,
            0.1,
            seed,
            stop_at=lambda ids: StopReason.SUFFIX if len(ids) > end else None,
        )
        assert len(stopped.ids) == end + 1
        model = Transformer(replace(llama.config, eos_ids=(truth[end],)))
        model.load_state_dict(llama.ours.state_dict())
        ended, *_ = decode_both_ways(llama, model, 0.1, seed)
        assert (ended.ids, ended.stop) == (
            tuple(truth[: truth.index(truth[end])]),
            StopReason.COMPLETE,
        )


def test_a_cancel_or_a_deadline_amid_drafts_leaves_a_cache_that_can_be_used(llama):
    ids = random_ids(13, seed=1)
    guesser = Guesser(greedy_ids(llama.ours, ids, 30), 0.0, seed=1)
    guesser.random.randint = lambda low, high: min(high, 4)
    for rules, written in (
        ({"cancelled": lambda: len(guesser.rows) == 2}, None),
        ({"deadline": time.monotonic() - 1}, 1),
    ):
        guesser.rows.clear()
        cache, hidden = start(llama, ids)
        try:
            filled = causal.decode(
                llama.ours,
                cache,
                hidden,
                24,
                lambda ids: None,
                Control(**rules),
                propose=guesser.propose,
                timed=guesser.timed,
            )
            assert (len(filled.ids), filled.stop) == (written, StopReason.DEADLINE)
        except Cancelled:
            assert written is None
            assert guesser.rows == [5, 5]
        kept = len(cache.ids) - len(ids)
        assert cache.ids == ids + guesser.truth[:kept]
        assert kept == (10 if written is None else 0)

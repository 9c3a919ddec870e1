"""Several texts at once, over a tiny random model whose suffix is sealed behind the prefix."""

import itertools
from dataclasses import replace

import pytest
import torch

from engine import beams, causal
from engine.cache import PrefixCache
from engine.config import BeamConfig, ConfigError
from engine.errors import Cancelled
from engine.infill import Control
from engine.request import StopReason
from tests.engine import tiny
from tests.engine.test_masked_canvas import EMPTY, HOLE, MASK, make_model
from tests.engine.test_model import fresh_cache

PREFIX = [10, 11, 12]
EVERYTHING = BeamConfig(width=64, behind=1e6, lead=1e6, reward=0.0)


@pytest.fixture(scope="module")
def model():
    return make_model(shifted=True, sealed=True, rank=2)


def no_stop(ids):
    return None


def search(model, policy=EVERYTHING, *, hole=HOLE, stop_at=no_stop, control=None, **options):
    cache = fresh_cache(model)
    with torch.inference_mode():
        model.encode(PREFIX, cache)
    options = {"max_tokens": 3, **options}
    found = beams.fill(model, cache, hole, policy, stop_at, control or Control(), **options)
    assert cache.ids == PREFIX, "the cache is left as it was"
    return found


def alone(model, ids, hole=HOLE):
    """`ids` and their end, written one after the other."""
    cache = fresh_cache(model)
    with torch.inference_mode():
        model.encode(PREFIX, cache)
    return causal.fill(model, cache, hole, no_stop, Control(), allowed=forced(ids))


def forced(ids):
    """Allows `ids` one after the other, then the end."""
    return lambda so_far: torch.tensor([(*ids, EMPTY)[len(so_far)]])


def among(*tokens):
    return lambda ids: torch.tensor(tokens)


@pytest.mark.parametrize("lead", [(13,), (13, 14, 15)])
def test_all_texts_of_a_few_tokens_are_found_with_the_odds_of_each_alone(model, lead):
    hole = replace(HOLE, lead=lead)
    found = search(model, hole=hole, allowed=among(30, 31, EMPTY), max_tokens=3)
    assert [each.total for each in found] == sorted((each.total for each in found), reverse=True)
    texts = [t for n in range(4) for t in itertools.product((30, 31), repeat=n)]
    assert sorted(each.ids for each in found) == sorted(texts)
    for each in found:
        same = alone(model, each.ids, hole)
        assert each.log_probabilities == pytest.approx(same.log_probabilities, abs=1e-4)
        assert each.forwards == 3
        if len(each.ids) == 3:
            assert (each.stop, each.end) == (StopReason.LENGTH, None)
        else:
            assert each.stop is StopReason.COMPLETE
            assert each.end == pytest.approx(same.end, abs=1e-4)


@pytest.mark.parametrize("reward", [0.0, 2.0, 30.0])
def test_each_token_counts_its_reward(model, reward):
    policy = replace(EVERYTHING, reward=reward)
    found = search(model, policy, allowed=among(30, 31, EMPTY), max_tokens=3)
    worth = [each.total + reward * len(each.ids) for each in found]
    assert worth == sorted(worth, reverse=True)
    if reward == 30.0:
        assert len(found[0].ids) == 3, "more than any end could make up for"


# A hole whose suffix sees the first token only.
LATE = replace(HOLE, sees=1, room=len(HOLE.lead) + HOLE.hole)


@torch.inference_mode()
def prefixes(model, cached, pools=None):
    """The whole prefix, its first `cached` tokens, and a hole with the others before it."""
    whole = fresh_cache(model)
    cache = PrefixCache(model.config, torch.device("cpu"), torch.float32, pools=pools)
    model.encode(PREFIX, whole)
    model.encode(PREFIX[:cached], cache)
    late = PREFIX[cached:]
    return whole, cache, replace(LATE, lead=(*late, *LATE.lead), late=len(late))


def held(cache, layers):
    return [part for layer in range(layers) for part in cache.visible(layer)]


@pytest.mark.parametrize("in_pages", [False, True])
@pytest.mark.parametrize("cached", [1, 2])
def test_the_last_tokens_of_the_prefix_may_come_with_the_first_forward(model, cached, in_pages):
    whole, cache, hole = prefixes(model, cached, tiny.pools(model, 200, 1) if in_pages else None)
    options = {"max_tokens": 3, "allowed": among(30, 31, EMPTY), "offered": [(31, 33)]}
    expected = beams.fill(model, whole, LATE, EVERYTHING, no_stop, Control(), **options)
    found = beams.fill(model, cache, hole, EVERYTHING, no_stop, Control(), **options)
    assert [each.ids for each in found] == [each.ids for each in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.total == pytest.approx(theirs.total, abs=1e-4)
        assert ours.forwards == theirs.forwards
    assert cache.ids == whole.ids == PREFIX
    layers = len(model.config.layers)
    torch.testing.assert_close(held(cache, layers), held(whole, layers), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("forwards", [0, 1])
def test_what_the_first_forward_encoded_stays_where_the_answer_is_given_up(model, forwards):
    whole, cache, hole = prefixes(model, 1)
    asked = itertools.count()
    given_up = Control(cancelled=lambda: next(asked) >= forwards)
    with pytest.raises(Cancelled):
        beams.fill(model, cache, hole, EVERYTHING, no_stop, given_up, max_tokens=3)
    assert cache.ids == PREFIX[: 1 if forwards == 0 else None]
    layers = len(model.config.layers)
    whole.truncate(cache.length)
    torch.testing.assert_close(held(cache, layers), held(whole, layers), atol=1e-5, rtol=1e-4)


def test_one_text_alone_is_what_is_written_from_left_to_right(model):
    cache = fresh_cache(model)
    with torch.inference_mode():
        model.encode(PREFIX, cache)
    greedy = causal.fill(model, cache, HOLE, no_stop, Control())
    (one,) = search(model, BeamConfig(width=1, behind=1e-6, lead=1e6), max_tokens=HOLE.hole)
    assert one.ids == greedy.ids and MASK not in one.ids
    assert one.log_probabilities == pytest.approx(greedy.log_probabilities, abs=1e-4)
    assert (one.stop, one.forwards) == (greedy.stop, greedy.forwards)


def test_a_text_that_begins_worse_and_goes_on_better_wins(model, monkeypatch):
    """40 is the likelier first token, and what follows it is a guess; 41 leads to a sure end."""

    def believe(self, texts):
        texts = list(dict.fromkeys(texts))
        odds = torch.full((len(texts), 100), -20.0)
        for row, ids in enumerate(texts):
            sure = {(): {40: 0.6, 41: 0.4}, (41,): {EMPTY: 0.99}}
            for token, chance in sure.get(ids, {50: 0.3, 51: 0.3, EMPTY: 0.1}).items():
                odds[row, token] = torch.tensor(chance).log()
        self._after |= dict(zip(texts, odds, strict=True))
        self.forwards += 1

    monkeypatch.setattr(beams._Beliefs, "ask", believe)
    assert search(model)[0].ids == (41,)
    assert search(model, BeamConfig(width=1, lead=1e6))[0].ids != (41,)


def test_what_is_too_far_behind_is_given_up_and_a_text_far_enough_ahead_ends_the_search(model):
    free = {"allowed": among(30, 31, 32, EMPTY), "max_tokens": 4}
    everything = search(model, **free)
    near = search(model, BeamConfig(width=64, behind=1.0, lead=1e6), **free)
    assert 0 < len(near) < len(everything)
    assert near[-1].total >= near[0].total - 1.0 > everything[-1].total
    soon = search(model, BeamConfig(width=64, behind=1e6, lead=-1e6), **free)
    assert {each.ids for each in soon} == {()}, "the first text to end ends it"
    assert soon[0].forwards == 1 < everything[0].forwards


def test_what_is_offered_is_judged_in_the_first_forward_and_listed_once(model):
    ending = alone(model, (30, 31))
    found = search(model, BeamConfig(width=1, behind=1e-6), offered=[(30, 31), (30, 33), (30, 31)])
    offered = {each.ids: each for each in found if each.stop is StopReason.COMPLETE}
    assert {(30, 31), (30, 33)} <= set(offered)
    assert offered[30, 31].log_probabilities == pytest.approx(ending.log_probabilities, abs=1e-4)
    assert offered[30, 31].end == pytest.approx(ending.end, abs=1e-4)
    greedy = search(model, BeamConfig(width=1, behind=1e-6), max_tokens=HOLE.hole)[0]
    again = search(
        model, BeamConfig(width=1, behind=1e-6), max_tokens=HOLE.hole, offered=[greedy.ids]
    )
    assert [each.ids for each in again] == [greedy.ids]
    assert again[0].forwards == 1, "all that is written then was asked about before"


def test_where_one_text_is_left_a_draft_of_it_saves_forwards_and_changes_nothing(model):
    one = BeamConfig(width=1, behind=1e-6)
    plain = search(model, one, max_tokens=HOLE.hole)
    text = plain[0].ids
    for draft in (text, (*text[:2], 99, 98), (97,)):

        def propose(ids, room, draft=draft):
            return draft[len(ids) : len(ids) + room]

        (drafted,) = search(model, one, max_tokens=HOLE.hole, propose=propose)
        assert (drafted.ids, drafted.stop) == (text, plain[0].stop)
        assert drafted.log_probabilities == pytest.approx(plain[0].log_probabilities, abs=1e-4)
        assert (drafted.forwards < plain[0].forwards) == (draft != (97,))


def test_a_text_stops_where_the_caller_says(model):
    def stop_at(ids):
        return StopReason.LINE if ids[-1] == 31 else None

    found = search(model, stop_at=stop_at, allowed=among(30, 31))
    lines = [each for each in found if each.stop is StopReason.LINE]
    assert {each.ids for each in lines} == {(31,), (30, 31), (30, 30, 31)}
    assert {each.ids for each in found} - {each.ids for each in lines} == {(30, 30, 30)}


@pytest.mark.parametrize("ended", [False, True])
def test_at_the_deadline_what_has_ended_is_the_answer_or_else_the_best_beginning(model, ended):
    allowed = among(30, 31, EMPTY) if ended else among(30, 31)
    found = search(model, control=Control(deadline=0.0), allowed=allowed)
    if ended:
        assert [(each.ids, each.stop) for each in found] == [((), StopReason.COMPLETE)]
    else:
        (beginning,) = found
        assert beginning.stop is StopReason.DEADLINE
        assert len(beginning.ids) == beginning.forwards == 1


def test_a_cancelled_search_ends_before_its_next_forward_and_leaves_the_cache(model):
    asked = []

    def cancelled():
        asked.append(None)
        return len(asked) > 2

    cache = fresh_cache(model)
    with torch.inference_mode():
        model.encode(PREFIX, cache)
    with pytest.raises(Cancelled):
        beams.fill(
            model, cache, HOLE, EVERYTHING, no_stop, Control(cancelled=cancelled),
            max_tokens=5, allowed=among(30, 31),
        )  # fmt: skip
    assert cache.ids == PREFIX


def test_drafts_are_the_best_text_so_far(model):
    drafts = []

    def on_draft(ids, forwards):
        drafts.append((tuple(ids), forwards))

    found = search(model, control=Control(on_draft=on_draft), allowed=among(30, 31, EMPTY))
    assert [forwards for _, forwards in drafts] == [1, 2, 3]
    assert drafts[-1][0] == found[0].ids


@pytest.mark.parametrize("field", ["width", "behind"])
def test_a_search_of_nothing_is_refused(field):
    with pytest.raises(ConfigError, match=f"{field} must be a number above 0, got 0"):
        BeamConfig(**{field: 0})

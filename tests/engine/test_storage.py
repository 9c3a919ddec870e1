"""Pages of a pool against buffers: the same is read, nothing leaks, nothing is given out twice."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import causal, infill, storage
from engine.cache import PrefixCache, PrefixStore
from engine.infill import Control
from engine.steps import Canvas
from engine.storage import PAGE, Pool, PoolExhausted
from tests.engine import tiny
from tests.engine.test_cache import make_config
from tests.engine.test_model import random_ids

CPU = torch.device("cpu")
WINDOW, BACK, MOST = 100, 40, 400
FULL, SLIDING = make_config(), make_config(WINDOW)
CONFIG = replace(FULL, layers=(*SLIDING.layers, *FULL.layers))


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Pages are NaN until they are written, and once nobody holds them."""
    give, take = Pool.give, Pool.take

    def given_back(self, pages):
        give(self, pages)
        wipe(self, [page for page in pages if not self._holders[page]])

    def taken(self, count):
        pages = take(self, count)
        wipe(self, pages)
        return pages

    def wipe(self, pages):
        for part in self.parts:
            part[:, :, pages] = torch.nan

    monkeypatch.setattr(Pool, "give", given_back)
    monkeypatch.setattr(Pool, "take", taken)


def make_pools(config=CONFIG, longest=MOST, rows=64, prefixes=1, back=BACK):
    one = storage.prefix_bytes(config, longest, rows, 4, back)
    return storage.allocate(
        config, longest, rows, CPU, torch.float32, nbytes=prefixes * one, back=back
    )


def accounts_are_true(pools, caches):
    """Each page is free, or held by as many prefixes as it knows of."""
    for window, pool in pools.items():
        held = Counter(page for cache in caches for page in cache._storages[window].pages)
        assert [held[page] for page in range(pool.count)] == pool._holders
        assert sorted([*held, *pool._free]) == list(range(pool.count))
        assert pool.used == len(held)


class Twins:
    """One prefix in pages and in buffers; whatever is done is done to both."""

    def __init__(self, paged: PrefixCache, plain: PrefixCache) -> None:
        self.paged, self.plain = paged, plain

    def forward(self, rows: int, seed: int) -> None:
        """Writes random keys behind the prefix; both show the same then."""
        drawn = torch.Generator().manual_seed(seed)
        for layer in range(len(self.paged._places)):
            keys, values = torch.randn(2, 1, 1, rows, 4, generator=drawn)
            pairs = [each.view_with(layer, keys, values) for each in (self.paged, self.plain)]
            for ours, theirs in zip(*pairs, strict=True):
                assert torch.equal(ours, theirs)

    def encode(self, rows: int, seed: int) -> None:
        self.forward(rows, seed)
        for each in (self.paged, self.plain):
            each.commit([seed % 97] * rows)

    def cut(self, length: int) -> None:
        self.paged.truncate(length)
        self.plain.truncate(length)

    def seal(self, rows: int, seed: int) -> None:
        length = self.paged.length
        self.encode(rows, seed)
        for kind in zip(self.paged.last(rows), self.plain.last(rows), strict=True):
            for ours, theirs in zip(*kind, strict=True):
                assert torch.equal(ours, theirs)
        self.cut(length)

    def agree(self) -> None:
        assert self.paged.ids == self.plain.ids
        for layer in range(len(self.paged._places)):
            for ours, theirs in zip(
                self.paged.visible(layer), self.plain.visible(layer), strict=True
            ):
                assert torch.equal(ours, theirs)

    def within(self, length: int) -> int:
        """A length near `length` to which both can be cut."""
        length = min(length, self.paged.length)
        return length if length >= max(self.paged.shortest, self.plain.shortest) else 0


ACTIONS = st.tuples(
    st.sampled_from(["encode", "canvas", "cut", "fork", "seal", "read", "drop", "rest"]),
    st.integers(0, 2),
    st.integers(1, 130),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ACTIONS, max_size=25))
def test_whatever_is_done_pages_read_like_buffers_and_none_leaks(actions):
    pools = make_pools(prefixes=5)

    def fresh() -> Twins:
        return Twins(
            PrefixCache(CONFIG, CPU, torch.float32, back=BACK, pools=pools),
            PrefixCache(CONFIG, CPU, torch.float32, back=BACK),
        )

    def act(action: str, place: int, number: int, seed: int) -> None:
        one, rows = twins[place], min(number, 64)
        length = one.within(one.paged.length - number // 3)
        if action == "encode" and one.paged.length + rows <= MOST:
            one.encode(rows, seed)
        elif action == "canvas":
            one.forward(rows, seed)
        elif action == "cut":
            one.cut(length)
        elif action == "fork":
            twins[(place + 1) % 3] = Twins(one.paged.fork(length), one.plain.fork(length))
        elif action == "seal":
            one.seal(min(rows, BACK), seed)
        elif action == "read" and one.paged.ids:
            with one.paged.without_last(), one.plain.without_last():
                one.agree()
        elif action == "drop":
            twins[place] = fresh()
        elif action == "rest":
            one.paged.convert(torch.float32)

    twins = [fresh() for _ in range(3)]
    for seed, (action, place, number) in enumerate(actions):
        act(action, place, number, seed)
        for twin in twins:
            twin.agree()
        accounts_are_true(pools, [twin.paged for twin in twins])
    twin = None
    twins.clear()
    accounts_are_true(pools, [])


def test_a_prefix_takes_no_more_pages_than_one_is_planned_for():
    pools = make_pools(longest=2000, back=BACK)
    cache = PrefixCache(CONFIG, CPU, torch.float32, back=BACK, pools=pools)
    twins = Twins(cache, PrefixCache(CONFIG, CPU, torch.float32, back=BACK))
    for seed, rows in enumerate([1, 64, 63, 20] * 13):
        twins.encode(rows, seed)
        twins.forward(64, seed)
        assert cache.nbytes <= sum(pool.count * pool.page_bytes for pool in pools.values())
    assert cache.length > 1900


def test_a_fork_shares_its_pages_until_one_of_both_is_written_to():
    pools = make_pools(FULL, prefixes=2)
    [pool] = pools.values()
    cache = PrefixCache(FULL, CPU, torch.float32, pools=pools)
    twins = Twins(cache, PrefixCache(FULL, CPU, torch.float32))
    twins.encode(3 * PAGE - 10, seed=1)
    fork = Twins(cache.fork(3 * PAGE - 10), twins.plain.fork(3 * PAGE - 10))
    assert pool.used == 3
    fork.encode(5, seed=2)
    assert pool.used == 4, "only the last page is copied"
    twins.encode(5, seed=3)
    assert pool.used == 4, "it belongs to one alone now"
    fork.agree()
    twins.agree()


def test_what_is_cut_gives_its_pages_back():
    pools = make_pools(FULL)
    [pool] = pools.values()
    cache = PrefixCache(FULL, CPU, torch.float32, pools=pools)
    Twins(cache, PrefixCache(FULL, CPU, torch.float32)).encode(3 * PAGE, seed=1)
    for length, pages in ((2 * PAGE + 1, 3), (2 * PAGE, 2), (1, 1), (0, 0)):
        cache.truncate(length)
        assert pool.used == pages


def test_a_full_pool_says_what_would_help():
    pools = make_pools(FULL, longest=PAGE, rows=PAGE)
    cache = PrefixCache(FULL, CPU, torch.float32, pools=pools)
    twins = Twins(cache, PrefixCache(FULL, CPU, torch.float32))
    twins.encode(2 * PAGE, seed=1)
    said = r"2 pages hold 128 tokens; ask with less of it, or .* --max-prompt-tokens N"
    with pytest.raises(PoolExhausted, match=said):
        twins.encode(1, seed=2)
    assert cache.length == 2 * PAGE, "nothing is lost"
    twins.cut(PAGE)
    twins.encode(PAGE, seed=3)


def test_the_oldest_prefixes_go_where_no_page_is_free():
    pools = make_pools(longest=MOST, rows=64, back=storage.BACK)
    store = PrefixStore(CONFIG, CPU, torch.float32, max_prefixes=8, max_bytes=1 << 30, pools=pools)

    def encode(first: int, count: int) -> PrefixCache:
        ids = [first] + [7] * (count - 1)
        cache = store.lookup(ids)
        twins = Twins(cache, PrefixCache(CONFIG, CPU, torch.float32))
        for start in range(0, count, 50):
            twins.forward(50, start)
            cache.commit(ids[start : start + 50])
            twins.plain.commit(ids[start : start + 50])
        return cache

    for first in range(4):
        encode(first, 50)
    assert len(store) == 4
    whole = encode(9, MOST)
    assert whole.length == MOST
    assert store.lookup([9] + [7] * (MOST - 1)) is whole
    assert 1 <= len(store) < 4
    assert store.nbytes <= sum(pool.count * pool.page_bytes for pool in pools.values())
    accounts_are_true(pools, store._caches)
    store.clear()
    del whole
    assert store.nbytes == 0
    accounts_are_true(pools, [])


def test_a_shared_page_is_no_longer_copied_once_the_other_holder_had_to_go():
    """A pool as large as one prefix, all of it shared: there is no page for a copy."""
    pools = make_pools(FULL, longest=PAGE, rows=PAGE)
    store = PrefixStore(FULL, CPU, torch.float32, max_prefixes=8, max_bytes=1 << 30, pools=pools)
    ids = list(range(2 * PAGE - 5))
    cache = store.lookup(ids)
    Twins(cache, PrefixCache(FULL, CPU, torch.float32)).forward(len(ids), seed=1)
    cache.commit(ids)
    fork = store.lookup([*ids[: PAGE + 3], 99], fork_above=8)
    assert fork is not cache and len(store) == 2
    del cache
    keys = torch.ones(1, 1, 1, 4)
    fork.view_with(0, keys, keys)
    assert len(store) == 1
    accounts_are_true(pools, store._caches)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """All kinds of layers in small."""
    return {
        "gemma": tiny.diffusion_gemma(tmp_path_factory.mktemp("gemma"), seed=3).ours,
        "llama": tiny.llama(tmp_path_factory.mktemp("llama"), seed=3).ours,
    }


@pytest.mark.parametrize("name", ["gemma", "llama"])
@pytest.mark.parametrize("length", [1, 7, PAGE - 1, PAGE, 3 * PAGE + 5])
@torch.inference_mode()
def test_a_model_reads_pages_exactly_as_it_reads_buffers(models, name, length):
    model = models[name]
    pools = make_pools(model.config, longest=300, rows=64, prefixes=3, back=16)
    caches = [
        PrefixCache(model.config, CPU, torch.float32, back=16, pools=each) for each in (pools, None)
    ]

    def same(run) -> None:
        ours, theirs = (run(cache) for cache in caches)
        assert torch.equal(torch.as_tensor(ours), torch.as_tensor(theirs))

    ids, control = random_ids(length, seed=1), Control()
    same(lambda cache: causal.encode(model, cache, ids, 50, control))
    same(lambda cache: model.encode([5], cache, shift=9, sees=cache.length))
    for cache in caches:
        cache.truncate(length)
    texts = [random_ids(n, seed=n) for n in (3, 9)]
    same(lambda cache: torch.cat(causal.read(model, cache, texts)))
    same(lambda cache: torch.cat(causal.read(model, cache, texts[:1])))
    if model.config.canvas:
        sizes = (20, 9, 3)
        canvas = torch.tensor([random_ids(sum(sizes), seed=2)])
        same(lambda cache: model.canvas(canvas, cache, None, sizes=sizes))
    forks = [cache.fork(length) for cache in caches]
    same(lambda cache: model.encode(random_ids(12, seed=3), cache))
    caches[:] = forks
    same(lambda cache: model.encode(random_ids(30, seed=4), cache))
    same(lambda cache: infill.encoded_suffix(model, cache, SEALED).keys[-1])
    same(lambda cache: model.encode([5], cache))


SEALED = Canvas(hole=6, clamped=(11, 12, 13))

"""The prefix cache, in buffers and in pages: what is shared, what is cut, what is dropped, what it costs."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine import kernels, storage
from engine.cache import PrefixCache, PrefixStore, Suffix, common_prefix_length
from engine.config import AttentionConfig, ModelConfig
from engine.storage import BACK

CPU = torch.device("cpu")


def make_config(window: int | None = None) -> ModelConfig:
    layer = AttentionConfig(heads=2, kv_heads=1, head_dim=4, window=window, rotary_dim=4)
    return ModelConfig(
        family="llama",
        vocab_size=100,
        hidden_size=8,
        intermediate_size=8,
        layers=(layer, layer),
        activation="silu",
        norm_eps=1e-5,
        post_norms=False,
        qkv_norms=False,
        layer_scalars=False,
        attention_scale=0.5,
        embedding_scale=1.0,
        logit_softcap=None,
        tied_head=True,
        canvas=None,
        max_positions=4096,
    )


def make_cache(kept: str = "buffers", window: int | None = None, back: int = BACK) -> PrefixCache:
    """An empty one, in `buffers` of its own or in `pages`."""
    config = make_config(window)
    pools = None
    if kept == "pages":
        pools = storage.allocate(config, 5000, 100, CPU, torch.float32, back=back)
    return PrefixCache(config, CPU, torch.float32, back=back, pools=pools)


both = pytest.mark.parametrize("kept", ["buffers", "pages"])


def fill(cache: PrefixCache, ids: list[int]) -> None:
    """Writes keys that tell their token: key = id, value = -id, in both layers."""
    keys = torch.tensor(ids, dtype=torch.float32)[None, None, :, None].expand(1, 1, -1, 4)
    for layer in range(2):
        cache.view_with(layer, keys, -keys)
    cache.commit(ids)


def stored(cache: PrefixCache) -> list[int]:
    empty = torch.empty(1, 1, 0, 4)
    keys, values = cache.view_with(1, empty, empty)
    assert torch.equal(keys, -values)
    return keys[0, 0, :, 0].round().int().tolist()


def make_store(
    max_prefixes: int = 4,
    max_bytes: int = 1 << 30,
    at_rest: torch.dtype | None = None,
    window: int | None = None,
    kept: str = "buffers",
) -> PrefixStore:
    return PrefixStore(
        make_config(window),
        CPU,
        torch.float32,
        at_rest=at_rest,
        max_prefixes=max_prefixes,
        max_bytes=max_bytes,
        pools=make_cache(kept, window).pools,
    )


@both
def test_what_is_committed_is_what_is_seen(kept):
    cache = make_cache(kept)
    fill(cache, [1, 2, 3])
    fill(cache, list(range(4, 400)))  # grows the buffers
    assert stored(cache) == list(range(1, 400))


@both
def test_a_canvas_is_seen_but_not_kept(kept):
    cache = make_cache(kept)
    fill(cache, [1, 2])
    canvas = torch.full((1, 1, 3, 4), 9.0)
    keys, _ = cache.view_with(0, canvas, canvas)
    assert keys[0, 0, :, 0].tolist() == [1, 2, 9, 9, 9]
    assert stored(cache) == [1, 2]


@both
def test_several_canvases_see_the_same_prefix(kept):
    cache = make_cache(kept)
    fill(cache, [1, 2])
    canvases = torch.tensor([7.0, 8.0])[:, None, None, None].expand(2, 1, 2, 4)
    keys, _ = cache.view_with(0, canvases, canvases)
    assert keys[:, 0, :, 0].tolist() == [[1, 2, 7, 7], [1, 2, 8, 8]]


@both
def test_a_sliding_layer_shows_window_minus_one_prefix_tokens_and_keeps_more(kept):
    cache = make_cache(kept, window=4)
    fill(cache, list(range(1, 11)))
    assert stored(cache) == [8, 9, 10]
    cache.truncate(5)
    assert stored(cache) == [3, 4, 5]


@both
@given(
    edits=st.lists(
        st.tuples(st.integers(0, 12), st.lists(st.integers(1, 99), max_size=9)), max_size=8
    )
)
def test_cut_and_extended_anywhere_it_equals_the_plain_list(kept, edits):
    cache, model = make_cache(kept), []
    for keep, added in edits:
        keep = min(keep, len(model))
        cache.truncate(keep)
        fill(cache, added)
        model = model[:keep] + added
        assert cache.ids == model
        assert stored(cache) == model


@both
@given(
    edits=st.lists(
        st.tuples(st.integers(0, 30), st.lists(st.integers(1, 99), max_size=30)), max_size=12
    )
)
def test_a_sliding_layer_that_forgets_still_shows_its_window(kept, edits):
    window, back = 5, 3
    cache = make_cache(kept, window, back)
    model = []
    for cut, added in edits:
        keep = max(0, len(model) - cut)
        if keep < cache.shortest:
            assert len(model) - keep > back, "what was typed last can always be cut off"
            keep = 0
        cache.truncate(keep)
        fill(cache, added)
        model = model[:keep] + added
        assert cache.ids == model
        assert stored(cache) == model[-(window - 1) :]
        if model:
            copy = cache.fork(max(cache.shortest, len(model) - back))
            assert stored(copy) == copy.ids[-(window - 1) :]


@both
def test_a_sliding_layer_takes_no_more_memory_than_its_bound(kept):
    cache = make_cache(kept, window=100)
    per_slot = 2 * 2 * 4 * 4  # layers, keys and values, head_dim, bytes
    # 100 + 2 · 256 + 60, in slots of 64; 99 + 256 + 63 + 60, in pages of 64.
    most = per_slot * {"buffers": 704, "pages": 8 * 64}[kept]
    for start in range(0, 6000, 60):
        fill(cache, list(range(start, start + 60)))
        assert cache.nbytes <= most
    if kept == "buffers":
        assert cache.nbytes == most
    else:
        assert storage.most_pages(100, 6000, 60) == 8


@both
def test_a_prefix_that_sliding_layers_no_longer_remember_is_not_found(kept):
    store = make_store(window=4, kept=kept)
    ids = [i % 97 for i in range(3000)]
    cache = store.lookup(ids)
    for start in range(0, 3000, 100):
        fill(cache, ids[start : start + 100])
    assert store.lookup([*ids[:2900], 98], fork_above=200) is cache
    assert store.lookup([*ids[:1000], 98]).ids == []


@both
def test_a_request_keeps_what_it_shares_with_an_earlier_one(kept):
    store = make_store(kept=kept)
    fill(store.lookup([1, 2, 3, 4]), [1, 2, 3, 4])
    cache = store.lookup([1, 2, 3, 7, 8])
    assert cache.ids == [1, 2, 3]
    assert len(store) == 1


@both
def test_returning_to_another_file_finds_its_prefix_again(kept):
    store = make_store(kept=kept)
    first, second = list(range(1, 90)), [1, *range(50, 99)]
    fill(store.lookup(first), first)
    other = store.lookup(second)
    assert other.ids == [1]
    fill(other, second[1:])
    assert store.lookup(first).ids == first
    assert store.lookup(second).ids == second
    assert stored(store.lookup(second)) == second
    assert len(store) == 2


@pytest.mark.parametrize("at_rest", [None, torch.float32, torch.bfloat16, torch.int8])
def test_a_prefix_comes_back_as_exact_as_it_was_kept_at_rest(at_rest):
    store = make_store(at_rest=at_rest)
    values = torch.randn(1, 1, 90, 4)
    cache = store.lookup(range(90))
    for layer in range(2):
        cache.view_with(layer, values, -values)
    cache.commit(range(90))
    in_use = cache.nbytes
    other = store.lookup([99])
    rounds = at_rest in (torch.bfloat16, torch.int8)
    share = (
        90 / 128 / 2 if rounds else 1
    )  # half of what is not spare: int8 has a scale for four values
    assert store.nbytes - other.nbytes == in_use * share
    assert store.lookup(range(90)) is cache
    keys, _ = cache.visible(1)
    assert keys.dtype is torch.float32
    rounded = values[0].to(at_rest or torch.float32).float()
    if at_rest is torch.int8:
        rows, unit = kernels.quantize_rows(values[0])
        rounded = rows * unit
    torch.testing.assert_close(keys, rounded, rtol=0, atol=0)
    fill(cache, [7])
    assert stored(cache)[-1] == 7


def test_all_rest_while_nobody_asks():
    store = make_store(at_rest=torch.int8)
    fill(store.lookup(range(90)), list(range(90)))
    fill(store.lookup([99]), [99])
    in_use = store.nbytes
    store.rest()
    assert store.nbytes < in_use
    assert stored(store.lookup([99])) == [99]
    assert stored(store.lookup(range(90))) == list(range(90))


def test_a_sealed_suffix_rests_with_its_prefix():
    store = make_store(at_rest=torch.int8)
    cache = store.lookup(range(90))
    fill(cache, list(range(90)))
    whole = (torch.full((1, 1, 3, 4), 1 / 3),) * 2
    cache.suffix = Suffix(ids=(7, 8, 9), sees=80, room=32, keys=whole, values=whole)
    store.rest()
    assert {part.dtype for part in (*cache.suffix.keys, *cache.suffix.values)} == {torch.bfloat16}
    suffix = store.lookup(range(90)).suffix
    assert (suffix.ids, suffix.sees, suffix.room) == ((7, 8, 9), 80, 32)
    for part in (*suffix.keys, *suffix.values):
        torch.testing.assert_close(part, whole[0], rtol=2**-8, atol=0)


@pytest.mark.parametrize("at_rest", [torch.bfloat16, torch.int8])
def test_a_fork_leaves_what_it_was_taken_from_at_rest(at_rest):
    store = make_store(at_rest=at_rest)
    ids = list(range(90))
    fill(store.lookup(ids), ids)
    fork = store.lookup([*ids[:10], 95])
    assert stored(fork) == ids[:10]
    assert stored(store.lookup(ids)) == ids


def test_the_longest_shared_prefix_wins():
    store = make_store()
    fill(store.lookup([1, 2]), [1, 2])
    longer = store.lookup([5, 6, 7])
    fill(longer, [5, 6, 7])
    assert store.lookup([5, 6, 9]).ids == [5, 6]


def test_the_least_recently_used_prefix_goes_first():
    store = make_store(max_prefixes=2)
    for start in (10, 20, 30):
        fill(store.lookup([start, start + 1]), [start, start + 1])
        store.lookup([10, 11])
    assert store.lookup([10, 11]).ids == [10, 11]
    assert store.lookup([20, 21]).ids == []


def test_memory_stays_within_its_bound_but_the_newest_prefix_stays():
    store = make_store(max_prefixes=50, max_bytes=100_000)
    for start in range(20):
        ids = [start] * 300
        fill(store.lookup(ids), ids)
        store.trim()
        assert store.nbytes <= 100_000
    assert 1 <= len(store) < 20
    big = [77] * 4000
    cache = store.lookup(big)
    fill(cache, big)
    store.trim()
    assert len(store) == 1
    assert store.lookup(big) is cache


@both
def test_a_fork_is_independent_of_its_origin(kept):
    cache = make_cache(kept)
    fill(cache, [1, 2, 3])
    copy = cache.fork(2)
    fill(copy, [9])
    assert stored(cache) == [1, 2, 3]
    assert stored(copy) == [1, 2, 9]


@pytest.mark.parametrize("length", [-1, 4])
def test_cutting_to_an_impossible_length_is_refused(length):
    cache = make_cache()
    fill(cache, [1, 2, 3])
    with pytest.raises(AssertionError, match=f"cannot cut 3 tokens to {length}"):
        cache.truncate(length)


def test_cutting_to_what_sliding_layers_have_forgotten_is_refused():
    cache = make_cache(window=5, back=2)
    fill(cache, list(range(1, 11)))
    fill(cache, [11])
    with pytest.raises(AssertionError, match=r"cannot go back to 6 .* remember from 7 on"):
        cache.truncate(6)


@both
@pytest.mark.parametrize("length", [65, 128])
def test_the_last_token_is_taken_off_and_what_it_wrote_stays(kept, length):
    ids = list(range(length))
    cache = make_cache(kept)
    fill(cache, ids)
    with cache.without_last() as last:
        assert last == [length - 1] and cache.ids == ids[:-1]
        keys, _ = cache.visible(0)
        assert keys[0, :, 0].tolist() == ids[:-1]
    assert stored(cache) == ids


def test_without_a_token_there_is_none_to_take_off():
    with pytest.raises(AssertionError, match="nothing stands before"), make_cache().without_last():
        pass


def test_common_prefix_length():
    assert common_prefix_length([], [1]) == 0
    assert common_prefix_length([1, 2, 3], (1, 2, 4)) == 2
    assert common_prefix_length([1, 2], [1, 2, 3]) == 2

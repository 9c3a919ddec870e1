"""The model against transformers on tiny random configurations: fp32, CPU, tight tolerances."""

from dataclasses import replace

import pytest
import torch
from transformers import DynamicCache

from engine.attention import Branch
from engine.cache import PrefixCache
from engine.kernels import reference
from engine.model import Transformer
from tests.engine import tiny

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def gemma(tmp_path_factory) -> tiny.Pair:
    return tiny.diffusion_gemma(tmp_path_factory.mktemp("gemma"), seed=3)


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> tiny.Pair:
    return tiny.llama(tmp_path_factory.mktemp("llama"), seed=4)


def fresh_cache(model: Transformer) -> PrefixCache:
    return PrefixCache(model.config, CPU, torch.float32)


def random_ids(count: int, seed: int) -> list[int]:
    return torch.randint(
        tiny.VOCAB, (count,), generator=torch.Generator().manual_seed(seed)
    ).tolist()


def reference_encoding(pair: tiny.Pair, ids: list[int]):
    """Hidden states and cache of the reference's encoder."""
    reference = pair.reference
    cache = DynamicCache(config=reference.config.get_text_config(decoder=True))
    with torch.no_grad():
        out = reference.model.encoder(input_ids=torch.tensor([ids]), past_key_values=cache)
    return out.last_hidden_state, out.past_key_values


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


# Shorter than the window, exactly the window, and several windows long.
@pytest.mark.parametrize("length", [1, 5, tiny.WINDOW, 37])
def test_encoder_states_and_keys_equal_the_reference(gemma, length):
    ids = random_ids(length, seed=length)
    theirs, their_cache = reference_encoding(gemma, ids)
    cache = fresh_cache(gemma.ours)
    with torch.inference_mode():
        ours = gemma.ours.encode(ids, cache)
    assert_close(ours, theirs)
    for layer, config in enumerate(gemma.config.layers):
        keys = their_cache.layers[layer].keys[0]
        values = their_cache.layers[layer].values[0]
        first = 0 if config.window is None else max(0, length - (config.window - 1))
        assert keys.shape[1] == length - first
        ours_k, ours_v = cache.visible(layer)
        assert_close(ours_k, keys)
        assert_close(ours_v, values)


@pytest.mark.parametrize("length", [1, 5, tiny.WINDOW, 37])
@pytest.mark.parametrize("conditioned", [False, True])
def test_canvas_logits_equal_the_reference(gemma, length, conditioned):
    ids, canvas = random_ids(length, seed=50 + length), random_ids(tiny.CANVAS, seed=9)
    previous = torch.randn(1, tiny.CANVAS, tiny.VOCAB, generator=torch.Generator().manual_seed(2))
    _, their_cache = reference_encoding(gemma, ids)
    with torch.no_grad():
        theirs = gemma.reference(
            past_key_values=their_cache,
            decoder_input_ids=torch.tensor([canvas]),
            self_conditioning_logits=previous if conditioned else None,
        ).logits
    cache = fresh_cache(gemma.ours)
    with torch.inference_mode():
        gemma.ours.encode(ids, cache)
        soft = gemma.ours.soft_embedding(previous.softmax(-1)) if conditioned else None
        ours = gemma.ours.logits(gemma.ours.canvas(torch.tensor([canvas]), cache, soft))
    assert_close(ours, theirs)
    assert cache.length == length, "a canvas never enters the cache"


@pytest.mark.parametrize("chunk", [1, 3, 8, 20])
def test_chunked_prefill_equals_one_shot(gemma, chunk):
    ids = random_ids(37, seed=1)
    theirs, _ = reference_encoding(gemma, ids)
    cache = fresh_cache(gemma.ours)
    with torch.inference_mode():
        parts = [gemma.ours.encode(ids[i : i + chunk], cache) for i in range(0, len(ids), chunk)]
    assert_close(torch.cat(parts, 1), theirs)


def test_a_cache_whose_sliding_layers_forget_equals_one_that_keeps_all(gemma):
    ids, canvas = random_ids(90, seed=5), torch.tensor([random_ids(tiny.CANVAS, seed=7)])
    small, whole = PrefixCache(gemma.config, CPU, torch.float32, back=4), fresh_cache(gemma.ours)
    with torch.inference_mode():
        expected = gemma.ours.encode(ids, whole)
        parts = [gemma.ours.encode(ids[i : i + 7], small) for i in range(0, 90, 7)]
        assert_close(torch.cat(parts, 1), expected)
        small.truncate(86)
        gemma.ours.encode(ids[86:], small)
        assert small.shortest > 70
        assert_close(gemma.ours.canvas(canvas, small, None), gemma.ours.canvas(canvas, whole, None))


@pytest.mark.parametrize("kept", [0, 3, tiny.WINDOW, 30])
def test_truncated_and_extended_cache_equals_a_fresh_one(gemma, kept):
    old, new = random_ids(40, seed=5), random_ids(21, seed=6)
    canvas = torch.tensor([random_ids(tiny.CANVAS, seed=7)])
    used, fresh = fresh_cache(gemma.ours), fresh_cache(gemma.ours)
    with torch.inference_mode():
        gemma.ours.encode(old, used)
        gemma.ours.canvas(canvas, used, None)  # leaves scratch keys behind the prefix
        used.truncate(kept)
        reused = gemma.ours.encode(new, used)
        expected = gemma.ours.encode(old[:kept] + new, fresh)[:, kept:]
        assert_close(reused, expected)
        assert_close(gemma.ours.canvas(canvas, used, None), gemma.ours.canvas(canvas, fresh, None))


def test_several_canvases_over_one_prefix_equal_each_alone(gemma):
    canvases = torch.tensor([random_ids(tiny.CANVAS, seed=s) for s in (1, 2, 3)])
    cache = fresh_cache(gemma.ours)
    with torch.inference_mode():
        gemma.ours.encode(random_ids(20, seed=8), cache)
        together = gemma.ours.canvas(canvases, cache, None)
        alone = [gemma.ours.canvas(canvas[None], cache, None) for canvas in canvases]
    assert_close(together, torch.cat(alone))


def test_branches_equal_each_continuation_encoded_alone(llama):
    model = llama.ours
    prefix = random_ids(40, seed=21)
    starts = [40, 33, 12, 0, 40]
    texts = [random_ids(n, seed=22 + n) for n in (5, 1, 9, 4, 2)]
    places = [torch.arange(start, start + len(t)) for start, t in zip(starts, texts, strict=True)]
    causal = [
        Branch(start, torch.ones(len(t), len(t), dtype=torch.bool).tril())
        for start, t in zip(starts, texts, strict=True)
    ]
    cache = fresh_cache(model)
    with torch.inference_mode():
        model.encode(prefix, cache)
        ids = torch.tensor([token for t in texts for token in t])
        together = model.branches(ids, torch.cat(places), cache, causal)
        assert cache.ids == prefix
        for t, start, hidden in zip(
            texts, starts, together.split([len(t) for t in texts]), strict=True
        ):
            alone = fresh_cache(model)
            expected = model.encode(prefix[:start] + t, alone)[0, start:]
            assert_close(hidden, expected)


@pytest.mark.parametrize(
    "changes", [{}, {"tie_word_embeddings": False}, {"head_dim": 16}, {"num_key_value_heads": 6}]
)
def test_llama_logits_equal_the_reference(tmp_path, changes):
    pair = tiny.llama(tmp_path, seed=11, **changes)
    ids = random_ids(23, seed=12)
    with torch.inference_mode():
        theirs = pair.reference(torch.tensor([ids])).logits
        cache = fresh_cache(pair.ours)
        hidden = torch.cat([pair.ours.encode(ids[:9], cache), pair.ours.encode(ids[9:], cache)], 1)
        assert_close(pair.ours.logits(hidden), theirs)


def test_bfloat16_stays_near_float32(llama):
    ids = random_ids(20, seed=13)
    low = Transformer(llama.config).to(torch.bfloat16)
    low.load_state_dict(llama.ours.state_dict())
    with torch.inference_mode():
        expected = llama.ours.encode(ids, fresh_cache(llama.ours))
        ours = low.encode(ids, PrefixCache(llama.config, CPU, torch.bfloat16)).float()
    assert torch.nn.functional.cosine_similarity(ours, expected, dim=-1).min() > 0.99


def test_soft_embeddings_of_all_tokens_are_the_dense_ones(gemma, monkeypatch):
    """And those of a few leave the others out."""
    model, scores = gemma.ours, torch.randn(1, 5, tiny.VOCAB)

    def embedded(few, scores):
        own = replace(model.config.canvas, soft_tokens=few)
        monkeypatch.setattr(model, "config", replace(model.config, canvas=own))
        with torch.inference_mode():
            return model.soft_embedding(scores.softmax(-1))

    dense = embedded(None, scores)
    for count in (tiny.VOCAB, 2 * tiny.VOCAB):
        torch.testing.assert_close(embedded(count, scores), dense, rtol=1e-4, atol=1e-4)
    rest = scores < scores.topk(3, dim=-1).values[..., -1:]
    few = embedded(None, scores.masked_fill(rest, -torch.inf))
    torch.testing.assert_close(embedded(3, scores), few, rtol=1e-4, atol=1e-4)
    assert (few - dense).abs().max() > 0.1


@pytest.mark.parametrize("rows", [16, 17, 300])
def test_attention_some_rows_at_a_time_is_attention(monkeypatch, rows):
    q, k, v = (torch.randn(1, *shape) for shape in ((50, 4, 16), (2, 70, 16), (2, 70, 16)))
    mask = torch.rand(50, 70) > 0.3
    mask[:, 0] = True
    whole = reference.attention(q, k, v, None, mask)
    monkeypatch.setattr(reference, "_SCORES", rows * 4 * 70)
    assert reference.attention_rows(4, 70) == rows
    torch.testing.assert_close(reference.attention(q, k, v, None, mask), whole)

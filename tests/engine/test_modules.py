"""The parts of a layer, one by one, against transformers' modules on the same weights."""

import pytest
import torch

from engine import kernels, storage
from engine.attention import Canvases
from engine.cache import PrefixCache
from engine.kernels import reference
from engine.modules import ALL
from tests.engine import tiny
from tests.engine.test_model import random_ids

SLIDING, FULL = 0, 5  # layers with heads of 16 and of 32 dims
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tiny.Pair:
    return tiny.diffusion_gemma(tmp_path_factory.mktemp("gemma"), seed=5)


def layers(pair, index):
    """Ours and theirs."""
    return pair.ours.layers[index], pair.reference.model.decoder.layers[index]


def rows(*shape, seed=1):
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 17])
@torch.inference_mode()
def test_the_router_chooses_the_same_experts_with_the_same_weights(pair, count):
    (ours, theirs), x = layers(pair, SLIDING), rows(count, tiny.TEXT["hidden_size"])
    weights, indices = ours.router(x)
    _, expected, expected_indices = theirs.router(x)
    assert indices.tolist() == expected_indices.tolist()
    close(weights, expected)


@pytest.mark.parametrize("count", [1, 17])
@torch.inference_mode()
def test_experts_add_up_to_the_same(pair, count):
    (ours, theirs), x = layers(pair, FULL), rows(count, tiny.TEXT["hidden_size"])
    weights, indices = ours.router(x)
    close(ours.experts(x, weights, indices).sum(-2), theirs.experts(x, indices, weights))


@torch.inference_mode()
def test_the_dense_mlp_is_the_same(pair):
    (ours, theirs), x = layers(pair, FULL), rows(1, 7, tiny.TEXT["hidden_size"])
    close(ours.mlp(x, ALL), theirs.mlp(x))


@torch.inference_mode()
def test_norms_are_the_same_with_and_without_weight(pair):
    (ours, theirs), x = layers(pair, SLIDING), rows(1, 7, tiny.TEXT["hidden_size"])
    close(ours.input_layernorm(x), theirs.input_layernorm(x))
    close(kernels.rms_norm(x, None, 1e-6), theirs.router.norm(x))


@torch.inference_mode()
def test_self_conditioning_is_the_same(pair):
    embedded, soft = (rows(1, 7, tiny.TEXT["hidden_size"], seed=seed) for seed in (1, 2))
    theirs = pair.reference.model.decoder.self_conditioning
    close(pair.ours.self_conditioning(embedded, soft), theirs(embedded, soft))


@pytest.mark.parametrize("index", [SLIDING, FULL])
@pytest.mark.parametrize("prefix", [1, tiny.WINDOW - 1])
@torch.inference_mode()
def test_canvas_attention_is_the_same_with_heads_of_both_sizes(pair, index, prefix):
    """Through the module, and through the operation that kernels are the twins of."""
    ours, theirs = (layer.self_attn for layer in layers(pair, index))
    ids, x = random_ids(prefix, seed=3), rows(1, 9, tiny.TEXT["hidden_size"])
    encoded = pair.reference.model.encoder(input_ids=torch.tensor([ids]), use_cache=True)
    pools = tiny.pools(pair.ours)
    cache = PrefixCache(pair.config, CPU, torch.float32, pools=pools)
    pair.ours.encode(ids, cache)
    places = torch.arange(prefix, prefix + x.shape[1])[None]
    rotary = pair.reference.model.decoder.rotary_emb(x, places, theirs.layer_type)
    expected, _ = theirs(x, rotary, None, encoded.past_key_values)

    sight = Canvases([x.shape[1]], [None], CPU, x.dtype, cache)
    close(ours(x, sight, index), expected)

    q, k, v = ours._inputs(x, True)
    norms = ours.q_norm.weight, ours.k_norm.weight
    q, k, v = reference.prepare_heads(q, k, v, *norms, *sight.rotary(ours.shape), ours.eps)
    window, number = storage.places(pair.config)[index]
    pages, *bounds = cache.pages(window)
    table, bounds = (torch.tensor(numbers, dtype=torch.int32) for numbers in (pages, bounds))
    own = k.transpose(1, 2), v.transpose(1, 2)
    stored = pools[window].parts[number]
    out = reference.canvas_attention(q, *stored, table, bounds, *own, ours.scale)
    close(ours.o_proj(out.flatten(2), True), expected)

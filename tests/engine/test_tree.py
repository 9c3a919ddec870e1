"""Texts that share beginnings, each token encoded once, against each text encoded alone."""

from dataclasses import replace

import pytest
import torch

from engine.model import Transformer
from engine.tree import Tree
from tests.engine.test_cache import make_config
from tests.engine.test_masked_canvas import make_model
from tests.engine.test_model import fresh_cache

PREFIX = list(range(10, 40))
TEXTS = [(50, 51, 52), (50, 51, 60), (50, 70), (80,), (80, 81, 82, 83)]


def prefixed(model):
    cache = fresh_cache(model)
    with torch.inference_mode():
        model.encode(PREFIX, cache)
    return cache


def alone(model, ids, **how):
    """The state of the last of `ids`, which follow the prefix."""
    with torch.inference_mode():
        return model.encode(ids, prefixed(model), **how)[0, -1]


@pytest.mark.parametrize("how", [{}, {"shift": -7, "on_canvas": True}])
def test_each_text_has_the_states_it_has_alone(how):
    model = make_model(shifted=True, sealed=True, rank=2)
    cache = prefixed(model)
    with torch.inference_mode():
        tree = Tree(model, cache, **how)
        first = tree.encode(TEXTS[:3])
        second = tree.encode(TEXTS[3:])
    for ids, state in zip(TEXTS, torch.cat((first, second)), strict=True):
        torch.testing.assert_close(state, alone(model, ids, **how), atol=1e-5, rtol=1e-4)
    once = {ids[:end] for ids in TEXTS[:3] for end in range(1, len(ids) + 1)}
    assert cache.length == len(PREFIX) + len(once), "what was encoded last is not committed"


@pytest.mark.parametrize("window", [2, 4, 8])
def test_a_sliding_layer_sees_its_window_of_each_text(window):
    torch.manual_seed(3)
    model = Transformer(make_config(window)).eval()
    sees_all, sliding = make_config().layers[0], make_config(window).layers[0]
    model = Transformer(replace(model.config, layers=(sliding, sees_all))).eval()
    with torch.inference_mode():
        states = Tree(model, prefixed(model)).encode(TEXTS)
    for ids, state in zip(TEXTS, states, strict=True):
        torch.testing.assert_close(state, alone(model, ids), atol=1e-5, rtol=1e-4)


def test_a_text_is_encoded_behind_those_it_begins_with(monkeypatch):
    model = make_model(shifted=True, sealed=True)
    rows = []
    tree = Transformer.tree

    def spy(self, ids, *place, **how):
        rows.append(list(ids))
        return tree(self, ids, *place, **how)

    monkeypatch.setattr(Transformer, "tree", spy)
    with torch.inference_mode():
        texts = Tree(model, prefixed(model))
        texts.encode([(50, 51)])
        texts.encode([(50, 51, 52), (50, 51, 53, 54)])
    assert rows == [[50, 51], [52, 53, 54]]

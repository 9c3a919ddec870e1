"""The embedded model: our forward against transformers' Llama on its real weights."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from engine import causal
from engine.cache import PrefixCache
from engine.errors import EngineError
from engine.infill import Control
from engine.pull import resolve_model
from engine.runtime import load_model
from engine.tokenizer import Tokenizer

CODE = Path(__file__).with_name("test_cache.py").read_text(encoding="utf-8")[:2400]


@pytest.fixture(scope="module")
def directory() -> Path:
    try:
        return resolve_model("smollm2-135m")
    except EngineError:
        subprocess.run([sys.executable, "-m", "engine.pull", "smollm2-135m"], check=True)
        return resolve_model("smollm2-135m")


def test_logits_and_greedy_text_equal_transformers(directory):
    reference = LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    ours = load_model(directory, dtype=torch.float32, device=torch.device("cpu"))
    tokenizer = Tokenizer.from_directory(directory)
    ids = tokenizer.encode(CODE)[:160]
    cache = PrefixCache(ours.config, torch.device("cpu"), torch.float32)
    with torch.inference_mode():
        theirs = reference(torch.tensor([ids])).logits
        hidden = ours.encode(ids, cache)
        torch.testing.assert_close(ours.logits(hidden), theirs, rtol=1e-3, atol=1e-3)
        continued = reference.generate(
            torch.tensor([ids]), max_new_tokens=24, do_sample=False, eos_token_id=None
        )
    filled = causal.decode(ours, cache, hidden, 24, lambda ids: None, Control())
    expected = tokenizer.decode(continued[0, len(ids) :].tolist())
    assert tokenizer.decode(filled.ids) == expected
    assert len(expected.strip()) > 20, "the real model writes real text"


def test_the_model_knows_code(directory):
    ours = load_model(directory, dtype=torch.float32, device=torch.device("cpu"))
    tokenizer = Tokenizer.from_directory(directory)
    ids = tokenizer.encode(CODE)[:400]
    cache = PrefixCache(ours.config, torch.device("cpu"), torch.float32)
    hidden = causal.encode(ours, cache, ids[:16], 16, Control())
    scores = causal.score(ours, cache, hidden, ids[16:])
    assert float(-scores.mean()) < 3.0, "a wrong layout of the weights gives about 11 nats"

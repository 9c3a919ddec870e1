"""The embedded model: our forward against transformers' Llama on its real weights."""

import colorsys
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from engine import causal
from engine.cache import PrefixCache
from engine.config import EngineConfig
from engine.errors import EngineError
from engine.infill import Control
from engine.loading import load_model
from engine.pull import resolve_model
from engine.request import InfillRequest
from engine.runtime import Engine
from engine.tokenizer import Tokenizer

CODE = Path(colorsys.__file__).read_text(encoding="utf-8")[:2400]  # which nobody edits any more


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
    causal.encode(ours, cache, ids[:16], 16, Control())
    (scores,) = causal.read(ours, cache, [ids[16:]])
    assert float(-scores.mean()) < 3.0, "a wrong layout of the weights gives about 11 nats"


def test_int8_believes_what_fp32_believes(directory):
    ids = Tokenizer.from_directory(directory).encode(CODE)[:400]
    beliefs = []
    for dtype in (torch.float32, torch.int8):
        model = load_model(directory, dtype=dtype, device=torch.device("cpu"))
        cache = PrefixCache(model.config, torch.device("cpu"), model.dtype)
        with torch.inference_mode():
            states = [model.encode(ids[:300], cache)[0]]
            states += [model.encode([token], cache)[0] for token in ids[300:]]
            beliefs.append(model.logits(torch.cat(states)).log_softmax(-1))
    exact, rounded = beliefs
    divergence = (exact.exp() * (exact - rounded)).sum(-1)
    # 0.01 on average; with one scale for all rows of a forward it was 0.5 (LOG.md).
    assert float(divergence.mean()) < 0.02
    assert float(divergence.quantile(0.99)) < 0.15
    assert float((exact.argmax(-1) == rounded.argmax(-1)).float().mean()) > 0.93
    sure = exact.max(-1).values > -0.2
    assert (exact.argmax(-1) == rounded.argmax(-1))[sure].all()


def test_int8_writes_what_fp32_writes(directory):
    lines = CODE.splitlines(keepends=True)
    cuts = [(number, len(lines[number]) // 2) for number in range(20, len(lines), 8)]
    requests = [
        InfillRequest(
            prefix="".join(lines[:number]) + lines[number][:column],
            suffix="".join(lines[number + 1 :]),
            single_line=True,
            max_tokens=12,
        )
        for number, column in cuts
        if lines[number].strip()
    ]
    answers = []
    for dtype in ("float32", "int8"):
        engine = Engine.load(EngineConfig(model=directory, device="cpu", dtype=dtype))
        answers.append([engine.infill(asked, cancelled=lambda: False) for asked in requests])
    same = [exact.text == rounded.text for exact, rounded in zip(*answers, strict=True)]
    sure = [exact.confidence > 0.7 for exact in answers[0]]
    assert len(same) >= 5
    # Where the model hardly knows, one token of two that are as likely decides the rest.
    assert sum(same) >= 0.7 * len(same)
    assert all(agree for agree, known in zip(same, sure, strict=True) if known)

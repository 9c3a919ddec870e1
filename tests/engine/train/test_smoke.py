"""Training the real small model on real code, for half a minute: the loss falls, a run resumes."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.train.adapt import DOCUMENT, adapt, newline_table
from engine.train.objective import Recipe
from engine.train.trainer import Options, Trainer
from tests.engine.test_smollm2 import directory  # noqa: F401, the real weights as a fixture

RECIPE = Recipe(
    window=96, holes=4, buckets=(8, 16), longest_canvas=16, canvases=1, suffix=(8, 16),
    causal_weight=0.0,
)  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture
def start(directory, tmp_path):  # noqa: F811
    """A trainer at its first step, and windows of the standard library's source, in turn."""
    text = "".join(Path(m.__file__).read_text(encoding="utf-8") for m in (argparse, json))

    def make(out: str, steps: int) -> tuple[Trainer, list[np.ndarray]]:
        model, tokenizer = adapt(directory, RECIPE, CPU, rank=8, dtype=torch.float32)
        options = Options(
            out=tmp_path / out, steps=steps, batch=1, rate=3e-3, warmup=1, recipe=RECIPE
        )
        trainer = Trainer(model, newline_table(tokenizer, model.config.vocab_size), options)
        ids = np.array([tokenizer.special(DOCUMENT), *tokenizer.encode(text[:8000])])
        return trainer, [ids[i : i + 96] for i in range(0, 4 * 96, 96)]

    return make


def test_the_loss_on_real_code_falls(start):
    trainer, windows = start("run", steps=12)

    def loss() -> float:
        trainer.step = 0  # the same holes
        with torch.no_grad():
            return float(trainer.loss(windows[:2])[0])

    before = loss()
    for step in range(12):
        trainer.advance([windows[step % 2]])
    assert loss() < 0.85 * before


def test_a_resumed_run_of_the_real_model_equals_an_unbroken_one(start):
    whole, windows = start("whole", steps=2)
    for window in windows[:2]:
        whole.advance([window])
    first, _ = start("parts", steps=2)
    first.advance([windows[0]])
    first.save()
    second, _ = start("parts", steps=2)
    assert second.resume()
    second.advance([windows[1]])
    for name, value in whole.average.items():
        assert torch.equal(second.average[name], value), name

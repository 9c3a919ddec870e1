"""Adapters from a folder over a base in shards."""

import json

import pytest
import torch
from safetensors.torch import save_file

from engine import adapters, checksum
from engine.checkpoint import save_shards
from engine.errors import EngineError


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "dg-tiny"
    folder.mkdir()
    save_file({"model.a": torch.ones(2)}, folder / "adapters.safetensors")
    (folder / "canvas.json").write_text('{"length": 9}')
    return folder


def test_shards_canvas_and_card_come_together(folder, tmp_path):
    directory = tmp_path / "model"
    directory.mkdir()
    save_shards({"model.b": torch.zeros(2)}, directory)
    (directory / "config.json").write_text('{"model_type": "llama"}')
    adapters.lay_over(folder, directory)
    config = json.loads((directory / "config.json").read_text())
    assert config == {"model_type": "llama", "canvas": {"length": 9}}
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {
        "model.a": "adapters.safetensors",
        "model.b": "model-00001-of-00001.safetensors",
    }
    assert not (directory / "MODEL_CARD.md").exists()
    (folder / "MODEL_CARD.md").write_text("# Tiny\n")
    adapters.lay_over(folder, directory)
    assert (directory / "MODEL_CARD.md").read_text() == "# Tiny\n"


def test_hashes_are_of_what_the_model_is_made_of(folder):
    (folder / "MODEL_CARD.md").write_text("# Tiny\n")
    assert adapters.hashes(folder) == {
        file: checksum.sha256(folder / file) for file in ("adapters.safetensors", "canvas.json")
    }


@pytest.mark.parametrize("file", ["adapters.safetensors", "canvas.json"])
def test_a_missing_file_is_named_with_what_to_do(folder, file):
    (folder / file).unlink()
    words = rf"{file} is missing: .* adapters for dg-tiny; install dg-lsp anew, or train them"
    with pytest.raises(EngineError, match=words):
        adapters.hashes(folder)

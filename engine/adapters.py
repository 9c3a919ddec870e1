"""Adapters that ship in the package and are laid over a base model's directory when it is pulled.

A folder holds adapters.safetensors, canvas.json (the `canvas` object of config.json) and a model
card. Knows nothing of where the base comes from, or of training.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from engine import checksum, hf_config
from engine.errors import EngineError

ADAPTERS, CANVAS, CARD = "adapters.safetensors", "canvas.json", "MODEL_CARD.md"


def hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of what decides how the model behaves; EngineError when a file is missing."""
    for file in (ADAPTERS, CANVAS):
        if not (folder / file).is_file():
            raise EngineError(
                f"{folder / file} is missing: this installation has no adapters for "
                f"{folder.name}; install dg-lsp anew, or train them with `make train`"
            )
    return {file: checksum.sha256(folder / file) for file in (ADAPTERS, CANVAS)}


def lay_over(folder: Path, directory: Path) -> None:
    """Makes the base model in `directory`, weights in shards, the model the folder's files describe."""
    from engine.checkpoint import write_index  # torch is not needed to find a model

    for file in (ADAPTERS, CARD):
        if (folder / file).is_file():
            shutil.copyfile(folder / file, directory / file)
    config = {
        **hf_config.read_json(directory / "config.json"),
        "canvas": hf_config.read_json(folder / CANVAS),
    }
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_index(directory)

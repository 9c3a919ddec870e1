"""A training run on disk: its state, written whole, and what others read of it.

Knows nothing of how a run trains.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine import hf_config
from engine.errors import EngineError
from engine.train.objective import Recipe

_STATE, _TENSORS, _FACTS = "state", "tensors.safetensors", "run.json"
AVERAGE = "average."  # what the averaged weights' names begin with


@dataclass(frozen=True, slots=True)
class Saved:
    """What a run had saved: tensors by name, and its step and options as JSON has them."""

    folder: Path
    tensors: dict[str, Tensor]
    facts: dict[str, Any]

    @property
    def average(self) -> dict[str, Tensor]:
        """The averaged weights by their names in the model."""
        return {
            name.removeprefix(AVERAGE): value
            for name, value in self.tensors.items()
            if name.startswith(AVERAGE)
        }

    @property
    def rank(self) -> int:
        """Of the adapters; 0 where all weights were trained."""
        ranks = [value.shape[0] for name, value in self.average.items() if "adapter_down" in name]
        return ranks[0] if ranks else 0

    @property
    def recipe(self) -> Recipe:
        """That of the run; what it did not know yet as it is by default."""
        given = dict(self.facts.get("recipe", {}))
        known = {field.name: given[field.name] for field in fields(Recipe) if field.name in given}
        lists = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
        return Recipe(**known | lists)


def save(run: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Writes the state of `run` whole: the old one stays until the new one is complete."""
    run.mkdir(parents=True, exist_ok=True)
    new, old, current = (run / f"{_STATE}{suffix}" for suffix in (".new", ".old", ""))
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    save_file(tensors, new / _TENSORS)
    (new / _FACTS).write_text(json.dumps(facts))
    shutil.rmtree(old, ignore_errors=True)
    if current.exists():
        current.rename(old)
    new.rename(current)
    shutil.rmtree(old, ignore_errors=True)


def load(run: Path, device: torch.device | None = None) -> Saved | None:
    """What `run` had saved last; None where it has saved nothing."""
    for folder in (run / _STATE, run / f"{_STATE}.old"):  # killed between two renames
        if (folder / _TENSORS).is_file():
            tensors = load_file(folder / _TENSORS, device=str(device or "cpu"))
            return Saved(folder, tensors, hf_config.read_json(folder / _FACTS))
    return None


def require(run: Path) -> Saved:
    """The same of a run that must be there; EngineError where it is not."""
    saved = load(run)
    if saved is None:
        raise EngineError(f"{run} is no training run: it has no {_STATE}/{_TENSORS}")
    return saved

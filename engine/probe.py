"""`python -m engine.probe --model NAME`: what an engine would find here, as one JSON object.

Loads no weights and starts nothing; imports torch, which is why `dg-lsp doctor` runs it as a
process of its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine import hf_config
from engine.config import ModelConfig
from engine.errors import EngineError

_NEEDED = ("torch", "numpy", "safetensors", "tokenizers", "starlette", "uvicorn")
_BESIDE_WEIGHTS_BYTES = 400_000_000  # torch itself, activations, a first prefix


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the findings; the exit code says only whether they could be made."""
    parser = argparse.ArgumentParser(prog="python -m engine.probe", description=__doc__)
    parser.add_argument("--model", required=True)
    options = parser.parse_args(arguments)
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    found: dict[str, Any] = {
        "missing": missing,
        "torch": None if "torch" in missing else _torch(),
        **_model(options.model, can_count="torch" not in missing),
    }
    found["plans"] = None if found["torch"] is None else _plans(options.model, found["torch"])
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


def _torch() -> dict[str, Any]:
    import torch

    devices = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        devices.append({"name": name, "free_bytes": free, "total_bytes": total})
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "devices": devices,
        "threads": torch.get_num_threads(),
    }


def _plans(name: str, torch: dict[str, Any]) -> dict[str, Any]:
    """What of the large model fits into cards of several sizes, and into those found here.

    That is the model asked for where it has experts, else the release.
    """
    from engine import plan, released
    from engine.pull import resolve_model

    model, config = released.NAME, released.config()
    with suppress(EngineError):
        asked = hf_config.read_model_config(resolve_model(name))
        if asked.experts:
            model, config = name, asked
    here = [
        (device["name"], plan.outcome(config, device["free_bytes"])) for device in torch["devices"]
    ]
    return {"model": model, "cards": plan.table(config), "here": here}


def _model(name: str, can_count: bool) -> dict[str, Any]:
    """The model's facts, or why there are none."""
    from engine.pull import resolve_model

    try:
        directory = resolve_model(name)
        config = hf_config.read_model_config(directory)
    except EngineError as error:
        return {"model": None, "model_error": str(error)}
    parameters, need_bytes = _size(directory, config) if can_count else (None, None)
    facts = {
        "path": str(directory),
        "disk_bytes": sum(file.stat().st_size for file in directory.glob("*.safetensors")),
        "family": config.family,
        "trained_for_diffusion": config.is_diffusion,
        "parameters": parameters,
        "need_bytes": need_bytes,
    }
    if not facts["disk_bytes"]:
        return {"model": None, "model_error": f"{directory} has no *.safetensors weights"}
    return {"model": facts, "model_error": ""}


def _size(directory: Path, config: ModelConfig) -> tuple[int, int]:
    """Number of weights, each tied one counted once, and the bytes that the engine needs at least."""
    import torch

    from engine import fit, plan
    from engine.config import EngineConfig
    from engine.loading import choose_device, choose_dtype
    from engine.model import Transformer

    with torch.device("meta"):
        model = Transformer(config)
    count = sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
    device = choose_device("auto")
    if device.type == "cuda":
        settings = EngineConfig(model=directory)
        stored = fit.weight_bytes(settings) if fit.is_packed(settings) else None
        return count, plan.least(config, weights=stored).total
    return count, count * choose_dtype("auto", device, config).itemsize + _BESIDE_WEIGHTS_BYTES


if __name__ == "__main__":
    sys.exit(main())

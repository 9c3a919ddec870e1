"""A model directory -> the model on a device, and the device and precision that `auto` stands for.

Knows nothing of requests, prompts or of how a model is run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine import checkpoint, formats, hf_config, joining, kernels, memory, quant
from engine.config import ModelConfig
from engine.errors import ConfigError
from engine.model import Transformer, shapes

Progress = Callable[[float, str], None]


def load_model(
    directory: Path,
    *,
    dtype: torch.dtype,
    device: torch.device,
    precision: formats.Precision = "bf16",
    head_copy: bool = True,
    soft_tokens: int | None = None,
    progress: Progress | None = None,
) -> Transformer:
    """The model in `directory`, weights streamed to `device` in `dtype`, ready for inference.

    What is stored in few bits stays so, the rest is rounded to `precision` as it comes. For int8
    all are loaded as they are stored, then changed layer by layer. `soft_tokens` as in EngineConfig.
    """
    config = hf_config.read_model_config(directory)
    if soft_tokens and config.canvas:
        config = replace(config, canvas=replace(config.canvas, soft_tokens=soft_tokens))
    with torch.device("meta"):
        model = Transformer(config)
    read_as = None if dtype is torch.int8 else dtype
    wanted = shapes(config)
    stored = checkpoint.Checkpoint(directory, config.family, wanted)
    stream = stored.stream(dtype=read_as, device=device, progress=progress)
    weights = formats.converted(
        stream, precision, tied_head=config.tied_head and head_copy, dtype=dtype
    )
    if dtype is torch.int8:
        model.load({name: _plain(weight) for name, weight in weights if name in wanted})
    else:
        model.load(dict(weights))
    model.eval().requires_grad_(False)
    if device.type == "cuda":
        joining.join(model)
    if dtype is torch.int8:
        quant.quantize(model)
        memory.give_back()
    return model


def _plain(weight: formats.Weight) -> Tensor:
    return weight if isinstance(weight, Tensor) else weight.dequantize(torch.float32)


def choose_device(wanted: str) -> torch.device:
    """`auto` takes a CUDA device where there is one."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device 'cuda' is not available here; use 'auto' or 'cpu'")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def choose_dtype(wanted: str, device: torch.device, model: ModelConfig) -> torch.dtype:
    """What the weights are kept in.

    `auto` is bfloat16 on a GPU. On a CPU it is int8 where the CPU multiplies bytes and the model
    allows it, else bfloat16 where the CPU computes in it, else float32.
    """
    if wanted == "int8":
        quant.refuse_unsupported(model, device)
    elif wanted == "auto":
        if device.type == "cpu" and kernels.cpu_multiplies_bytes() and quant.is_supported(model):
            wanted = "int8"
        else:
            return native_dtype(device)
    dtype: torch.dtype = getattr(torch, wanted)
    return dtype


def native_dtype(device: torch.device) -> torch.dtype:
    """The float type that `device` multiplies fastest."""
    # Older releases of torch cannot tell; without the instructions bfloat16 is the slower one.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    native = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))
    return torch.bfloat16 if native or device.type == "cuda" else torch.float32

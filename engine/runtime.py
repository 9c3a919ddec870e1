"""Loading and device choice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from engine import checkpoint
from engine.config import ModelConfig
from engine.model import Transformer

Progress = Callable[[float, str], None]


def load_model(
    directory: Path, *, dtype: torch.dtype, device: torch.device, progress: Progress | None = None
) -> Transformer:
    """The model in `directory`, weights streamed to `device` in `dtype`, ready for inference."""
    config = ModelConfig.from_directory(directory)
    with torch.device("meta"):
        model = Transformer(config)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    tensors = checkpoint.load_tensors(
        directory, config.family, shapes, dtype=dtype, device=device, progress=progress
    )
    model.load_state_dict(tensors, strict=True, assign=True)
    return model.eval().requires_grad_(False)

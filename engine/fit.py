"""What the free memory of a GPU makes of an engine's settings: precision, head, longest prompt.

Asks the device how much is free; the arithmetic is `engine.plan`'s. On a CPU nothing is planned: the
system's memory is shared with too much else.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from engine import hf_config, layouts, plan
from engine.config import EngineConfig, ModelConfig
from engine.errors import EngineError

logger = logging.getLogger(__name__)

PROMPT_TOKENS = plan.WANTED_CONTEXT
MOST_CACHED = 1 << 30  # bytes of all prefixes on a GPU
_LEAST_PROMPT = 64


class OutOfMemory(EngineError):
    """A forward or a load needed more memory than there is; the engine lives on."""


def fit(config: EngineConfig, model: ModelConfig, device: torch.device) -> EngineConfig:
    """`config` with `quantize`, `head_copy`, `max_prompt_tokens` and `cache_bytes` decided.

    One prefix of that length is planned for; others are kept in what is left.

    Raises plan.DoesNotFit, which says what would fit.
    """
    if device.type != "cuda":
        return replace(config, quantize="bf16") if config.quantize == "auto" else config
    free, _ = torch.cuda.mem_get_info(device)
    possible = [p for p in plan.PRECISIONS if config.quantize in ("auto", p.name)]
    if config.dtype != "auto" or is_packed(config):
        possible = possible[:1]  # as it is stored, or as somebody has asked for
    wanted = config.max_prompt_tokens or PROMPT_TOKENS
    found = plan.choose(
        model,
        free,
        precisions=possible,
        wanted=wanted,
        chunk=config.prefill_chunk,
        weights=weight_bytes(config) if is_packed(config) else None,
    )
    logger.info("%.1f GB free: %s", free / 1e9, plan.describe(found))
    return replace(
        config,
        quantize=found.precision.name,
        head_copy=found.precision.head is not None,
        max_prompt_tokens=max(_LEAST_PROMPT, min(wanted, found.context)),
        cache_bytes=min(config.cache_bytes or MOST_CACHED, found.cache + free - found.total),
    )


def is_packed(config: EngineConfig) -> bool:
    """Whether the model's files hold weights in few bits that stay so."""
    described = hf_config.read_json(config.model / "config.json")
    ours = described.get("quantization")
    return (
        "quantization_config" in described
        or (config.model / "hf_quant_config.json").is_file()
        or (isinstance(ours, dict) and ours.get("format") == layouts.OURS)
    )


def weight_bytes(config: EngineConfig) -> int:
    """What the model's files take."""
    return sum(file.stat().st_size for file in config.model.glob("*.safetensors"))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the system, had no more memory to give."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # The CPU's allocator has no error of its own.
    said = ("can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in said)


def advice(device: torch.device, doing: str) -> str:
    """What to tell who asked, once memory has run out while `doing` something."""
    left = ""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        left = f"; {free / 1e9:.1f} of {total / 1e9:.1f} GB are free now"
    return (
        f"memory ran out on {device.type} while {doing}; all cached prefixes were freed{left}. "
        "Ask again; if it happens again, close other programs, or start the engine with "
        "--max-prompt-tokens N or --quantize int4"
    )

"""Hugging Face's `config.json` and `generation_config.json`, read as this engine's configurations.

What families name or leave out is known here alone; what is missing or wrong is a ConfigError that
names it.

Source: transformers `models/diffusion_gemma/configuration_diffusion_gemma.py` and `models/llama`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from engine.config import AttentionConfig, CanvasConfig, ExpertsConfig, ModelConfig, SamplerConfig
from engine.errors import ConfigError


def read_model_config(directory: Path) -> ModelConfig:
    """Reads `config.json` and, where present, `generation_config.json`."""
    generation = directory / "generation_config.json"
    return model_config(
        read_json(directory / "config.json"),
        read_json(generation) if generation.exists() else {},
    )


def model_config(config: Mapping[str, Any], generation: Mapping[str, Any]) -> ModelConfig:
    """What `config.json` describes, the special ids as `generation_config.json` has them."""
    family = config.get("model_type")
    if family == "diffusion_gemma":
        return _diffusion_gemma(config, generation)
    if family == "llama":
        return _llama(config, generation)
    raise ConfigError(
        f"model_type {family!r} is not supported; this engine runs 'diffusion_gemma' and 'llama'"
    )


def sampler_config(generation: Mapping[str, Any]) -> SamplerConfig:
    """What `generation_config.json` says of sampling; what is absent keeps its default."""
    sampler = generation.get("sampler_config") or {}
    if (name := sampler.get("_cls_name", "EntropyBoundSamplerConfig")) != (
        "EntropyBoundSamplerConfig"
    ):
        raise ConfigError(f"sampler {name!r} is not supported; only the entropy-bound one is")
    given = {
        "max_steps": generation.get("max_denoising_steps"),
        "t_min": generation.get("t_min"),
        "t_max": generation.get("t_max"),
        "entropy_bound": sampler.get("entropy_bound"),
        "stability": generation.get("stability_threshold"),
        "confidence": generation.get("confidence_threshold"),
    }
    return SamplerConfig(**{key: value for key, value in given.items() if value is not None})


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; raises ConfigError naming the file when there is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; a model directory needs it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not readable JSON: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a JSON object, got {type(data).__name__}")
    return data


def _diffusion_gemma(config: Mapping[str, Any], generation: Mapping[str, Any]) -> ModelConfig:
    text = _get(config, "text_config", dict)
    layers = tuple(_gemma_attention(text, i, kind) for i, kind in enumerate(_layer_kinds(text)))
    experts = ExpertsConfig(
        count=_get(text, "num_experts", int),
        top_k=_get(text, "top_k_experts", int),
        intermediate_size=_get(text, "moe_intermediate_size", int),
    )
    hidden = _get(text, "hidden_size", int)
    if (mode := text.get("use_bidirectional_attention")) == "all":
        raise ConfigError(
            f"use_bidirectional_attention {mode!r} is not supported: the encoder is causal"
        )
    return ModelConfig(
        family="diffusion_gemma",
        vocab_size=_get(text, "vocab_size", int),
        hidden_size=hidden,
        intermediate_size=_get(text, "intermediate_size", int),
        layers=layers,
        experts=experts,
        activation=_activation(text.get("hidden_activation", "gelu_pytorch_tanh")),
        norm_eps=text.get("rms_norm_eps", 1e-6),
        post_norms=True,
        qkv_norms=True,
        layer_scalars=True,
        attention_scale=1.0,
        embedding_scale=math.sqrt(hidden),
        logit_softcap=text.get("final_logit_softcapping", 30.0),
        tied_head=True,
        canvas=CanvasConfig(length=config.get("canvas_length", 256)),
        max_positions=_get(text, "max_position_embeddings", int),
        **_special_ids(text, generation),
    )


def _layer_kinds(text: Mapping[str, Any]) -> list[str]:
    count = _get(text, "num_hidden_layers", int)
    kinds = text.get("layer_types")
    if kinds is None:
        kinds = [
            "full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(count)
        ]
    if len(kinds) != count:
        raise ConfigError(f"layer_types has {len(kinds)} entries for {count} layers")
    if unknown := set(kinds) - {"full_attention", "sliding_attention"}:
        raise ConfigError(f"layer type {sorted(unknown)[0]!r} is not supported")
    # transformers forces the last layer to full attention, whatever the file says.
    return [*kinds[:-1], "full_attention"]


def _gemma_attention(text: Mapping[str, Any], layer: int, kind: str) -> AttentionConfig:
    rope = (text.get("rope_parameters") or {}).get(kind) or (
        {"rope_type": "default", "rope_theta": 1e4}
        if kind == "sliding_attention"
        else {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25}
    )
    full = kind == "full_attention"
    shape = {key: _get(text, key, int) for key in ("head_dim", "num_key_value_heads")}
    if full:
        shape["head_dim"] = text.get("global_head_dim") or 512
        shape["num_key_value_heads"] = (
            text.get("num_global_key_value_heads") or shape["num_key_value_heads"]
        )
    # Newer files write the full layers' shapes layer by layer instead.
    shape |= (text.get("per_layer_config") or {}).get(str(layer), {})
    return AttentionConfig(
        heads=_get(text, "num_attention_heads", int),
        kv_heads=shape["num_key_value_heads"],
        head_dim=shape["head_dim"],
        window=None if full else _get(text, "sliding_window", int),
        # The released config omits attention_k_eq_v: full layers never have a v_proj.
        value_is_key=full,
        **_rotary(rope, shape["head_dim"]),
    )


def _rotary(rope: Mapping[str, Any], head_dim: int) -> dict[str, Any]:
    kind = rope.get("rope_type", rope.get("type", "default"))
    part = float(rope.get("partial_rotary_factor", 1.0))
    theta = float(_get(rope, "rope_theta", (int, float)))
    if kind == "proportional":
        return {"rope_theta": theta, "rotary_dim": 2 * int(part * head_dim // 2)}
    if kind == "default" and part == 1.0:
        return {"rope_theta": theta, "rotary_dim": head_dim}
    raise ConfigError(
        f"rope_type {kind!r} with partial_rotary_factor {part} is not supported; "
        "use 'default' over the whole head, or 'proportional'"
    )


def _llama(config: Mapping[str, Any], generation: Mapping[str, Any]) -> ModelConfig:
    for key in ("attention_bias", "mlp_bias"):
        if config.get(key):
            raise ConfigError(f"{key} true is not supported")
    hidden, heads = _get(config, "hidden_size", int), _get(config, "num_attention_heads", int)
    head_dim = config.get("head_dim") or hidden // heads
    rope = config.get("rope_parameters") or {
        **(config.get("rope_scaling") or {}),
        "rope_theta": config.get("rope_theta", 1e4),
    }
    attention = AttentionConfig(
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=head_dim,
        **_rotary(rope, head_dim),
    )
    return ModelConfig(
        family="llama",
        vocab_size=_get(config, "vocab_size", int),
        hidden_size=hidden,
        intermediate_size=_get(config, "intermediate_size", int),
        layers=(attention,) * _get(config, "num_hidden_layers", int),
        activation=_activation(config.get("hidden_act", "silu")),
        norm_eps=config.get("rms_norm_eps", 1e-6),
        post_norms=False,
        qkv_norms=False,
        layer_scalars=False,
        attention_scale=head_dim**-0.5,
        embedding_scale=1.0,
        logit_softcap=None,
        tied_head=config.get("tie_word_embeddings", False),
        canvas=_own_canvas(config),
        max_positions=config.get("max_position_embeddings", 2048),
        **_special_ids(config, generation),
    )


def _own_canvas(config: Mapping[str, Any]) -> CanvasConfig | None:
    """The `canvas` object of a model trained here; plain causal checkpoints have none."""
    given = config.get("canvas")
    if given is None:
        return None
    names = {f.name for f in fields(CanvasConfig)}
    if not isinstance(given, dict) or not {"length"} <= set(given) <= names:
        raise ConfigError(
            f"config.json: canvas must have length and at most {sorted(names)}, got {given!r}"
        )
    return CanvasConfig(**{"self_conditioning": False, **given})


def _special_ids(config: Mapping[str, Any], generation: Mapping[str, Any]) -> dict[str, Any]:
    """Union of both files' eos ids: each stops text; bos and pad as generation says first."""
    eos: list[int] = []
    for source in (config, generation):
        value = source.get("eos_token_id")
        eos += value if isinstance(value, list) else [] if value is None else [value]
    first = {**config, **{key: value for key, value in generation.items() if value is not None}}
    return {
        "bos_id": first.get("bos_token_id"),
        "pad_id": first.get("pad_token_id"),
        "eos_ids": tuple(dict.fromkeys(eos)),
    }


def _activation(name: str) -> Literal["gelu_tanh", "silu"]:
    if name in ("gelu_pytorch_tanh", "gelu_tanh"):
        return "gelu_tanh"
    if name in ("silu", "swish"):
        return "silu"
    raise ConfigError(f"activation {name!r} is not supported; use 'gelu_pytorch_tanh' or 'silu'")


def _get(source: Mapping[str, Any], key: str, kind: type | tuple[type, ...]) -> Any:
    value = source.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ConfigError(f"config.json: {key} is missing or of the wrong type, got {value!r}")
    return value

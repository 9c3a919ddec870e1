"""What a model is made of, how it is sampled and how the engine is set up: frozen, validated.

`ModelConfig` describes one block that is configured, not subclassed: the same fields express
DiffusionGemma's layers (norms on both sides, dense MLP beside a mixture of experts) and plain
pre-norm Llama layers. Knows nothing of tensors or devices.

Source: transformers `models/diffusion_gemma/configuration_diffusion_gemma.py` and `models/llama`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from engine.errors import ConfigError

Template = Literal["auto", "chat", "raw", "hole"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionConfig:
    """Attention of one layer.

    `window` is the number of tokens a query sees, itself included (None: all). Dims i and
    i + head_dim / 2 turn together, for i < rotary_dim / 2, at theta^(-2i / head_dim).
    """

    heads: int
    kv_heads: int
    head_dim: int
    window: int | None = None
    rope_theta: float = 10_000.0
    rotary_dim: int
    value_is_key: bool = False

    def __post_init__(self) -> None:
        _require_positive(self, "heads", "kv_heads", "head_dim", "rope_theta")
        if self.heads % self.kv_heads:
            raise ConfigError(
                f"heads must be a multiple of kv_heads, got {self.heads} and {self.kv_heads}"
            )
        if self.window is not None and self.window < 2:
            raise ConfigError(f"sliding window must be at least 2, got {self.window}")
        if self.rotary_dim % 2 or not 0 <= self.rotary_dim <= self.head_dim:
            raise ConfigError(
                f"rotary_dim must be even and at most head_dim {self.head_dim}, got {self.rotary_dim}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertsConfig:
    """The mixture of experts that runs beside the dense MLP."""

    count: int
    top_k: int
    intermediate_size: int

    def __post_init__(self) -> None:
        _require_positive(self, "count", "top_k", "intermediate_size")
        if self.top_k > self.count:
            raise ConfigError(f"top_k_experts {self.top_k} is more than num_experts {self.count}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CanvasConfig:
    """How a model was trained to denoise.

    An undecided position shows a random id (`noise` "uniform") or `mask_id` ("mask"). `empty_id`
    stands for the slots of a hole that its text does not fill. `shifted`: what belongs at a
    position is predicted one position earlier, as a causal model does. `sealed_suffix`: the known
    text behind the hole does not see the hole, and is encoded once, like the prefix.
    `soft_tokens` bounds the tokens whose embeddings self-conditioning mixes (None: all of them);
    `EngineConfig.soft_tokens` has the last word.
    `adapter_rank` is that of the low-rank weights which work on canvases only; 0 for none.
    """

    length: int
    noise: Literal["uniform", "mask"] = "uniform"
    mask_id: int | None = None
    empty_id: int | None = None
    shifted: bool = False
    self_conditioning: bool = True
    soft_tokens: int | None = None
    sealed_suffix: bool = False
    adapter_rank: int = 0

    def __post_init__(self) -> None:
        _require_positive(self, "length")
        if self.adapter_rank < 0:
            raise ConfigError(f"canvas adapter_rank must be at least 0, got {self.adapter_rank}")
        if self.noise not in ("uniform", "mask"):
            raise ConfigError(f"canvas noise must be 'uniform' or 'mask', got {self.noise!r}")
        if (self.noise == "mask") != (self.mask_id is not None):
            raise ConfigError(
                f"noise {self.noise!r} with mask_id {self.mask_id}: give both or none"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A decoder-only transformer, one `AttentionConfig` per layer.

    `canvas` None means no diffusion training, so only causal decoding makes sense.
    `logit_softcap` None means no cap.
    """

    family: Literal["diffusion_gemma", "llama"]
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: tuple[AttentionConfig, ...]
    experts: ExpertsConfig | None = None
    activation: Literal["gelu_tanh", "silu"]
    norm_eps: float
    post_norms: bool
    qkv_norms: bool
    layer_scalars: bool
    attention_scale: float | None
    embedding_scale: float
    logit_softcap: float | None
    tied_head: bool
    canvas: CanvasConfig | None
    max_positions: int
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    pad_id: int | None = None

    def __post_init__(self) -> None:
        _require_positive(
            self, "vocab_size", "hidden_size", "intermediate_size", "norm_eps", "max_positions"
        )
        if not self.layers:
            raise ConfigError("num_hidden_layers must be at least 1, got 0")
        special = {"bos": (self.bos_id,), "eos": self.eos_ids, "pad": (self.pad_id,)}
        if self.canvas:
            special |= {"mask": (self.canvas.mask_id,), "empty": (self.canvas.empty_id,)}
        for name, ids in special.items():
            for token in ids:
                if token is not None and not 0 <= token < self.vocab_size:
                    raise ConfigError(
                        f"{name}_token_id {token} is outside the {self.vocab_size} ids"
                    )

    @property
    def is_diffusion(self) -> bool:
        """Whether the model can denoise a canvas."""
        return self.canvas is not None

    @property
    def canvas_length(self) -> int:
        """The most positions a canvas can have; 0 without diffusion training."""
        return self.canvas.length if self.canvas else 0

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], generation: Mapping[str, Any]) -> ModelConfig:
        """Reads a Hugging Face `config.json` (and `generation_config.json` for special ids)."""
        family = config.get("model_type")
        if family == "diffusion_gemma":
            return _diffusion_gemma(config, generation)
        if family == "llama":
            return _llama(config, generation)
        raise ConfigError(
            f"model_type {family!r} is not supported; this engine runs 'diffusion_gemma' and 'llama'"
        )

    @classmethod
    def from_directory(cls, directory: Path) -> ModelConfig:
        """Reads `config.json` and, where present, `generation_config.json`."""
        generation = directory / "generation_config.json"
        return cls.from_hf(
            read_json(directory / "config.json"),
            read_json(generation) if generation.exists() else {},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerConfig:
    """Entropy-bound denoising; defaults are the release's `generation_config.json`.

    `entropy_bound` and `confidence` are in nats; temperatures fall linearly from `t_max`. Of all
    these, models trained on mask noise use `max_steps` and `certainty` only: the probability from
    which a slot is decided. `leave_one_out` takes from a slot's random token the evidence that it
    is shown, so that noise does not survive.
    """

    max_steps: int = 48
    t_min: float = 0.4
    t_max: float = 0.8
    entropy_bound: float = 0.1
    stability: int = 1
    confidence: float = 0.005
    certainty: float = 0.9
    leave_one_out: bool = False

    def __post_init__(self) -> None:
        _require_positive(self, "max_steps", "t_max", "entropy_bound", "confidence")
        if not 0 < self.certainty <= 1:
            raise ConfigError(f"certainty must be above 0 and at most 1, got {self.certainty}")
        if self.t_min < 0 or self.t_max < self.t_min:
            raise ConfigError(f"need 0 <= t_min <= t_max, got {self.t_min} and {self.t_max}")
        if self.stability < 0:
            raise ConfigError(f"stability must be at least 0, got {self.stability}")

    @classmethod
    def from_hf(cls, generation: Mapping[str, Any]) -> SamplerConfig:
        """Reads a Hugging Face `generation_config.json`; what is absent keeps its default."""
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
        return cls(**{key: value for key, value in given.items() if value is not None})


@dataclass(frozen=True, slots=True, kw_only=True)
class LongHoleConfig:
    """How a hole that may have more than `above` tokens is begun without its suffix on the canvas.

    After `steps` free steps the canvas is searched for the first `judged` tokens of the suffix; less
    than `least`, their mean log-probability in nats, is no meeting.
    """

    above: int = 64
    steps: int = 4
    judged: int = 16
    least: float = -2.0

    def __post_init__(self) -> None:
        _require_positive(self, "above", "steps", "judged")


@dataclass(frozen=True, slots=True, kw_only=True)
class InfillConfig:
    """How a hole of unknown length is denoised, where its suffix is in view; figures are in nats.

    `probe` None searches for the length only with models that cannot leave slots empty. Tried are
    `lengths`, for `probe_steps` forwards; denoised are the best `kept` ones, and those `neighbours`
    away from the best. A canvas that falls `drop_behind` behind the best one (None: never) is given
    up. The first `judged` tokens behind the hole (0: none) count `junction_weight` times as much as
    the hole's own. An answer is shortened where its last tokens, `overlap` or more (0: never), repeat
    the suffix, and made `lengthen` longer, twice as much each time, where the suffix has less than
    -`surprise`; both `repairs` times at most. `verify` has the answers ranked by a causal reading.
    `max_steps`, `confidence` and `leave_one_out` stand for the sampler's. An earlier answer that stands
    after `again_steps` needs no search.
    """

    probe: bool | None = None
    lengths: tuple[int, ...] = (0, 1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
    probe_steps: int = 2
    kept: int = 3
    neighbours: tuple[int, ...] = (1, 2)
    judged: int = 12
    junction_weight: float = 1.0
    drop_behind: float | None = 3.0
    overlap: int = 3
    lengthen: int = 4
    surprise: float = 3.0
    repairs: int = 5
    verify: bool = True
    max_steps: int = 16
    confidence: float = 0.02
    leave_one_out: bool = False
    again_steps: int = 3

    def __post_init__(self) -> None:
        _require_positive(self, "probe_steps", "kept", "max_steps", "confidence", "again_steps")
        if not self.lengths or min(self.lengths) < 0 or min(self.neighbours, default=1) < 1:
            raise ConfigError(
                "lengths must be some numbers from 0 on and neighbours from 1 on, got "
                f"{self.lengths} and {self.neighbours}"
            )
        if self.drop_behind is not None and not self.drop_behind > 0:
            raise ConfigError(f"drop_behind must be above 0 or None, got {self.drop_behind}")
        for name in ("judged", "junction_weight", "overlap", "lengthen", "surprise", "repairs"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} cannot be negative, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """How an engine process is set up.

    `quantize` rounds the weights while they are loaded, as the table in `formats` says; `auto` is what
    fits a GPU's memory, and bf16 on a CPU. `head_copy` gives a rounded model with a tied head a second
    table, in FP8, for logits.
    `threads` 0 takes those cores that others leave alone; `max_prompt_tokens` and `cache_bytes` (of all
    prefixes) None let the device decide.
    `drafts` verifies text copied from near the cursor in one forward, `canvas_drafts` shows it to
    the denoiser as its first guess, `favour_copies` writes it where the model is nearly as sure of it.
    `rivals` compares what was written with what could be copied in its place, by a causal reading.
    `soft_tokens` makes self-conditioning mix the embeddings of the likeliest few only, which on a GPU
    leaves the logits unwritten; None keeps to the model's training.
    `warm_start` verifies what is left of an earlier answer first, `canvas_warm_start` shows it to the
    denoiser.
    `long_holes` is for models that were trained to continue text only; None leaves it.
    `template` is how a request is laid out for denoising: `chat` as DiffusionGemma's conversations
    with the prefix opening the answer (`auto` for that family), `hole` with the hole asked for in it and
    nothing clamped, `raw` as plain text (`auto` for all others).
    """

    model: Path
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    quantize: Literal["auto", "bf16", "fp8", "int4"] = "auto"
    head_copy: bool = True
    threads: int = 0
    prefill_chunk: int = 512
    max_prompt_tokens: int | None = None
    cache_prefixes: int = 8
    cache_bytes: int | None = None
    suffix_tokens: int = 48
    template: Template = "auto"
    drafts: bool = True
    canvas_drafts: bool = False
    favour_copies: bool = True
    rivals: bool = True
    soft_tokens: int | None = None
    warm_start: bool = True
    canvas_warm_start: bool = False
    long_holes: LongHoleConfig | None = field(default_factory=LongHoleConfig)
    sampler: SamplerConfig | None = field(default=None)
    infill: InfillConfig = field(default_factory=InfillConfig)

    def __post_init__(self) -> None:
        _require_positive(self, "prefill_chunk", "cache_prefixes")
        if self.cache_bytes is not None:
            _require_positive(self, "cache_bytes")
        if self.quantize in ("fp8", "int4") and self.dtype == "int8":
            raise ConfigError(f"quantize {self.quantize!r} and dtype 'int8' exclude each other")
        if self.max_prompt_tokens is not None and self.max_prompt_tokens < 64:
            raise ConfigError(
                f"max_prompt_tokens must be at least 64, got {self.max_prompt_tokens}"
            )
        if self.template not in get_args(Template):
            known = ", ".join(get_args(Template))
            raise ConfigError(f"template must be one of {known}, got {self.template!r}")
        if self.soft_tokens is not None and not 1 <= self.soft_tokens <= 64:
            raise ConfigError(f"soft_tokens must be from 1 to 64, got {self.soft_tokens}")
        if self.threads < 0 or self.suffix_tokens < 0:
            raise ConfigError(
                f"threads and suffix_tokens cannot be negative, got {self.threads}, {self.suffix_tokens}"
            )


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


def _require_positive(config: Any, *names: str) -> None:
    known = {f.name for f in fields(config)}
    for name in names:
        assert name in known, name
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise ConfigError(f"{name} must be a number above 0, got {value!r}")

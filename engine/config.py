"""What a model is made of, how it is sampled and how the engine is set up: frozen, validated.

`ModelConfig` describes one block that is configured, not subclassed: the same fields express
DiffusionGemma's layers (norms on both sides, dense MLP beside a mixture of experts) and plain
pre-norm Llama layers. Knows nothing of files' names for them, of tensors or devices.
"""

from __future__ import annotations

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

    @property
    def judges(self) -> bool:
        """Whether a canvas says how well its suffix follows: trained to doubt what it shows."""
        return self.noise == "uniform" and not self.sealed_suffix


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
    the hole's own; where a canvas cannot judge them (`CanvasConfig.judges`), a causal reading of each
    answer does so for the first `read`, as those behind them follow each other. An answer is shortened where its last tokens, `overlap` or more (0: never), repeat
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
    read: int = 2
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
        for name in (
            "judged",
            "read",
            "junction_weight",
            "overlap",
            "lengthen",
            "surprise",
            "repairs",
        ):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} cannot be negative, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BeamConfig:
    """How many texts a hole that is written from left to right is searched for.

    A forward goes on with `width` of them at most, and with none that is more than `behind` nats less
    likely than the best; with none at all once one that has ended is `lead` nats ahead of what has
    not. Each token counts `reward` nats, or short texts would be found likelier than right ones.
    """

    width: int = 4
    behind: float = 3.0
    lead: float = -1.0
    reward: float = 0.5

    def __post_init__(self) -> None:
        _require_positive(self, "width", "behind")

    def worth(self, total: float, tokens: int) -> float:
        """What a text of so many tokens counts, whose log-probabilities sum to `total`, in nats."""
        return total + self.reward * tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """How an engine process is set up.

    `quantize` rounds the weights while they are loaded, as the table in `formats` says; `auto` is what
    fits a GPU's memory, and bf16 on a CPU. `head_copy` gives a rounded model with a tied head a second
    table, in FP8, for logits.
    `threads` 0 takes those cores that others leave alone; `max_prompt_tokens` and `cache_bytes` (of all
    prefixes) None let the device decide.
    `drafts` verifies text copied from near the cursor in one forward, `canvas_drafts` shows it to
    the denoiser as its first guess, `favour_copies` writes it where the model is nearly as sure of it
    (one text at a time only: see `beams`).
    `beams` writes a hole in several ways at once, both sides of it in view, and takes the likeliest, or
    with `rivals` a copy in its place; None writes the likeliest token each time.
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
    beams: BeamConfig | None = field(default_factory=BeamConfig)
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


def _require_positive(config: Any, *names: str) -> None:
    known = {f.name for f in fields(config)}
    for name in names:
        assert name in known, name
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise ConfigError(f"{name} must be a number above 0, got {value!r}")

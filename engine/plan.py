"""What fits into a device's memory: for a model and a number of bytes, a precision and a context.

Arithmetic only; loads nothing and asks no device. Sizes are bytes, contexts are tokens of prefix
that are encoded beside the canvas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine import formats, graphs, sampler, storage
from engine.config import AttentionConfig, ModelConfig
from engine.errors import EngineError
from engine.kernels.reference import attention_rows

CARDS_GB = (12, 16, 18, 24, 32, 48, 80)
RUNTIME_BYTES = 600_000_000  # of the driver's context, the libraries and the allocator's rounding
WANTED_CONTEXT = 8192
LEAST_CONTEXT = 512
_STEP = 256  # contexts are planned in steps of the cache's
_BF16 = 2
_FP32 = 4
_MASKED = (
    14  # bytes for each row and key: their distance, conditions on it, what is added to a score
)


class DoesNotFit(EngineError):
    """The model does not fit into the memory; the message says what would."""


@dataclass(frozen=True, slots=True)
class Form:
    """How weights are kept: bits of each with its share of the scales, bytes for each output."""

    bits: float
    output_bytes: int = 0


BF16 = Form(16)
FP8 = Form(8, output_bytes=4)
INT4 = Form(4 + 8 / 32, output_bytes=4)  # groups of 32 with an FP8 scale
_FORMS: dict[formats.Kept, Form] = {"plain": BF16, "fp8": FP8, "int4": INT4}


@dataclass(frozen=True, slots=True)
class Precision:
    """A precision of `engine.formats`, and what its classes are kept in; all else is bf16.

    `head` is the form of a copy of the embedding for logits; None for no copy.
    """

    name: formats.Precision
    experts: Form
    linears: Form
    head: Form | None

    @classmethod
    def of(cls, name: formats.Precision, *, head_copy: bool = True) -> Precision:
        """What `engine.formats` makes of each class, with or without a head in few bits."""

        def form(weight: str) -> Form:
            return _FORMS[formats.target(weight, name)]

        head = form("lm_head.weight")
        return cls(
            name,
            experts=form("layers.0.experts.down_proj"),
            linears=form("layers.0.mlp.down_proj.weight"),
            head=head if head_copy and head is not BF16 else None,
        )


# The exacter and faster first: the first one that leaves room for the context wanted is chosen.
PRECISIONS = (
    Precision.of("bf16"),
    Precision.of("fp8"),
    Precision.of("int4"),
    Precision.of("int4", head_copy=False),
)


@dataclass(frozen=True, slots=True)
class Weights:
    """How many weights a class has, and how many outputs its matrices have together."""

    values: int
    outputs: int = 0

    def __add__(self, other: Weights) -> Weights:
        return Weights(self.values + other.values, self.outputs + other.outputs)

    def times(self, count: int) -> Weights:
        """The same `count` times."""
        return Weights(self.values * count, self.outputs * count)

    def nbytes(self, form: Form) -> int:
        """What they take in `form`."""
        return math.ceil(self.values * form.bits / 8) + self.outputs * form.output_bytes


@dataclass(frozen=True, slots=True)
class Parameters:
    """A model's weights by class."""

    experts: Weights
    linears: Weights
    embedding: Weights
    rest: Weights

    @property
    def total(self) -> int:
        """All of them, tied ones counted once."""
        classes = (self.experts, self.linears, self.embedding, self.rest)
        return sum(weights.values for weights in classes)

    def nbytes(self, precision: Precision) -> int:
        """What all of them take."""
        kept = ((self.experts, precision.experts), (self.linears, precision.linears))
        plain = (self.embedding + self.rest).nbytes(BF16)
        copy = self.embedding.nbytes(precision.head) if precision.head else 0
        return sum(weights.nbytes(form) for weights, form in kept) + plain + copy


@dataclass(frozen=True, slots=True)
class Plan:
    """A precision, the context it leaves room for, and where the memory goes (bytes).

    `cache` is the pages of one prefix; `captured` is what lives within the largest captured step, in
    memory that no other forward uses.
    """

    precision: Precision
    context: int
    weights: int
    cache: int
    captured: int
    work: int

    @property
    def total(self) -> int:
        """All that is needed, the driver's context included."""
        return sum((self.weights, self.cache, self.captured, self.work, RUNTIME_BYTES))


def choose(
    config: ModelConfig,
    free: int,
    *,
    precisions: Sequence[Precision] = PRECISIONS,
    wanted: int = WANTED_CONTEXT,
    chunk: int = 512,
    weights: int | None = None,
) -> Plan:
    """The exactest of `precisions` that leaves room for `wanted` tokens in `free` bytes.

    Where none does, the one with the longest context of at least LEAST_CONTEXT; else DoesNotFit.
    `weights` is what those take where that does not depend on the precision.
    """
    best: Plan | None = None
    for precision in precisions:
        context = longest_context(config, precision, free, chunk, weights)
        found = plan(config, precision, context, chunk, weights)
        if context >= min(wanted, _limit(config)):
            return found
        if context >= min(LEAST_CONTEXT, _limit(config)) and (
            best is None or context > best.context
        ):
            best = found
    if best is None:
        raise DoesNotFit(_advice(config, free, precisions, chunk, weights))
    return best


def least(
    config: ModelConfig,
    precisions: Sequence[Precision] = PRECISIONS,
    chunk: int = 512,
    weights: int | None = None,
) -> Plan:
    """The smallest that runs: the precision that takes least, with LEAST_CONTEXT tokens."""
    plans = [plan(config, precision, LEAST_CONTEXT, chunk, weights) for precision in precisions]
    return min(plans, key=lambda found: found.total)


def longest_context(
    config: ModelConfig,
    precision: Precision,
    free: int,
    chunk: int = 512,
    weights: int | None = None,
) -> int:
    """The most tokens of prefix that fit into `free` bytes, in steps of 256; 0 for none."""
    low, high = 0, _limit(config) // _STEP
    while low < high:
        middle = (low + high + 1) // 2
        if plan(config, precision, middle * _STEP, chunk, weights).total <= free:
            low = middle
        else:
            high = middle - 1
    return low * _STEP


def plan(
    config: ModelConfig,
    precision: Precision,
    context: int,
    chunk: int = 512,
    weights: int | None = None,
) -> Plan:
    """What the model needs with `context` tokens of prefix, encoded `chunk` tokens at a time."""
    return Plan(
        precision=precision,
        context=context,
        weights=parameters(config).nbytes(precision) if weights is None else weights,
        cache=cache_bytes(config, context, chunk),
        captured=_canvas_bytes(config) if graphs.is_supported(config) else 0,
        work=work_bytes(config, context, chunk),
    )


def parameters(config: ModelConfig) -> Parameters:
    """The weights of the model, counted from its configuration."""
    width, inner = config.hidden_size, config.intermediate_size
    rank = config.canvas.adapter_rank if config.canvas else 0

    def linear(inputs: int, outputs: int) -> Weights:
        return Weights(inputs * outputs + rank * (inputs + outputs), outputs)

    gated = linear(width, inner).times(2) + linear(inner, width)
    linears = gated.times(len(config.layers))
    experts, rest = Weights(0), Weights(width)  # the final norm
    for layer in config.layers:
        heads, kv_heads = (n * layer.head_dim for n in (layer.heads, layer.kv_heads))
        linears += linear(width, heads) + linear(heads, width)
        linears += linear(width, kv_heads).times(1 if layer.value_is_key else 2)
        rest += Weights(_beside_matrices(config, layer))
    if config.canvas and config.canvas.self_conditioning:
        linears += gated
        rest += Weights(width)
    if e := config.experts:
        one = Weights(3 * width * e.intermediate_size, 2 * e.intermediate_size + width)
        experts = one.times(e.count * len(config.layers))
    embedding = Weights(config.vocab_size * width, config.vocab_size)
    if not config.tied_head:
        embedding = embedding.times(2)
    return Parameters(experts, linears, embedding, rest)


def cache_bytes(config: ModelConfig, context: int, chunk: int = 512) -> int:
    """The pages of one prefix, with the rows of a forward behind it."""
    return storage.prefix_bytes(config, context, most_rows(config, context, chunk), _BF16)


def most_rows(config: ModelConfig, context: int, chunk: int) -> int:
    """The most rows of a forward: a whole canvas, or a chunk of a prompt of `context` tokens."""
    return max(config.canvas_length, min(chunk, context))


def work_bytes(config: ModelConfig, context: int, chunk: int = 512) -> int:
    """The most that lives for the time of one forward in plain torch, of two moments.

    A chunk of the prompt in the layer with the longest scores, its keys and values gathered from
    their pages; or a canvas' distributions over the vocabulary.
    """
    rows, keys = min(chunk, context), context + min(chunk, context)
    gathered = keys * max(storage.position_bytes(layer, _BF16) for layer in config.layers)
    heads = max(layer.heads for layer in config.layers)
    scored = min(rows, attention_rows(heads, keys))
    scores = 2 * _FP32 * heads * scored * keys  # and their softmax
    masks = _MASKED * rows * keys
    return max(gathered + scores + masks + _states_bytes(config, rows), _canvas_bytes(config))


def _canvas_bytes(config: ModelConfig) -> int:
    """What a step over one whole canvas writes: states, and distributions over the vocabulary."""
    canvas = config.canvas_length
    # In fp32, beside the same in bf16 before or after, or beside some rows in two more copies.
    beside = max(_BF16 * canvas, 2 * _FP32 * min(canvas, sampler.ROWS))
    distributions = (_FP32 * canvas + beside) * config.vocab_size
    return distributions + _states_bytes(config, canvas)


def _states_bytes(config: ModelConfig, rows: int) -> int:
    """Hidden states of so many rows in a layer."""
    states = 8 * config.hidden_size
    if e := config.experts:
        # A row once for each of its experts: gathered, gate and up, output in two types.
        states += e.top_k * (4 * config.hidden_size + 2 * e.intermediate_size)
    return rows * states * _BF16


def table(config: ModelConfig, sizes_gb: Sequence[float] = CARDS_GB) -> list[tuple[float, str]]:
    """Sizes of memory (10⁹ bytes free), and what would run there or the reason why nothing does."""
    return [(size, outcome(config, int(size * 1e9))) for size in sizes_gb]


def outcome(config: ModelConfig, free: int) -> str:
    """What would run in `free` bytes, or the reason why nothing does."""
    try:
        return describe(choose(config, free))
    except DoesNotFit as error:
        return str(error)


def describe(found: Plan) -> str:
    """The plan in words."""
    return (
        f"{_named(found.precision)}, {found.context:,} tokens of context: "
        f"{found.total / 1e9:.1f} GB ({found.weights / 1e9:.1f} weights, "
        f"{found.cache / 1e9:.1f} keys and values, "
        f"{(found.work + found.captured) / 1e9:.1f} working memory, {RUNTIME_BYTES / 1e9:.1f} driver)"
    )


def _named(precision: Precision) -> str:
    plain = precision.head is None and precision.name != "bf16"
    return f"{precision.name} with a bf16 head" if plain else precision.name


def _limit(config: ModelConfig) -> int:
    """The longest context of the model, in whole steps."""
    return max(0, config.max_positions - config.canvas_length) // _STEP * _STEP


def _beside_matrices(config: ModelConfig, layer: AttentionConfig) -> int:
    """Norms, router and scalars of one layer."""
    width = config.hidden_size
    norms = 2 + 2 * config.post_norms + 3 * bool(config.experts)
    heads = 2 * layer.head_dim if config.qkv_norms else 0
    e = config.experts
    router = width * e.count + width + e.count if e else 0
    return norms * width + heads + router + 2 * config.layer_scalars


def _advice(
    config: ModelConfig,
    free: int,
    precisions: Sequence[Precision],
    chunk: int,
    weights: int | None,
) -> str:
    found = least(config, precisions, chunk, weights)
    needed = math.ceil(found.total / 1e8) / 10
    return (
        f"does not fit: {_named(found.precision)}, the smallest form, takes "
        f"{found.weights / 1e9:.1f} GB of weights and {(found.total - found.weights) / 1e9:.1f} GB "
        f"beside them with {LEAST_CONTEXT} tokens of context, {(found.total - free) / 1e9:.1f} GB "
        f"more than the {free / 1e9:.1f} GB that are free; {needed:.1f} GB would do"
    )

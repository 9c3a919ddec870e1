"""Weights on 8 bits: a loaded model's linear layers, embedding and head, changed in place.

Weights have a scale per output, activations one per row, taken as they come. What makes 8 bits
enough is a rotation: in the residual stream a few channels are far larger than the others, and
rounding to the largest one loses the rest. Every matrix that writes the stream is turned by an
orthogonal one, those that read it are turned back, and the norms' weights go into the readers: the
model computes the same, and no channel stands out. The MLP's inner activations are turned when
they come. Knows nothing of files or of how int8 is multiplied.

Source: QuaRot (arXiv:2404.00456); the calibration of SmoothQuant made things worse here (LOG.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from engine import kernels
from engine.config import ModelConfig
from engine.errors import ConfigError
from engine.model import Layer, Transformer
from engine.modules import ALL, Norm, Projection, Rows

_BLOCK = 64  # channels that are turned together, at most
_AT_ONCE = 4096  # rows of a table that are rounded together


def refuse_unsupported(config: ModelConfig, device: torch.device) -> None:
    """Raises ConfigError where weights cannot be kept in int8."""
    if device.type != "cpu":
        raise ConfigError(f"dtype 'int8' is for the CPU; on {device.type} use 'bfloat16'")
    if not is_supported(config):
        raise ConfigError(f"dtype 'int8' is not supported for {config.family}; use 'bfloat16'")


def is_supported(config: ModelConfig) -> bool:
    """Whether what a block reads and writes is plain enough to be turned."""
    soft = config.canvas is not None and config.canvas.self_conditioning
    shared = any(layer.value_is_key for layer in config.layers)
    return not (config.experts or config.post_norms or config.qkv_norms or soft or shared)


@torch.no_grad()
def quantize(model: Transformer) -> None:
    """Makes all linear layers of `model` int8, whatever float dtype it is in; no weight stays."""
    assert is_supported(model.config), model.config.family
    stream = hadamard(_block(model.config.hidden_size))
    inner = hadamard(_block(model.config.intermediate_size))
    for layer in model.layers:
        assert isinstance(layer, Layer)
        attention, mlp = layer.self_attn, layer.mlp
        inputs = _pop(attention, "q_proj", "k_proj", "v_proj")
        attention.qkv_proj = _reading(inputs, layer.input_layernorm, stream)
        gates = _pop(mlp, "gate_proj", "up_proj")
        mlp.gate_up_proj = _reading(gates, layer.pre_feedforward_layernorm, stream)
        # The two above apply their norms themselves.
        layer.register_module("input_layernorm", nn.Identity())
        layer.register_module("pre_feedforward_layernorm", nn.Identity())
        attention.register_module("o_proj", _writing(attention.o_proj, stream))
        mlp.register_module("down_proj", _writing(mlp.down_proj, stream, inner))
    table = _table(model.embed_tokens.weight, stream)
    model.register_module("embed_tokens", Int8Embedding(table))
    if isinstance(model.lm_head, nn.Linear):
        table = _table(model.lm_head.weight, stream)
    model.lm_head = table
    # A tied head has no weights of its own that could take the norm's.
    model.register_module("norm", TurnedNorm(model.norm, stream))


class Int8Linear(nn.Module):
    """A linear layer in int8; where there are adapters, the one that acts on canvases.

    `blocks` [.., inputs] are the rows of its weight, those of the adapters' first halves at the end,
    and `ups` [outputs of one part, R] their second halves, for consecutive parts of the outputs. The
    weight has them in it already, and a prefix, which they must not touch, has them taken out again.
    So every token of a hole costs what it does without adapters, and the weights are kept once.
    With `eps` its input is normed first (`rms_norm` without weight). `turn` [B, B] is applied to
    each block of B inputs when they come.
    """

    def __init__(
        self,
        blocks: Iterable[Tensor],
        ups: Sequence[Tensor] = (),
        *,
        eps: float | None = None,
        turn: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.eps = eps
        self.turn = None if turn is None else _frozen(turn)
        rows, scales = zip(*map(kernels.quantize_rows, blocks), strict=True)
        self.rows, self.scales = _frozen(torch.cat(rows)), _frozen(torch.cat(scales)[:, 0])
        self.ups = nn.ParameterList(_frozen(up.t().contiguous()) for up in ups)
        self._ups = tuple(self.ups)  # whose own iteration would cost a forward milliseconds
        self._sizes = [*map(len, ups), *(up.shape[1] for up in ups)]  # of outputs, of ranks
        outputs = sum(map(len, ups)) or len(self.rows)
        self.weight, self.scale = self.rows[:outputs], self.scales[:outputs]

    def forward(self, x: Tensor, adapted: Rows | None = None) -> Tensor:
        """x [..., inputs] -> [..., outputs]."""
        if self.turn is not None:
            x = turned(x, self.turn)
        if adapted == ALL or not self._ups:
            return kernels.int8_linear(x, self.weight, self.scale, self.eps)
        both = kernels.int8_linear(x, self.rows, self.scales, self.eps).flatten(0, -2)
        plain = both if adapted is None else both[: adapted.start]
        parts, count = plain.split_with_sizes(self._sizes, -1), len(self._ups)
        for part, low, up in zip(parts[:count], parts[count:], self._ups, strict=True):
            part.addmm_(low, up, alpha=-1)
        return both[:, : len(self.weight)].view(*x.shape[:-1], -1)


class Int8Embedding(nn.Module):
    """The embedding in fp32 from the weights of a linear layer, which may be the head too."""

    def __init__(self, table: Int8Linear) -> None:
        super().__init__()
        self.weight, self.scale = table.weight, table.scale

    def forward(self, ids: Tensor) -> Tensor:
        """ids [...] -> [..., D]."""
        return self.weight[ids] * self.scale[ids, None]


class TurnedNorm(nn.Module):
    """A norm of turned rows: turns them back, norms, turns them again."""

    def __init__(self, norm: Norm, turn: Tensor) -> None:
        super().__init__()
        self.eps = norm.eps
        self.weight = _frozen(_gain(norm))
        self.turn = _frozen(turn)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., D] -> [..., D]."""
        back = turned(x, self.turn)  # Sylvester's matrix is its own inverse
        return turned(kernels.rms_norm(back, self.weight, self.eps), self.turn)


def hadamard(size: int) -> Tensor:
    """Sylvester's symmetric orthogonal matrix [size, size] of entries ± size^-½; `size` is a power of two."""
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), matrix)
    return matrix / math.sqrt(size)


def turned(x: Tensor, turn: Tensor) -> Tensor:
    """x [..., k · B] with each block of B multiplied by `turn` [B, B]."""
    rows = x.reshape(-1, len(turn))  # one product; one for each of x's rows would be far slower
    out: Tensor = (rows @ turn).view_as(x)
    return out


def _reading(projections: Sequence[Projection], norm: Norm, stream: Tensor) -> Int8Linear:
    """The layers that read the residual stream through `norm`, as one, the norm included."""

    def turn(weight: Tensor) -> Tensor:
        return turned(weight * _gain(norm), stream)

    weight = turn(torch.cat([_adapted(layer) for layer in projections]))
    adapters = [(turn(down), up) for down, up in map(_adapter, projections) if len(down)]
    return _adaptable(weight, adapters, eps=norm.eps)


def _writing(layer: Projection, stream: Tensor, inner: Tensor | None = None) -> Int8Linear:
    """A layer whose output goes to the residual stream; its input is turned by `inner`."""

    def turn_outputs(weight: Tensor) -> Tensor:
        return turned(weight.t().contiguous(), stream).t()

    def turn_inputs(weight: Tensor) -> Tensor:
        return weight if inner is None else turned(weight, inner)

    weight = turn_inputs(turn_outputs(_adapted(layer)))
    adapters = [(turn_inputs(d), turn_outputs(up)) for d, up in [_adapter(layer)] if len(d)]
    return _adaptable(weight, adapters, turn=inner)


def _adaptable(weight: Tensor, adapters: Sequence[tuple[Tensor, Tensor]], **how: Any) -> Int8Linear:
    downs, ups = [down for down, _ in adapters], [up for _, up in adapters]
    return Int8Linear([weight, *downs], ups, **how)


def _table(weight: Tensor, stream: Tensor) -> Int8Linear:
    """The embedding or head [V, D], a part at a time: whole in float32, it would be the load's peak."""
    return Int8Linear(turned(some.float(), stream) for some in torch.split(weight, _AT_ONCE))


def _adapted(layer: Projection) -> Tensor:
    """The weight that acts on canvases."""
    down, up = _adapter(layer)
    return layer.weight.float() + up @ down


def _adapter(layer: Projection) -> tuple[Tensor, Tensor]:
    """down [R, inputs] and up [outputs, R]; R is 0 where there is no adapter."""
    if layer.rank:
        return layer.adapter_down.float(), layer.adapter_up.float()
    weight = layer.weight
    return weight.new_empty(0, weight.shape[1]).float(), weight.new_empty(len(weight), 0).float()


def _pop(parent: nn.Module, *names: str) -> list[Projection]:
    """Takes the named layers out of the module."""
    layers = [getattr(parent, name) for name in names]
    for name in names:
        delattr(parent, name)
    return layers


def _gain(norm: Norm) -> Tensor:
    return norm.weight.float()


def _frozen(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)


def _block(size: int) -> int:
    """How many of `size` channels are turned together: a power of two that divides it."""
    return min(_BLOCK, size & -size)

"""The transformer, in reading order: embed, layers, norm, head; three ways to run one block.

`encode` is the causal pass that fills the prefix cache; `canvas` is the bidirectional pass over
[prefix ; canvas] that leaves the cache alone; `forward`, for training, has a mask of the caller's and
no cache. The block is configured by `ModelConfig`, never
subclassed: DiffusionGemma and plain Llama layers are the same code. Knows nothing of sampling,
lengths or text; arithmetic goes through `engine.kernels`.

Source: transformers `models/diffusion_gemma/modeling_diffusion_gemma.py`; parameter names are
those of its decoder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine import kernels
from engine.cache import PrefixCache, Suffix
from engine.config import AttentionConfig, ModelConfig
from engine.weights import PackedWeight


class Transformer(nn.Module):
    """Embedding, layers, final norm and head; self-conditioning where the model denoises."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        table = torch.empty(config.vocab_size, config.hidden_size)
        if not table.is_meta:  # there, drawing would import 80 MB of torch's compiler
            nn.init.normal_(table)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, _weight=table)
        self.layers = nn.ModuleList(Layer(config, attention) for attention in config.layers)
        self.norm = Norm(config.hidden_size, config.norm_eps)
        if config.canvas and config.canvas.self_conditioning:
            self.self_conditioning = SelfConditioning(config)
        self.lm_head: nn.Module | None = None
        if not config.tied_head:
            self.lm_head = Projection(config.hidden_size, config.vocab_size, 0)

    def load(self, weights: Mapping[str, Tensor | PackedWeight]) -> None:
        """Takes all weights by name, in few bits or not; a tied model takes a head of its own too."""
        if self.lm_head is None and "lm_head.weight" in weights:
            with torch.device("meta"):
                self.lm_head = Projection(self.config.hidden_size, self.config.vocab_size, 0)
        plain = {}
        for name, weight in weights.items():
            if isinstance(weight, Tensor):
                plain[name] = weight
                continue
            path, _, attribute = name.rpartition(".")
            module = self.get_submodule(path)
            delattr(module, attribute)  # a parameter, which only a tensor can be
            setattr(module, attribute, weight)
        self.load_state_dict(plain, strict=True, assign=True)

    def weights(self) -> Iterator[tuple[str, Tensor | PackedWeight]]:
        """All weights with their names, each once."""
        yield from self.named_parameters()
        for path, module in self.named_modules():
            for attribute, value in vars(module).items():
                if isinstance(value, PackedWeight):
                    yield f"{path}.{attribute}", value

    def encode(
        self,
        ids: Sequence[int],
        cache: PrefixCache,
        *,
        shift: int = 0,
        on_canvas: bool = False,
        sees: int | None = None,
    ) -> Tensor:
        """Causal pass over `ids`, which follow the cached prefix; extends the cache by them.

        `shift` moves them away from the positions that follow the cache's; with `on_canvas` they
        are a hole's: adapters work. With `sees` they look at so many tokens of the prefix only.
        Returns the final hidden states [1, N, D].
        """
        tokens = torch.tensor(list(ids), device=self.embed_tokens.weight.device)
        x = self.embed(tokens[None])
        hidden = self._run(x, cache, causal=True, shift=shift, on_canvas=on_canvas, sees=sees)
        cache.commit(ids)
        return hidden

    def repeat(self, suffix: Suffix, cache: PrefixCache, *, by: int) -> None:
        """Extends the cache by an encoded suffix, its positions moved on `by`."""
        layers = self.config.layers
        distance = torch.tensor([by], device=suffix.keys[0].device)
        tables = {
            shape: kernels.rotary_table(
                distance, shape.head_dim, shape.rotary_dim, shape.rope_theta, self.dtype
            )
            for shape in set(layers)
        }
        for index, shape in enumerate(layers):
            # Rotations add up: to move a key is to turn it once more.
            keys = kernels.rotate(suffix.keys[index].transpose(1, 2), *tables[shape])
            cache.view_with(index, keys.transpose(1, 2), suffix.values[index])
        cache.commit(suffix.ids)

    def canvas(
        self, ids: Tensor, cache: PrefixCache, soft: Tensor | None, *, shift: int = 0
    ) -> Tensor:
        """Bidirectional pass over `ids` [B, C] after the cached prefix; final hidden [B, C, D].

        `soft` [B, C, D] is the self-conditioning signal of the previous step (see
        `soft_embedding`); None, before the first step, counts as zeros. `shift` as in `encode`.
        """
        assert self.config.canvas, "this model has no diffusion training"
        embedded = self.embed(ids)
        if self.config.canvas.self_conditioning:
            soft = torch.zeros_like(embedded) if soft is None else soft
        return self._run(
            self._conditioned(embedded, soft), cache, causal=False, shift=shift, on_canvas=True
        )

    def look(self, ids: Tensor, soft: Tensor | None, sight: Pass) -> Tensor:
        """`canvas` for a caller who says what its rows see: final hidden [B, C, D]."""
        return self._layers(self._conditioned(self.embed(ids), soft), sight)

    def branches(
        self,
        ids: Tensor,
        positions: Tensor,
        cache: PrefixCache,
        branches: Sequence[Branch],
        soft: Tensor | None = None,
    ) -> Tensor:
        """Several canvases over one cached prefix in one forward, for training.

        ids, positions [N] -> final hidden [N, D]; `branches` are consecutive rows of them. `soft`
        [N, D] is zero in rows without self-conditioning. Leaves the cache alone.
        """
        x = self._conditioned(self.embed(ids), soft)[None]
        return self._layers(x, _Branched(positions, x.dtype, cache, branches))[0]

    def forward(
        self, ids: Tensor, positions: Tensor, mask: Tensor, soft: Tensor | None = None
    ) -> Tensor:
        """One pass without a cache, for training: ids, positions [B, T] -> hidden [B, T, D].

        `mask` [B, T, T] is true where a row may look, in every layer; `soft` as in `branches`.
        """
        assert not self.config.layer_scalars, "training is for models without layer scalars"
        x = self._conditioned(self.embed(ids), soft)
        return self._layers(x, _Masked(positions, x.dtype, mask))

    def logits(self, hidden: Tensor) -> Tensor:
        """Softcapped fp32 logits [..., V] of final hidden states [..., D]."""
        if self.lm_head is None:
            scores = F.linear(hidden, self.embed_tokens.weight)
        else:
            scores = self.lm_head(hidden)
        return kernels.softcap(scores, self.config.logit_softcap)

    def soft_embedding(self, probabilities: Tensor) -> Tensor:
        """Expected embedding [..., D] under `probabilities` [..., V], scaled like a token's.

        With `CanvasConfig.soft_tokens` under the likeliest few only.
        """
        assert self.config.canvas
        if count := self.config.canvas.soft_tokens:
            likeliest, ids = probabilities.topk(count, dim=-1)
            shares = (likeliest / likeliest.sum(-1, keepdim=True))[..., None, :]
            embedded = self.embed(ids)
            return (shares.to(embedded.dtype) @ embedded).squeeze(-2)
        weight = self.embed_tokens.weight
        return (probabilities.to(weight.dtype) @ weight) * self._embedding_scale

    def embed(self, ids: Tensor) -> Tensor:
        """Scaled embeddings [..., D] of `ids`; also the soft embedding of a token that is known."""
        embedded: Tensor = self.embed_tokens(ids)
        return embedded if self.config.embedding_scale == 1.0 else embedded * self._embedding_scale

    def _conditioned(self, embedded: Tensor, soft: Tensor | None) -> Tensor:
        if soft is None:
            return embedded
        conditioned: Tensor = self.self_conditioning(embedded, soft)
        return conditioned

    @property
    def dtype(self) -> torch.dtype:
        """That of hidden states, keys and values, whatever the weights are kept in."""
        dtype = self.embed_tokens.weight.dtype
        return dtype if dtype.is_floating_point else torch.float32

    @property
    def _embedding_scale(self) -> float:
        # Rounded to the weights' dtype first, as the reference does: sqrt(2816) is 53.0 in bf16.
        return torch.tensor(self.config.embedding_scale, dtype=self.dtype).item()

    def _run(
        self,
        x: Tensor,
        cache: PrefixCache,
        *,
        causal: bool,
        shift: int,
        on_canvas: bool,
        sees: int | None = None,
    ) -> Tensor:
        places = torch.arange(cache.length, cache.length + x.shape[1], device=x.device)
        step = _Cached(places, shift, x.dtype, cache, sees, causal=causal, on_canvas=on_canvas)
        return self._layers(x, step)

    def _layers(self, x: Tensor, step: Pass) -> Tensor:
        norms = [layer.get_submodule("input_layernorm") for layer in self.layers] + [self.norm]
        normed: Tensor = norms[0](x)
        for index, layer in enumerate(self.layers):
            x, normed = layer(x, normed, step, index, norms[index + 1])
        return normed


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all weights of a model."""
    with torch.device("meta"):
        model = Transformer(config)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


class Layer(nn.Module):
    """One block: attention, then a dense MLP beside (or without) a mixture of experts."""

    def __init__(self, config: ModelConfig, attention: AttentionConfig) -> None:
        super().__init__()

        def norm() -> Norm:
            return Norm(config.hidden_size, config.norm_eps)

        self.config = config
        self.input_layernorm = norm()
        self.self_attn = Attention(config, attention)
        self.pre_feedforward_layernorm = norm()
        self.mlp = GatedMLP(config)
        if config.post_norms:
            self.post_attention_layernorm = norm()
            self.post_feedforward_layernorm = norm()
        if config.experts:
            self.post_feedforward_layernorm_1 = norm()
            self.pre_feedforward_layernorm_2 = norm()
            self.post_feedforward_layernorm_2 = norm()
            self.router = Router(config)
            self.experts = Experts(config)
        if config.layer_scalars:
            self.layer_scalar = nn.Parameter(torch.ones(1))
            self.encoder_layer_scalar = nn.Parameter(torch.ones(1))

    def forward(
        self, x: Tensor, normed: Tensor, step: Pass, index: int, following: nn.Module
    ) -> tuple[Tensor, Tensor]:
        """Residual x [B, N, D] and the same through the layer's own norm -> those of the next layer.

        `following` is the norm of that one's input, or the final one.
        """
        attended = self.self_attn(normed, step, index)
        if self.config.experts and self.config.post_norms and self.config.layer_scalars:
            assert isinstance(following, Norm)
            return self._joined(x, attended, step, following)
        if self.config.post_norms:
            attended = self.post_attention_layernorm(attended)
        x = x + attended
        forwarded = self.mlp(self.pre_feedforward_layernorm(x), step.on_canvas)
        if self.config.experts:
            routed = self._experts(x, self.pre_feedforward_layernorm_2(x))
            routed = self.post_feedforward_layernorm_2(routed)
            forwarded = self.post_feedforward_layernorm_1(forwarded) + routed
        if self.config.post_norms:
            forwarded = self.post_feedforward_layernorm(forwarded)
        x = x + forwarded
        if self.config.layer_scalars:
            x = x * self._scalar(step)
        return x, following(x)

    def _joined(
        self, x: Tensor, attended: Tensor, step: Pass, following: Norm
    ) -> tuple[Tensor, Tensor]:
        """`forward` of what was attended, for layers that have all parts: norms come with sums."""
        x, dense, experts = kernels.join_attention(
            x,
            attended,
            self.post_attention_layernorm.weight,
            self.pre_feedforward_layernorm.weight,
            self.pre_feedforward_layernorm_2.weight,
            self.config.norm_eps,
        )
        weights = (
            self.post_feedforward_layernorm_1.weight,
            self.post_feedforward_layernorm_2.weight,
            self.post_feedforward_layernorm.weight,
            following.weight,
        )
        forwarded, routed = self.mlp(dense, step.on_canvas), self._experts(x, experts)
        return kernels.join_feedforward(
            x, forwarded, routed, weights, self._scalar(step), self.config.norm_eps
        )

    def _experts(self, x: Tensor, normed: Tensor) -> Tensor:
        # The router reads the raw residual; the experts read it through a norm of their own.
        weights, indices = self.router(x.reshape(-1, x.shape[-1]))
        out: Tensor = self.experts(normed.reshape(-1, x.shape[-1]), weights, indices)
        return out.view_as(x)

    def _scalar(self, step: Pass) -> Tensor:
        return self.encoder_layer_scalar if step.causal else self.layer_scalar


class Attention(nn.Module):
    """Grouped-query attention over [prefix ; new positions]."""

    def __init__(self, config: ModelConfig, attention: AttentionConfig) -> None:
        super().__init__()
        self.shape = attention
        self.scale = config.attention_scale
        self.eps = config.norm_eps
        self.qkv_norms = config.qkv_norms
        width, kv_width = (n * attention.head_dim for n in (attention.heads, attention.kv_heads))
        rank = config.canvas.adapter_rank if config.canvas else 0
        self.q_proj = Projection(config.hidden_size, width, rank)
        self.k_proj = Projection(config.hidden_size, kv_width, rank)
        if not attention.value_is_key:
            self.v_proj = Projection(config.hidden_size, kv_width, rank)
        self.o_proj = Projection(width, config.hidden_size, rank)
        self.qkv_proj: nn.Module | None = None  # the first three as one, where quantised
        if config.qkv_norms:
            self.q_norm = Norm(attention.head_dim, config.norm_eps)
            self.k_norm = Norm(attention.head_dim, config.norm_eps)

    def forward(self, x: Tensor, step: Pass, index: int) -> Tensor:
        """x [B, N, D] -> [B, N, D]."""
        q, k, v = self._inputs(x, step.on_canvas)
        cos, sin = step.rotary(self.shape)
        if self.qkv_norms:
            weights = self.q_norm.weight, self.k_norm.weight
            q, k, v = kernels.prepare_heads(q, k, v, *weights, cos, sin, self.eps)
        else:
            q, k = kernels.rotate(q, cos, sin), kernels.rotate(k, cos, sin)
        out = step.attend(index, q, k.transpose(1, 2), v.transpose(1, 2), self)
        projected: Tensor = self.o_proj(out.flatten(2), step.on_canvas)
        return projected

    def _inputs(self, x: Tensor, on_canvas: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, N, H, head_dim], keys and values [B, N, KV, head_dim] of x [B, N, D]."""
        heads = (*x.shape[:2], -1, self.shape.head_dim)
        if self.qkv_proj is not None:
            counts = [self.shape.heads, self.shape.kv_heads, self.shape.kv_heads]
            q, k, v = self.qkv_proj(x, on_canvas).view(heads).split(counts, 2)
            return q, k, v
        q = self.q_proj(x, on_canvas).view(heads)
        k = self.k_proj(x, on_canvas).view(heads)
        v = k if self.shape.value_is_key else self.v_proj(x, on_canvas).view(heads)
        return q, k, v


class GatedMLP(nn.Module):
    """down(activation(gate(x)) · up(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = config.activation
        rank = config.canvas.adapter_rank if config.canvas else 0
        self.gate_proj = Projection(config.hidden_size, config.intermediate_size, rank)
        self.up_proj = Projection(config.hidden_size, config.intermediate_size, rank)
        self.down_proj = Projection(config.intermediate_size, config.hidden_size, rank)
        self.gate_up_proj: nn.Module | None = None  # the first two as one, where quantised

    def forward(self, x: Tensor, on_canvas: bool) -> Tensor:
        """x [..., D] -> [..., D]."""
        if self.gate_up_proj is None:
            gate, up = self.gate_proj(x, on_canvas), self.up_proj(x, on_canvas)
        else:
            gate, up = self.gate_up_proj(x, on_canvas).chunk(2, -1)
        out: Tensor = self.down_proj(kernels.gated(gate, up, self.activation), on_canvas)
        return out


class Projection(nn.Linear):
    """A linear layer without bias; on a canvas plus a low-rank adapter, where the model has them.

    With adapters the encoder stays the causal model they were trained on, to the last bit.
    `weight` is a PackedWeight where `Transformer.load` was given one.
    Source: LoRA (arXiv:2106.09685), its scale folded into `adapter_up`.
    """

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__(inputs, outputs, bias=False)
        if rank:
            self.adapter_down = nn.Parameter(torch.empty(rank, inputs))
            self.adapter_up = nn.Parameter(torch.zeros(outputs, rank))
        self.rank = rank

    def forward(self, x: Tensor, on_canvas: bool = False) -> Tensor:
        """x [..., inputs] -> [..., outputs]."""
        out = kernels.linear(x, self.weight)
        if self.rank and on_canvas:
            down, up = self.adapter_down.to(x.dtype), self.adapter_up.to(x.dtype)
            out = out + F.linear(F.linear(x, down), up)
        return out


class Router(nn.Module):
    """Chooses the experts of each row."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.experts
        self.top_k = config.experts.top_k
        self.eps = config.norm_eps
        self.proj = nn.Linear(config.hidden_size, config.experts.count, bias=False)
        self.scale = nn.Parameter(torch.ones(config.hidden_size))
        self.per_expert_scale = nn.Parameter(torch.ones(config.experts.count))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [T, D] -> weights and indices [T, K]."""
        weight = self.proj.weight
        return kernels.route(x, self.scale, weight, self.per_expert_scale, self.top_k, self.eps)


class Experts(nn.Module):
    """The experts' weights, stacked."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.experts
        count, width = config.experts.count, config.experts.intermediate_size
        self.activation = config.activation
        gate_up = torch.empty(count, 2 * width, config.hidden_size)
        self.gate_up_proj: Tensor | PackedWeight = nn.Parameter(gate_up)
        down = torch.empty(count, config.hidden_size, width)
        self.down_proj: Tensor | PackedWeight = nn.Parameter(down)

    def forward(self, x: Tensor, weights: Tensor, indices: Tensor) -> Tensor:
        """x [T, D], weights and indices [T, K] -> [T, D]."""
        return kernels.experts(
            x, weights, indices, self.gate_up_proj, self.down_proj, self.activation
        )


class SelfConditioning(GatedMLP):
    """Adds what the previous step believed to the canvas embeddings.

    DiffusionGemma normalises the sum; a causal model that was taught to denoise keeps its own scale.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.pre_norm = Norm(config.hidden_size, config.norm_eps)
        self.normalised = config.family == "diffusion_gemma"

    def forward(self, embedded: Tensor, soft: Tensor) -> Tensor:  # type: ignore[override]
        """embedded, soft [B, C, D] -> [B, C, D]."""
        # Where frozen weights are in bfloat16, these may be trained in float32.
        soft = soft.to(self.pre_norm.weight.dtype)
        signal = super().forward(self.pre_norm(soft), on_canvas=True)
        total = embedded + signal.to(embedded.dtype)
        return kernels.rms_norm(total, None, self.pre_norm.eps) if self.normalised else total


class Norm(nn.Module):
    """RMSNorm with weight (x · w, not 1 + w)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., size] -> [..., size]."""
        return kernels.rms_norm(x, self.weight, self.eps)


@dataclass(frozen=True, slots=True)
class Branch:
    """Rows that continue the first `sees` tokens of a cached prefix together.

    `mask` [rows, rows] is true where a row may look among them.
    """

    sees: int
    mask: Tensor


class Pass(ABC):
    """What all layers of one forward share: rotary tables, and who sees whom.

    `causal` says which of a layer's two scalars is meant, `on_canvas` whether adapters work.
    """

    def __init__(
        self, positions: Tensor, dtype: torch.dtype, *, causal: bool, on_canvas: bool
    ) -> None:
        self.causal = causal
        self.on_canvas = on_canvas
        self._positions = positions
        self._dtype = dtype
        self._tables: dict[AttentionConfig, tuple[Tensor, Tensor]] = {}

    def rotary(self, shape: AttentionConfig) -> tuple[Tensor, Tensor]:
        """Cosines and sines of this pass's positions for layers of `shape`."""
        if shape not in self._tables:
            self._tables[shape] = kernels.rotary_table(
                self._positions, shape.head_dim, shape.rotary_dim, shape.rope_theta, self._dtype
            )
        return self._tables[shape]

    @abstractmethod
    def attend(self, index: int, q: Tensor, k: Tensor, v: Tensor, layer: Attention) -> Tensor:
        """q [B, N, H, D] over what its rows may see of layer `index`; k, v [B, KV, N, D] are new."""


class _Cached(Pass):
    """Rows at `places` behind a cached prefix; `shift` moves their positions, not their order.

    They see the first `sees` tokens of the prefix, None: all of it.
    """

    def __init__(
        self,
        places: Tensor,
        shift: int,
        dtype: torch.dtype,
        cache: PrefixCache,
        sees: int | None,
        *,
        causal: bool,
        on_canvas: bool,
    ) -> None:
        super().__init__(places + shift, dtype, causal=causal, on_canvas=on_canvas)
        self._places = places
        self._cache = cache
        self._sees = cache.length if sees is None else sees
        self._masks: dict[int | None, Tensor] = {}

    def attend(self, index: int, q: Tensor, k: Tensor, v: Tensor, layer: Attention) -> Tensor:
        """See `Pass.attend`."""
        keys, values = self._cache.view_with(index, k, v)
        mask = self._mask(index, layer.shape.window)
        return kernels.attention(q, keys, values, layer.scale, mask)

    def _mask(self, index: int, window: int | None) -> Tensor | None:
        """[N, L], 0 where a query may look, else -inf; None where it may look everywhere.

        A canvas sees all of the visible prefix and itself. So does a single next token.
        """
        all_seen = self._sees == self._cache.length
        if all_seen and (not self.causal or len(self._places) == 1):
            return None
        if window not in self._masks:
            first, last = self._cache.first_visible(index), self._cache.length
            keys = torch.arange(first, last + len(self._places), device=self._places.device)
            distance = self._places[:, None] - keys  # [N, L]
            allowed = (distance >= 0) & ((keys < self._sees) | (keys >= last))
            if window is not None:
                allowed &= distance < window
            # Added to the scores, which saves each layer the conversion.
            bias = torch.zeros(allowed.shape, dtype=self._dtype, device=allowed.device)
            self._masks[window] = bias.masked_fill_(~allowed, -torch.inf)
        return self._masks[window]


class _Masked(Pass):
    """Rows that see each other under a mask of the caller's, [B, T, T], in every layer."""

    def __init__(self, positions: Tensor, dtype: torch.dtype, mask: Tensor) -> None:
        super().__init__(positions, dtype, causal=False, on_canvas=False)
        self._mask = mask

    def attend(self, index: int, q: Tensor, k: Tensor, v: Tensor, layer: Attention) -> Tensor:
        """See `Pass.attend`."""
        return kernels.attention(q, k, v, layer.scale, self._mask)


class _Branched(Pass):
    """Branches over one cached prefix: attention runs branch by branch, all else at once."""

    def __init__(
        self,
        positions: Tensor,
        dtype: torch.dtype,
        cache: PrefixCache,
        branches: Sequence[Branch],
    ) -> None:
        super().__init__(positions, dtype, causal=False, on_canvas=True)
        self._cache = cache
        self._branches = branches
        self._masks = [
            torch.cat((b.mask.new_ones(len(b.mask), b.sees), b.mask), 1) for b in branches
        ]

    def attend(self, index: int, q: Tensor, k: Tensor, v: Tensor, layer: Attention) -> Tensor:
        """See `Pass.attend`."""
        assert layer.shape.window is None, "training is for models without sliding layers"
        none = k[:, :, :0]
        prefix_k, prefix_v = self._cache.view_with(index, none.detach(), none.detach())
        attention = kernels.attention if k.is_cuda else kernels.attention_by_products
        parts, first = [], 0
        for branch, mask in zip(self._branches, self._masks, strict=True):
            rows = slice(first, first + len(branch.mask))
            keys = torch.cat((prefix_k[:, :, : branch.sees], k[:, :, rows]), 2)
            values = torch.cat((prefix_v[:, :, : branch.sees], v[:, :, rows]), 2)
            parts.append(attention(q[:, rows], keys, values, layer.scale, mask))
            first = rows.stop
        return torch.cat(parts, 1)

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

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine import kernels
from engine.cache import PrefixCache
from engine.config import AttentionConfig, ModelConfig


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
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def encode(self, ids: Sequence[int], cache: PrefixCache) -> Tensor:
        """Causal pass over `ids`, which follow the cached prefix; extends the cache by them.

        Returns the final hidden states [1, N, D].
        """
        tokens = torch.tensor(list(ids), device=self.embed_tokens.weight.device)
        hidden = self._run(self.embed(tokens[None]), cache, causal=True)
        cache.commit(ids)
        return hidden

    def canvas(self, ids: Tensor, cache: PrefixCache, soft: Tensor | None) -> Tensor:
        """Bidirectional pass over `ids` [B, C] after the cached prefix; final hidden [B, C, D].

        `soft` [B, C, D] is the self-conditioning signal of the previous step (see
        `soft_embedding`); None, before the first step, counts as zeros.
        """
        assert self.config.canvas, "this model has no diffusion training"
        embedded = self.embed(ids)
        if self.config.canvas.self_conditioning:
            soft = torch.zeros_like(embedded) if soft is None else soft
            embedded = self.self_conditioning(embedded, soft)
        return self._run(embedded, cache, causal=False)

    def branches(
        self,
        ids: Sequence[Sequence[int]],
        starts: Sequence[int],
        cache: PrefixCache,
        *,
        canvas: bool = False,
        closed: bool = False,
    ) -> list[Tensor]:
        """Several continuations of the cached prefix, or with `canvas` canvases, in one forward.

        Continuation k stands behind the first `starts[k]` cached tokens and sees those and
        itself: up to each row, or whole on a canvas that is not `closed` (as training begins).
        Returns the final hidden states [len(ids[k]), D] of each; leaves the cache alone.
        """
        own = self.config.canvas
        assert not canvas or (own and not own.self_conditioning), "such canvases go one by one"
        device = self.embed_tokens.weight.device
        counts = [len(branch) for branch in ids]
        assert all(0 <= start <= cache.length for start in starts), (starts, cache.length)
        tokens = torch.tensor([token for branch in ids for token in branch], device=device)
        sizes = torch.tensor(counts, device=device)
        branch = torch.arange(len(ids), device=device).repeat_interleave(sizes)
        begins = torch.tensor(starts, device=device)[branch]
        offset = torch.cat([torch.arange(count, device=device) for count in counts])
        x = self.embed(tokens[None])
        causal = closed or not canvas
        step = _Pass(
            begins + offset,
            x.dtype,
            cache=cache,
            causal=not canvas,
            branch=(branch, begins, causal),
        )
        return list(torch.split(self._layers(x, step)[0], counts))

    def forward(self, ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """One pass without a cache, for training: ids, positions [B, T] -> hidden [B, T, D].

        `mask` [B, T, T] is true where a row may look, in every layer.
        """
        assert not self.config.layer_scalars, "training is for models without layer scalars"
        x = self.embed(ids)
        return self._layers(x, _Pass(positions, x.dtype, given=mask))

    def logits(self, hidden: Tensor) -> Tensor:
        """Softcapped fp32 logits [..., V] of final hidden states [..., D]."""
        if self.lm_head is None:
            scores = F.linear(hidden, self.embed_tokens.weight)
        else:
            scores = self.lm_head(hidden)
        return kernels.softcap(scores, self.config.logit_softcap)

    def soft_embedding(self, probabilities: Tensor) -> Tensor:
        """Expected embedding [..., D] under `probabilities` [..., V], scaled like a token's."""
        weight = self.embed_tokens.weight
        return (probabilities.to(weight.dtype) @ weight) * self._embedding_scale

    def embed(self, ids: Tensor) -> Tensor:
        """Scaled embeddings [..., D] of `ids`; also the soft embedding of a token that is known."""
        embedded: Tensor = self.embed_tokens(ids)
        return embedded if self.config.embedding_scale == 1.0 else embedded * self._embedding_scale

    @property
    def dtype(self) -> torch.dtype:
        """That of hidden states, keys and values, whatever the weights are kept in."""
        dtype = self.embed_tokens.weight.dtype
        return dtype if dtype.is_floating_point else torch.float32

    @property
    def _embedding_scale(self) -> Tensor:
        # Rounded to the weights' dtype first, as the reference does: sqrt(2816) is 53.0 in bf16.
        device = self.embed_tokens.weight.device
        return torch.tensor(self.config.embedding_scale, dtype=self.dtype, device=device)

    def _run(self, x: Tensor, cache: PrefixCache, *, causal: bool) -> Tensor:
        positions = torch.arange(cache.length, cache.length + x.shape[1], device=x.device)
        return self._layers(x, _Pass(positions, x.dtype, cache=cache, causal=causal))

    def _layers(self, x: Tensor, step: _Pass) -> Tensor:
        for index, layer in enumerate(self.layers):
            x = layer(x, step, index)
        hidden: Tensor = self.norm(x)
        return hidden


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

    def forward(self, x: Tensor, step: _Pass, index: int) -> Tensor:
        """x [B, N, D] -> [B, N, D]."""
        attended = self.self_attn(self.input_layernorm(x), step, index)
        if self.config.post_norms:
            attended = self.post_attention_layernorm(attended)
        x = x + attended
        forwarded = self.mlp(self.pre_feedforward_layernorm(x), step.on_canvas)
        if self.config.experts:
            routed = self._experts(x)
            forwarded = self.post_feedforward_layernorm_1(forwarded) + routed
        if self.config.post_norms:
            forwarded = self.post_feedforward_layernorm(forwarded)
        x = x + forwarded
        if self.config.layer_scalars:
            x = x * (self.encoder_layer_scalar if step.causal else self.layer_scalar)
        return x

    def _experts(self, x: Tensor) -> Tensor:
        # The router reads the raw residual; the experts read it through a norm of their own.
        rows = x.reshape(-1, x.shape[-1])
        weights, indices = self.router(rows)
        out = self.experts(self.pre_feedforward_layernorm_2(rows), weights, indices)
        routed: Tensor = self.post_feedforward_layernorm_2(out.view_as(x))
        return routed


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

    def forward(self, x: Tensor, step: _Pass, index: int) -> Tensor:
        """x [B, N, D] -> [B, N, D]."""
        q, k, v = self._inputs(x, step.on_canvas)
        if self.qkv_norms:
            q, k, v = self.q_norm(q), self.k_norm(k), kernels.rms_norm(v, None, self.eps)
        cos, sin = step.rotary(self.shape)
        q, k = kernels.rotate(q, cos, sin), kernels.rotate(k, cos, sin)
        keys, values = step.view_with(index, k.transpose(1, 2), v.transpose(1, 2))
        out = kernels.attention(q, keys, values, self.scale, step.mask(index, self.shape.window))
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
    Source: LoRA (arXiv:2106.09685), its scale folded into `adapter_up`.
    """

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__(inputs, outputs, bias=False)
        if rank:
            self.adapter_down = nn.Parameter(torch.empty(rank, inputs))
            self.adapter_up = nn.Parameter(torch.zeros(outputs, rank))
        self.rank = rank

    def forward(self, x: Tensor, on_canvas: bool) -> Tensor:  # type: ignore[override]
        """x [..., inputs] -> [..., outputs]."""
        out = F.linear(x, self.weight)
        if self.rank and on_canvas:
            out = out + F.linear(F.linear(x, self.adapter_down), self.adapter_up)
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
        self.gate_up_proj = nn.Parameter(torch.empty(count, 2 * width, config.hidden_size))
        self.down_proj = nn.Parameter(torch.empty(count, config.hidden_size, width))

    def forward(self, x: Tensor, weights: Tensor, indices: Tensor) -> Tensor:
        """x [T, D], weights and indices [T, K] -> [T, D]."""
        return kernels.experts(
            x, weights, indices, self.gate_up_proj, self.down_proj, self.activation
        )


class SelfConditioning(GatedMLP):
    """Adds what the previous step believed to the canvas embeddings, then normalises."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.pre_norm = Norm(config.hidden_size, config.norm_eps)

    def forward(self, embedded: Tensor, soft: Tensor) -> Tensor:  # type: ignore[override]
        """embedded, soft [B, C, D] -> [B, C, D]."""
        signal = super().forward(self.pre_norm(soft), on_canvas=True)
        return kernels.rms_norm(embedded + signal, None, self.pre_norm.eps)


class Norm(nn.Module):
    """RMSNorm with weight (x · w, not 1 + w)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., size] -> [..., size]."""
        return kernels.rms_norm(x, self.weight, self.eps)


class _Pass:
    """What all layers of one forward share: positions, rotary tables, cache and masks.

    Without a `cache` the rows see each other under `given`, the caller's own mask. `branch` says
    of each row [N] which continuation it is part of and how much of the prefix [N] that one sees,
    and whether it sees only what stands before it there. A pass that is not `causal` is a canvas'.
    """

    def __init__(
        self,
        positions: Tensor,
        dtype: torch.dtype,
        *,
        cache: PrefixCache | None = None,
        given: Tensor | None = None,
        causal: bool = False,
        branch: tuple[Tensor, Tensor, bool] | None = None,
    ) -> None:
        self.causal = causal
        self.on_canvas = not causal and given is None
        self._branch = branch
        self._positions = positions
        self._dtype = dtype
        self._cache = cache
        self._given = given
        self._tables: dict[AttentionConfig, tuple[Tensor, Tensor]] = {}
        self._masks: dict[int | None, Tensor] = {}

    def view_with(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values this pass's rows may see in `layer`."""
        if self._cache is None:
            return keys, values
        # A continuation that starts early sees farther back than the next token would.
        first = None if self._branch is None else 0
        return self._cache.view_with(layer, keys, values, first)

    def rotary(self, shape: AttentionConfig) -> tuple[Tensor, Tensor]:
        """Cosines and sines of this pass's positions for layers of `shape`."""
        if shape not in self._tables:
            self._tables[shape] = kernels.rotary_table(
                self._positions, shape.head_dim, shape.rotary_dim, shape.rope_theta, self._dtype
            )
        return self._tables[shape]

    def mask(self, index: int, window: int | None) -> Tensor | None:
        """True where a query may look; None where it may look at everything it is given.

        A canvas sees all of the visible prefix and itself. So does a single next token.
        """
        if self._branch is not None:
            return self._branch_mask(window)
        if self._cache is None or not self.causal or len(self._positions) == 1:
            return self._given
        if window not in self._masks:
            first, last = self._cache.first_visible(index), self._cache.length
            keys = torch.arange(first, last + len(self._positions), device=self._positions.device)
            distance = self._positions[:, None] - keys  # [N, L]
            allowed = distance >= 0
            self._masks[window] = allowed if window is None else allowed & (distance < window)
        return self._masks[window]

    def _branch_mask(self, window: int | None) -> Tensor:
        """[N, prefix + N]: each row sees its share of the prefix and its own branch so far."""
        assert self._branch is not None and self._cache is not None
        if window not in self._masks:
            branch, begins, causal = self._branch
            prefix = torch.arange(self._cache.length, device=branch.device)
            distance = self._positions[:, None] - torch.cat((prefix, self._positions))
            own = branch[:, None] == branch
            if causal:
                own = own & (distance[:, len(prefix) :] >= 0)
            allowed = torch.cat((prefix < begins[:, None], own), 1)
            self._masks[window] = allowed if window is None else allowed & (distance < window)
        return self._masks[window]

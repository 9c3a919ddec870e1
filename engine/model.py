"""The transformer, in reading order: embed, layers, norm, head; three ways to run one block.

`encode` is the causal pass that fills the prefix cache; `canvas` is the bidirectional pass over
[prefix ; canvas] that leaves the cache alone; `forward`, for training, has a mask of the caller's and
no cache. The block is configured by `ModelConfig`, never
subclassed: DiffusionGemma and plain Llama layers are the same code. Knows nothing of sampling,
lengths or text; its parts are in `engine.attention` and `engine.modules`.

Source: transformers `models/diffusion_gemma/modeling_diffusion_gemma.py`; parameter names are
those of its decoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine import kernels
from engine.attention import Attention, Branch, Branched, Cached, Canvases, Masked, Pass, Tree
from engine.cache import PrefixCache, Suffix
from engine.config import AttentionConfig, ModelConfig
from engine.modules import Experts, GatedMLP, Norm, Projection, Router, SelfConditioning
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
        places = torch.arange(cache.length, cache.length + len(tokens), device=x.device)
        hidden = self._layers(x, Cached(places, shift, x.dtype, cache, sees, on_canvas=on_canvas))
        cache.commit(ids)
        return hidden

    def tree(
        self,
        ids: Sequence[int],
        depths: Sequence[int],
        cache: PrefixCache,
        trunk: int,
        seen: Tensor,
        *,
        shift: int = 0,
        on_canvas: bool = False,
        plain: int = 0,
        hidden: int = 0,
    ) -> Tensor:
        """A pass over tokens of texts that share beginnings; see `attention.Tree`.

        ids [N], depths [M], seen [N, M] on the model's device -> final hidden states [N, D]. Commits
        nothing of what it writes behind the cached tokens.
        """
        x = self.embed(torch.tensor([list(ids)], device=seen.device))
        places = torch.tensor(list(depths), device=seen.device)
        step = Tree(
            places, shift, x.dtype, cache, trunk, seen,
            on_canvas=on_canvas, plain=plain, hidden=hidden,
        )  # fmt: skip
        return self._layers(x, step)[0]

    def moved(self, suffix: Suffix, by: int) -> Suffix:
        """An encoded suffix, its positions moved on `by`."""
        distance = torch.tensor([by], device=suffix.keys[0].device)
        tables = {
            shape: kernels.rotary_table(
                distance, shape.head_dim, shape.rotary_dim, shape.rope_theta, self.dtype
            )
            for shape in set(self.config.layers)
        }
        # Rotations add up: to move a key is to turn it once more.
        turned = (
            kernels.rotate(keys.transpose(1, 2), *tables[shape]).transpose(1, 2)
            for keys, shape in zip(suffix.keys, self.config.layers, strict=True)
        )
        return replace(suffix, keys=tuple(turned))

    def canvas(
        self,
        ids: Tensor,
        cache: PrefixCache,
        soft: Tensor | None,
        *,
        sizes: Sequence[int] = (),
        suffixes: Sequence[Suffix | None] = (),
    ) -> Tensor:
        """Bidirectional pass over `ids` [B, C] after the cached prefix; final hidden [B, C, D].

        With `sizes`, B is 1 and several canvases of these lengths lie one after the other: each
        follows the prefix, and sees it and itself. `suffixes` are what is sealed behind each one's
        hole, which it sees too. `soft` [B, C, D] is the self-conditioning signal of the previous
        step (see `soft_embedding`); None, before the first step, counts as zeros.
        """
        assert self.config.canvas, "this model has no diffusion training"
        embedded = self.embed(ids)
        if self.config.canvas.self_conditioning:
            soft = torch.zeros_like(embedded) if soft is None else soft
        sizes = sizes or ids.shape[1:]
        step = Canvases(sizes, suffixes or [None] * len(sizes), ids.device, embedded.dtype, cache)
        return self._layers(self._conditioned(embedded, soft), step)

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
        return self._layers(x, Branched(positions, x.dtype, cache, branches))[0]

    def forward(
        self, ids: Tensor, positions: Tensor, mask: Tensor, soft: Tensor | None = None
    ) -> Tensor:
        """One pass without a cache, for training: ids, positions [B, T] -> hidden [B, T, D].

        `mask` [B, T, T] is true where a row may look, in every layer; `soft` as in `branches`.
        """
        assert not self.config.layer_scalars, "training is for models without layer scalars"
        x = self._conditioned(self.embed(ids), soft)
        return self._layers(x, Masked(positions, x.dtype, mask))

    def logits(self, hidden: Tensor) -> Tensor:
        """Softcapped fp32 logits [..., V] of final hidden states [..., D]."""
        if self.lm_head is None:
            scores = F.linear(hidden, self.embed_tokens.weight)
        else:
            scores = self.lm_head(hidden)
        return kernels.softcap(scores, self.config.logit_softcap)

    def believe(
        self,
        hidden: Tensor,
        temperature: Tensor,
        uniform: Tensor,
        first_bias: Tensor | None,
        count: int,
    ) -> kernels.Belief:
        """What a step asks of `logits`, which are not kept; arguments as in `kernels.believe`."""
        head = self.embed_tokens if self.lm_head is None else self.lm_head
        weight, cap = head.weight, self.config.logit_softcap
        assert not isinstance(weight, nn.Module)
        return kernels.believe(hidden, weight, cap, temperature, uniform, first_bias, count)

    def soft_embedding(self, probabilities: Tensor) -> Tensor:
        """Expected embedding [..., D] under `probabilities` [..., V], scaled like a token's.

        With `CanvasConfig.soft_tokens` under the likeliest few only.
        """
        assert self.config.canvas
        if count := self.config.canvas.soft_tokens:
            shares, ids = probabilities.topk(min(count, self.config.vocab_size), dim=-1)
            return self.mean_embedding(ids, shares)
        weight = self.embed_tokens.weight
        return (probabilities.to(weight.dtype) @ weight) * self._embedding_scale

    def mean_embedding(self, ids: Tensor, shares: Tensor) -> Tensor:
        """Mean embedding [..., D] of `ids` [..., K], weighted by `shares` [..., K]."""
        return kernels.soft_embedding(self.embed_tokens.weight, ids, shares, self._embedding_scale)

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
        forwarded = self.mlp(self.pre_feedforward_layernorm(x), step.adapted)
        if self.config.experts:
            routed = self._experts(x, self.pre_feedforward_layernorm_2(x)).sum(-2)
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
        forwarded, routed = self.mlp(dense, step.adapted), self._experts(x, experts)
        return kernels.join_feedforward(
            x, forwarded, routed, weights, self._scalar(step), self.config.norm_eps
        )

    def _experts(self, x: Tensor, normed: Tensor) -> Tensor:
        # The router reads the raw residual; the experts read it through a norm of their own.
        weights, indices = self.router(x.reshape(-1, x.shape[-1]))
        out: Tensor = self.experts(normed.reshape(-1, x.shape[-1]), weights, indices)
        return out.view(*x.shape[:-1], *out.shape[1:])

    def _scalar(self, step: Pass) -> Tensor:
        return self.encoder_layer_scalar if step.causal else self.layer_scalar

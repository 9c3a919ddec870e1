"""Attention, and who sees whom: a `Pass` is what all layers of one forward share.

`Cached` rows, a `Tree` of them and `Canvases` stand behind a cached prefix; `Branched` rows continue parts of it, `Masked` ones see
each other under a mask of the caller's. Knows nothing of what stands around attention in a layer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine import kernels
from engine.cache import PrefixCache, Suffix
from engine.config import AttentionConfig, ModelConfig
from engine.modules import Norm, Projection, Rows


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
        self.qkv_proj: nn.Module | None = None  # the first three as one, in few bits
        if config.qkv_norms:
            self.q_norm = Norm(attention.head_dim, config.norm_eps)
            self.k_norm = Norm(attention.head_dim, config.norm_eps)

    def forward(self, x: Tensor, step: Pass, index: int) -> Tensor:
        """x [B, N, D] -> [B, N, D]."""
        q, k, v = self._inputs(x, step.adapted)
        cos, sin = step.rotary(self.shape)
        if self.qkv_norms:
            weights = self.q_norm.weight, self.k_norm.weight
            q, k, v = kernels.prepare_heads(q, k, v, *weights, cos, sin, self.eps)
        else:
            heads = [self.shape.heads, self.shape.kv_heads]
            turned = kernels.rotate(torch.cat((q, k), 2), cos, sin)  # half the steps of one by one
            q, k = torch.split_with_sizes(turned, heads, 2)
        out = step.attend(index, q, k.transpose(1, 2), v.transpose(1, 2), self)
        projected: Tensor = self.o_proj(out.flatten(2), step.adapted)
        return projected

    def _inputs(self, x: Tensor, adapted: Rows | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, N, H, head_dim], keys and values [B, N, KV, head_dim] of x [B, N, D]."""
        heads = (*x.shape[:2], -1, self.shape.head_dim)
        if self.qkv_proj is not None:
            counts = [self.shape.heads, self.shape.kv_heads, self.shape.kv_heads]
            counts = counts[: 3 - self.shape.value_is_key]
            q, *keys = self.qkv_proj(x, adapted).view(heads).split(counts, 2)
            return q, keys[0], keys[-1]
        q = self.q_proj(x, adapted).view(heads)
        k = self.k_proj(x, adapted).view(heads)
        v = k if self.shape.value_is_key else self.v_proj(x, adapted).view(heads)
        return q, k, v


class Pass(ABC):
    """What all layers of one forward share: rotary tables, and who sees whom.

    `causal` says which of a layer's two scalars is meant, `on_canvas` whether adapters work, on all
    rows but the first `plain`.
    """

    def __init__(
        self,
        positions: Tensor,
        dtype: torch.dtype,
        *,
        causal: bool,
        on_canvas: bool,
        plain: int = 0,
    ) -> None:
        self.causal = causal
        self.adapted = slice(plain, None) if on_canvas else None
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


class Cached(Pass):
    """Causal rows at `places` behind a cached prefix; `shift` moves their positions, not their order.

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
        on_canvas: bool,
    ) -> None:
        super().__init__(places + shift, dtype, causal=True, on_canvas=on_canvas)
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
        """[N, L], 0 where a query may look, else -inf; None for a single token that sees all."""
        if self._sees == self._cache.length and len(self._places) == 1:
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


class Tree(Pass):
    """Rows of texts that share beginnings, a row a token, behind a cached prefix.

    They see its first `trunk` tokens; of the M tokens behind these, themselves last, what `seen` [N, M]
    says. `depths` [M] says how far behind the trunk each stands in its text, `shift` how much further
    its position is. The first `plain` rows are the prefix's own: without adapters, and they do not see
    the trunk's last `hidden` tokens.
    """

    def __init__(
        self,
        depths: Tensor,
        shift: int,
        dtype: torch.dtype,
        cache: PrefixCache,
        trunk: int,
        seen: Tensor,
        *,
        on_canvas: bool,
        plain: int,
        hidden: int,
    ) -> None:
        self._own = depths[-len(seen) :]
        places = trunk + self._own + shift
        super().__init__(places, dtype, causal=True, on_canvas=on_canvas, plain=plain)
        self._plain, self._hidden = plain, hidden
        self._cache, self._trunk = cache, trunk
        self._depths, self._seen = depths, seen
        self._masks: dict[int | None, Tensor] = {}

    def attend(self, index: int, q: Tensor, k: Tensor, v: Tensor, layer: Attention) -> Tensor:
        """See `Pass.attend`."""
        keys, values = self._cache.view_with(index, k, v)
        mask = self._mask(index, layer.shape.window)
        return kernels.attention(q, keys, values, layer.scale, mask)

    def _mask(self, index: int, window: int | None) -> Tensor:
        """[N, L], 0 where a row may look, else -inf."""
        if window not in self._masks:
            first = self._cache.first_visible(index)
            behind = torch.arange(first, self._trunk, device=self._seen.device) - self._trunk
            distance = self._own[:, None] - torch.cat((behind, self._depths))
            allowed = torch.cat((self._seen.new_ones(len(self._seen), len(behind)), self._seen), 1)
            allowed[: self._plain, len(behind) - self._hidden : len(behind)] = False
            if window is not None:
                assert self._cache.length == self._trunk, "a window moves on with what is behind it"
                allowed &= distance < window
            # Added to the scores, which saves each layer the conversion.
            bias = torch.zeros(allowed.shape, dtype=self._dtype, device=allowed.device)
            self._masks[window] = bias.masked_fill_(~allowed, -torch.inf)
        return self._masks[window]


class Canvases(Pass):
    """Canvases of `sizes` rows, each right behind the prefix: all of it is seen, and the canvas.

    Attention runs canvas by canvas, so that nothing is padded or masked; all else runs at once.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        suffixes: Sequence[Suffix | None],
        device: torch.device,
        dtype: torch.dtype,
        cache: PrefixCache,
    ) -> None:
        places = torch.cat([torch.arange(size, device=device) for size in sizes])
        super().__init__(places + cache.length, dtype, causal=False, on_canvas=True)
        self._sizes = list(sizes)
        self._suffixes = suffixes
        self._cache = cache

    def attend(self, index: int, q: Tensor, k: Tensor, v: Tensor, layer: Attention) -> Tensor:
        """See `Pass.attend`."""
        split = (torch.split(x, self._sizes, dim) for x, dim in ((q, 1), (k, 2), (v, 2)))
        parts = []
        for rows, keys, values, suffix in zip(*split, self._suffixes, strict=True):
            if suffix is not None:
                keys = torch.cat((suffix.keys[index], keys), 2)
                values = torch.cat((suffix.values[index], values), 2)
            keys, values = self._cache.view_with(index, keys, values)
            parts.append(kernels.attention(rows, keys, values, layer.scale, None))
        return torch.cat(parts, 1)


@dataclass(frozen=True, slots=True)
class Branch:
    """Rows that continue the first `sees` tokens of a cached prefix together.

    `mask` [rows, rows] is true where a row may look among them.
    """

    sees: int
    mask: Tensor


class Branched(Pass):
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
        sizes = [len(mask) for mask in self._masks]
        # Split once: the gradients of slices would each be a whole tensor.
        rows = (torch.split(x, sizes, dim) for x, dim in ((q, 1), (k, 2), (v, 2)))
        parts = []
        for queries, own_k, own_v, branch, mask in zip(
            *rows, self._branches, self._masks, strict=True
        ):
            keys = torch.cat((prefix_k[:, :, : branch.sees], own_k), 2)
            values = torch.cat((prefix_v[:, :, : branch.sees], own_v), 2)
            parts.append(attention(queries, keys, values, layer.scale, mask))
        return torch.cat(parts, 1)


class Masked(Pass):
    """Rows that see each other under a mask of the caller's, [B, T, T], in every layer."""

    def __init__(self, positions: Tensor, dtype: torch.dtype, mask: Tensor) -> None:
        super().__init__(positions, dtype, causal=False, on_canvas=False)
        self._mask = mask

    def attend(self, index: int, q: Tensor, k: Tensor, v: Tensor, layer: Attention) -> Tensor:
        """See `Pass.attend`."""
        return kernels.attention(q, k, v, layer.scale, self._mask)

"""The prefix cache: keys and values of encoded prefixes, shared, extended and cut anywhere.

All positions are kept, in sliding layers too, so that a prefix can be truncated to any length
and extended again. Knows nothing of tokens' text, of requests or of the model's arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.config import ModelConfig

_SLOTS = 256  # buffers grow by this many positions at a time, and at least by a quarter


class PrefixCache:
    """Keys and values of one prefix: per layer [KV heads, capacity, head_dim].

    A forward writes its own keys and values behind the prefix and reads both as one view. Only
    `commit` makes them part of the prefix; a canvas never commits, so the next forward simply
    writes over them.
    """

    def __init__(self, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
        self._windows = [layer.window for layer in config.layers]
        self._keys = [
            torch.empty(layer.kv_heads, 0, layer.head_dim, device=device, dtype=dtype)
            for layer in config.layers
        ]
        self._values = [torch.empty_like(keys) for keys in self._keys]
        self.ids: list[int] = []

    @property
    def length(self) -> int:
        """Tokens in the prefix."""
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """Bytes held, spare slots included."""
        return 2 * sum(keys.nbytes for keys in self._keys)

    def first_visible(self, layer: int) -> int:
        """The first position the next token sees in `layer`: 0, or where its window starts."""
        window = self._windows[layer]
        return 0 if window is None else max(0, self.length - (window - 1))

    def view_with(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """[visible prefix ; new] keys and values of `layer`, each [B, KV, L, D].

        The prefix is given from position `first` on, or from where the next token sees it.
        `keys` and `values` [B, KV, N, D] belong to the N positions after the prefix. With one
        row they are written in place behind it; several rows, and training, get copies of it.
        """
        first = self.first_visible(layer)
        end = self.length + keys.shape[2]
        if keys.shape[0] > 1:
            shape = (keys.shape[0], -1, -1, -1)
            prefix_k = self._keys[layer][None, :, first : self.length].expand(shape)
            prefix_v = self._values[layer][None, :, first : self.length].expand(shape)
            return torch.cat((prefix_k, keys), 2), torch.cat((prefix_v, values), 2)
        self._reserve(layer, end)
        self._keys[layer][:, self.length : end] = keys[0]
        self._values[layer][:, self.length : end] = values[0]
        return self._keys[layer][None, :, first:end], self._values[layer][None, :, first:end]

    def commit(self, ids: Sequence[int]) -> None:
        """Makes the last forward's keys and values part of the prefix; `ids` are its tokens."""
        self.ids.extend(ids)
        assert all(keys.shape[1] >= self.length for keys in self._keys), "commit without a forward"

    def truncate(self, length: int) -> None:
        """Forgets everything from position `length` on."""
        assert 0 <= length <= self.length, f"cannot cut {self.length} tokens to {length}"
        del self.ids[length:]

    def fork(self, length: int) -> PrefixCache:
        """A copy of the first `length` positions."""
        assert 0 <= length <= self.length, f"cannot fork {length} of {self.length} tokens"
        copy = object.__new__(PrefixCache)
        copy._windows = self._windows
        copy._keys = [keys[:, :length].clone() for keys in self._keys]
        copy._values = [values[:, :length].clone() for values in self._values]
        copy.ids = self.ids[:length]
        return copy

    def _reserve(self, layer: int, positions: int) -> None:
        for buffers in (self._keys, self._values):
            old = buffers[layer]
            if positions <= old.shape[1]:
                continue
            wanted = max(positions, old.shape[1] * 5 // 4)
            capacity = -(-wanted // _SLOTS) * _SLOTS
            buffers[layer] = old.new_empty(old.shape[0], capacity, old.shape[2])
            buffers[layer][:, : self.length] = old[:, : self.length]


class PrefixStore:
    """Several prefixes, least recently used first out, within a number and a size in bytes."""

    def __init__(
        self,
        config: ModelConfig,
        device: torch.device,
        dtype: torch.dtype,
        *,
        max_prefixes: int,
        max_bytes: int,
    ) -> None:
        self._empty = (config, device, dtype)
        self._max_prefixes = max_prefixes
        self._max_bytes = max_bytes
        self._caches: list[PrefixCache] = []  # most recently used last

    @property
    def nbytes(self) -> int:
        """Bytes held by all prefixes."""
        return sum(cache.nbytes for cache in self._caches)

    def __len__(self) -> int:
        return len(self._caches)

    def lookup(self, ids: Sequence[int], *, fork_above: int = 64) -> PrefixCache:
        """The cache of the longest known prefix of `ids`, cut to what they share.

        Cutting away more than `fork_above` tokens would forget work another file or cursor may
        come back to: then the shared part is copied and the old prefix stays.
        """
        best, shared = None, 0
        for cache in self._caches:
            common = common_prefix_length(cache.ids, ids)
            if common > shared:
                best, shared = cache, common
        if best is None:
            best = PrefixCache(*self._empty)
            self._caches.append(best)
        elif best.length - shared > fork_above:
            best = best.fork(shared)
            self._caches.append(best)
        else:
            best.truncate(shared)
            self._caches.remove(best)
            self._caches.append(best)
        self.trim()
        return best

    def trim(self) -> None:
        """Drops the least recently used prefixes beyond the limits; the newest always stays."""
        while len(self._caches) > 1 and (
            len(self._caches) > self._max_prefixes or self.nbytes > self._max_bytes
        ):
            del self._caches[0]


def common_prefix_length(left: Sequence[int], right: Sequence[int]) -> int:
    """How many leading items two sequences share."""
    limit = min(len(left), len(right))
    if list(left[:limit]) == list(right[:limit]):
        return limit
    return next(i for i in range(limit) if left[i] != right[i])

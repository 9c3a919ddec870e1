"""The prefix cache: keys and values of encoded prefixes, shared, extended and cut.

A sliding layer needs the last positions only, and keeps a few more so that a cut is free where
somebody types. Knows nothing of tokens' text, of requests or of the model's arithmetic.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.config import AttentionConfig, ModelConfig

_SLOTS = 256  # buffers grow by this many positions at a time, and at least by a quarter
BACK = 256  # tokens that can always be cut off, though sliding layers forget


def most_slots(layer: AttentionConfig, prefix: int, new: int) -> int:
    """The most positions of `layer` that memory is taken for: a prefix and `new` more behind it."""
    grown = _rounded((prefix + new) * 5 // 4)
    return grown if layer.window is None else min(grown, _rounded(layer.window + 2 * BACK + new))


@dataclass(frozen=True, slots=True, kw_only=True)
class Suffix:
    """An encoded suffix: the keys and values of `ids`, per layer [1, KV, N, D].

    It stands `room` positions behind the first `sees` tokens of a prefix and has seen those alone.
    """

    ids: tuple[int, ...]
    sees: int
    room: int
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]


class PrefixCache:
    """Keys and values of one prefix: per layer [KV heads, capacity, head_dim].

    A forward writes its own keys and values behind the prefix and reads both as one view. Only
    `commit` makes them part of the prefix; a canvas never commits, so the next forward simply
    writes over them. `back` tokens can always be cut off; see `shortest`.
    """

    def __init__(
        self, config: ModelConfig, device: torch.device, dtype: torch.dtype, *, back: int = BACK
    ) -> None:
        self._windows = [layer.window for layer in config.layers]
        self._keys = [
            torch.empty(layer.kv_heads, 0, layer.head_dim, device=device, dtype=dtype)
            for layer in config.layers
        ]
        self._values = [torch.empty_like(keys) for keys in self._keys]
        self._starts = [0] * len(self._keys)  # the first position each layer holds
        self._back = back
        self.ids: list[int] = []
        self.suffix: Suffix | None = None  # the last one that was sealed, while it holds

    @property
    def length(self) -> int:
        """Tokens in the prefix."""
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """Bytes held, spare slots included."""
        return 2 * sum(keys.nbytes for keys in self._keys)

    @property
    def shortest(self) -> int:
        """The length down to which it can be cut; below, only to 0.

        A sliding layer that has forgotten its first positions needs a whole window of the others.
        """
        pairs = zip(self._starts, self._windows, strict=True)
        return max((start + window - 1 for start, window in pairs if start and window), default=0)

    def first_visible(self, layer: int) -> int:
        """The first position the next token sees in `layer`: 0, or where its window starts."""
        window = self._windows[layer]
        return 0 if window is None else max(0, self.length - (window - 1))

    def visible(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values [KV, L, D] of `layer` that the next token sees, a view."""
        start = self._starts[layer]
        rows = slice(self.first_visible(layer) - start, self.length - start)
        return self._keys[layer][:, rows], self._values[layer][:, rows]

    def view_with(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """[visible prefix ; new] keys and values of `layer`, each [B, KV, L, D].

        The prefix is given from position `first` on, or from where the next token sees it.
        `keys` and `values` [B, KV, N, D] belong to the N positions after the prefix. With one
        row they are written in place behind it; several rows, and training, get copies of it.
        """
        if keys.shape[0] > 1:
            shape = (keys.shape[0], -1, -1, -1)
            prefix_k, prefix_v = (part.expand(shape) for part in self.visible(layer))
            return torch.cat((prefix_k, keys), 2), torch.cat((prefix_v, values), 2)
        self._reserve(layer, keys.shape[2])
        start = self._starts[layer]
        first, length = self.first_visible(layer) - start, self.length - start
        end = length + keys.shape[2]
        self._keys[layer][:, length:end] = keys[0]
        self._values[layer][:, length:end] = values[0]
        return self._keys[layer][None, :, first:end], self._values[layer][None, :, first:end]

    def last(self, count: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Copies of the last `count` positions' keys and values, per layer [1, KV, count, D]."""
        rows = slice(self.length - count, self.length)
        return tuple(keys[None, :, rows].clone() for keys in self._keys), tuple(
            values[None, :, rows].clone() for values in self._values
        )

    def commit(self, ids: Sequence[int]) -> None:
        """Makes the last forward's keys and values part of the prefix; `ids` are its tokens."""
        self.ids.extend(ids)
        ends = (start + keys.shape[1] for start, keys in zip(self._starts, self._keys, strict=True))
        assert all(end >= self.length for end in ends), "commit without a forward"

    def append(self, suffix: Suffix) -> None:
        """Makes an encoded suffix part of the prefix."""
        for index, (keys, values) in enumerate(zip(suffix.keys, suffix.values, strict=True)):
            self.view_with(index, keys, values)
        self.commit(suffix.ids)

    def truncate(self, length: int) -> None:
        """Forgets everything from position `length` on, which is 0 or at least `shortest`."""
        assert 0 <= length <= self.length, f"cannot cut {self.length} tokens to {length}"
        self._check(length)
        if length == 0:
            self._starts = [0] * len(self._starts)
        del self.ids[length:]
        if self.suffix and self.suffix.sees > length:
            self.suffix = None

    def fork(self, length: int) -> PrefixCache:
        """A copy of the first `length` positions, of which there are at least `shortest`."""
        assert 0 <= length <= self.length, f"cannot fork {length} of {self.length} tokens"
        self._check(length)
        copy = object.__new__(PrefixCache)
        copy._windows, copy._back = self._windows, self._back
        copy._starts = list(self._starts) if length else [0] * len(self._starts)
        ends = [max(0, length - start) for start in copy._starts]
        copy._keys = [keys[:, :end].clone() for keys, end in zip(self._keys, ends, strict=True)]
        copy._values = [part[:, :end].clone() for part, end in zip(self._values, ends, strict=True)]
        copy.ids = self.ids[:length]
        copy.suffix = None
        return copy

    def convert(self, dtype: torch.dtype) -> None:
        """Keeps it in `dtype`; where that is another one than before, without spare room."""
        if self._keys[0].dtype is not dtype:
            ends = [self.length - start for start in self._starts]
            for buffers in (self._keys, self._values):
                buffers[:] = [
                    part[:, :end].to(dtype) for part, end in zip(buffers, ends, strict=True)
                ]

    def _check(self, length: int) -> None:
        assert length in (0, self.length) or length >= self.shortest, (
            f"cannot go back to {length} tokens: sliding layers remember from {self.shortest} on"
        )

    def _reserve(self, layer: int, new: int) -> None:
        """Room for `new` positions behind the prefix; sliding layers forget what lies far back."""
        start, window = self._starts[layer], self._windows[layer]
        most = sys.maxsize if window is None else window + 2 * self._back
        if window is not None and self.length - start > most:
            self._starts[layer] = self.length - window - self._back
        held = self.length - self._starts[layer]
        forgotten = slice(self._starts[layer] - start, self.length - start)
        for buffers in (self._keys, self._values):
            old = buffers[layer]
            if held + new > old.shape[1]:
                grown = min(old.shape[1] * 5 // 4, most + new)
                capacity = _rounded(max(held + new, grown))
                buffers[layer] = old.new_empty(old.shape[0], capacity, old.shape[2])
                buffers[layer][:, :held] = old[:, forgotten]
            elif forgotten.start:
                old[:, :held] = old[:, forgotten].clone()


def _rounded(positions: int) -> int:
    return -(-positions // _SLOTS) * _SLOTS


class PrefixStore:
    """Several prefixes, least recently used first out, within a number and a size in bytes.

    The one in use is in `dtype`, the others rest in `at_rest`, which may round them.
    """

    def __init__(
        self,
        config: ModelConfig,
        device: torch.device,
        dtype: torch.dtype,
        *,
        at_rest: torch.dtype | None = None,
        max_prefixes: int,
        max_bytes: int,
    ) -> None:
        self._empty = (config, device, dtype)
        self._dtype, self._at_rest = dtype, at_rest or dtype
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
            if common > shared and common >= cache.shortest:
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
        for other in self._caches[:-1]:
            other.convert(self._at_rest)
        best.convert(self._dtype)
        self.trim()
        return best

    def clear(self) -> None:
        """Drops all prefixes."""
        self._caches.clear()

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

"""The prefix cache: keys and values of encoded prefixes, shared, extended and cut.

A sliding layer needs the last positions only, and keeps a few more so that a cut is free where
somebody types. Knows nothing of tokens' text, of requests or of the model's arithmetic.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from engine import storage
from engine.config import ModelConfig
from engine.storage import BACK, Buffers, Pages, Pools, Storage


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

    def to(self, dtype: torch.dtype) -> Suffix:
        """The same, kept in `dtype`."""
        keys, values = (
            tuple(part.to(dtype) for part in parts) for parts in (self.keys, self.values)
        )
        return replace(self, keys=keys, values=values)


class PrefixCache:
    """Keys and values of one prefix, in buffers of its own or in pages of `pools`.

    A forward writes its own keys and values behind the prefix and reads both as one. Only
    `commit` makes them part of the prefix; a canvas never commits, so the next forward simply
    writes over them. `back` tokens can always be cut off; see `shortest`. Pages are given back where
    the prefix is cut, and when nobody refers to it any more.
    """

    def __init__(
        self,
        config: ModelConfig,
        device: torch.device,
        dtype: torch.dtype,
        *,
        back: int = BACK,
        pools: Pools | None = None,
    ) -> None:
        self.pools = pools
        self._storages: dict[int | None, Storage] = {
            window: Pages(pools[window], back) if pools else Buffers(layers, device, dtype, back)
            for window, layers in storage.alike(config).items()
        }
        self._places = storage.places(config)
        self.ids: list[int] = []
        self.suffix: Suffix | None = None  # the last one that was sealed, while it holds

    @property
    def length(self) -> int:
        """Tokens in the prefix."""
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """Bytes held, spare room and shared pages included."""
        return sum(held.nbytes for held in self._storages.values())

    @property
    def shortest(self) -> int:
        """The length down to which it can be cut; below, only to 0.

        A sliding layer that has forgotten its first positions needs a whole window of the others.
        """
        starts = ((held.start, window) for window, held in self._storages.items())
        return max((start + window - 1 for start, window in starts if start and window), default=0)

    def first_visible(self, layer: int) -> int:
        """The first position the next token sees in `layer`: 0, or where its window starts."""
        return self._first(self._places[layer][0])

    def visible(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values [KV, L, D] of `layer` that the next token sees; a view, of pages a copy."""
        window, number = self._places[layer]
        return self._storages[window].read(number, self._first(window), self.length)

    def pages(self, window: int | None) -> tuple[list[int], int, int]:
        """The pages that hold the prefix in layers of `window`, and what of them the next token sees.

        That is from a first position up to another one, counted from the first page's beginning.
        """
        held = self._storages[window]
        assert isinstance(held, Pages), "this prefix lies in buffers of its own"
        return held.pages, self._first(window) - held.start, self.length - held.start

    def view_with(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """[visible prefix ; new] keys and values of `layer`, each [B, KV, L, D].

        The prefix is given from where the next token sees it. `keys` and `values` [B, KV, N, D]
        belong to the N positions after the prefix. With one row they are written in place behind
        it; several rows, and training, get copies of it.
        """
        if keys.shape[0] > 1:
            shape = (keys.shape[0], -1, -1, -1)
            prefix_k, prefix_v = (part.expand(shape) for part in self.visible(layer))
            return torch.cat((prefix_k, keys), 2), torch.cat((prefix_v, values), 2)
        window, number = self._places[layer]
        held, end = self._storages[window], self.length + keys.shape[2]
        held.reserve(self.length, keys.shape[2])
        held.write(number, self.length, keys[0], values[0])
        all_keys, all_values = held.read(number, self._first(window), end)
        return all_keys[None], all_values[None]

    def last(self, count: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Copies of the last `count` positions' keys and values, per layer [1, KV, count, D]."""
        return self._copies(self.length - count, self.length)

    def written(self, count: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Copies, as of `last`, of the first `count` positions behind the prefix, which a forward wrote."""
        return self._copies(self.length, self.length + count)

    def commit(self, ids: Sequence[int]) -> None:
        """Makes the last forward's keys and values part of the prefix; `ids` are its tokens."""
        self.ids.extend(ids)
        ends = [held.end for held in self._storages.values()]
        assert min(ends) >= self.length, "commit without a forward"

    def append(self, ids: Sequence[int], keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """Makes tokens part of the prefix whose keys and values, per layer [1, KV, N, D], are at hand."""
        for index, (own_keys, own_values) in enumerate(zip(keys, values, strict=True)):
            self.view_with(index, own_keys, own_values)
        self.commit(ids)

    def truncate(self, length: int) -> None:
        """Forgets everything from position `length` on, which is 0 or at least `shortest`."""
        assert 0 <= length <= self.length, f"cannot cut {self.length} tokens to {length}"
        self._check(length)
        for held in self._storages.values():
            held.cut(length)
        del self.ids[length:]
        if self.suffix and self.suffix.sees > length:
            self.suffix = None

    @contextmanager
    def without_last(self) -> Iterator[list[int]]:
        """Takes the last token off for a while and gives it; then all is to the bit as it was."""
        assert self.ids, "nothing stands before the text"
        self._check(self.length - 1)
        written = self.last(1)
        last = self.ids.pop()
        try:
            yield [last]
        finally:
            for index, (keys, values) in enumerate(zip(*written, strict=True)):
                self.view_with(index, keys, values)
            self.ids.append(last)

    def fork(self, length: int) -> PrefixCache:
        """The first `length` positions, of which there are at least `shortest`, as a prefix of its own."""
        assert 0 <= length <= self.length, f"cannot fork {length} of {self.length} tokens"
        self._check(length)
        fork = copy.copy(self)
        fork._storages = {window: held.fork(length) for window, held in self._storages.items()}
        fork.ids, fork.suffix = self.ids[:length], None
        return fork

    def convert(self, dtype: torch.dtype) -> None:
        """Keeps it in `dtype`; without spare room where it lies in pages or is converted."""
        for held in self._storages.values():
            held.convert(self.length, dtype)
        if self.suffix:
            self.suffix = self.suffix.to(torch.bfloat16 if dtype is torch.int8 else dtype)

    def _copies(self, first: int, end: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        parts = [self._storages[window].read(number, first, end) for window, number in self._places]
        return tuple(keys[None].clone() for keys, _ in parts), tuple(
            values[None].clone() for _, values in parts
        )

    def _first(self, window: int | None) -> int:
        return 0 if window is None else max(0, self.length - (window - 1))

    def _check(self, length: int) -> None:
        assert length in (0, self.length) or length >= self.shortest, (
            f"cannot go back to {length} tokens: sliding layers remember from {self.shortest} on"
        )


class PrefixStore:
    """Several prefixes, least recently used first out, within a number and a size in bytes.

    The one in use is in `dtype`, the others rest in `at_rest`, which may round them. With `pools` the
    oldest also go where no page is free; only one store may fill these.
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
        pools: Pools | None = None,
    ) -> None:
        self._empty = partial(PrefixCache, config, device, dtype, pools=pools)
        self._pools = pools or {}
        for pool in self._pools.values():
            pool.make_room = self._drop_oldest
        self._dtype, self._at_rest = dtype, at_rest or dtype
        self._max_prefixes = max_prefixes
        self._max_bytes = max_bytes
        self._caches: list[PrefixCache] = []  # most recently used last

    @property
    def nbytes(self) -> int:
        """Bytes held by all prefixes, pages once."""
        if self._pools:
            return sum(pool.used * pool.page_bytes for pool in self._pools.values())
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
            best = self._empty()
            self._caches.append(best)
        elif best.length - shared > fork_above:
            best = best.fork(shared)
            self._caches.append(best)
        else:
            best.truncate(shared)
            self._caches.remove(best)
            self._caches.append(best)
        self._rest(self._caches[:-1])
        best.convert(self._dtype)
        self.trim()
        return best

    def rest(self) -> None:
        """Lets all rest until the next `lookup`."""
        self._rest(self._caches)

    def clear(self) -> None:
        """Drops all prefixes."""
        self._caches.clear()

    def trim(self) -> None:
        """Drops the least recently used prefixes beyond the limits; the newest always stays."""
        while len(self) > self._max_prefixes or self.nbytes > self._max_bytes:
            if not self._drop_oldest():
                break

    def _rest(self, caches: Sequence[PrefixCache]) -> None:
        for cache in caches:
            cache.convert(self._at_rest)

    def _drop_oldest(self) -> bool:
        """Drops the least recently used prefix; whether there was one beside that in use."""
        if len(self._caches) < 2:
            return False
        del self._caches[0]
        return True


def common_prefix_length(left: Sequence[int], right: Sequence[int]) -> int:
    """How many leading items two sequences share."""
    limit = min(len(left), len(right))
    if list(left[:limit]) == list(right[:limit]):
        return limit
    return next(i for i in range(limit) if left[i] != right[i])

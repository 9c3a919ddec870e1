"""Where the keys and values of prefixes lie: in buffers of their own that grow, or in pages of a pool.

A `Storage` holds one prefix in all layers that see alike, which are those of one window; a layer is
named by its place among these. Those with a window forget what lies far before it. Knows nothing
of tokens.
"""

from __future__ import annotations

import itertools
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from engine.config import AttentionConfig, ModelConfig
from engine.errors import EngineError
from engine.kernels import quantize_rows

BACK = 256  # tokens that can always be cut off, though sliding layers forget
PAGE = 64  # positions of a page: whole blocks of those that the attention kernel reads at once
_SLOTS = 64  # buffers grow by this many positions at a time, and at least by a sixteenth


class PoolExhausted(EngineError):
    """A prefix needs more pages than there are."""


class Storage(Protocol):
    """Keys and values of positions `start` to `end` of one prefix, in layers of one window."""

    start: int

    @property
    def end(self) -> int:
        """Behind the last position there is room for."""

    @property
    def nbytes(self) -> int:
        """Bytes held, spare room included."""

    def reserve(self, length: int, new: int) -> None:
        """Makes room for `new` positions behind a prefix of `length`; only here something is forgotten.

        Raises PoolExhausted.
        """

    def write(self, layer: int, first: int, keys: Tensor, values: Tensor) -> None:
        """Puts keys and values [KV, N, D] to the positions from `first` on."""

    def read(self, layer: int, first: int, end: int) -> tuple[Tensor, Tensor]:
        """Keys and values [KV, N, D] of the positions from `first` up to `end`; perhaps a view."""

    def cut(self, length: int) -> None:
        """Forgets the positions from `length` on."""

    def fork(self, length: int) -> Storage:
        """Another one with the positions before `length`."""

    def convert(self, length: int, dtype: torch.dtype) -> None:
        """Keeps the positions before `length` in `dtype`; what int8 keeps is not read or written."""


class Buffers:
    """A `Storage` whose positions lie side by side: what is read is a view of them.

    In int8 each position of a head has a scale of its own.
    """

    def __init__(
        self, layers: Sequence[AttentionConfig], device: torch.device, dtype: torch.dtype, back: int
    ) -> None:
        self.start = 0
        self._window = layers[0].window
        self._back = back
        # Keys and values of each layer, [KV, capacity, D].
        self._parts: list[list[Tensor]] = [
            [
                torch.empty(layer.kv_heads, 0, layer.head_dim, device=device, dtype=dtype)
                for _ in range(2)
            ]
            for layer in layers
        ]
        self._units: list[list[Tensor]] = []  # of parts in int8, [KV, capacity, 1]

    @property
    def end(self) -> int:
        """See `Storage`."""
        return self.start + self._parts[0][0].shape[1]

    @property
    def nbytes(self) -> int:
        """See `Storage`."""
        return sum(part.nbytes for pair in (*self._parts, *self._units) for part in pair)

    def reserve(self, length: int, new: int) -> None:
        """See `Storage`; copies what stays where the buffers grow or something is forgotten."""
        start, window = self.start, self._window
        most = sys.maxsize if window is None else window + 2 * self._back
        if window is not None and length - start > most:
            start = length - window - self._back
        if start == self.start and length + new <= self.end:
            return
        held, forgotten = length - start, start - self.start
        for pair in self._parts:
            for number, old in enumerate(pair):
                heads, capacity, dim = old.shape
                kept = old[:, forgotten : forgotten + held]
                if held + new > capacity:
                    capacity = _rounded(max(held + new, min(capacity * 17 // 16, most + new)))
                    pair[number] = old.new_empty(heads, capacity, dim)
                    pair[number][:, :held] = kept
                else:
                    old[:, :held] = kept.clone()
        self.start = start

    def write(self, layer: int, first: int, keys: Tensor, values: Tensor) -> None:
        """See `Storage`."""
        first -= self.start
        end, (stored_keys, stored_values) = first + keys.shape[1], self._parts[layer]
        stored_keys[:, first:end], stored_values[:, first:end] = keys, values

    def read(self, layer: int, first: int, end: int) -> tuple[Tensor, Tensor]:
        """See `Storage`."""
        first, end = first - self.start, end - self.start
        keys, values = self._parts[layer]
        return keys[:, first:end], values[:, first:end]

    def cut(self, length: int) -> None:
        """See `Storage`."""
        self.start = self.start if length else 0

    def fork(self, length: int) -> Buffers:
        """See `Storage`; a copy without spare room."""
        fork = object.__new__(Buffers)
        fork._window, fork._back = self._window, self._back
        fork.start = self.start if length else 0
        end = length - fork.start
        fork._parts, fork._units = (
            [[part[:, :end].clone() for part in pair] for pair in pairs]
            for pairs in (self._parts, self._units)
        )
        return fork

    def convert(self, length: int, dtype: torch.dtype) -> None:
        """See `Storage`; where the dtype is another one than before, without spare room."""
        if self._parts[0][0].dtype is dtype:
            return
        end = length - self.start
        units, self._units = self._units, []
        for layer, pair in enumerate(self._parts):
            parts = [part[:, :end] for part in pair]
            if units:
                parts = [
                    part * unit[:, :end] for part, unit in zip(parts, units[layer], strict=True)
                ]
            if dtype is torch.int8:
                rounded = [quantize_rows(part) for part in parts]
                parts = [rows for rows, _ in rounded]
                self._units.append([unit for _, unit in rounded])
            self._parts[layer] = [part.to(dtype) for part in parts]


class Pool:
    """Pages for all prefixes in layers of one window; each page knows how many hold it.

    `make_room` is asked when none is free: whether somebody could give pages back.
    """

    def __init__(
        self,
        layers: Sequence[AttentionConfig],
        count: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.window = layers[0].window
        self.parts = [  # of each layer [2, KV, pages, PAGE, D]
            torch.empty(2, layer.kv_heads, count, PAGE, layer.head_dim, device=device, dtype=dtype)
            for layer in layers
        ]
        self.make_room: Callable[[], bool] = lambda: False
        self._free = list(range(count))[::-1]
        self._holders = [0] * count

    @property
    def count(self) -> int:
        """Pages there are."""
        return len(self._holders)

    @property
    def used(self) -> int:
        """Pages that somebody holds."""
        return len(self._holders) - len(self._free)

    @property
    def page_bytes(self) -> int:
        """Bytes of one page in all layers."""
        return sum(part.nbytes for part in self.parts) // self.count

    def take(self, count: int) -> list[int]:
        """So many free pages, which hold anything. Raises PoolExhausted."""
        self._wait(lambda: len(self._free) >= count)
        pages = [self._free.pop() for _ in range(count)]
        self.share(pages)
        return pages

    def own(self, page: int) -> int:
        """`page` for its holder to write to; a copy of it where others hold it too."""
        self._wait(lambda: self._holders[page] == 1 or bool(self._free))
        if self._holders[page] == 1:
            return page
        [copy] = self.take(1)
        for part in self.parts:
            part[:, :, copy] = part[:, :, page]
        self.give([page])
        return copy

    def share(self, pages: Sequence[int]) -> None:
        """Says that one more holds these pages."""
        for page in pages:
            self._holders[page] += 1

    def give(self, pages: Sequence[int]) -> None:
        """Says that one less holds these pages; those that nobody holds are free."""
        for page in pages:
            self._holders[page] -= 1
            if not self._holders[page]:
                self._free.append(page)

    def _wait(self, enough: Callable[[], bool]) -> None:
        while not enough():
            if not self.make_room():
                raise PoolExhausted(
                    f"the text does not fit the prefix cache, whose {self.count} pages hold "
                    f"{self.count * PAGE:,} tokens; ask with less of it, or start the engine with "
                    "--max-prompt-tokens N for longer prompts"
                )


Pools = Mapping[int | None, Pool]  # by the window of their layers


class Pages:
    """A `Storage` of pages: what is read is gathered, what is forked is shared until it is written to."""

    def __init__(self, pool: Pool, back: int) -> None:
        self.start = 0
        self.pages: list[int] = []
        self._pool = pool
        self._back = back
        self._slots: Tensor | None = None  # where in the pool each position lies

    def __del__(self) -> None:
        self._pool.give(self.pages)

    @property
    def end(self) -> int:
        """See `Storage`."""
        return self.start + PAGE * len(self.pages)

    @property
    def nbytes(self) -> int:
        """See `Storage`; shared pages count."""
        return len(self.pages) * self._pool.page_bytes

    def reserve(self, length: int, new: int) -> None:
        """See `Storage`; a window's pages are forgotten one by one."""
        window, pages = self._pool.window, self.pages
        if window is not None:
            gone = max(0, length - (window - 1) - self._back - self.start) // PAGE
            if gone:
                self._pool.give(pages[:gone])
                self._change(pages[gone:])
                self.start += gone * PAGE
        first = (length - self.start) // PAGE
        if new and first < len(self.pages):
            own = self._pool.own(self.pages[first])
            if own != self.pages[first]:
                self._change([*self.pages[:first], own, *self.pages[first + 1 :]])
        if length + new > self.end:
            self._change(self.pages + self._pool.take(_pages(length + new - self.end)))

    def write(self, layer: int, first: int, keys: Tensor, values: Tensor) -> None:
        """See `Storage`."""
        flat = self._pool.parts[layer].flatten(2, 3)
        slots = self._at(first, first + keys.shape[1])
        flat[0].index_copy_(1, slots, keys)
        flat[1].index_copy_(1, slots, values)

    def read(self, layer: int, first: int, end: int) -> tuple[Tensor, Tensor]:
        """See `Storage`; a copy."""
        flat = self._pool.parts[layer].flatten(2, 3)
        keys, values = flat.index_select(2, self._at(first, end))
        return keys, values

    def cut(self, length: int) -> None:
        """See `Storage`."""
        self.start = self.start if length else 0
        kept = _pages(length - self.start)
        if kept < len(self.pages):
            self._pool.give(self.pages[kept:])
            self._change(self.pages[:kept])

    def fork(self, length: int) -> Pages:
        """See `Storage`; no position is copied."""
        fork = Pages(self._pool, self._back)
        if length:
            fork.start, fork.pages = self.start, self.pages[: _pages(length - self.start)]
            self._pool.share(fork.pages)
        return fork

    def convert(self, length: int, dtype: torch.dtype) -> None:
        """See `Storage`; only gives spare pages back."""
        assert dtype is self._pool.parts[0].dtype, f"pages cannot become {dtype}"
        self.cut(length)

    def _change(self, pages: list[int]) -> None:
        self.pages, self._slots = pages, None

    def _at(self, first: int, end: int) -> Tensor:
        """Where in the pool the positions from `first` up to `end` lie."""
        if self._slots is None:
            device = self._pool.parts[0].device
            pages = torch.tensor(self.pages, device=device, dtype=torch.long)
            self._slots = (PAGE * pages[:, None] + torch.arange(PAGE, device=device)).flatten()
        return self._slots[first - self.start : end - self.start]


def allocate(
    config: ModelConfig,
    longest: int,
    rows: int,
    device: torch.device,
    dtype: torch.dtype,
    *,
    nbytes: int = 0,
    back: int = BACK,
) -> Pools:
    """Pools that hold one prefix of `longest` tokens with `rows` more behind it, or more in `nbytes`."""
    one = prefix_bytes(config, longest, rows, dtype.itemsize, back)
    pools = {}
    for window, layers in alike(config).items():
        count = most_pages(window, longest, rows, back)
        pools[window] = Pool(layers, max(count, count * nbytes // one), device, dtype)
    return pools


def alike(config: ModelConfig) -> dict[int | None, list[AttentionConfig]]:
    """The layers of a model by their window, in order."""
    windows = dict.fromkeys(layer.window for layer in config.layers)
    return {w: [layer for layer in config.layers if layer.window == w] for w in windows}


def places(config: ModelConfig) -> list[tuple[int | None, int]]:
    """Of each layer its window, and its place among the layers with that window."""
    numbers: defaultdict[int | None, Iterator[int]] = defaultdict(itertools.count)
    return [(layer.window, next(numbers[layer.window])) for layer in config.layers]


def prefix_bytes(
    config: ModelConfig, longest: int, rows: int, itemsize: int, back: int = BACK
) -> int:
    """The most that pages of one prefix of `longest` tokens take, with `rows` more behind it."""
    return sum(
        PAGE * most_pages(layer.window, longest, rows, back) * position_bytes(layer, itemsize)
        for layer in config.layers
    )


def most_pages(window: int | None, longest: int, rows: int, back: int = BACK) -> int:
    """The most pages that a prefix of up to `longest` tokens takes, with `rows` more behind it."""
    # A page is forgotten as a whole, so some positions stay longer.
    held = longest if window is None else min(longest, window - 1 + back + PAGE - 1)
    return _pages(held + rows)


def position_bytes(layer: AttentionConfig, itemsize: int) -> int:
    """Key and value of one token in one layer."""
    return 2 * layer.kv_heads * layer.head_dim * itemsize


def _pages(positions: int) -> int:
    return -(-positions // PAGE)


def _rounded(positions: int) -> int:
    return -(-positions // _SLOTS) * _SLOTS

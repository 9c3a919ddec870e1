"""One denoising step of fixed shapes at fixed addresses, for one canvas or several over one prefix.

Holes, their suffixes and the number of canvases are padded to the next of a few sizes. What pads is
seen by nobody and decides nothing: in the end each step is that of `steps.plain` under the same noise.
The prefix is read where it lies, in pages of any order and number. When a step is captured and
replayed is `engine.graphs`' matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine import kernels, sampler, storage
from engine.attention import Attention, Pass
from engine.cache import PrefixCache
from engine.config import SamplerConfig
from engine.kernels import Belief
from engine.model import Transformer
from engine.noise import Noise
from engine.sampler import Prediction
from engine.steps import Canvas
from engine.storage import Pools

HOLES = (16, 32, 64, 128, 256)
SUFFIXES = (0, 32, 64, 128)
COUNTS = (1, 2, 4, 8)
_MOST_HOLE_ROWS = 256  # of several canvases: memory is planned for the distributions of one
_MOST_ROWS = 512  # that the sorting of experts takes at once


@dataclass(frozen=True, slots=True)
class Shape:
    """The slots of a step, a hole's and its suffix's.

    `count` canvases of this shape, each with so many `judged` tokens of its suffix.
    """

    hole: int
    suffix: int
    count: int = 1
    judged: int = 0

    @classmethod
    def of(cls, hole: int, suffix: int, count: int = 1, judged: int = 0) -> Shape:
        """The smallest shape for so many tokens."""
        sizes = _bucket(hole, HOLES), _bucket(suffix, SUFFIXES)
        return cls(*sizes, _bucket(count, COUNTS), judged)

    @classmethod
    def holding(cls, canvases: Sequence[Canvas]) -> Shape | None:
        """The smallest shape for `canvases`; None where there is none."""
        hole = max(canvas.hole for canvas in canvases)
        suffix = max(len(canvas.clamped) for canvas in canvases)
        if hole > HOLES[-1] or suffix > SUFFIXES[-1] or len(canvases) > COUNTS[-1]:
            return None
        shape = cls.of(hole, suffix, len(canvases), canvases[0].judged)
        several = shape.count * shape.hole > _MOST_HOLE_ROWS or (
            shape.count * shape.canvas > _MOST_ROWS
        )
        return None if shape.count > 1 and several else shape

    @property
    def canvas(self) -> int:
        """Slots of hole and suffix together."""
        return self.hole + self.suffix


class Step:
    """One denoising step on buffers of one shape: `begin` fills them, `run` is the step.

    `run` is given nothing, returns nothing, makes no choice on our side and changes no address. Its
    reports are `best`, `log_best` [B, H], `entropy`, `done` and `junction` [B].
    """

    def __init__(
        self, model: Transformer, config: SamplerConfig, shape: Shape, pools: Pools
    ) -> None:
        self.shape = shape
        self._model = model
        self._config = config
        self._device = model.embed_tokens.weight.device
        assert model.config.canvas
        few = model.config.canvas.soft_tokens
        self._soft_tokens = few and min(few, model.config.vocab_size)
        count, hole, slots = shape.count, shape.hole, shape.canvas
        width = model.config.hidden_size
        # Of the request; all canvases have the same noise.
        self._uniform = self._zeros(config.max_steps, hole)
        self._noise = self._zeros(config.max_steps + 1, hole, dtype=torch.long)
        left = range(config.max_steps, 0, -1)
        temperatures = [sampler.temperature(config, n) for n in left]
        self._temperatures = torch.tensor(temperatures, device=self._device)
        self._twin = self._zeros(count, slots, dtype=torch.long)  # the slot each one repeats
        self._real = self._zeros(count, hole, dtype=torch.bool)
        self._stretch = self._zeros(count, 1)  # slots by the hole's own: a mean over the latter
        self._sizes = self._zeros(count, 1)  # real tokens on a canvas
        self._first_bias = self._zeros(model.config.vocab_size)  # -inf where no hole can begin
        self._known = self._zeros(count, slots, width, dtype=model.dtype)
        self._sight = _Still(model, shape, pools)
        # Of the step before.
        self._number = self._zeros(1, dtype=torch.long)
        self._ids = self._zeros(count, slots, dtype=torch.long)
        self._soft = self._zeros(count, slots, width, dtype=model.dtype)
        self._noisy = self._zeros(count, hole, dtype=torch.bool)
        self._unchanged = self._zeros(count, dtype=torch.long)
        # What is reported.
        self.best = self._zeros(count, hole, dtype=torch.long)
        self.log_best = self._zeros(count, hole)
        self.entropy = self._zeros(count)
        self.done = self._zeros(count, dtype=torch.bool)
        self.junction = self._zeros(count)

    def begin(self, cache: PrefixCache, canvases: Sequence[Canvas], noise: Noise) -> None:
        """Fills the buffers for the first step over `canvases`; the last stands for missing ones."""
        canvases = [*canvases, *[canvases[-1]] * (self.shape.count - len(canvases))]
        room, longest = self.shape.hole, noise.ids.shape[1]
        holes = self._tokens([canvas.hole for canvas in canvases])[:, None]
        suffixes = self._tokens([len(canvas.clamped) for canvas in canvases])[:, None]
        guessed = self._tokens([len(canvas.guess) for canvas in canvases])[:, None]
        self._uniform[:, : min(room, longest)] = noise.uniform[:, :room]
        self._noise[:, : min(room, longest)] = noise.ids[:, :room]
        slot = torch.arange(self.shape.canvas, device=self._device)
        # What pads repeats the slot before it, place and all: it asks for no expert of its own.
        inside, behind = torch.minimum(slot, holes - 1), torch.minimum(slot - room, suffixes - 1)
        inside = torch.where(holes > 0, inside, room)
        behind = torch.where(suffixes > 0, behind + room, holes - 1)
        self._twin.copy_(torch.where(slot < room, inside, behind))
        self._real.copy_(slot[:room] < holes)
        self._stretch.copy_(torch.where(holes > 0, room / holes.clamp(min=1), 0))
        self._sizes.copy_(holes + suffixes)
        self._noisy.copy_(self._real & (slot[:room] >= guessed))
        self._first_bias.fill_(-torch.inf if canvases[0].begin else 0.0)
        if canvases[0].begin:
            self._first_bias[self._tokens(canvases[0].begin)] = 0.0
        self._number.zero_()
        self._unchanged.zero_()
        self.best.fill_(-1)
        self._soft.zero_()
        self._ids.zero_()
        self._ids[:, :room] = self._noise[0]
        for row, canvas in enumerate(canvases):
            self._ids[row, : len(canvas.guess)] = self._tokens(canvas.guess)
            self._ids[row, room : room + len(canvas.clamped)] = self._tokens(canvas.clamped)
        self._ids.copy_(self._ids.gather(1, self._twin))
        self._known.copy_(self._model.embed(self._ids))
        place = torch.where(self._twin < room, self._twin, self._twin - room + holes)
        self._sight.begin(cache, place + cache.length, holes, suffixes)

    def run(self) -> None:
        """The next step."""
        room, config = self.shape.hole, self._config
        hidden = self._model.look(self._ids, self._soft, self._sight)
        self._judge(hidden)
        belief, drawn, soft = self._believed(hidden[:, :room])
        padding = ~self._real
        self._number += 1
        hole, accepted = kernels.accept_and_renoise(
            belief.entropy.masked_fill(padding, torch.inf),
            drawn,
            self._noise[self._number].expand_as(drawn).contiguous(),
            config.entropy_bound,
        )
        self._noisy.copy_(self._real & ~accepted)
        repeated = self._twin[:, :room].clamp(max=room - 1)  # without a hole: the suffix's slot
        self._ids[:, :room] = torch.where(
            self._twin[:, :room] < room, hole.gather(1, repeated), self._ids[:, :room]
        )
        best = belief.best.masked_fill(padding, -1)
        self._unchanged.copy_(sampler.unchanged(best, self.best, self._unchanged))
        entropy = belief.entropy.masked_fill(padding, 0.0) * self._stretch
        sure = sampler.is_confident(entropy, config.confidence)
        self.entropy.copy_(entropy.mean(-1))
        self.done.copy_((self._unchanged >= config.stability) & sure)
        self.best.copy_(best)
        self.log_best.copy_(belief.log_best)
        self._soft.copy_(self._known)
        # Where there is no hole, the slots repeat a known one.
        exists = (self._stretch > 0)[..., None]
        self._soft[:, :room] = torch.where(exists, soft, self._known[:, :room])

    def _believed(self, hidden: Tensor) -> tuple[Prediction | Belief, Tensor, Tensor]:
        """The belief at final hidden states [B, H, D], ids drawn from it [B, H], its embedding."""
        model, number = self._model, self._number
        temperature = self._temperatures[number]
        uniform = self._uniform[number].expand(hidden.shape[:2]).contiguous()
        if count := self._soft_tokens:
            few = model.believe(hidden, temperature, uniform, self._first_bias, count)
            return few, few.drawn, model.mean_embedding(few.likely, few.shares)
        logits = model.logits(hidden)
        logits[:, 0] += self._first_bias
        belief = sampler.predict(logits, temperature)  # in the memory of the logits
        drawn = sampler.draw(belief.probabilities.flatten(0, 1), uniform.flatten())
        return belief, drawn.view_as(uniform), model.soft_embedding(belief.probabilities)

    def _judge(self, hidden: Tensor) -> None:
        """How well the judged tokens follow, from the final hidden states [B, C, D]."""
        if not self.shape.judged:
            return
        rows = slice(self.shape.hole, self.shape.hole + self.shape.judged)
        shown = self._ids[:, rows]
        noisy = self._noisy.sum(-1, keepdim=True).clamp(min=1)
        clean = 1 - noisy / self._sizes.clamp(min=2)
        logits = sampler.leave_one_out(self._model.logits(hidden[:, rows]), shown, clean)
        follow = logits.log_softmax(-1).gather(-1, shown[..., None])
        self.junction.copy_(follow.squeeze(-1).mean(-1))

    def _zeros(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(shape, device=self._device, dtype=dtype)

    def _tokens(self, ids: Sequence[int]) -> Tensor:
        return torch.tensor(list(ids), device=self._device, dtype=torch.long)


class _Still(Pass):
    """Canvas rows over a prefix in pages; numbers at fixed addresses say where these are and what counts."""

    def __init__(self, model: Transformer, shape: Shape, pools: Pools) -> None:
        device = model.embed_tokens.weight.device
        nowhere = torch.zeros(shape.count, shape.canvas, dtype=torch.long, device=device)
        super().__init__(nowhere, model.dtype, causal=False, on_canvas=True)
        self._room = shape.hole
        self._pools = pools
        self._places = storage.places(model.config)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int32, device=device)

        # The stretches of hole and suffix on each canvas.
        self._seen = zeros(shape.count, 2, 2)
        # By window the prefix's pages in order, and what is seen of them.
        self._page_tables = {window: zeros(pool.count) for window, pool in pools.items()}
        self._bounds = {window: zeros(2) for window in pools}
        for layer in model.config.layers:
            self.rotary(layer)

    def begin(self, cache: PrefixCache, positions: Tensor, holes: Tensor, suffixes: Tensor) -> None:
        """Says where the prefix lies, where rows stand [B, C], and what is no padding.

        `holes` and `suffixes` [B, 1] are lengths.
        """
        assert cache.pools is self._pools, "the prefix does not lie in the pages that steps read"
        room = torch.full_like(holes, self._room)
        stretches = torch.cat((torch.zeros_like(holes), holes, room, room + suffixes), 1)
        self._seen.copy_(stretches.view_as(self._seen))
        for shape, tables in self._tables.items():
            fresh = kernels.rotary_table(
                positions, shape.head_dim, shape.rotary_dim, shape.rope_theta, self._dtype
            )
            for table, values in zip(tables, fresh, strict=True):
                table.copy_(values)
        for window in self._pools:
            pages, *bounds = cache.pages(window)
            self._page_tables[window][: len(pages)] = torch.tensor(pages, dtype=torch.int32)
            self._bounds[window].copy_(torch.tensor(bounds))

    def attend(self, index: int, q: Tensor, k: Tensor, v: Tensor, layer: Attention) -> Tensor:
        """See `Pass.attend`."""
        window, number = self._places[index]
        keys, values = self._pools[window].parts[number]
        where = self._page_tables[window], self._bounds[window]
        return kernels.canvas_attention(q, keys, values, *where, k, v, layer.scale, self._seen)


def _bucket(size: int, sizes: tuple[int, ...]) -> int:
    return next(one for one in sizes if one >= size)

"""Denoising steps of fixed shapes at fixed addresses: captured once, replayed on a CUDA device.

A hole, its suffix and the prefix are padded to the next of a few sizes. What pads is seen by nobody
and decides nothing: in the end each step is that of `steps.plain` under the same noise, which tests
hold on the CPU, where the same function runs uncaptured. The device is always given the next step
before the last one's report is read, so it never waits; reports travel through pinned memory.

For models trained on uniform noise; everything else is left to `steps.plain`. Knows nothing of
requests or text. Several canvases at once are left to `steps.plain` too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine import kernels, sampler, steps
from engine.attention import Attention, Pass
from engine.cache import PrefixCache
from engine.config import AttentionConfig, ModelConfig, SamplerConfig
from engine.kernels import Belief
from engine.model import Transformer
from engine.noise import Noise
from engine.sampler import Prediction
from engine.steps import Canvas, Seen

logger = logging.getLogger(__name__)

HOLES = (16, 32, 64, 128, 256)
SUFFIXES = (0, 32, 64, 128)
SHORTEST_PREFIX = 512  # sizes of prefixes double from here

Launch = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Shape:
    """The slots of a step: a hole and its suffix, and of the prefix in layers that see all of it."""

    hole: int
    suffix: int
    prefix: int

    @classmethod
    def of(cls, hole: int, suffix: int, prefix: int) -> Shape:
        """The smallest shape for so many tokens."""
        size = SHORTEST_PREFIX
        while size < prefix:
            size *= 2
        return cls(_bucket(hole, HOLES), _bucket(suffix, SUFFIXES), size)

    @property
    def canvas(self) -> int:
        """Slots of hole and suffix together."""
        return self.hole + self.suffix


class Memory:
    """Keys and values of the visible prefix in each layer, which steps of all shapes share."""

    def __init__(self, model: Transformer, longest_prefix: int) -> None:
        self.most = _largest(longest_prefix)
        device = model.embed_tokens.weight.device
        self._layers = model.config.layers
        self._parts = [
            torch.zeros(
                2,
                layer.kv_heads,
                slots(layer, longest_prefix),
                layer.head_dim,
                device=device,
                dtype=model.dtype,
            )
            for layer in self._layers
        ]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(part.nbytes for part in self._parts)

    def views(self, shape: Shape) -> list[Tensor]:
        """Keys and values [2, KV, L, D] of each layer for steps of `shape`."""
        return [
            part[:, :, : _prefix_slots(layer, shape)]
            for layer, part in zip(self._layers, self._parts, strict=True)
        ]


class Step:
    """One denoising step on buffers of one shape: `begin` fills them, `run` is the step.

    `run` is given nothing, returns nothing, makes no choice on our side and changes no address.
    """

    def __init__(
        self, model: Transformer, config: SamplerConfig, shape: Shape, memory: Memory
    ) -> None:
        self.shape = shape
        self._model = model
        self._config = config
        self._device = model.embed_tokens.weight.device
        assert model.config.canvas
        few = model.config.canvas.soft_tokens
        self._soft_tokens = few and min(few, model.config.vocab_size)
        hole, slots, width = shape.hole, shape.canvas, model.config.hidden_size
        # Of the request.
        self._uniform = self._zeros(config.max_steps, hole)
        self._noise = self._zeros(config.max_steps + 1, hole, dtype=torch.long)
        left = range(config.max_steps, 0, -1)
        temperatures = [sampler.temperature(config, n) for n in left]
        self._temperatures = torch.tensor(temperatures, device=self._device)
        self._twin = self._zeros(slots, dtype=torch.long)  # the token a slot repeats, or its own
        self._real = self._zeros(hole, dtype=torch.bool)
        self._stretch = self._zeros(1)  # all slots by the hole's own: a mean over the latter
        self._first_bias = self._zeros(model.config.vocab_size)  # -inf where the hole cannot begin
        self._known = self._zeros(1, slots, width, dtype=model.dtype)
        self._sight = _Still(model, shape, memory)
        # Of the step before.
        self._number = self._zeros(1, dtype=torch.long)
        self._ids = self._zeros(1, slots, dtype=torch.long)
        self._soft = self._zeros(1, slots, width, dtype=model.dtype)
        self._unchanged = self._zeros(1, dtype=torch.long)
        # What is reported.
        self.best = self._zeros(1, hole, dtype=torch.long)
        self.log_best = self._zeros(1, hole)
        self.entropy = self._zeros(1)
        self.done = self._zeros(1, dtype=torch.bool)

    def begin(self, cache: PrefixCache, canvas: Canvas, noise: Noise) -> None:
        """Fills the buffers for the first step over `canvas`."""
        hole, suffix, room = canvas.hole, len(canvas.clamped), self.shape.hole
        self._uniform[:, :hole] = noise.uniform[:, :hole]
        self._noise[:, :hole] = noise.ids[:, :hole]
        slot = torch.arange(self.shape.canvas, device=self._device)
        # What pads repeats the slot before it, place and all: it asks for no expert of its own.
        behind = room + torch.clamp(slot - room, max=suffix - 1) if suffix else slot * 0 + hole - 1
        self._twin.copy_(torch.where(slot < room, torch.clamp(slot, max=hole - 1), behind))
        self._real.copy_(slot[:room] < hole)
        self._stretch.fill_(room / hole)
        self._first_bias.fill_(-torch.inf if canvas.begin else 0.0)
        if canvas.begin:
            self._first_bias[torch.tensor(canvas.begin, device=self._device)] = 0.0
        self._number.zero_()
        self._unchanged.zero_()
        self.best.fill_(-1)
        self._soft.zero_()
        self._ids.zero_()
        self._ids[0, :room] = self._noise[0]
        self._ids[0, : len(canvas.guess)] = self._tokens(canvas.guess)
        self._ids[0, room : room + suffix] = self._tokens(canvas.clamped)
        self._ids.copy_(self._ids[:, self._twin])
        self._known.copy_(self._model.embed(self._ids))
        place = torch.where(self._twin < room, self._twin, self._twin - room + hole)
        self._sight.begin(cache, place + cache.length, hole, suffix)

    def run(self) -> None:
        """The next step."""
        room, config = self.shape.hole, self._config
        hidden = self._model.look(self._ids, self._soft, self._sight)[:, :room]
        belief, drawn, soft = self._believed(hidden)
        padding = ~self._real
        self._number += 1
        hole, _ = kernels.accept_and_renoise(
            belief.entropy.masked_fill(padding, torch.inf),
            drawn,
            self._noise[self._number],
            config.entropy_bound,
        )
        self._ids[:, :room] = hole[:, self._twin[:room]]
        best = belief.best.masked_fill(padding, -1)
        self._unchanged.copy_(sampler.unchanged(best, self.best, self._unchanged))
        entropy = belief.entropy.masked_fill(padding, 0.0) * self._stretch
        sure = sampler.is_confident(entropy, config.confidence)
        self.entropy.copy_(entropy.mean(-1))
        self.done.copy_((self._unchanged >= config.stability) & sure)
        self.best.copy_(best)
        self.log_best.copy_(belief.log_best)
        self._soft.copy_(self._known)
        self._soft[:, :room] = soft

    def _believed(self, hidden: Tensor) -> tuple[Prediction | Belief, Tensor, Tensor]:
        """The belief at final hidden states [1, H, D], ids drawn from it [1, H], its embedding."""
        model, number = self._model, self._number
        temperature, uniform = self._temperatures[number], self._uniform[number]
        if count := self._soft_tokens:
            few = model.believe(hidden, temperature, uniform, self._first_bias, count)
            return few, few.drawn, model.mean_embedding(few.likely, few.shares)
        logits = model.logits(hidden)
        logits[:, 0] += self._first_bias
        belief = sampler.predict(logits, temperature)
        drawn = sampler.draw(belief.probabilities[0], uniform[0])
        return belief, drawn[None], model.soft_embedding(belief.probabilities)

    def _zeros(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(shape, device=self._device, dtype=dtype)

    def _tokens(self, ids: tuple[int, ...]) -> Tensor:
        return torch.tensor(ids, device=self._device, dtype=torch.long)


class Graphs:
    """Denoising steps (`steps.Steps`) that a CUDA device replays, captured shape by shape.

    On a CPU the same steps run uncaptured. A model or a canvas that this is not made for, and a
    device that refuses to capture, get `steps.plain`.
    """

    def __init__(self, model: Transformer, longest_prefix: int) -> None:
        self._model = model
        self._memory = Memory(model, longest_prefix) if is_supported(model.config) else None
        self._ready: dict[tuple[SamplerConfig, Shape], tuple[Step, Launch]] = {}
        self.refused = False

    def __call__(
        self,
        model: Transformer,
        cache: PrefixCache,
        canvases: Sequence[Canvas],
        config: SamplerConfig,
        noise: Noise,
        wanted: Callable[[int], bool] = lambda number: True,
    ) -> Iterator[Mapping[int, Seen]]:
        """See `steps.plain`; one step ahead of what is reported."""
        prepared = self._prepared(cache, canvases, config, noise)
        if prepared is None:
            yield from steps.plain(model, cache, canvases, config, noise, wanted)
            return
        hole = canvases[0].hole
        step, launch = prepared
        letters = _Letter(step), _Letter(step)
        for number in range(config.max_steps):
            launch()
            letters[number % 2].post()
            if number:
                yield {0: letters[1 - number % 2].read(hole)}
        yield {0: letters[1 - config.max_steps % 2].read(hole)}

    def _prepared(
        self,
        cache: PrefixCache,
        canvases: Sequence[Canvas],
        config: SamplerConfig,
        noise: Noise,
    ) -> tuple[Step, Launch] | None:
        """The step for a single canvas with its buffers filled, and how it is started."""
        memory, canvas = self._memory, canvases[0]
        fits = 0 < canvas.hole <= HOLES[-1] and len(canvas.clamped) <= SUFFIXES[-1]
        plain = len(canvases) > 1 or canvas.lead or canvas.judged or config.leave_one_out
        if memory is None or self.refused or plain or not fits:
            return None
        if cache.length > memory.most.prefix:
            return None
        shape = Shape.of(canvas.hole, len(canvas.clamped), cache.length)
        if (config, shape) not in self._ready:
            step = Step(self._model, config, shape, memory)
            step.begin(cache, canvas, noise)
            try:
                self._ready[config, shape] = step, _captured(step)
            except RuntimeError as error:
                self.refused = True
                logger.warning("steps run without CUDA graphs: %s", str(error).splitlines()[0])
                return None
        step, launch = self._ready[config, shape]
        step.begin(cache, canvas, noise)
        return step, launch

    def clear(self) -> None:
        """Forgets all captured steps, and frees their memory."""
        self._ready.clear()


def is_supported(config: ModelConfig) -> bool:
    """Whether the model is trained as `Step` assumes: uniform noise, no shift, beliefs fed back."""
    own = config.canvas
    return bool(
        own and own.noise == "uniform" and own.self_conditioning and not own.shifted
    ) and not (own and own.sealed_suffix)


class _Still(Pass):
    """Canvas rows over a copied prefix, in room of fixed size; numbers say how much of it counts."""

    def __init__(self, model: Transformer, shape: Shape, memory: Memory) -> None:
        device = model.embed_tokens.weight.device
        nowhere = torch.zeros(shape.canvas, dtype=torch.long, device=device)
        super().__init__(nowhere, model.dtype, causal=False, on_canvas=True)
        self._shape = shape
        self._views = memory.views(shape)
        self._layers = model.config.layers
        self._seen = torch.zeros(2, 2, dtype=torch.int32, device=device)  # hole and suffix
        self._lengths = {  # of the visible prefix, by the slots it has
            view.shape[2]: torch.zeros(1, dtype=torch.int32, device=device) for view in self._views
        }
        for layer in self._layers:
            self.rotary(layer)

    def begin(self, cache: PrefixCache, positions: Tensor, hole: int, suffix: int) -> None:
        """Copies what is visible of the prefix, and says where rows stand and what is padding."""
        room = self._shape.hole
        self._seen.copy_(torch.tensor([[0, hole], [room, room + suffix]]))
        for shape, tables in self._tables.items():
            fresh = kernels.rotary_table(
                positions, shape.head_dim, shape.rotary_dim, shape.rope_theta, self._dtype
            )
            for table, values in zip(tables, fresh, strict=True):
                table.copy_(values)
        for index, view in enumerate(self._views):
            keys, values = cache.visible(index)
            length = keys.shape[1]
            view[0, :, :length], view[1, :, :length] = keys, values
            self._lengths[view.shape[2]].fill_(length)

    def attend(self, index: int, q: Tensor, k: Tensor, v: Tensor, layer: Attention) -> Tensor:
        """See `Pass.attend`."""
        view = self._views[index]
        length = self._lengths[view.shape[2]]
        # What is copied is what the layer's window shows.
        return kernels.canvas_attention(
            q, view[0], view[1], length, k, v, layer.scale, None, self._seen
        )


class _Letter:
    """One step's report on its way to our side, where it is read once it has arrived."""

    def __init__(self, step: Step) -> None:
        cuda = step.best.is_cuda
        self._sent = (step.best, step.log_best, step.done, step.entropy)
        self._copies = tuple(
            torch.empty(part.shape, dtype=part.dtype, pin_memory=cuda) for part in self._sent
        )
        self._arrived = torch.cuda.Event() if cuda else None  # type: ignore[no-untyped-call]

    def post(self) -> None:
        """Sends what the step launched last will report."""
        for copy, part in zip(self._copies, self._sent, strict=True):
            copy.copy_(part, non_blocking=True)
        if self._arrived is not None:
            self._arrived.record()

    def read(self, hole: int) -> Seen:
        """The report; waits for it, while the device goes on."""
        if self._arrived is not None:
            self._arrived.synchronize()
        best, log_best, done, entropy = self._copies
        return Seen(best[0, :hole].clone(), log_best[0, :hole].clone(), bool(done), float(entropy))


def _captured(step: Step) -> Launch:
    """How to start the step: the replay of its graph, or on a CPU the step itself."""
    if not step.best.is_cuda:
        return step.run
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):  # kernels are compiled and libraries make their workspaces
            step.run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        step.run()
    return graph.replay


def slots(layer: AttentionConfig, longest_prefix: int) -> int:
    """Positions that `Memory` holds of a layer."""
    return _prefix_slots(layer, _largest(longest_prefix))


def _largest(longest_prefix: int) -> Shape:
    return Shape.of(HOLES[-1], SUFFIXES[-1], longest_prefix)


def _prefix_slots(layer: AttentionConfig, shape: Shape) -> int:
    return shape.prefix if layer.window is None else min(shape.prefix, layer.window - 1)


def _bucket(size: int, sizes: tuple[int, ...]) -> int:
    return next(one for one in sizes if one >= size)

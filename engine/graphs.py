"""Denoising steps that a CUDA device replays: captured once for each shape, one ahead of what is read.

The step itself is `engine.static_steps`'; on a CPU it runs uncaptured, which is how tests hold it
against `steps.plain`. The device is always given the next step before the last one's report is read,
so it never waits; reports travel through pinned memory.

For models trained on uniform noise; everything else is left to `steps.plain`. Knows nothing of
requests or text.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any

import torch

from engine import steps
from engine.cache import PrefixCache
from engine.config import ModelConfig, SamplerConfig
from engine.model import Transformer
from engine.noise import Noise
from engine.static_steps import Shape, Step
from engine.steps import Canvas, Seen
from engine.storage import Pools

logger = logging.getLogger(__name__)

_MOST_READY = 32  # captured steps that are kept: each has a graph of some thousand launches

Launch = Callable[[], None]


class Graphs:
    """Denoising steps (`steps.Steps`) that a CUDA device replays, captured shape by shape.

    On a CPU the same steps run uncaptured. A model or canvases that this is not made for, and a
    device that refuses to capture, get `steps.plain`. Prefixes lie in pages of `pools`.
    """

    def __init__(self, model: Transformer, pools: Pools) -> None:
        self._model = model
        self._pools = pools
        self._ready: dict[tuple[SamplerConfig, Shape, int], tuple[Step, Launch]] = {}
        # Shared by all graphs: device memory of what lives within a step, and the stream on which
        # they are captured, since libraries keep a workspace for each stream.
        self._pool: Any = None
        self._side: torch.cuda.Stream | None = None
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
        groups = self._groups(cache, canvases, config, noise)
        if groups is None:
            yield from steps.plain(model, cache, canvases, config, noise, wanted)
            return
        for number in range(config.max_steps + 1):
            if number < config.max_steps:
                for group in groups:
                    if any(map(wanted, group.canvases)):
                        group.launch(number)
            if not number:
                continue
            live = set(filter(wanted, range(len(canvases))))
            if not live:
                return
            yield {n: seen for group in groups for n, seen in group.read(number - 1, live).items()}

    def _groups(
        self,
        cache: PrefixCache,
        canvases: Sequence[Canvas],
        config: SamplerConfig,
        noise: Noise,
    ) -> list[_Group] | None:
        """The canvases, in as few steps as can hold them, their buffers filled; None for plain steps."""
        supported = is_supported(self._model.config) and not config.leave_one_out
        if not supported or self.refused or not _are_alike(canvases):
            return None
        groups: list[_Group] = []
        for places in _divided(canvases):
            some = [canvases[place] for place in places]
            shape = Shape.holding(some)
            if shape is None:
                return None
            # Two groups of one shape need buffers of their own.
            again = sum(group.step.shape == shape for group in groups)
            ready = self._ready.pop((config, shape, again), None)
            if ready is None:
                step = Step(self._model, config, shape, self._pools)
                step.begin(cache, some, noise)
                launch = self._captured(step)
                if launch is None:
                    return None
                ready = step, launch
            self._ready[config, shape, again] = ready  # the newest last
            groups.append(_Group(dict(zip(places, some, strict=True)), *ready))
        for group in groups:
            group.step.begin(cache, list(group.canvases.values()), noise)
        while len(self._ready) > _MOST_READY:
            del self._ready[next(iter(self._ready))]
        return groups

    def _captured(self, step: Step) -> Launch | None:
        """How to start the step; None where the device refuses to capture it."""
        try:
            return self._capture(step)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.refused = True
            logger.warning("steps run without CUDA graphs: %s", str(error).splitlines()[0])
            return None

    def _capture(self, step: Step) -> Launch:
        """How to start the step: the replay of its graph, or on a CPU the step itself."""
        if not step.best.is_cuda:
            return step.run
        if self._side is None:
            self._side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        _warm_up(step, self._side)
        graph = torch.cuda.CUDAGraph()
        mode: Any = {"stream": self._side, "capture_error_mode": "thread_local"}
        with torch.cuda.graph(graph, pool=self._pool, **mode):
            step.run()
        return graph.replay

    def clear(self) -> None:
        """Forgets all captured steps, and frees their memory."""
        self._ready.clear()
        self._pool = None


def is_supported(config: ModelConfig) -> bool:
    """Whether the model is trained as `Step` assumes: uniform noise, no shift, beliefs fed back."""
    own = config.canvas
    return bool(
        own and own.noise == "uniform" and own.self_conditioning and not own.shifted
    ) and not (own and own.sealed_suffix)


def _are_alike(canvases: Sequence[Canvas]) -> bool:
    """Whether canvases can share a step: what may begin a hole and what is judged are the same."""
    first = canvases[0]
    return all(
        (canvas.begin, canvas.judged) == (first.begin, first.judged)
        and not canvas.lead
        and canvas.sealed is None
        and canvas.hole + canvas.judged > 0
        and canvas.judged <= len(canvas.clamped)
        for canvas in canvases
    )


def _divided(canvases: Sequence[Canvas]) -> list[list[int]]:
    """The places of canvases, in their order, as many in a group as one step can hold."""
    groups: list[list[int]] = []
    for place, canvas in enumerate(canvases):
        together = [*(canvases[other] for other in groups[-1]), canvas] if groups else []
        if together and Shape.holding(together):
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def _warm_up(step: Step, side: torch.cuda.Stream) -> None:
    """Two runs before a capture: kernels are compiled and libraries make their workspaces.

    Raises RuntimeError where the second one waits for the device: a capture that fails half-way
    would leave more broken than itself.
    """
    here = torch.cuda.current_stream()
    mode = torch.cuda.get_sync_debug_mode()
    side.wait_stream(here)
    try:
        with torch.cuda.stream(side):
            step.run()
            torch.cuda.set_sync_debug_mode("error")
            step.run()
    finally:
        torch.cuda.set_sync_debug_mode(mode)
        here.wait_stream(side)


class _Group:
    """Canvases by their places, the step that holds them, and its last two reports."""

    def __init__(self, canvases: Mapping[int, Canvas], step: Step, start: Launch) -> None:
        self.canvases = canvases
        self.step = step
        self._start = start
        self._letters = _Letter(step), _Letter(step)

    def launch(self, number: int) -> None:
        """Starts the step with this number, and has its report sent."""
        self._start()
        self._letters[number % 2].post()

    def read(self, number: int, live: Container[int]) -> dict[int, Seen]:
        """What the step with this number reports of `live` canvases."""
        rows = {row: place for row, place in enumerate(self.canvases) if place in live}
        if not rows:
            return {}
        seen = self._letters[number % 2].read({row: self.canvases[p] for row, p in rows.items()})
        return {rows[row]: one for row, one in seen.items()}


class _Letter:
    """One step's report on its way to our side, where it is read once it has arrived."""

    def __init__(self, step: Step) -> None:
        cuda = step.best.is_cuda
        self._judged = step.shape.judged > 0
        self._sent = (step.best, step.log_best, step.done, step.entropy, step.junction)
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

    def read(self, live: Mapping[int, Canvas]) -> dict[int, Seen]:
        """The report of `live` canvases; waits for it, while the device goes on."""
        if self._arrived is not None:
            self._arrived.synchronize()
        best, log_best, done, entropy, junction = self._copies
        return {
            row: Seen(
                best[row, : canvas.hole].clone(),
                log_best[row, : canvas.hole].clone(),
                bool(done[row]) or not canvas.hole,  # nothing to decide
                float(entropy[row]),
                float(junction[row]) if self._judged else None,
            )
            for row, canvas in live.items()
        }

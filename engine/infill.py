"""Filling: the only denoising loop, and its two uses, `infill` and `generate`.

Token ids in, token ids out. The known part of a canvas is put back at every step and left out of
the entropy budget and the stop rule. Knows
nothing of text, requests or HTTP; what a step decides is `engine.sampler`'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine import sampler
from engine.cache import PrefixCache
from engine.config import SamplerConfig
from engine.errors import Cancelled
from engine.model import Transformer
from engine.request import StopReason
from engine.sampler import Prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """How the caller steers a loop: cancel flag, deadline, drafts.

    `cancelled` is asked before every forward. `deadline` is a `time.monotonic()` moment: the
    answer so far is given when it has passed, though at least one forward is always made.
    `on_draft` gets the ids so far and the number of the step.
    """

    cancelled: Callable[[], bool] = lambda: False
    deadline: float | None = None
    on_draft: Callable[[Sequence[int], int], None] | None = None

    def check(self) -> None:
        """Raises Cancelled if the caller no longer wants the answer."""
        if self.cancelled():
            raise Cancelled("the request was cancelled")

    @property
    def expired(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """[lead | hole | clamped]: known ids, `hole` undecided positions, known ids.

    `lead` is the last token of the prefix where the model predicts one position earlier
    (`CanvasConfig.shifted`): it is then on the canvas and not in the cache. `guess` is what the
    hole's first positions show before the first step, instead of noise. `begin` are the ids the
    hole may begin with; none stands for all.
    """

    hole: int
    clamped: tuple[int, ...] = ()
    lead: tuple[int, ...] = ()
    guess: tuple[int, ...] = ()
    begin: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """Ids for a hole; `log_probability` is the mean over them, `forwards` counts model passes."""

    ids: tuple[int, ...]
    stop: StopReason
    forwards: int
    log_probability: float


@torch.inference_mode()
def denoise(
    model: Transformer,
    cache: PrefixCache,
    canvas: Canvas,
    config: SamplerConfig,
    generator: torch.Generator,
    control: Control,
    *,
    shift: int = 0,
) -> Filled:
    """Denoises the hole of `canvas`, which follows the cached prefix, `shift` positions away.

    Logits and self-conditioning are computed for the hole's rows only. What a step decides is a
    matter of the noise the model was trained on: `_Renoised` or `_Unmasked`.
    """
    own = model.config.canvas
    assert own, "this model has no diffusion training"
    hole = sampler.initial_noise((1, canvas.hole), model.config, generator)
    hole[:, : len(canvas.guess)] = _ids(canvas.guess, generator)
    process = (_Unmasked if own.noise == "mask" else _Renoised)(model, config, generator)
    before, after = (_ids(part, generator) for part in (canvas.lead, canvas.clamped))
    before_soft, after_soft = model.embed(before), model.embed(after)
    first = before.shape[1] - own.shifted
    assert first >= 0, "shifted logits need the token before the hole on the canvas"
    begin = torch.tensor(canvas.begin, device=hole.device)
    soft = None
    for forwards in range(1, config.max_steps + 1):
        control.check()
        hidden = model.canvas(torch.cat((before, hole, after), 1), cache, soft, shift=shift)
        logits = model.logits(hidden[:, first : first + canvas.hole])
        if own.mask_id is not None:
            logits[..., own.mask_id] = -torch.inf
        if canvas.begin:
            allowed = logits[0, 0, begin]
            logits[0, 0] = -torch.inf
            logits[0, 0, begin] = allowed
        belief = sampler.predict(logits, process.temperature(forwards))
        hole, done = process.decide(belief, hole)
        if control.on_draft:
            control.on_draft(process.best[0].tolist(), forwards)
        if done or control.expired:
            break
        if own.self_conditioning:
            believed = model.soft_embedding(belief.probabilities)
            soft = torch.cat((before_soft, believed, after_soft), 1)
    if done:
        stop = StopReason.COMPLETE
    else:
        late = control.expired and forwards < config.max_steps
        stop = StopReason.DEADLINE if late else StopReason.STEPS
    return Filled(
        ids=tuple(process.best[0].tolist()),
        stop=stop,
        forwards=forwards,
        log_probability=float(process.log_best.mean()),
    )


class _Renoised:
    """Uniform noise: nothing is ever frozen, and the answer is the argmax of the last step."""

    def __init__(
        self, model: Transformer, config: SamplerConfig, generator: torch.Generator
    ) -> None:
        self._model = model.config
        self._config = config
        self._generator = generator
        self._history: list[Tensor] = []

    def temperature(self, step: int) -> float:
        """Of the step with this number, from 1 on."""
        return sampler.temperature(self._config, self._config.max_steps + 1 - step)

    def decide(self, belief: Prediction, hole: Tensor) -> tuple[Tensor, bool]:
        """The next hole [1, H] and whether this one was the last."""
        accepted = sampler.accept(belief.entropy, self._config.entropy_bound)
        device = self._generator.device
        uniform = torch.rand(accepted.shape, generator=self._generator, device=device)
        noise = sampler.initial_noise(hole.shape, self._model, self._generator)
        hole = sampler.renoise(belief.probabilities, accepted, uniform, noise)
        stable = sampler.is_stable(belief.best, self._history, self._config.stability)
        self.best, self.log_best = belief.best, belief.log_best
        self._history.append(belief.best)
        done = stable & sampler.is_confident(belief.entropy, self._config.confidence)
        return hole, bool(done)


class _Unmasked:
    """Mask noise: what is decided stays. What stands behind the first empty slot is empty too."""

    def __init__(
        self, model: Transformer, config: SamplerConfig, generator: torch.Generator
    ) -> None:
        assert model.config.canvas and model.config.canvas.mask_id is not None
        self._canvas = model.config.canvas
        self._config = config
        self._mask_id = model.config.canvas.mask_id
        self._decided: Tensor | None = None

    def temperature(self, step: int) -> float:
        """That of training."""
        return 1.0

    def decide(self, belief: Prediction, hole: Tensor) -> tuple[Tensor, bool]:
        """The next hole [1, H] and whether this one was the last."""
        if self._decided is None:
            self._decided = torch.zeros_like(hole, dtype=torch.bool)
            self._log_best = belief.log_best
        earlier = self._decided
        hole, self._decided = sampler.unmask(belief, hole, earlier, self._config.certainty)
        self._log_best = torch.where(earlier, self._log_best, belief.log_best)
        self.best = torch.where(self._decided, hole, belief.best)
        empty = -1 if self._canvas.empty_id is None else self._canvas.empty_id
        ends = self.best == empty
        behind = ends.cumsum(-1) - ends.int() > 0
        self.best = self.best.masked_fill(behind, empty)
        self.log_best = self._log_best[~behind]
        done = sampler.is_filled(hole, self._decided, empty)
        # A guess that was not decided has done its work: from now on its slots are open.
        return hole.masked_fill(~self._decided, self._mask_id), bool(done)


@contextmanager
def sealed(model: Transformer, cache: PrefixCache, canvas: Canvas) -> Iterator[int]:
    """Puts the clamped suffix of `canvas` behind the cached prefix for the time of one answer.

    It stands at the positions behind the hole, and is encoded once, however many forwards the hole
    takes. Gives the shift that brings [lead | hole] back to the positions behind the prefix.
    """
    length = cache.length
    try:
        if canvas.clamped:
            room = len(canvas.lead) + canvas.hole
            with torch.inference_mode():
                model.encode(canvas.clamped, cache, shift=room, on_canvas=True)
        yield -len(canvas.clamped)
    finally:
        cache.truncate(length)


def infill(
    model: Transformer,
    cache: PrefixCache,
    canvas: Canvas,
    config: SamplerConfig,
    generator: torch.Generator,
    control: Control | None = None,
) -> Filled:
    """Fills the hole of one canvas between the cached prefix and the clamped suffix.

    Slots the model leaves empty are taken out. The cache is left as it was: for one canvas the
    commit pass would be wasted work.
    """
    own = model.config.canvas
    assert own, "this model has no diffusion training"
    known = len(canvas.lead) + (0 if own.sealed_suffix else len(canvas.clamped))
    assert 0 < canvas.hole <= own.length - known, (
        f"hole {canvas.hole} + suffix {len(canvas.clamped)} must fit the canvas of {own.length}"
    )
    control = control or Control()
    if own.sealed_suffix:
        with sealed(model, cache, canvas) as shift:
            alone = replace(canvas, clamped=())
            filled = denoise(model, cache, alone, config, generator, control, shift=shift)
    else:
        filled = denoise(model, cache, canvas, config, generator, control)
    return replace(filled, ids=tuple(token for token in filled.ids if token != own.empty_id))


@torch.inference_mode()
def generate(
    model: Transformer,
    cache: PrefixCache,
    max_tokens: int,
    config: SamplerConfig,
    generator: torch.Generator,
    control: Control | None = None,
) -> Filled:
    """Continues the cached prefix canvas by canvas until an end token or `max_tokens`.

    Each canvas but the last is encoded into the cache before the next. What follows the first
    end token is cut, the end token with it.
    """
    control = control or Control()
    size = min(model.config.canvas_length, max_tokens)
    assert size > 0, f"cannot generate {max_tokens} tokens on this model's canvas"
    ids: list[int] = []
    forwards, log_probability = 0, 0.0
    while True:
        canvas = denoise(model, cache, Canvas(hole=size), config, generator, _after(ids, control))
        forwards += canvas.forwards
        log_probability += canvas.log_probability * size
        ids += canvas.ids
        end = next((i for i, token in enumerate(ids) if token in model.config.eos_ids), None)
        if end is not None or len(ids) >= max_tokens or canvas.stop is StopReason.DEADLINE:
            break
        model.encode(canvas.ids, cache)
        forwards += 1
    limited = StopReason.LENGTH if canvas.stop is not StopReason.DEADLINE else canvas.stop
    return Filled(
        ids=tuple(ids[: max_tokens if end is None else min(end, max_tokens)]),
        stop=limited if end is None or end >= max_tokens else StopReason.COMPLETE,
        forwards=forwards,
        log_probability=log_probability / len(ids),
    )


def _ids(ids: Sequence[int], generator: torch.Generator) -> Tensor:
    return torch.tensor(list(ids), dtype=torch.long, device=generator.device)[None]


def _after(done: Sequence[int], control: Control) -> Control:
    """`control` for the next canvas: its drafts start with the canvases that are done."""
    if control.on_draft is None or not done:
        return control
    on_draft, earlier = control.on_draft, tuple(done)
    return Control(
        cancelled=control.cancelled,
        deadline=control.deadline,
        on_draft=lambda ids, step: on_draft((*earlier, *ids), step),
    )

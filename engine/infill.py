"""Filling: the only denoising loop, and its two uses, `infill` and `generate`.

Token ids in, token ids out. The known part of a canvas is put back at every step and left out of
the entropy budget and the stop rule. Knows nothing of text, requests or HTTP; a step is made in
`engine.steps` and decided in `engine.sampler`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count

import torch

from engine import noise, steps
from engine.cache import PrefixCache, Suffix
from engine.config import ModelConfig, SamplerConfig
from engine.errors import Cancelled
from engine.model import Transformer
from engine.noise import Noise
from engine.request import StopReason
from engine.steps import Canvas, Seen, Steps


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
class Filled:
    """Ids for a hole; `forwards` counts model passes.

    `log_probabilities` are those of what was written, empty slots of a canvas included. `end` is that
    of the token that ended the text; None where nothing but a limit or the caller did. Of a denoised
    hole also, in nats: how undecided it is (`entropy`, the mean over its slots), and how well what is
    clamped follows (`junction`, the mean log-probability of the judged tokens).
    """

    ids: tuple[int, ...]
    stop: StopReason
    forwards: int
    log_probabilities: tuple[float, ...]
    end: float | None = None
    entropy: float = 0.0
    junction: float | None = None

    @property
    def log_probability(self) -> float:
        """The mean over what was written; 0 for nothing."""
        return math.fsum(self.log_probabilities) / max(1, len(self.log_probabilities))

    @property
    def total(self) -> float:
        """The sum over what was written and over what ended it."""
        return math.fsum(self.log_probabilities) + (self.end or 0.0)

    def first(self, count: int) -> Filled:
        """The first `count` ids alone: what was written behind them has ended them."""
        own, behind = self.log_probabilities[:count], self.log_probabilities[count:]
        end = behind[0] if behind else self.end
        return replace(self, ids=self.ids[:count], log_probabilities=own, end=end)


Trailing = Callable[[Mapping[int, Filled]], Iterable[int]]


@torch.inference_mode()
def denoise(
    model: Transformer,
    cache: PrefixCache,
    canvases: Sequence[Canvas],
    config: SamplerConfig,
    noise: Noise,
    control: Control,
    *,
    steps: Steps = steps.plain,
    most: int | None = None,
    trailing: Trailing = lambda live: (),
) -> list[Filled]:
    """Denoises the holes of `canvases`, each of which follows the cached prefix; theirs in order.

    A canvas leaves when it is the answer, or when `trailing`, which is shown all of them after each
    step, names it. At most `most` steps are made, None: `max_steps`. Drafts are those of the
    likeliest live canvas. `steps` is how the steps are made. Some are one step ahead of what they
    report, so that a device never waits: what they report is the answer, and a step behind the last
    one counts for nothing.
    """
    assert model.config.canvas, "this model has no diffusion training"
    limit = min(most or config.max_steps, config.max_steps)
    control.check()
    found: dict[int, Filled] = {}
    live = dict.fromkeys(range(len(canvases)))
    reports = steps(model, cache, canvases, config, noise, live.__contains__)
    for forwards, report in enumerate(reports, start=1):
        found |= {number: _filled(seen, forwards) for number, seen in report.items()}
        if control.on_draft:
            likeliest = max((found[number] for number in report), key=lambda f: f.log_probability)
            control.on_draft(likeliest.ids, forwards)
        for number, seen in report.items():
            if seen.done:
                del live[number]
        for number in trailing(found):
            live.pop(number, None)
        if not live or control.expired or forwards == limit:
            break
        control.check()
    late = control.expired and forwards < limit
    stopped = StopReason.DEADLINE if late else StopReason.STEPS
    return [
        replace(found[n], stop=stopped) if n in live else found[n] for n in range(len(canvases))
    ]


def _filled(seen: Seen, forwards: int) -> Filled:
    return Filled(
        ids=tuple(seen.best.tolist()),
        stop=StopReason.COMPLETE if seen.done else StopReason.STEPS,
        forwards=forwards,
        log_probabilities=tuple(seen.log_best.tolist()),
        entropy=seen.entropy,
        junction=seen.junction,
    )


@contextmanager
def sealed(model: Transformer, cache: PrefixCache, canvas: Canvas) -> Iterator[int]:
    """Puts the clamped suffix of `canvas` behind the cached prefix for the time of one answer.

    Gives the shift that brings [lead | hole] back to the positions behind the prefix.
    """
    length = cache.length
    try:
        if canvas.clamped:
            suffix = encoded_suffix(model, cache, canvas)
            cache.append(suffix.ids, suffix.keys, suffix.values)
        yield -len(canvas.clamped)
    finally:
        cache.truncate(length)


@torch.inference_mode()
def encoded_suffix(model: Transformer, cache: PrefixCache, canvas: Canvas) -> Suffix:
    """The clamped suffix of `canvas` at the positions behind its hole, encoded once for all steps.

    Where it sees only the beginning of the prefix, it stays with the cache for the next hole behind
    the same beginning, moved on by what was typed since; and for canvases of one `room`, moved to the
    end of each hole. The cached prefix is left as it was.
    """
    own, length, kept = len(canvas.lead) + canvas.hole, cache.length, cache.suffix
    room = own if canvas.room is None else canvas.room
    sees = length if canvas.sees is None else canvas.sees
    assert 0 <= sees <= length, f"a suffix cannot see {sees} of {length} tokens"
    if kept is None or (kept.ids, kept.sees, kept.room) != (canvas.clamped, sees, room):
        shift = sees + room - length
        model.encode(canvas.clamped, cache, shift=shift, on_canvas=True, sees=sees)
        keys, values = cache.last(len(canvas.clamped))
        cache.truncate(length)
        kept = Suffix(ids=canvas.clamped, sees=sees, room=room, keys=keys, values=values)
        cache.suffix = kept
    return model.moved(kept, length - sees + own - room)


def ready(model: Transformer, cache: PrefixCache, canvas: Canvas) -> Canvas:
    """`canvas` as it is denoised: with its suffix sealed, where the model was trained so."""
    own = model.config.canvas
    assert own, "this model has no diffusion training"
    known = len(canvas.lead) + (0 if own.sealed_suffix else len(canvas.clamped))
    assert 0 <= canvas.hole <= own.length - known, (
        f"hole {canvas.hole} + suffix {len(canvas.clamped)} must fit the canvas of {own.length}"
    )
    if not own.sealed_suffix or not canvas.clamped:
        return canvas
    suffix = encoded_suffix(model, cache, canvas)
    return replace(canvas, clamped=(), judged=0, sealed=suffix)


def infill(
    model: Transformer,
    cache: PrefixCache,
    canvas: Canvas,
    config: SamplerConfig,
    seed: int,
    control: Control | None = None,
    steps: Steps = steps.plain,
) -> Filled:
    """Fills the hole of one canvas between the cached prefix and the clamped suffix.

    Slots the model leaves empty are taken out. The cache is left as it was: for one canvas the
    commit pass would be wasted work.
    """
    assert canvas.hole > 0, "there is no hole to fill"
    canvas = ready(model, cache, canvas)
    drawn = noise_for(model, config, seed, canvas.hole)
    [filled] = denoise(model, cache, [canvas], config, drawn, control or Control(), steps=steps)
    return without_empty(filled, model.config)


def without_empty(filled: Filled, config: ModelConfig) -> Filled:
    """`filled` without the slots that the model left empty; the first of them ended the text."""
    assert config.canvas
    empty = config.canvas.empty_id
    if empty not in filled.ids:
        return filled
    end = filled.log_probabilities[filled.ids.index(empty)]
    return replace(filled, ids=tuple(token for token in filled.ids if token != empty), end=end)


@torch.inference_mode()
def generate(
    model: Transformer,
    cache: PrefixCache,
    max_tokens: int,
    config: SamplerConfig,
    seed: int,
    control: Control | None = None,
    steps: Steps = steps.plain,
    *,
    begin: tuple[int, ...] = (),
) -> Filled:
    """Continues the cached prefix canvas by canvas until an end token or `max_tokens`.

    Each canvas but the last is encoded into the cache before the next. What follows the first
    end token is cut, the end token with it. `begin` is that of the first canvas.
    """
    control = control or Control()
    size = min(model.config.canvas_length, max_tokens)
    assert size > 0, f"cannot generate {max_tokens} tokens on this model's canvas"
    ids: list[int] = []
    log_probabilities: list[float] = []
    forwards = 0
    for number in count():
        drawn = noise_for(model, config, seed, size, canvas=number)
        later = after(ids, control)
        free = Canvas(hole=size, begin=() if number else begin)
        [canvas] = denoise(model, cache, [free], config, drawn, later, steps=steps)
        forwards += canvas.forwards
        log_probabilities += canvas.log_probabilities
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
        log_probabilities=tuple(log_probabilities),
    )


def noise_for(
    model: Transformer, config: SamplerConfig, seed: int, hole: int, *, canvas: int = 0
) -> Noise:
    """What the steps over a canvas with this number draw from, for holes of up to `hole` slots."""
    device = model.embed_tokens.weight.device
    size = model.config.vocab_size
    return noise.draw(seed, config.max_steps, hole, size, device, canvas=canvas)


def after(done: Sequence[int], control: Control) -> Control:
    """`control` for the next canvas: its drafts start with the canvases that are done."""
    if control.on_draft is None or not done:
        return control
    on_draft, earlier = control.on_draft, tuple(done)
    return Control(
        cancelled=control.cancelled,
        deadline=control.deadline,
        on_draft=lambda ids, step: on_draft((*earlier, *ids), step),
    )

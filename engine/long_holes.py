"""Holes too long to search for their length: written freely, then clamped where they meet the suffix.

For models trained on continuation only, with the suffix in their prompt. A few unclamped steps over
one canvas say where it comes to the suffix (`engine.alignment`); there the suffix is clamped, and the
denoising finishes from what is written. A canvas that does not come to it is kept, and the next one
follows. Token ids in, token ids out; the loop is `engine.infill.denoise`.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import torch

from engine import infill, steps
from engine.alignment import alignment, meeting
from engine.cache import PrefixCache
from engine.config import LongHoleConfig, SamplerConfig
from engine.infill import Control, Filled
from engine.model import Transformer
from engine.request import StopReason
from engine.steps import Canvas, Steps


@torch.inference_mode()
def fill(
    model: Transformer,
    cache: PrefixCache,
    canvas: Canvas,
    max_tokens: int,
    policy: LongHoleConfig,
    config: SamplerConfig,
    seed: int,
    control: Control,
    steps: Steps = steps.plain,
) -> Filled:
    """At most `max_tokens` between the cached prefix and the clamped suffix of `canvas`.

    Its `hole` counts for nothing. Where the suffix is not come to, or the deadline passes before,
    the answer is what is written freely. Canvases that are kept are encoded into the cache.
    """
    own = model.config.canvas
    assert own, "this model has no diffusion training"
    assert canvas.clamped, "without a suffix there is nothing to meet"
    assert not (canvas.lead or own.sealed_suffix), "for models that continue on plain canvases"
    met = canvas.clamped[: policy.judged]
    done = Filled(ids=(), stop=StopReason.LENGTH, forwards=0, log_probabilities=())
    for number in count():
        left = max_tokens - len(done.ids)
        free = replace(canvas, hole=min(own.length, left + len(met)), clamped=())
        if number:
            free = replace(free, guess=(), begin=())
        noise = infill.noise_for(model, config, seed, free.hole, canvas=number)
        later = infill.after(done.ids, control)
        [start] = infill.denoise(
            model, cache, [free], config, noise, later, steps=steps, most=policy.steps
        )
        if start.stop is StopReason.DEADLINE or later.expired:
            written = _cut(start, _begins(start.ids[:left], met))
            return replace(_joined(done, written), stop=StopReason.DEADLINE)
        later.check()
        length = _length(model, cache, start.ids, met, policy)
        start = replace(start, forwards=start.forwards + 1)
        if length is not None:
            clamped = replace(
                free,
                hole=length,
                clamped=canvas.clamped[: own.length - length],
                guess=start.ids[:length],
            )
            rest = _finish(model, cache, clamped, config, seed, number + 1, later, steps)
            return _joined(done, replace(rest, forwards=rest.forwards + start.forwards))
        kept = free.hole - len(met)  # the suffix may begin behind that
        if left <= kept:
            return _joined(done, _cut(start, _begins(start.ids[:left], met)))
        model.encode(start.ids[:kept], cache)
        done = _joined(done, replace(_cut(start, kept), forwards=start.forwards + 1))
    raise AssertionError("every canvas but the last is followed by another")


def _length(
    model: Transformer,
    cache: PrefixCache,
    ids: tuple[int, ...],
    met: tuple[int, ...],
    policy: LongHoleConfig,
) -> int | None:
    """Where the canvas with `ids` comes to the suffix, in one forward; else where it ends the text."""
    shown = torch.tensor(ids, device=model.embed_tokens.weight.device)[None]
    logits = model.logits(model.canvas(shown, cache, None))[0]
    length = meeting(alignment(logits, met), least=policy.least)
    if length is None:
        length = next((i for i, token in enumerate(ids) if token in model.config.eos_ids), None)
    return length


def _begins(ids: tuple[int, ...], met: tuple[int, ...]) -> int:
    """Where the suffix is written, or three tokens of it at the end; else the number of `ids`."""
    places = (n for n in range(len(ids) - 2) if ids[n : n + len(met)] == met[: len(ids) - n])
    return next(places, len(ids))


def _finish(
    model: Transformer,
    cache: PrefixCache,
    canvas: Canvas,
    config: SamplerConfig,
    seed: int,
    number: int,
    control: Control,
    steps: Steps,
) -> Filled:
    """The hole of a clamped canvas, which may be empty."""
    if not canvas.hole:
        return Filled(ids=(), stop=StopReason.COMPLETE, forwards=0, log_probabilities=())
    noise = infill.noise_for(model, config, seed, canvas.hole, canvas=number)
    [filled] = infill.denoise(model, cache, [canvas], config, noise, control, steps=steps)
    return filled


def _joined(done: Filled, rest: Filled) -> Filled:
    return replace(
        rest,
        ids=done.ids + rest.ids,
        log_probabilities=done.log_probabilities + rest.log_probabilities,
        forwards=done.forwards + rest.forwards,
    )


def _cut(filled: Filled, most: int) -> Filled:
    return replace(
        filled,
        ids=filled.ids[:most],
        log_probabilities=filled.log_probabilities[:most],
        stop=StopReason.LENGTH,
    )

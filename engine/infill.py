"""Filling: the only denoising loop, and its two uses, `infill` and `generate`.

Token ids in, token ids out. A canvas is [hole | clamped]: the clamped part is known text after
the hole, put back at every step and left out of the entropy budget and the stop rule. Knows
nothing of text, requests or HTTP; what a step decides is `engine.sampler`'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine import sampler
from engine.cache import PrefixCache
from engine.config import SamplerConfig
from engine.errors import Cancelled
from engine.model import Transformer
from engine.request import StopReason


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
    """Ids for a hole; `log_probability` is the mean over them, `forwards` counts model passes."""

    ids: tuple[int, ...]
    stop: StopReason
    forwards: int
    log_probability: float


@torch.inference_mode()
def denoise(
    model: Transformer,
    cache: PrefixCache,
    hole: Tensor,
    clamped: Sequence[int],
    config: SamplerConfig,
    generator: torch.Generator,
    control: Control,
) -> Filled:
    """Denoises `hole` [H] (usually noise) in front of the `clamped` ids, after the cached prefix.

    The answer is the argmax of the last step, never the sampled canvas. Logits and
    self-conditioning are computed for the hole's rows only.
    """
    vocab = model.config.vocab_size
    length = hole.shape[0]
    known = torch.tensor(list(clamped), dtype=torch.long, device=hole.device)[None]
    known_soft = model.embed(known)
    canvas, soft = hole[None], None
    history: list[Tensor] = []
    for steps_left in range(config.max_steps, 0, -1):
        control.check()
        hidden = model.canvas(torch.cat((canvas, known), 1), cache, soft)
        logits = model.logits(hidden[:, :length])
        belief = sampler.predict(logits, sampler.temperature(config, steps_left))
        accepted = sampler.accept(belief.entropy, config.entropy_bound)
        uniform = torch.rand(accepted.shape, generator=generator, device=generator.device)
        noise = sampler.initial_noise((1, length), vocab, generator)
        canvas = sampler.renoise(belief.probabilities, accepted, uniform, noise)
        stable = sampler.is_stable(belief.best, history, config.stability)
        done = stable & sampler.is_confident(belief.entropy, config.confidence)
        history.append(belief.best)
        if control.on_draft:
            control.on_draft(belief.best[0].tolist(), len(history))
        if bool(done) or control.expired:
            break
        soft = torch.cat((model.soft_embedding(belief.probabilities), known_soft), 1)
    if bool(done):
        stop = StopReason.COMPLETE
    else:
        stop = StopReason.DEADLINE if control.expired and steps_left > 1 else StopReason.STEPS
    return Filled(
        ids=tuple(belief.best[0].tolist()),
        stop=stop,
        forwards=len(history),
        log_probability=float(belief.log_best.mean()),
    )


def infill(
    model: Transformer,
    cache: PrefixCache,
    length: int,
    suffix: Sequence[int],
    config: SamplerConfig,
    generator: torch.Generator,
    control: Control | None = None,
) -> Filled:
    """Fills a hole of `length` tokens between the cached prefix and `suffix`.

    Hole and suffix must fit the model's canvas. The cache is left as it was: for one canvas the
    commit pass would be wasted work.
    """
    limit = model.config.canvas_length or 0
    assert 0 < length <= limit - len(suffix), (
        f"hole {length} + suffix {len(suffix)} must fit the canvas of {limit}"
    )
    noise = sampler.initial_noise((1, length), model.config.vocab_size, generator)[0]
    return denoise(model, cache, noise, suffix, config, generator, control or Control())


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
    size = min(model.config.canvas_length or 0, max_tokens)
    assert size > 0, f"cannot generate {max_tokens} tokens on this model's canvas"
    ids: list[int] = []
    forwards, log_probability = 0, 0.0
    while True:
        noise = sampler.initial_noise((1, size), model.config.vocab_size, generator)[0]
        canvas = denoise(model, cache, noise, (), config, generator, _after(ids, control))
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

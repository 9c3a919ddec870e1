"""Left-to-right decoding and scoring through the encoder and the head.

For models with no diffusion training, as a baseline, and for holes with their suffix in view.
Token ids in, token ids out; knows nothing of text or requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from engine.cache import PrefixCache
from engine.infill import Control, Filled, sealed
from engine.model import Transformer
from engine.request import StopReason
from engine.steps import Canvas
from engine.tree import Tree


@torch.inference_mode()
def encode(
    model: Transformer,
    cache: PrefixCache,
    ids: Sequence[int],
    chunk: int,
    control: Control,
) -> Tensor:
    """Encodes `ids` behind the cached prefix, `chunk` at a time; cancellable between chunks.

    Returns the last chunk's hidden states [1, n, D]. What is encoded stays in the cache even
    when the rest is cancelled.
    """
    assert ids, "nothing to encode"
    for start in range(0, len(ids), chunk):
        control.check()
        hidden = model.encode(ids[start : start + chunk], cache)
    return hidden


@torch.inference_mode()
def decode(
    model: Transformer,
    cache: PrefixCache,
    hidden: Tensor,
    max_tokens: int,
    stop_at: Callable[[Sequence[int]], StopReason | None],
    control: Control,
    *,
    draft: Sequence[int] = (),
    shift: int = 0,
    in_hole: bool = False,
    allowed: Callable[[Sequence[int]], Tensor | None] = lambda ids: None,
    favoured: Callable[[Sequence[int]], tuple[int, float] | None] = lambda ids: None,
    propose: Callable[[Sequence[int], int], Sequence[int]] = lambda ids, room: (),
    timed: Callable[[int, float], None] = lambda rows, seconds: None,
) -> Filled:
    """Greedy continuation from `hidden` [1, n, D], the states of the cached prefix's last tokens.

    The last of those tokens may be a `draft` that has yet to be verified. `in_hole` writes a hole's
    text at positions moved by `shift`, up to its first empty slot; see `infill.sealed`. `stop_at` sees
    the ids so far after each token. `allowed` may give the ids the next token must come from,
    `favoured` one that is taken if it is no more than so many nats behind the best. `propose` may
    give a draft of what follows the ids so far, of at most so many tokens: one forward verifies it,
    and only what is written without it too is kept. `timed` gets rows and seconds of each forward.
    The cache is extended by all tokens but the last; `forwards` counts the one that made `hidden`.
    """
    ids: list[int] = []
    ends: set[int | None] = set(model.config.eos_ids)
    never = None
    if in_hole:
        assert model.config.canvas
        ends, never = ends | {model.config.canvas.empty_id}, model.config.canvas.mask_id
    log_probabilities: list[float] = []
    forwards, end = 1, None
    stop: StopReason | None = None
    beliefs, best = _predict(model, hidden[0, -1 - len(draft) :], never)
    while True:
        for row, drafted in enumerate([*draft, None]):
            token = _choose(beliefs[row], best[row], allowed(ids), favoured(ids))
            log_probability = float(beliefs[row, token])
            if token in ends:
                stop, end = StopReason.COMPLETE, log_probability
                break
            ids.append(token)
            log_probabilities.append(log_probability)
            if control.on_draft:
                control.on_draft(ids, len(ids))
            stop = stop_at(ids)
            if stop is None and len(ids) >= max_tokens:
                stop = StopReason.LENGTH
            if stop is not None or token != drafted:
                break
        # Rows behind the last one used stand for draft tokens that were not written.
        cache.truncate(cache.length - (len(draft) - row))
        if stop is None and control.expired:
            stop = StopReason.DEADLINE
        if stop is not None:
            break
        control.check()
        draft = propose(ids, max_tokens - len(ids) - 1)
        started = time.perf_counter()
        states = model.encode([ids[-1], *draft], cache, shift=shift, on_canvas=in_hole)[0]
        beliefs, best = _predict(model, states, never)
        timed(1 + len(draft), time.perf_counter() - started)
        forwards += 1
    return Filled(
        ids=tuple(ids),
        stop=stop,
        forwards=forwards,
        log_probabilities=tuple(log_probabilities),
        end=end,
    )


@torch.inference_mode()
def fill(
    model: Transformer,
    cache: PrefixCache,
    canvas: Canvas,
    stop_at: Callable[[Sequence[int]], StopReason | None],
    control: Control,
    *,
    max_tokens: int | None = None,
    propose: Callable[[Sequence[int], int], Sequence[int]] = lambda ids, room: (),
    **options: Any,
) -> Filled:
    """Writes the hole of `canvas` from left to right, its clamped suffix in view.

    At most `max_tokens` of it; `options` are those of `decode`. The cache is left as it was.
    """
    control.check()
    most = min(canvas.hole, max_tokens or canvas.hole)
    draft = propose((), most - 1)
    with sealed(model, cache, canvas) as shift:
        hidden = model.encode([*canvas.lead, *draft], cache, shift=shift, on_canvas=True)
        return decode(
            model,
            cache,
            hidden,
            most,
            stop_at,
            control,
            draft=draft,
            shift=shift,
            in_hole=True,
            propose=propose,
            **options,
        )


def _predict(model: Transformer, states: Tensor, never: int | None) -> tuple[Tensor, list[int]]:
    """Log-probabilities [N, V] of the next token after each of `states` [N, D], and the best."""
    logits = model.logits(states)
    if never is not None:
        logits[:, never] = -torch.inf
    beliefs = logits.log_softmax(-1)
    return beliefs, beliefs.argmax(-1).tolist()


def _choose(
    beliefs: Tensor, best: int, choices: Tensor | None, favoured: tuple[int, float] | None
) -> int:
    """The likeliest of `choices`, or of all; or the favoured one if it is near to the best of all."""
    if choices is not None:
        return int(choices[beliefs[choices].argmax()])
    if favoured is not None:
        token, bonus = favoured
        if float(beliefs[best] - beliefs[token]) < bonus:
            return token
    return best


@torch.inference_mode()
def read(
    model: Transformer,
    cache: PrefixCache,
    texts: Sequence[Sequence[int]],
    lead: Sequence[int] = (),
) -> list[Tensor]:
    """Log-probabilities [N] of the ids of each text where it follows the cached prefix and `lead`.

    All texts are read in one causal pass. Without a `lead` the last token of the prefix is encoded
    anew, as its state tells the first id. The cache is left as it was.
    """
    assert texts, "there must be texts to read"
    with nullcontext(lead) if lead else cache.without_last() as first:
        before = [[(*first, *text[:at]) for at in range(len(text))] for text in texts]
        places = {ids: place for place, ids in enumerate(dict.fromkeys(chain(*before)))}
        states = Tree(model, cache).encode(list(places))
    return [
        _log_probabilities(model, states[[places[ids] for ids in own]], text)
        for own, text in zip(before, texts, strict=True)
    ]


def _log_probabilities(model: Transformer, states: Tensor, ids: Sequence[int]) -> Tensor:
    """Log-probability [N] of each of `ids` after the state [N, D] before it."""
    beliefs = model.logits(states).log_softmax(-1)
    return beliefs.gather(-1, torch.tensor(list(ids), device=beliefs.device)[:, None])[:, 0]

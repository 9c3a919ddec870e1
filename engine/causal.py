"""Left-to-right decoding and scoring through the encoder and the head.

For models with no diffusion training, as a baseline, and to verify what diffusion wrote.
Token ids in, token ids out; knows nothing of text or requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from engine.cache import PrefixCache
from engine.infill import Control, Filled
from engine.model import Transformer
from engine.request import StopReason


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
    allowed: Callable[[Sequence[int]], Tensor | None] = lambda ids: None,
) -> Filled:
    """Greedy continuation from `hidden` [1, n, D], the states of the cached prefix's last tokens.

    `stop_at` sees the ids so far after each token. `allowed` may give the ids the next token
    must come from. The cache is extended by all tokens but the last.
    """
    ids: list[int] = []
    log_probability = 0.0
    while True:
        logits = model.logits(hidden[0, -1])
        log_probabilities = logits.log_softmax(-1)
        choices = allowed(ids)
        if choices is None:
            token = int(log_probabilities.argmax())
        else:
            token = int(choices[log_probabilities[choices].argmax()])
        stop: StopReason | None
        if token in model.config.eos_ids:
            stop = StopReason.COMPLETE
        else:
            ids.append(token)
            log_probability += float(log_probabilities[token])
            if control.on_draft:
                control.on_draft(ids, len(ids))
            stop = stop_at(ids)
            if stop is None and len(ids) >= max_tokens:
                stop = StopReason.LENGTH
            if stop is None and control.expired:
                stop = StopReason.DEADLINE
        if stop is not None:
            break
        control.check()
        hidden = model.encode([token], cache)
    return Filled(
        ids=tuple(ids),
        stop=stop,
        forwards=max(1, len(ids)),
        log_probability=log_probability / max(1, len(ids)),
    )


@torch.inference_mode()
def score(model: Transformer, cache: PrefixCache, hidden: Tensor, ids: Sequence[int]) -> Tensor:
    """Log-probability [N] of each of `ids` after the cached prefix, in one causal pass.

    `hidden` [1, n, D] are the states of the prefix's last tokens. The cache is left as it was.
    """
    length = cache.length
    states = torch.cat((hidden[:, -1:], model.encode(ids, cache)[:, :-1]), 1)
    cache.truncate(length)
    log_probabilities = model.logits(states[0]).log_softmax(-1)
    picked = torch.tensor(list(ids), device=log_probabilities.device)[:, None]
    return log_probabilities.gather(-1, picked)[:, 0]

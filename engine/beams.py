"""Several texts for one hole at once: a beam search from left to right, the suffix in view.

A forward goes on with all that are still near the best. Token ids in, token ids out; knows nothing of text or
requests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.cache import PrefixCache
from engine.config import BeamConfig
from engine.infill import Control, Filled, sealed
from engine.model import Transformer
from engine.request import StopReason
from engine.steps import Canvas
from engine.tree import Ids, Tree

StopAt = Callable[[Sequence[int]], StopReason | None]
Allowed = Callable[[Sequence[int]], Tensor | None]


@torch.inference_mode()
def fill(
    model: Transformer,
    cache: PrefixCache,
    canvas: Canvas,
    policy: BeamConfig,
    stop_at: StopAt,
    control: Control,
    *,
    max_tokens: int,
    allowed: Allowed = lambda ids: None,
    offered: Sequence[Ids] = (),
    propose: Callable[[Sequence[int], int], Sequence[int]] = lambda ids, room: (),
) -> list[Filled]:
    """The likeliest texts for the hole of `canvas`, the best first, and those `offered`.

    `stop_at`, `allowed` and `propose`, which is asked where a forward has one text to go on with, are
    those of `causal.decode`. All texts have all forwards that were made. At the deadline those that
    have ended are the answer, or else the best beginning. The cache is left as it was, but for the
    canvas' `late` tokens, which the first forward encodes too: they are in it then.
    """
    control.check()
    with _extended(cache, canvas) as keep, sealed(model, cache, canvas) as shift:
        beliefs = _Beliefs(model, cache, canvas, shift)
        beliefs.ask(ids[:end] for ids in ((), *offered) for end in range(len(ids) + 1))
        keep()
        copies = [beliefs.read(ids) for ids in offered]
        texts = [_Text()]
        while live := _unfinished(texts, policy):
            if unknown := [text.ids for text in live if text.ids not in beliefs]:
                control.check()
                if len(unknown) == 1:
                    draft = propose(unknown[0], max_tokens - len(unknown[0]) - 1)
                    unknown += [(*unknown[0], *draft[:end]) for end in range(1, len(draft) + 1)]
                beliefs.ask(unknown)
            for text in live:
                grown = _grown(text, beliefs, policy.width, stop_at, allowed, max_tokens)
                texts.remove(text)
                texts += grown
            texts = _near(texts, policy)
            if control.on_draft:
                control.on_draft(texts[0].ids, beliefs.forwards)
            if control.expired:
                break
    ended = [text for text in texts if text.stop] or [replace(texts[0], stop=StopReason.DEADLINE)]
    found = {text.ids: text for text in (*copies, *ended)}
    ranked = sorted(found.values(), key=lambda text: -_worth(text, policy))
    return [text.filled(beliefs.forwards) for text in ranked]


@contextmanager
def _extended(cache: PrefixCache, canvas: Canvas) -> Iterator[Callable[[], None]]:
    """Makes the `late` tokens of `canvas` part of the cache in the end.

    The given call keeps what the first forward has written of them.
    """
    kept: list[tuple[Tensor, ...]] = []
    try:
        yield lambda: kept.extend(cache.written(canvas.late))
    finally:
        if kept:
            cache.append(canvas.lead[: canvas.late], *kept)


@dataclass(frozen=True, slots=True)
class _Text:
    """A text, the log-probabilities of its tokens and of its end, and why it has ended."""

    ids: Ids = ()
    logs: tuple[float, ...] = ()
    end: float | None = None
    stop: StopReason | None = None

    @property
    def total(self) -> float:
        return math.fsum(self.logs) + (self.end or 0.0)

    def filled(self, forwards: int) -> Filled:
        assert self.stop
        return Filled(
            ids=self.ids,
            stop=self.stop,
            forwards=forwards,
            log_probabilities=self.logs,
            end=self.end,
        )


def _grown(
    text: _Text,
    beliefs: _Beliefs,
    width: int,
    stop_at: StopAt,
    allowed: Allowed,
    max_tokens: int,
) -> list[_Text]:
    """`text` with each of the `width` likeliest tokens behind it, or at its end."""
    logs, choices, grown = beliefs[text.ids], allowed(text.ids), []
    if choices is not None:
        logs = torch.full_like(logs, -torch.inf).index_copy(0, choices, logs[choices])
    for log, token in zip(*(part.tolist() for part in logs.topk(width)), strict=True):
        if log == -torch.inf:
            break  # fewer are allowed
        if token in beliefs.ends:
            grown.append(replace(text, end=log, stop=StopReason.COMPLETE))
        else:
            ids = (*text.ids, token)
            stop = stop_at(ids) or (StopReason.LENGTH if len(ids) >= max_tokens else None)
            grown.append(_Text(ids, (*text.logs, log), None, stop))
    return grown


def _worth(text: _Text, policy: BeamConfig) -> float:
    return policy.worth(text.total, len(text.ids))


def _near(texts: Sequence[_Text], policy: BeamConfig) -> list[_Text]:
    """Those at most `policy.behind` nats behind the best, the best first; `width` of the unfinished."""
    ranked = sorted(texts, key=lambda text: -_worth(text, policy))
    least = _worth(ranked[0], policy) - policy.behind
    near = [text for text in ranked if _worth(text, policy) >= least]
    live = [text for text in near if not text.stop][: policy.width]
    return [text for text in near if text.stop or text in live]


def _unfinished(texts: Sequence[_Text], policy: BeamConfig) -> list[_Text]:
    """What is still to be written; nothing once a text that has ended is far enough ahead of it."""
    live = [text for text in texts if not text.stop]
    ended = max((_worth(text, policy) for text in texts if text.stop), default=-math.inf)
    ahead = bool(live) and ended - max(_worth(text, policy) for text in live) >= policy.lead
    return [] if ahead else live


class _Beliefs:
    """What the model believes comes after each text that was asked about."""

    def __init__(self, model: Transformer, cache: PrefixCache, canvas: Canvas, shift: int) -> None:
        own, lead = model.config.canvas, canvas.lead
        assert own and lead, "a hole is written behind the last tokens of its prefix"
        self.forwards = 0
        self.ends: list[int] = [*model.config.eos_ids]
        self.ends += [own.empty_id] if own.empty_id is not None else []
        self._model, self._never, self._lead = model, own.mask_id, tuple(lead)
        self._tree = Tree(
            model, cache, shift=shift, on_canvas=True, late=canvas.late, sealed=len(canvas.clamped)
        )
        self._after: dict[Ids, Tensor] = {}

    def __contains__(self, ids: Ids) -> bool:
        return ids in self._after

    def __getitem__(self, ids: Ids) -> Tensor:
        """Log-probabilities [V] of what follows `ids`."""
        return self._after[ids]

    def read(self, ids: Ids) -> _Text:
        """A text all of which has been asked about."""
        logs = [float(self[ids[:at]][token]) for at, token in enumerate(ids)]
        end = float(self[ids][self.ends].max())
        return _Text(ids, tuple(logs), end, StopReason.COMPLETE)

    def ask(self, texts: Iterable[Ids]) -> None:
        """One forward that finds out what follows `texts`."""
        asked = list(dict.fromkeys(texts))
        logits = self._model.logits(self._tree.encode([(*self._lead, *ids) for ids in asked]))
        if self._never is not None:
            logits[:, self._never] = -torch.inf
        self._after |= dict(zip(asked, logits.log_softmax(-1), strict=True))
        self.forwards += 1

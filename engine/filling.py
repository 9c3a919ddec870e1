"""One request in the engine's hands: prompt -> prefix cache -> denoising or decoding -> answers.

A `Filling` chooses among three ways: a canvas denoised, a hole written with its suffix in view, a text
continued. What they share with other requests is in `Parts`. Knows nothing of loading and of errors'
consequences.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from engine import beams, causal, drafts, endings, infill, long_holes, prompt, search
from engine.answers import Answers, Earlier
from engine.cache import PrefixCache, PrefixStore
from engine.config import BeamConfig, EngineConfig, LongHoleConfig, SamplerConfig
from engine.drafts import Drafter, Pace
from engine.errors import EngineError
from engine.healing import Healer
from engine.infill import Control, Filled
from engine.model import Transformer
from engine.prompt import Prompt
from engine.request import Candidate, Draft, InfillRequest, Mode, StopReason
from engine.steps import Canvas, Steps
from engine.tokenizer import Tokenizer
from engine.verify import Verify
from engine.wording import Wording

FIXED_HOLE = 32  # tokens, where nobody knows the length of the hole or searches for it
LONG_HOLE = 64  # the same for several lines, where a slot that stays empty costs nothing
_LATE = 16  # tokens of the prefix, at most, that the first forward over a hole encodes as well


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What all requests of an engine share; `prompt_limit` is in tokens.

    `template` is one of `prompt.choose_template`; `thought` says that the chat closes the model's
    thinking itself.
    """

    config: EngineConfig
    model: Transformer
    tokenizer: Tokenizer
    sampler: SamplerConfig
    steps: Steps
    template: str
    thought: bool
    prompt_limit: int
    prefixes: PrefixStore
    answers: Answers
    healer: Healer
    pace: Pace


@dataclass(frozen=True, slots=True)
class Answer:
    """What one way of filling found."""

    best: Candidate
    stop: StopReason
    filled: Filled
    prompt_tokens: int
    cached_tokens: int
    beginnings: tuple[Candidate, ...] = ()  # of its first line, the shortest first
    alternatives: tuple[Candidate, ...] = ()


class Clock:
    """Milliseconds spent in each named stage."""

    def __init__(self) -> None:
        self.started = self._last = time.monotonic()
        self._stages: dict[str, float] = {}

    def mark(self, stage: str) -> None:
        """Ends `stage`, which began at the previous mark."""
        now = time.monotonic()
        self._stages[stage] = (now - self._last) * 1000
        self._last = now

    def timings(self) -> dict[str, float]:
        """All stages and their total."""
        return {**self._stages, "total": (time.monotonic() - self.started) * 1000}


class Filling:
    """One request on its way."""

    def __init__(
        self,
        parts: Parts,
        request: InfillRequest,
        mode: Mode,
        control: Control,
        on_draft: Callable[[Draft], None],
        clock: Clock,
    ) -> None:
        self._parts = parts
        self._config = parts.config
        self._model = parts.model
        self._request = request
        self._mode = mode
        self._clock = clock
        self._prompt = self._laid_out(mode)
        self._wording = wording = Wording(request, self._prompt.healed, parts.tokenizer)

        def note(ids: Sequence[int], step: int) -> None:
            on_draft(Draft(text=wording.read(ids), step=step, mode=mode))

        self._control = replace(control, on_draft=note)
        clock.mark("tokenize")

    def answer(self) -> Answer:
        """Fills the hole in one of the ways the model was trained for; only encodes a request to prepare."""
        if self._request.prepare:
            return self.prepared()
        ways = {Mode.DIFFUSION: self.denoised, Mode.FIM: self.written}
        return ways.get(self._mode, self.continued)()

    def prepared(self) -> Answer:
        """The prompt is encoded, and nothing written."""
        _, cached = self._prefix()
        self._clock.mark("encode")
        nothing = Filled(ids=(), stop=StopReason.COMPLETE, forwards=0, log_probabilities=())
        best = Candidate(text="", confidence=0.0)
        return Answer(best, nothing.stop, nothing, len(self._prompt.ids), cached)

    # Denoised

    def denoised(self) -> Answer:
        """All slots of a canvas at once."""
        request = self._request
        canvas = self._canvas(FIXED_HOLE)
        cache, cached = self._prefix()
        self._clock.mark("encode")
        how: dict[str, Any] = {
            "config": self._parts.sampler,
            "seed": request.seed,
            "control": self._control,
            "steps": self._parts.steps,
        }
        most = (request.hole_tokens or request.max_tokens) + self._healed_slots()
        if canvas.clamped or canvas.lead:
            fills = self._between(canvas.hole, most, cache, **how)
        else:
            fills = [infill.generate(self._model, cache, most, begin=self._beginning(), **how)]
        self._clock.mark("decode")
        return self._answer(fills, cached)

    def _between(self, hole: int, most: int, cache: PrefixCache, **how: Any) -> Sequence[Filled]:
        """A hole between known text, whose length is given, searched for up to `most`, or long.

        Of a search all answers, the best first.
        """
        built, policy = self._prompt, self._config.infill
        begin, guess = self._beginning(), self._guess()

        def layout(hole: int) -> Canvas:
            canvas = prompt.canvas(built, hole, self._model.config)
            return replace(canvas, guess=guess[:hole], begin=begin)

        if long := self._long():
            return [long_holes.fill(self._model, cache, layout(hole), most, long, **how)]
        searched = built.suffix and search.is_wanted(self._model.config, policy)
        if self._request.hole_tokens or not searched:
            return [infill.infill(self._model, cache, layout(hole), **how)]
        room = self._model.config.canvas_length - len(built.lead) - len(built.suffix)
        bounds = range(1 if built.healed else 0, min(most, room) + 1)
        if self._request.single_line:  # which is hardly ever longer, and a long canvas costs most
            short = tuple(length for length in policy.lengths if length <= FIXED_HOLE)
            policy = replace(policy, lengths=short or policy.lengths)
        earlier = self._earlier(self._config.canvas_warm_start)
        how["earlier"] = self._wording.ids(earlier.rest if earlier else "")
        fills = search.search(self._model, cache, layout, bounds, policy, **how)
        if not policy.verify or len(fills) < 2 or self._control.expired:
            return fills
        return self._ranked(fills, cache)

    def _guess(self) -> tuple[int, ...]:
        """What a hole shows the denoiser first: an earlier answer, or a copy likelier right than not."""
        if earlier := self._earlier(self._config.canvas_warm_start):
            return self._wording.ids(earlier.left)
        copy = None
        if self._config.canvas_drafts:
            request = self._request
            copy = drafts.find(request.prefix, (request.suffix, *self._elsewhere()))
        return self._wording.ids(copy.text if copy and copy.probability >= 0.5 else "")

    def _earlier(self, wanted: bool) -> Earlier | None:
        """An earlier answer that this request continues, where it is `wanted`."""
        return self._parts.answers.find(self._request.prefix) if wanted else None

    def _beginning(self) -> tuple[int, ...]:
        """The ids the hole may begin with, where something is healed; none stands for all."""
        healed = self._prompt.healed
        return tuple(self._parts.healer.beginning(healed)) if healed else ()

    # Written from left to right

    def written(self) -> Answer:
        """From left to right with the suffix in view."""
        request = self._request
        room = FIXED_HOLE if request.single_line else LONG_HOLE
        canvas = self._canvas(room)
        most = canvas.hole
        if not request.hole_tokens:
            # As much room as in training, whatever may be written and is healed: so the suffix
            # stays where it is from one keystroke to the next.
            canvas = replace(canvas, hole=room)
        policy = self._config.beams if not request.hole_tokens else None
        cache, cached = self._prefix(leave=_LATE if policy else 0)
        late = self._prompt.ids[cache.length :]
        self._clock.mark("encode")
        if policy:
            room += len(canvas.lead)
            canvas = replace(canvas, lead=(*late, *canvas.lead), late=len(late), room=room)
            fills = self._several(canvas, most, policy, cache)
        else:
            steered = self._steered(in_hole=True)
            fills = [causal.fill(self._model, cache, canvas, max_tokens=most, **steered)]
        self._clock.mark("decode")
        return self._answer(fills, cached)

    def _several(
        self, canvas: Canvas, most: int, policy: BeamConfig, cache: PrefixCache
    ) -> list[Filled]:
        """Several texts at once, and what could be copied, those that read alike as one; the best first."""
        request, wording = self._request, self._wording
        earlier = self._earlier(self._config.warm_start)
        texts = [earlier.rest] if earlier else []
        if self._config.rivals:
            texts += drafts.rivals(
                request.prefix,
                request.suffix,
                (request.suffix, *self._elsewhere()),
                single_line=request.single_line,
            )
        offered = [ids for text in texts if 0 < len(ids := wording.ids(text)) <= most]
        propose = self._drafter(in_hole=True).propose if self._config.drafts else _nothing
        fills = beams.fill(
            self._model, cache, canvas, policy, wording.stop, self._control,
            max_tokens=most, allowed=self._allowed, offered=offered, propose=propose,
        )  # fmt: skip
        alike: dict[str, list[Filled]] = {}
        for fill in fills:
            alike.setdefault(wording.read(fill.ids).rstrip(), []).append(fill)
        spelled = [
            (
                _together([policy.worth(fill.total, len(fill.ids)) for fill in same]),
                wording.beginning(same[0], text),
            )
            for text, same in alike.items()
        ]
        return [fill for _, fill in sorted(spelled, key=lambda pair: -pair[0])]

    def continued(self) -> Answer:
        """From left to right behind the prefix, as a causal model does."""
        request, built = self._request, self._prompt
        # The last token is encoded anew: its state is where decoding starts.
        cache = self._parts.prefixes.lookup(built.ids[:-1])
        cached = cache.length
        hidden = self._encode(cache, built.ids[cached:])
        assert hidden is not None
        self._clock.mark("encode")
        healed = self._parts.tokenizer.encode(built.healed)
        most = (request.hole_tokens or request.max_tokens) + len(healed)
        filled = causal.decode(self._model, cache, hidden, most, **self._steered(in_hole=False))
        self._parts.prefixes.trim()
        self._clock.mark("decode")
        return self._answer([filled], cached)

    def _steered(self, *, in_hole: bool) -> dict[str, Any]:
        """What decoding from left to right is told of the request."""
        drafter = self._drafter(in_hole=in_hole)
        return {
            "stop_at": self._wording.stop,
            "control": self._control,
            "allowed": self._allowed,
            "favoured": drafter.favoured if self._config.favour_copies else lambda ids: None,
            "propose": drafter.propose if self._config.drafts else _nothing,
            "timed": self._parts.pace.saw,
        }

    def _drafter(self, *, in_hole: bool) -> Drafter:
        request, healed = self._request, self._prompt.healed
        canvas = self._model.config.canvas
        earlier = self._earlier(self._config.warm_start)
        return Drafter(
            request.prefix.removesuffix(healed),
            healed,
            request.suffix,
            self._elsewhere(),
            self._parts.tokenizer,
            self._wording.stop,
            self._parts.pace,
            single_line=request.single_line,
            end=canvas.empty_id if canvas and in_hole else None,
            earlier=earlier.rest if earlier else "",
        )

    def _allowed(self, ids: Sequence[int]) -> Tensor | None:
        written = self._parts.tokenizer.decode(ids)
        choices = self._parts.healer.allowed(self._prompt.healed[len(written) :])
        return None if choices is None else choices.to(self._model.embed_tokens.weight.device)

    # What the ways share

    def _laid_out(self, mode: Mode) -> Prompt:
        """The request as the model is shown it."""
        parts, request = self._parts, self._request
        limit = parts.prompt_limit
        if mode is Mode.CAUSAL:
            return prompt.raw(request, parts.tokenizer, self._model.config, limit)
        suffix = min(self._config.suffix_tokens, self._model.config.canvas_length // 2)
        if parts.template == "raw":
            return prompt.plain(request, parts.tokenizer, self._model.config, limit, suffix)
        if parts.template == "hole":
            return prompt.hole(request, parts.tokenizer, limit, thought=parts.thought)
        whole = self._long() is not None
        return prompt.chat(
            request, parts.tokenizer, limit, suffix, thought=parts.thought, whole=whole
        )

    def _long(self) -> LongHoleConfig | None:
        """How the hole is begun unclamped; None where its length is known or can be searched for."""
        policy, own = self._config.long_holes, self._model.config.canvas
        request = self._request
        if policy is None or own is None or own.empty_id is not None:
            return None
        known = request.hole_tokens or request.single_line or not request.suffix
        if self._parts.template != "chat" or known or request.max_tokens <= policy.above:
            return None
        return policy

    def _canvas(self, unknown: int) -> Canvas:
        """The canvas with a hole of the length asked for, or of `unknown`."""
        request, built, own = self._request, self._prompt, self._model.config.canvas
        assert own
        healed = self._healed_slots()
        beside = 0 if own.sealed_suffix else len(built.suffix)
        limit = own.length - len(built.lead) - beside - healed
        hole = request.hole_tokens or min(request.max_tokens, unknown, max(1, limit))
        if (built.suffix or built.lead) and hole > limit:
            raise EngineError(
                f"a hole of {hole} tokens and {beside} of suffix do not fit the canvas "
                f"of {own.length}; ask for at most {limit}"
            )
        return prompt.canvas(built, hole + healed, self._model.config)

    def _healed_slots(self) -> int:
        """How many slots what is healed takes beside the text's own."""
        healed, own = self._prompt.healed, self._model.config.canvas
        if own and own.empty_id is None and prompt.joins(healed):
            return 0  # a slot more would be a word more
        return len(self._parts.tokenizer.encode(healed))

    def _prefix(self, leave: int = 0) -> tuple[PrefixCache, int]:
        """The encoded prompt, and how many tokens of it were at hand.

        If no more than `leave` are new, and a sealed suffix does not see them, they are not encoded.
        """
        ids, sees = self._prompt.ids, self._prompt.above
        cache = self._parts.prefixes.lookup(ids)
        cached = cache.length
        if sees is None or cached < sees or len(ids) - cached > leave:
            self._encode(cache, ids[cached:])
        return cache, cached

    def _encode(self, cache: PrefixCache, ids: Sequence[int]) -> Tensor | None:
        if not ids:
            return None
        chunk = self._config.prefill_chunk
        hidden = causal.encode(self._model, cache, ids, chunk, self._control)
        self._parts.prefixes.trim()
        return hidden

    def _ranked(self, fills: Sequence[Filled], cache: PrefixCache) -> list[Filled]:
        """The fills by a causal reading, the best first; it counts the forwards of the first."""
        forwards, built = fills[0].forwards + 1, self._prompt
        best, *others = Verify().rank(self._model, cache, fills, built.suffix, built.lead)
        return [replace(best, forwards=forwards), *others]

    def _elsewhere(self) -> tuple[str, ...]:
        """Texts of other places to copy from, the nearest to the cursor first."""
        return tuple(chunk.text for chunk in reversed(self._request.context))

    def _answer(self, fills: Sequence[Filled], cached: int) -> Answer:
        """That the first of `fills` is the best and the others, where they read otherwise, are left."""
        filled, judge = fills[0], self._wording.candidate
        text, stop = self._wording.cut(self._wording.text(filled.ids))
        others = {self._wording.read(other.ids): other for other in fills[1:]}
        return Answer(
            judge(filled, text),
            stop or filled.stop,
            filled,
            len(self._prompt.ids),
            cached,
            tuple(judge(filled, beginning) for beginning in endings.beginnings(text)),
            tuple(judge(other, read) for read, other in others.items() if read != text),
        )


def _nothing(ids: Sequence[int], room: int) -> Sequence[int]:
    return ()


def _together(logs: Sequence[float]) -> float:
    """The logarithm of the sum of what these are logarithms of."""
    return float(torch.tensor(logs).logsumexp(0))

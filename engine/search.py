"""Filling a hole of unknown length: probe lengths, denoise the likely ones together, repair, rank.

A few calls of the one loop, `infill.denoise`, each over several canvases on the same prefix; what to
try next is decided in `engine.lengths`. Token ids in, token ids out: how a canvas of some length is
laid out is the caller's business. Knows nothing of text or requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from engine import infill, lengths, steps, verify
from engine.cache import PrefixCache
from engine.config import InfillConfig, ModelConfig, SamplerConfig
from engine.infill import Control, Filled
from engine.lengths import Tried
from engine.model import Transformer
from engine.request import StopReason
from engine.steps import Canvas, Steps


def score(filled: Filled, policy: InfillConfig) -> float:
    """How good an answer seems to the denoiser itself, in nats: its tokens and its junction."""
    return filled.log_probability + policy.junction_weight * (filled.junction or 0.0)


def is_wanted(model: ModelConfig, policy: InfillConfig) -> bool:
    """Whether lengths are searched for: by models that cannot leave slots of a hole empty."""
    own = model.canvas
    return policy.probe if policy.probe is not None else bool(own and own.empty_id is None)


def search(
    model: Transformer,
    cache: PrefixCache,
    layout: Callable[[int], Canvas],
    bounds: range,
    policy: InfillConfig,
    config: SamplerConfig,
    seed: int,
    control: Control,
    steps: Steps = steps.plain,
    *,
    earlier: tuple[int, ...] = (),
) -> list[Filled]:
    """Fills a hole whose length is somewhere in `bounds`: all answers, the best first.

    `layout` gives the canvas with a hole of some length; all have the same clamped suffix, as far
    as it fits. At the deadline the answers are those that are there, marked with it; one forward is
    always made. Each counts the forwards of the whole search. What is left of an `earlier` answer is
    denoised first, alone: if it stands within a few steps, it is the answer. The cache is left as it
    was.
    """
    config = replace(
        config,
        max_steps=policy.max_steps,
        confidence=policy.confidence,
        leave_one_out=policy.leave_one_out,
    )
    run = _Run(model, cache, layout, bounds, policy, config, seed, control, steps)
    again = earlier and len(earlier) in bounds and run.stands(earlier)
    if not again and not run.late:
        run.probe()
        wanted = run.likely()
        for repair in range(1 + policy.repairs):
            if not wanted or run.is_late():
                break
            run.decode(wanted)
            wanted = run.repairs(repair)
    late = StopReason.DEADLINE if run.late else None
    return [replace(f, forwards=run.forwards, stop=late or f.stop) for f in run.answers()]


@dataclass(slots=True)
class _Run:
    """One search: what was tried and found so far, by the length of the hole."""

    model: Transformer
    cache: PrefixCache
    layout: Callable[[int], Canvas]
    bounds: range
    policy: InfillConfig
    config: SamplerConfig
    seed: int
    control: Control
    steps: Steps
    probed: dict[int, Filled] = field(default_factory=dict)
    found: dict[int, Filled] = field(default_factory=dict)
    forwards: int = 0
    late: bool = False
    tried: list[int] = field(init=False)  # by the probe
    suffix: tuple[int, ...] = field(init=False)
    judged: int = field(init=False)  # tokens of it, by canvases
    read: tuple[int, ...] = field(init=False)  # those that a causal reading judges

    def __post_init__(self) -> None:
        own = self.model.config.canvas
        assert own
        self.tried = [n for n in self.policy.lengths if n in self.bounds] or [self.bounds[-1]]
        self.suffix = self.layout(self.bounds[0]).clamped
        # Of the longest hole's canvas: shorter ones may have padding behind the same suffix.
        shared = len(self.layout(self.bounds[-1]).clamped)
        self.judged = min(self.policy.judged, shared) if own.judges else 0
        self.read = () if own.judges else self.suffix[: self.policy.read]

    def stands(self, earlier: tuple[int, ...]) -> bool:
        """Whether an earlier answer is found again in a few steps, and the suffix follows it."""
        length, most = len(earlier), self.policy.again_steps
        self._denoise({length: earlier}, self.found, self.control, most)
        again = self.found[length]
        surprising = lengths.is_surprising(again.junction, self.policy)
        return again.stop is StopReason.COMPLETE and not surprising

    def probe(self) -> None:
        """A few steps over each of the lengths to be tried, without drafts."""
        quiet = replace(self.control, on_draft=None)
        self._denoise(dict.fromkeys(self.tried, ()), self.probed, quiet, self.policy.probe_steps)

    def likely(self) -> dict[int, tuple[int, ...]]:
        """The lengths to decode after the probe, without a guess."""
        tried = {n: Tried(one.entropy, one.junction) for n, one in self.probed.items()}
        scored = lengths.scores(tried, self.policy.junction_weight)
        return dict.fromkeys(lengths.chosen(scored, self.policy, self.bounds), ())

    def is_late(self) -> bool:
        """Whether the deadline has passed before all was done."""
        self.late = self.late or self.control.expired
        return self.late

    def decode(self, guesses: Mapping[int, tuple[int, ...]]) -> None:
        """Denoises a hole of each of these lengths, which shows a guess first, to its end."""
        self._denoise(guesses, self.found, self.control)

    def _trailing(self, found: Mapping[int, Filled]) -> Iterable[int]:
        """Those of the canvases under way that are too far behind the best."""
        if self.policy.drop_behind is None:
            return ()
        scored = {n: score(one, self.policy) for n, one in found.items()}
        least = max(scored.values()) - self.policy.drop_behind
        # The first step has no self-conditioning and is unreliable.
        return [n for n, value in scored.items() if value < least and found[n].forwards > 2]

    def repairs(self, repair: int) -> dict[int, tuple[int, ...]]:
        """Other lengths that some answers ask for, each with the text that it starts from.

        These are the best ones, and the longest: where they all are too short, that one is nearest.
        Where the suffix follows the best one, it alone is asked. One that left slots empty does not
        ask for more of them.
        """
        found = self.found
        ranked = sorted(found, key=lambda n: self._worth(found[n]), reverse=True)
        asked = [max(ranked, key=lambda n: len(found[n].ids)), *ranked[: self.policy.kept]]
        if not lengths.is_surprising(found[ranked[0]].junction, self.policy):
            asked = ranked[:1]
        wanted: dict[int, tuple[int, ...]] = {}
        for slots in asked:
            one, tried = found[slots], found.keys() | wanted.keys()
            length = lengths.repaired(
                one.ids, self.suffix, one.junction, tried, self.bounds, self.policy, repair
            )
            if length is not None and (length < len(one.ids) or len(one.ids) == slots):
                wanted[length] = one.ids[:length]
        return wanted

    def answers(self) -> list[Filled]:
        """What was found, each text once and without a repetition of the suffix; best first.

        Where time was short, a canvas of the probe may be further on than one of those after it, and
        what no reading has judged comes behind what one has.
        """
        found = [*self.found.values(), *(self.probed.values() if self.late else ())]
        cut: dict[tuple[int, ...], Filled] = {}
        for one in found:
            length = lengths.trimmed(one.ids, self.suffix, self.policy)
            if length < len(one.ids):
                kept = one.log_probabilities[:length]
                one = replace(one, ids=one.ids[:length], log_probabilities=kept)
            if one.ids not in cut or self._worth(one) > self._worth(cut[one.ids]):
                cut[one.ids] = one
        return sorted(cut.values(), key=self._worth, reverse=True)

    def _worth(self, one: Filled) -> tuple[bool, float]:
        """Of two answers the higher is the better."""
        unread = bool(self.read) and one.junction is None
        return not unread, score(one, self.policy)

    def _denoise(
        self,
        guesses: Mapping[int, tuple[int, ...]],
        found: dict[int, Filled],
        control: Control,
        most: int | None = None,
    ) -> None:
        """Adds to `found`, in as few batches as have no more slots than one whole canvas."""
        for batch in lengths.batches(guesses, self.model.config.canvas_length):
            if found and self.is_late():
                return
            canvases = [self._canvas(length, guesses[length]) for length in batch]
            filled = infill.denoise(
                self.model,
                self.cache,
                canvases,
                self.config,
                infill.noise_for(self.model, self.config, self.seed, max(batch)),
                self._numbered(control),
                steps=self.steps,
                most=most,
                trailing=(lambda found: ()) if most else self._trailing,
            )
            self.forwards += max(one.forwards for one in filled)
            self.late = self.late or any(one.stop is StopReason.DEADLINE for one in filled)
            answers = [infill.without_empty(one, self.model.config) for one in filled]
            found |= zip(batch, self._judged(answers, canvases[0].lead), strict=True)

    def _judged(self, answers: list[Filled], lead: tuple[int, ...]) -> list[Filled]:
        """The answers with what a causal reading says of their junction, where no canvas does."""
        if not self.read or self.is_late():
            return answers
        self.control.check()
        self.forwards += 1
        return verify.judged(self.model, self.cache, answers, self.read, lead)

    def _numbered(self, control: Control) -> Control:
        """`control` for the next batch: its drafts are numbered on."""
        done, on_draft = self.forwards, control.on_draft
        if on_draft is None:
            return control
        return replace(control, on_draft=lambda ids, step: on_draft(ids, done + step))

    def _canvas(self, length: int, guess: tuple[int, ...]) -> Canvas:
        canvas = self.layout(length)
        # One encoding of a sealed suffix serves all lengths.
        room = len(canvas.lead) + max(self.tried)
        guess = guess or canvas.guess[:length]
        canvas = replace(canvas, judged=self.judged, guess=guess, room=room)
        return infill.ready(self.model, self.cache, canvas)

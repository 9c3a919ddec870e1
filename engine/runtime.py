"""The Engine: loads a model and answers one request at a time.

Puts the pieces together: prompt -> prefix cache -> denoising or causal decoding -> text. Knows
nothing of HTTP, processes or editors. One thread at a time may call `infill`.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from engine import (
    causal,
    confidence,
    drafts,
    endings,
    fit,
    formats,
    infill,
    long_holes,
    memory,
    prompt,
    search,
    steps,
)
from engine.answers import Answers
from engine.cache import PrefixCache, PrefixStore
from engine.confidence import CALIBRATION
from engine.config import EngineConfig, LongHoleConfig, ModelConfig, SamplerConfig, read_json
from engine.drafts import Drafter, Pace
from engine.errors import EngineError
from engine.fit import OutOfMemory
from engine.graphs import Graphs
from engine.healing import Healer
from engine.infill import Control, Filled
from engine.loading import Progress, choose_device, choose_dtype, load_model, native_dtype
from engine.model import Transformer
from engine.prompt import Prompt
from engine.request import Candidate, Draft, InfillRequest, InfillResult, Mode, StopReason
from engine.steps import Canvas, Steps
from engine.threads import Threads
from engine.tokenizer import Tokenizer
from engine.verify import Verify

_LONG = 256  # tokens encoded for one request, from which on its memory is given back
# All cached prefixes; on a CPU that is where somebody types and two other places of a small model.
CACHE_BYTES = {"cuda": 1 << 30, "cpu": 96 << 20}
FIXED_HOLE = 32  # tokens, where nobody knows the length of the hole or searches for it
LONG_HOLE = 64  # the same for several lines, where a slot that stays empty costs nothing


class Engine:
    """A loaded model that fills holes. `load` is slow; `infill` is the main job."""

    def __init__(
        self, name: str, config: EngineConfig, model: Transformer, tokenizer: Tokenizer
    ) -> None:
        self._name = name
        self._config = config
        self._model = model
        self._tokenizer = tokenizer
        self._device = model.embed_tokens.weight.device
        self._dtype = model.dtype
        self._sampler = config.sampler or SamplerConfig()
        adaptive = self._device.type == "cpu" and not config.threads
        self._threads = Threads(torch.get_num_threads()) if adaptive else None
        self._healer = Healer(tokenizer, model.config.vocab_size)
        self._pace = Pace(several_rows=1.2 if self._device.type == "cuda" else 2.3)
        self._prefixes = PrefixStore(
            model.config,
            self._device,
            self._dtype,
            # An int8 model is no more exact than that, and its users have less memory.
            at_rest=torch.bfloat16 if model.embed_tokens.weight.dtype is torch.int8 else None,
            max_prefixes=config.cache_prefixes,
            max_bytes=config.cache_bytes or CACHE_BYTES[self._device.type],
        )
        self._answers = Answers()
        self._template = prompt.choose_template(config.template, model.config)
        self._thought = prompt.closes_thought(config.model)
        self._steps: Steps = steps.plain
        if self._device.type == "cuda":
            self._steps = Graphs(model, self._prompt_limit)

    @classmethod
    def load(cls, config: EngineConfig, progress: Progress | None = None) -> Engine:
        """Loads the model directory `config.model`; `progress` gets (0..1, what is done)."""
        device = choose_device(config.device)
        described = ModelConfig.from_directory(config.model)
        prompt.choose_template(config.template, described)  # before the weights are read
        config = fit.fit(config, described, device)
        dtype = native_dtype(device)
        if config.dtype != "auto" or config.quantize == "bf16":
            dtype = choose_dtype(config.dtype, device, described)
        if config.threads:
            torch.set_num_threads(config.threads)
        generation = config.model / "generation_config.json"
        if config.sampler is None and generation.exists():
            config = replace(config, sampler=SamplerConfig.from_hf(read_json(generation)))
        tokenizer = Tokenizer.from_directory(config.model)
        assert config.quantize != "auto", "fit decides"
        try:
            model = load_model(
                config.model,
                dtype=dtype,
                device=device,
                precision=config.quantize,
                head_copy=config.head_copy,
                soft_tokens=config.soft_tokens,
                progress=progress,
            )
            engine = cls(config.model.resolve().name, config, model, tokenizer)
        except (RuntimeError, MemoryError) as error:
            if not fit.is_out_of_memory(error):
                raise
            raise OutOfMemory(fit.advice(device, "loading the model")) from None
        engine.infill(InfillRequest(prefix="def warm_up(", max_tokens=2), cancelled=lambda: False)
        return engine

    @property
    def config(self) -> EngineConfig:
        """How it is set up, with what was left to the device or the model decided."""
        return self._config

    def under(self, config: EngineConfig) -> Engine:
        """An engine over the same weights, set up another way; what is encoded is not shared."""
        return Engine(self._name, config, self._model, self._tokenizer)

    def infill(
        self,
        request: InfillRequest,
        *,
        cancelled: Callable[[], bool],
        on_draft: Callable[[Draft], None] | None = None,
        valid: Callable[[str], bool] | None = None,
    ) -> InfillResult:
        """Fills one hole. Raises Cancelled between two forwards once `cancelled()` is true.

        Of several texts found that are nearly as likely, one that is `valid`, such as one that parses.
        Raises OutOfMemory when there is not enough; what is cached is dropped then, and the next
        request is answered.
        """
        try:
            result = self._fill(request, cancelled, on_draft)
            return result.preferring(valid) if valid else result
        except (RuntimeError, MemoryError) as error:
            if not fit.is_out_of_memory(error):
                raise
        # Only here are the failed forward's tensors gone, with the frames of its error.
        self._free()
        raise OutOfMemory(fit.advice(self._device, "filling a hole"))

    def _free(self) -> None:
        """Gives all memory back that the weights do not need."""
        self._prefixes.clear()
        if isinstance(self._steps, Graphs):
            self._steps.clear()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        memory.give_back()

    def _fill(
        self,
        request: InfillRequest,
        cancelled: Callable[[], bool],
        on_draft: Callable[[Draft], None] | None,
    ) -> InfillResult:
        if self._threads:
            torch.set_num_threads(self._threads.choose())
        clock = _Clock()
        deadline = None
        if request.deadline_ms is not None:
            deadline = clock.started + request.deadline_ms / 1000
        control = Control(cancelled=cancelled, deadline=deadline)
        mode = self._mode(request)
        fill = {Mode.DIFFUSION: self._diffuse, Mode.FIM: self._write}.get(mode, self._continue)
        if request.prepare:
            fill = self._prepare
        written = ""

        def note(draft: Draft) -> None:
            nonlocal written
            written = draft.text
            if on_draft:
                on_draft(draft)

        try:
            answer = fill(request, control, note, clock)
        finally:  # what was written before it was cancelled helps the next request too
            self._answers.remember(request.prefix, written)
        if answer.prompt_tokens - answer.cached_tokens > _LONG:
            memory.give_back()
        return InfillResult(
            text=answer.best.text,
            stop=answer.stop,
            mode=mode,
            model=self._name,
            confidence=answer.best.confidence,
            evidence=answer.best.evidence,
            line=answer.line,
            alternatives=answer.alternatives,
            tokens=len(answer.filled.ids),
            forwards=answer.filled.forwards,
            prompt_tokens=answer.prompt_tokens,
            cached_tokens=answer.cached_tokens,
            timings_ms=clock.timings(),
        )

    def describe(self) -> dict[str, Any]:
        """What runs, as JSON values."""
        model = self._model
        weights = dict(model.weights())
        return {
            "model": self._name,
            "directory": str(self._config.model),
            "family": model.config.family,
            "mode": str(self._mode(InfillRequest(prefix=""))),
            "trained_for_diffusion": model.config.is_diffusion,
            "device": str(self._device),
            "dtype": str(model.embed_tokens.weight.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "weights": {
                formats.class_of(name).name: formats.kept(weight)
                for name, weight in weights.items()
                if formats.kept(weight) != "plain"
            },
            "parameters": sum(math.prod(weight.shape) for weight in weights.values()),
            "weight_bytes": sum(weight.nbytes for weight in weights.values()),
            "cache_bytes": self._prefixes.nbytes,
            "cached_prefixes": len(self._prefixes),
            "prompt_tokens": self._prompt_limit,
            "canvas_length": model.config.canvas_length or None,
        }

    def _mode(self, request: InfillRequest) -> Mode:
        own = self._model.config.canvas
        possible = [Mode.CAUSAL] if own is None else [Mode.DIFFUSION, Mode.CAUSAL]
        if own and own.sealed_suffix:
            # As good as the others on held-out holes, in the fewest forwards (BENCHMARKS.md).
            possible.insert(0, Mode.FIM)
        if request.mode is Mode.AUTO:
            return possible[0]
        if request.mode not in possible:
            known = "' or '".join(str(mode) for mode in possible)
            raise EngineError(
                f"{self._name} was not trained for mode '{request.mode}'; use '{known}' or 'auto'"
            )
        return request.mode

    @property
    def _prompt_limit(self) -> int:
        usual = fit.PROMPT_TOKENS if self._device.type == "cuda" else 1024
        limit = self._config.max_prompt_tokens or usual
        return min(limit, self._model.config.max_positions - 256)

    def _prepare(
        self,
        request: InfillRequest,
        control: Control,
        on_draft: Callable[[Draft], None],
        clock: _Clock,
    ) -> _Answer:
        """Encodes the prompt and writes nothing."""
        if self._mode(request) is Mode.CAUSAL:
            built = prompt.raw(request, self._tokenizer, self._model.config, self._prompt_limit)
        else:
            built = self._diffusion_prompt(request)
        clock.mark("tokenize")
        _, cached = self._prefix(built, control)
        clock.mark("encode")
        nothing = Filled(ids=(), stop=StopReason.COMPLETE, forwards=0, log_probabilities=())
        best = Candidate(text="", confidence=0.0)
        return _Answer(best, nothing.stop, nothing, len(built.ids), cached)

    def _diffuse(
        self,
        request: InfillRequest,
        control: Control,
        on_draft: Callable[[Draft], None],
        clock: _Clock,
    ) -> _Answer:
        built, canvas = self._laid_out(request, FIXED_HOLE)
        clock.mark("tokenize")
        cache, cached = self._prefix(built, control)
        clock.mark("encode")
        how: dict[str, Any] = {
            "config": self._sampler,
            "seed": request.seed,
            "control": replace(control, on_draft=self._drafts(on_draft, request, built)),
            "steps": self._steps,
        }
        most = (request.hole_tokens or request.max_tokens) + self._healed_slots(built)
        if canvas.clamped or canvas.lead:
            fills = self._denoise(request, built, canvas.hole, most, cache, **how)
        else:
            begin = self._beginning(built)
            fills = [infill.generate(self._model, cache, most, begin=begin, **how)]
        clock.mark("decode")
        return self._answer(request, built, fills, cached)

    def _denoise(
        self,
        request: InfillRequest,
        built: Prompt,
        hole: int,
        most: int,
        cache: PrefixCache,
        **how: Any,
    ) -> Sequence[Filled]:
        """A hole between known text, whose length is given, searched for up to `most`, or long.

        Of a search all answers, the best first.
        """
        model, policy = self._model.config, self._config.infill
        begin, guess = self._beginning(built), self._guess(request, built)

        def layout(hole: int) -> Canvas:
            return replace(prompt.canvas(built, hole, model), guess=guess[:hole], begin=begin)

        if long := self._long(request):
            return [long_holes.fill(self._model, cache, layout(hole), most, long, **how)]
        if request.hole_tokens or not built.suffix or not search.is_wanted(model, policy):
            return [infill.infill(self._model, cache, layout(hole), **how)]
        room = model.canvas_length - len(built.lead) - len(built.suffix)
        bounds = range(1 if built.healed else 0, min(most, room) + 1)
        how["earlier"] = self._earlier(request, built)
        fills = search.search(self._model, cache, layout, bounds, policy, **how)
        if not policy.verify or len(fills) < 2 or how["control"].expired:
            return fills
        return self._ranked(fills, built, cache)

    def _ranked(self, fills: Sequence[Filled], built: Prompt, cache: PrefixCache) -> list[Filled]:
        """The fills by a causal reading, the best first; it counts the forwards of the first."""
        forwards = fills[0].forwards + 1
        best, *others = Verify().rank(self._model, cache, fills, built.suffix, built.lead)
        return [replace(best, forwards=forwards), *others]

    def _beginning(self, built: Prompt) -> tuple[int, ...]:
        """The ids the hole may begin with, where something is healed; none stands for all."""
        return tuple(self._healer.beginning(built.healed)) if built.healed else ()

    def _write(
        self,
        request: InfillRequest,
        control: Control,
        on_draft: Callable[[Draft], None],
        clock: _Clock,
    ) -> _Answer:
        """From left to right with the suffix in view."""
        room = FIXED_HOLE if request.single_line else LONG_HOLE
        built, canvas = self._laid_out(request, room)
        most = canvas.hole
        if not request.hole_tokens:
            # As much room as in training, whatever may be written and is healed: so the suffix
            # stays where it is from one keystroke to the next.
            canvas = replace(canvas, hole=room)
        clock.mark("tokenize")
        cache, cached = self._prefix(built, control)
        clock.mark("encode")
        steered = self._steered(request, built, control, on_draft, in_hole=True)
        filled = causal.fill(self._model, cache, canvas, max_tokens=most, **steered)
        fills = self._with_rivals(request, built, canvas.hole, cache, filled, control)
        clock.mark("decode")
        return self._answer(request, built, fills, cached)

    def _with_rivals(
        self,
        request: InfillRequest,
        built: Prompt,
        room: int,
        cache: PrefixCache,
        filled: Filled,
        control: Control,
    ) -> list[Filled]:
        """What was written and what could be copied in its place, the best first."""
        if not self._config.rivals or request.hole_tokens or control.expired:
            return [filled]
        written, _ = self._cut(self._text(filled.ids, built), request)
        copied = drafts.rivals(
            request.prefix,
            request.suffix,
            (request.suffix, *_elsewhere(request)),
            single_line=request.single_line,
        )
        ids = (
            self._tokenizer.encode(built.healed + text)
            for text in copied
            if text.rstrip() != written.rstrip()
        )
        rivals = [
            Filled(ids=tuple(each), stop=StopReason.COMPLETE, forwards=0, log_probabilities=())
            for each in ids
            if len(each) <= room
        ]
        if not rivals:
            return [filled]
        control.check()
        own = filled.first(self._spelling(filled, built, written))
        return self._ranked([own, *rivals], built, cache)

    def _laid_out(self, request: InfillRequest, unknown: int) -> tuple[Prompt, Canvas]:
        """The prompt, and the canvas with a hole of the length asked for, or of `unknown`."""
        built = self._diffusion_prompt(request)
        own = self._model.config.canvas
        assert own
        healed = self._healed_slots(built)
        beside = 0 if own.sealed_suffix else len(built.suffix)
        limit = own.length - len(built.lead) - beside - healed
        hole = request.hole_tokens or min(request.max_tokens, unknown, max(1, limit))
        if (built.suffix or built.lead) and hole > limit:
            raise EngineError(
                f"a hole of {hole} tokens and {beside} of suffix do not fit the canvas "
                f"of {own.length}; ask for at most {limit}"
            )
        return built, prompt.canvas(built, hole + healed, self._model.config)

    def _healed_slots(self, built: Prompt) -> int:
        """How many slots what is healed takes beside the text's own."""
        own = self._model.config.canvas
        if own and own.empty_id is None and prompt.joins(built.healed):
            return 0  # a slot more would be a word more
        return len(self._tokenizer.encode(built.healed))

    def _prefix(self, built: Prompt, control: Control) -> tuple[PrefixCache, int]:
        """The encoded prompt, and how many tokens of it were at hand."""
        cache = self._prefixes.lookup(built.ids)
        cached = cache.length
        self._encode(cache, built.ids[cached:], control)
        return cache, cached

    def _diffusion_prompt(self, request: InfillRequest) -> Prompt:
        """The request laid out for denoising."""
        suffix = min(self._config.suffix_tokens, self._model.config.canvas_length // 2)
        limit = self._prompt_limit
        if self._template == "raw":
            return prompt.plain(request, self._tokenizer, self._model.config, limit, suffix)
        if self._template == "hole":
            return prompt.hole(request, self._tokenizer, limit, thought=self._thought)
        whole = self._long(request) is not None
        return prompt.chat(
            request, self._tokenizer, limit, suffix, thought=self._thought, whole=whole
        )

    def _long(self, request: InfillRequest) -> LongHoleConfig | None:
        """How the hole is begun unclamped; None where its length is known or can be searched for."""
        policy, own = self._config.long_holes, self._model.config.canvas
        if policy is None or own is None or own.empty_id is not None or self._template != "chat":
            return None
        known = request.hole_tokens or request.single_line or not request.suffix
        return None if known or request.max_tokens <= policy.above else policy

    def _continue(
        self,
        request: InfillRequest,
        control: Control,
        on_draft: Callable[[Draft], None],
        clock: _Clock,
    ) -> _Answer:
        built = prompt.raw(request, self._tokenizer, self._model.config, self._prompt_limit)
        clock.mark("tokenize")
        # The last token is encoded anew: its state is where decoding starts.
        cache = self._prefixes.lookup(built.ids[:-1])
        cached = cache.length
        hidden = self._encode(cache, built.ids[cached:], control)
        assert hidden is not None
        clock.mark("encode")
        healed = self._tokenizer.encode(built.healed)
        most = (request.hole_tokens or request.max_tokens) + len(healed)
        steered = self._steered(request, built, control, on_draft)
        filled = causal.decode(self._model, cache, hidden, most, **steered)
        self._prefixes.trim()
        clock.mark("decode")
        return self._answer(request, built, [filled], cached)

    def _steered(
        self,
        request: InfillRequest,
        built: Prompt,
        control: Control,
        on_draft: Callable[[Draft], None],
        in_hole: bool = False,
    ) -> dict[str, Any]:
        """What decoding from left to right is told of the request."""
        drafter = self._drafter(request, built, in_hole)
        return {
            "stop_at": lambda ids: self._stop(ids, request, built),
            "control": replace(control, on_draft=self._drafts(on_draft, request, built)),
            "allowed": lambda ids: self._allowed(ids, built),
            "favoured": drafter.favoured if self._config.favour_copies else lambda ids: None,
            "propose": drafter.propose if self._config.drafts else lambda ids, room: (),
            "timed": self._pace.saw,
        }

    def _encode(self, cache: PrefixCache, ids: Sequence[int], control: Control) -> Tensor | None:
        if not ids:
            return None
        hidden = causal.encode(self._model, cache, ids, self._config.prefill_chunk, control)
        self._prefixes.trim()
        return hidden

    def _drafter(self, request: InfillRequest, built: Prompt, in_hole: bool) -> Drafter:
        canvas = self._model.config.canvas
        earlier = self._answers.find(request.prefix)
        return Drafter(
            request.prefix.removesuffix(built.healed),
            built.healed,
            request.suffix,
            _elsewhere(request),
            self._tokenizer,
            lambda ids: self._stop(ids, request, built),
            self._pace,
            single_line=request.single_line,
            end=canvas.empty_id if canvas and in_hole else None,
            earlier=earlier.rest if earlier and self._config.warm_start else "",
        )

    def _guess(self, request: InfillRequest, built: Prompt) -> tuple[int, ...]:
        """What a hole shows the denoiser first: an earlier answer, or a copy likelier right than not."""
        earlier = self._answers.find(request.prefix) if self._config.canvas_warm_start else None
        if earlier:
            return self._spelled(earlier.left, request, built)
        copy = None
        if self._config.canvas_drafts:
            copy = drafts.find(request.prefix, (request.suffix, *_elsewhere(request)))
        return self._spelled(copy.text if copy and copy.probability >= 0.5 else "", request, built)

    def _earlier(self, request: InfillRequest, built: Prompt) -> tuple[int, ...]:
        """What is left of an earlier answer, as a whole hole; nothing where it was typed over."""
        earlier = self._answers.find(request.prefix) if self._config.canvas_warm_start else None
        return self._spelled(earlier.rest if earlier else "", request, built)

    def _spelled(self, text: str, request: InfillRequest, built: Prompt) -> tuple[int, ...]:
        """The ids of `text` with what is healed before it; nothing for nothing."""
        if not text:
            return ()
        return tuple(self._tokenizer.encode(built.healed + self._cut(text, request)[0]))

    def _allowed(self, ids: Sequence[int], built: Prompt) -> Tensor | None:
        written = self._tokenizer.decode(ids)
        choices = self._healer.allowed(built.healed[len(written) :])
        return None if choices is None else choices.to(self._device)

    def _stop(self, ids: Sequence[int], request: InfillRequest, built: Prompt) -> StopReason | None:
        text = self._text(ids, built)
        end = endings.find_end(text, request.suffix, single_line=request.single_line)
        return end[1] if end else None

    def _text(self, ids: Sequence[int], built: Prompt) -> str:
        """The text for the hole: what was written, without what was healed."""
        written = self._tokenizer.decode(ids)
        return written[len(built.healed) :] if written.startswith(built.healed) else ""

    def _drafts(
        self,
        on_draft: Callable[[Draft], None],
        request: InfillRequest,
        built: Prompt,
    ) -> Callable[[Sequence[int], int], None]:
        return lambda ids, step: on_draft(
            Draft(text=self._cut(self._text(ids, built), request)[0], step=step)
        )

    def _cut(self, text: str, request: InfillRequest) -> tuple[str, StopReason | None]:
        end = endings.find_end(text, request.suffix, single_line=request.single_line)
        return (text[: end[0]], end[1]) if end else (text, None)

    def _answer(
        self, request: InfillRequest, built: Prompt, fills: Sequence[Filled], cached: int
    ) -> _Answer:
        """That the first of `fills` is the best and the others, where they read otherwise, are left."""
        filled = fills[0]
        text, stop = self._cut(self._text(filled.ids, built), request)
        line = endings.first_line(text)
        others = {self._cut(self._text(other.ids, built), request)[0]: other for other in fills[1:]}
        return _Answer(
            self._candidate(filled, built, text),
            stop or filled.stop,
            filled,
            len(built.ids),
            cached,
            self._candidate(filled, built, line) if line != text else None,
            tuple(self._candidate(o, built, other) for other, o in others.items() if other != text),
        )

    def _candidate(self, filled: Filled, built: Prompt, text: str) -> Candidate:
        """The beginning `text` of what was written, judged by the tokens that spell it."""
        evidence = confidence.evidence(filled.first(self._spelling(filled, built, text)))
        return Candidate(text=text, confidence=CALIBRATION.of(evidence), evidence=evidence)

    def _spelling(self, filled: Filled, built: Prompt, text: str) -> int:
        """How many of the ids written spell what was healed and the beginning `text`."""
        wanted = len(built.healed) + len(text)
        return bisect_left(
            range(len(filled.ids)),
            wanted,
            key=lambda n: len(self._tokenizer.decode(filled.ids[:n])),
        )


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one way of filling found."""

    best: Candidate
    stop: StopReason
    filled: Filled
    prompt_tokens: int
    cached_tokens: int
    line: Candidate | None = None  # the first line alone, where there are more
    alternatives: tuple[Candidate, ...] = ()


class _Clock:
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


def _elsewhere(request: InfillRequest) -> tuple[str, ...]:
    """Texts of other places to copy from, the nearest to the cursor first."""
    return tuple(chunk.text for chunk in reversed(request.context))

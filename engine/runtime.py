"""The Engine: loads a model and answers one request at a time.

Decides what the device and the model leave open, and lives on where memory runs out; how a request is
filled is `engine.filling`'s. Knows nothing of HTTP, processes or editors. One thread at a time may call
`infill`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from engine import fit, formats, hf_config, memory, plan, prompt, steps, storage
from engine.answers import Answers
from engine.cache import PrefixStore
from engine.chosen import with_chosen
from engine.config import EngineConfig, SamplerConfig
from engine.drafts import Pace
from engine.errors import EngineError
from engine.filling import Clock, Filling, Parts
from engine.fit import OutOfMemory
from engine.graphs import Graphs
from engine.healing import Healer
from engine.infill import Control
from engine.loading import Progress, choose_device, choose_dtype, load_model, native_dtype
from engine.model import Transformer
from engine.request import Draft, InfillRequest, InfillResult, Mode
from engine.storage import Pools
from engine.threads import Threads
from engine.tokenizer import Tokenizer

_LONG = 256  # tokens encoded for one request, from which on its memory is given back
# All cached prefixes; on a CPU that is where somebody types and two other places of a small model.
CACHE_BYTES = {"cuda": fit.MOST_CACHED, "cpu": 64 << 20}


class Engine:
    """A loaded model that fills holes. `load` is slow; `infill` is the main job.

    On a GPU prefixes lie in `pools`, which are allocated here if none are given.
    """

    def __init__(
        self,
        name: str,
        config: EngineConfig,
        model: Transformer,
        tokenizer: Tokenizer,
        pools: Pools | None = None,
    ) -> None:
        self._name = name
        self._config = config
        self._model = model
        self._tokenizer = tokenizer
        self._device = model.embed_tokens.weight.device
        on_gpu = self._device.type == "cuda"
        adaptive = not on_gpu and not config.threads
        self._threads = Threads(torch.get_num_threads()) if adaptive else None
        self._prompt_limit = min(
            config.max_prompt_tokens or (fit.PROMPT_TOKENS if on_gpu else 1024),
            model.config.max_positions - 256,
        )
        cache_bytes = config.cache_bytes or CACHE_BYTES[self._device.type]
        if on_gpu and pools is None:
            limit, chunk = self._prompt_limit, config.prefill_chunk
            rows = plan.most_rows(model.config, limit, chunk)
            how = self._device, model.dtype
            pools = storage.allocate(model.config, limit, rows, *how, nbytes=cache_bytes)
        self._pools = pools
        self._graphs = Graphs(model, pools) if pools else None
        self._prefixes = PrefixStore(
            model.config,
            self._device,
            model.dtype,
            # An int8 model is no more exact than that, and its users have less memory.
            at_rest=torch.int8 if model.embed_tokens.weight.dtype is torch.int8 else None,
            max_prefixes=config.cache_prefixes,
            max_bytes=cache_bytes,
            pools=pools,
        )
        self._parts = Parts(
            config=config,
            model=model,
            tokenizer=tokenizer,
            sampler=config.sampler or SamplerConfig(),
            steps=self._graphs or steps.plain,
            template=prompt.choose_template(config.template, model.config),
            thought=prompt.closes_thought(config.model),
            prompt_limit=self._prompt_limit,
            prefixes=self._prefixes,
            answers=Answers(),
            healer=Healer(tokenizer, model.config.vocab_size),
            pace=Pace(several_rows=1.2 if on_gpu else 2.3),
        )

    @classmethod
    def load(cls, config: EngineConfig, progress: Progress | None = None) -> Engine:
        """Loads the model directory `config.model`; `progress` gets (0..1, what is done).

        Of what is at its default the directory may say more; see `engine.chosen`.
        """
        config = with_chosen(config)
        device = choose_device(config.device)
        described = hf_config.read_model_config(config.model)
        prompt.choose_template(config.template, described)  # before the weights are read
        config = fit.fit(config, described, device)
        dtype = native_dtype(device)
        if config.dtype != "auto" or config.quantize == "bf16":
            dtype = choose_dtype(config.dtype, device, described)
        if config.threads:
            torch.set_num_threads(config.threads)
        generation = config.model / "generation_config.json"
        if config.sampler is None and generation.exists():
            config = replace(
                config, sampler=hf_config.sampler_config(hf_config.read_json(generation))
            )
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
        """An engine over the same weights and pages, set up another way; what is encoded is forgotten."""
        self._prefixes.clear()
        return Engine(self._name, config, self._model, self._tokenizer, self._pools)

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
        """Gives all memory back that the weights and the pages of prefixes do not need."""
        self._prefixes.clear()
        if self._graphs:
            self._graphs.clear()
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
        clock = Clock()
        deadline = None
        if request.deadline_ms is not None:
            deadline = clock.started + request.deadline_ms / 1000
        control = Control(cancelled=cancelled, deadline=deadline)
        mode = self._mode(request)
        written = ""

        def note(draft: Draft) -> None:
            nonlocal written
            written = draft.text
            if on_draft:
                on_draft(draft)

        try:
            answer = Filling(self._parts, request, mode, control, note, clock).answer()
            written = answer.best.text  # of several texts that were alive the newest draft was one
        finally:  # what was written before it was cancelled helps the next request too
            self._parts.answers.remember(request.prefix, written)
        if answer.prompt_tokens - answer.cached_tokens > _LONG:
            memory.give_back()
        return InfillResult(
            text=answer.best.text,
            stop=answer.stop,
            mode=mode,
            model=self._name,
            confidence=answer.best.confidence,
            evidence=answer.best.evidence,
            beginnings=answer.beginnings,
            alternatives=answer.alternatives,
            tokens=len(answer.filled.ids),
            forwards=answer.filled.forwards,
            prompt_tokens=answer.prompt_tokens,
            cached_tokens=answer.cached_tokens,
            timings_ms=clock.timings(),
        )

    def rest(self) -> None:
        """Gives back memory that only the next request needs; for when none comes for a while."""
        self._prefixes.rest()
        memory.give_back()

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

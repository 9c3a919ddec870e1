"""`python -m engine.train.trainer`: turns a causal model into one that fills holes.

Examples come from `objective` (or, in the few-step stage, from `distil`), text from the shards of
`corpus`. All weights are trained, or only low-rank adapters that work on canvases (`--lora`, for a
CPU). Every batch follows from the seed and the number of its step, so a resumed run is the unbroken
one. Knows nothing of how holes are cut or the corpus is built.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from engine import hf_config
from engine.config import CanvasConfig
from engine.errors import EngineError
from engine.loading import choose_device, load_model, native_dtype
from engine.model import Transformer
from engine.pull import resolve_model
from engine.train import distil, objective, runs, shards
from engine.train.adapt import DOCUMENT, adapt, newline_table, stored_name
from engine.train.objective import NO_TARGET, Example, Ids, Recipe
from engine.train.passes import Batch, Passes
from engine.train.probe import Probe

# What a CPU can learn from in an hour: shorter windows, more holes in each, fewer and shorter canvases.
ADAPTER_RECIPE = Recipe(
    window=512,
    holes=24,
    suffix=(8, 32),
    rest_of_line=0.45,
    whole_lines=0.38,
    canvases=1,
    longest_canvas=8,
    causal_weight=0.0,
)
PROBE = 8  # windows of held-out files, with PROBE_HOLES holes each
PROBE_HOLES = 4
FEW_STEPS = 3  # canvases as filling shows them before its first three forwards


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One training run. `steps` fixes the schedule; `minutes` only where it pauses."""

    out: Path
    steps: int
    minutes: float = float("inf")
    batch: int = 8
    rate: float = 3e-4
    warmup: int = 200
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    save_every: int = 100
    recipe: Recipe = field(default_factory=Recipe)


class Trainer:
    """Model, optimizer and averaged weights at a step of a run."""

    def __init__(self, model: Transformer, newline: NDArray[np.bool_], options: Options) -> None:
        self.step = 0
        self.options = options
        self.model = model.train()
        self._adapters = self._canvas.adapter_rank > 0
        for name, value in model.named_parameters():
            learns = not self._adapters or "adapter_" in name or "self_conditioning" in name
            value.requires_grad_(learns)
        self._newline = newline
        self._device = model.embed_tokens.weight.device
        self.average = {name: value.detach().clone() for name, value in self._weights()}
        self._optimizer = torch.optim.AdamW(
            [value for _, value in self._weights()],
            lr=options.rate,
            weight_decay=options.weight_decay,
            betas=(0.9, 0.95),
        )

    def run(
        self,
        windows: Callable[[int], Iterator[Ids]],
        log: Callable[[dict[str, float]], None],
        probe: Probe | None = None,
    ) -> bool:
        """Trains until the last step (true) or until the minutes are over (false); saves at the end.

        `windows(n)` gives the run's windows of text from the n-th on. What `probe` finds is logged
        whenever the state is saved.
        """
        begun, first = time.monotonic(), self.step
        stream = windows(self.step * self.options.batch)
        while True:
            late = time.monotonic() - begun >= 60 * self.options.minutes
            over = late or self.step >= self.options.steps
            if over or (self.step > first and self.step % self.options.save_every == 0):
                self.save()
                if probe:
                    log({"step": self.step, **self.probed(probe)})
            if over:
                return self.step >= self.options.steps
            figures = self.advance([next(stream) for _ in range(self.options.batch)])
            log({"step": self.step, **figures, "seconds": round(time.monotonic() - begun, 2)})

    def probed(self, probe: Probe) -> dict[str, float]:
        """What `probe` finds of the weights as they are, not averaged."""
        with self._precision():
            figures = probe.figures(self.model)
        return {f"probe: {name}": value for name, value in figures.items()}

    def advance(self, windows: Sequence[Ids]) -> dict[str, float]:
        """One step on `windows`; returns its loss and accuracies."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.options.rate * self._schedule()
        loss, figures = self.loss(windows)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        weights = [value for _, value in self._weights()]
        norm = torch.nn.utils.clip_grad_norm_(weights, self.options.clip)
        self._optimizer.step()
        self.step += 1
        self._update_average()
        return {"loss": float(loss.detach()), **figures, "norm": float(norm)}

    def save(self) -> None:
        """Writes the state whole: the old one stays until the new one is complete."""
        runs.save(self.options.out, self._state(), {"step": self.step, **self._identity()})

    def resume(self) -> bool:
        """Takes up a saved state of the same run, if there is one; EngineError if of another."""
        saved = runs.load(self.options.out, self._device)
        if saved is None:
            return False
        for name, value in self._identity().items():
            if saved.facts.get(name) != value:
                raise EngineError(
                    f"{saved.folder} is of a run with another {name} ({saved.facts.get(name)}); "
                    "give the same options or another --out"
                )
        self._load_state(saved.tensors)
        self.step = saved.facts["step"]
        return True

    @torch.no_grad()
    def start_from(self, average: dict[str, Tensor]) -> None:
        """Begins with another run's averaged weights; it must have trained the same ones."""
        ours = dict(self._weights())
        if {n: v.shape for n, v in average.items()} != {n: v.shape for n, v in ours.items()}:
            raise EngineError(
                "what to start from was trained in other weights; give it the same base"
            )
        for name, value in ours.items():
            value.copy_(average[name])
            self.average[name].copy_(average[name])

    def export(self, directory: Path, base: Path) -> None:
        """Writes the averaged weights as a model directory of this engine.

        In bfloat16; with adapters in float16, as the frozen weights they stand beside were read.
        """
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copy(base / "tokenizer.json", directory)
        shutil.copy(base / "generation_config.json", directory)
        canvas = asdict(self._canvas)
        dtype = torch.float16 if self._adapters else torch.bfloat16
        name = str(dtype).removeprefix("torch.")
        config = {**hf_config.read_json(base / "config.json"), "canvas": canvas, "dtype": name}
        (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        frozen = load_model(base, dtype=dtype, device=torch.device("cpu")).state_dict()
        weights = {**frozen, **self.average}
        stored = {
            stored_name(name): weights[name].to(dtype).contiguous().cpu()
            for name in self.model.state_dict()
        }
        save_file(stored, directory / "model.safetensors", metadata={"format": "pt"})

    def loss(self, windows: Sequence[Ids]) -> tuple[Tensor, dict[str, float]]:
        """Loss of this step's holes in `windows`, to be minimised, and accuracies."""
        with self._precision():
            passes = Passes(self.model, windows)
            batch = Batch.of(self._examples(passes), self._device)
            rows = batch.asked if self._adapters else batch.targets != NO_TARGET
            soft = None
            if self._shows_beliefs():
                with torch.no_grad():
                    soft = passes.beliefs(passes.states(batch), batch)
            logits = self.model.logits(passes.states(batch, soft)[rows])
        targets, weights = batch.targets[rows], batch.weights[rows]
        losses = F.cross_entropy(logits, targets, reduction="none")
        loss = (losses * weights).sum() / len(windows)
        with torch.no_grad():
            right = logits.argmax(-1) == targets
            empty = targets == self._canvas.empty_id
            noised, hole = batch.noised[rows], batch.segment[rows] > 0
            written = hole & (batch.part[rows] == objective.WRITTEN)
            figures = {
                "written_loss": losses[written].mean(),
                "written_right": right[written & ~empty].float().mean(),
                "end_right": right[written & empty].float().mean(),
                "noised_right": right[noised & ~empty].float().mean(),
            }
            if not self._adapters:  # they leave it as it is
                figures["causal_loss"] = losses[~hole].mean()
        return loss, {name: round(float(value), 4) for name, value in figures.items()}

    def _examples(self, passes: Passes) -> list[Example]:
        """This step's holes in the windows of `passes`."""
        options, canvas = self.options, self._canvas
        draws = [
            np.random.default_rng([options.seed, self.step, row])
            for row in range(len(passes.windows))
        ]
        drawn = list(zip(passes.windows, draws, strict=True))
        if options.recipe.few_steps:
            holes = [
                objective.cut(window, self._newline, canvas, options.recipe, draw)
                for window, draw in drawn
            ]
            return distil.examples(passes, holes, options.recipe)
        size = self.model.config.vocab_size
        return [
            objective.example(window, self._newline, size, canvas, options.recipe, draw)
            for window, draw in drawn
        ]

    def _precision(self) -> torch.autocast:
        """bfloat16 on a GPU."""
        on_gpu = self._device.type == "cuda"
        return torch.autocast(self._device.type, torch.bfloat16, enabled=on_gpu)

    def _shows_beliefs(self) -> bool:
        """Whether this step's canvases are shown what a first pass believed."""
        draw = np.random.default_rng([self.options.seed, self.step]).random()
        return bool(draw < self.options.recipe.self_conditioning)

    @property
    def _canvas(self) -> CanvasConfig:
        assert self.model.config.canvas, "the trainer's model has a canvas"
        return self.model.config.canvas

    def _schedule(self) -> float:
        """Linear warm-up, then a linear decay to a tenth."""
        warm = (self.step + 1) / max(1, self.options.warmup)
        left = 1 - self.step / self.options.steps
        return min(warm, 0.1 + 0.9 * left, 1.0)

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.options.ema, (1 + self.step) / (10 + self.step))
        for name, value in self._weights():
            self.average[name].lerp_(value, 1 - decay)

    def _weights(self) -> Iterator[tuple[str, Tensor]]:
        return ((n, value) for n, value in self.model.named_parameters() if value.requires_grad)

    def _identity(self) -> dict[str, object]:
        """What must not change within a run, as JSON gives it back."""
        options = asdict(self.options)
        for name in ("out", "minutes", "save_every"):
            del options[name]
        identity: dict[str, object] = json.loads(json.dumps(options))
        return identity

    def _state(self) -> dict[str, Tensor]:
        tensors = {f"model.{name}": value.detach() for name, value in self._weights()}
        tensors |= {f"{runs.AVERAGE}{name}": value for name, value in self.average.items()}
        for name, value in self._weights():
            for key, moment in self._optimizer.state.get(value, {}).items():
                tensors[f"optimizer.{key}.{name}"] = moment
        return {name: value.contiguous() for name, value in tensors.items()}

    @torch.no_grad()
    def _load_state(self, tensors: dict[str, Tensor]) -> None:
        for name, value in self._weights():
            value.copy_(tensors[f"model.{name}"])
            self.average[name].copy_(tensors[f"{runs.AVERAGE}{name}"])
            moments = {
                key: tensors[f"optimizer.{key}.{name}"]
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"optimizer.{key}.{name}" in tensors
            }
            if moments:
                # AdamW counts steps on the CPU, whatever the device of the weights.
                moments["step"] = moments["step"].cpu()
                self._optimizer.state[value] = moments


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, resuming what --out holds, and exports the averaged weights."""
    parser = argparse.ArgumentParser(prog="python -m engine.train.trainer", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--lora", type=int, help="rank; 0 trains all weights (32 on a CPU, else 0)")
    parser.add_argument("--batch", type=int, help="windows a step (1 with adapters, else 8)")
    parser.add_argument("--rate", type=float, help="learning rate (1e-3 with adapters, else 3e-4)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--start", metavar="MODEL", help="begin with the adapters of that model")
    parser.add_argument("--distil", type=Path, metavar="RUN",
                        help="the few-step stage of that run: its weights, recipe and rank")  # fmt: skip
    given = parser.parse_args(arguments)
    try:
        device = choose_device(given.device)
        before = runs.require(given.distil) if given.distil else None
        rank = given.lora if given.lora is not None else 32 if device.type == "cpu" else 0
        recipe = ADAPTER_RECIPE if rank else Recipe()
        if before:
            rank, recipe = before.rank, replace(before.recipe, few_steps=FEW_STEPS)
        rate = given.rate or (1e-3 if rank else 3e-4) * (0.3 if before else 1)
        options = Options(
            out=given.out,
            steps=given.steps,
            minutes=given.minutes,
            batch=given.batch or (1 if rank else 8),
            rate=rate,
            warmup=min(200, given.steps // 20),
            ema=0.995 if rank else 0.999,  # as many steps as such a run can spare
            seed=given.seed,
            recipe=recipe,
        )
        base = resolve_model(given.base)
        # Frozen weights take the precision that is fastest here.
        dtype = native_dtype(device) if rank else torch.float32
        model, tokenizer = adapt(base, recipe, device, rank=rank, dtype=dtype, seed=given.seed)
        newline = newline_table(tokenizer, model.config.vocab_size)
        trainer = Trainer(model, newline, options)
        if trainer.resume():
            sys.stderr.write(f"resumed at step {trainer.step} of {options.steps}\n")
        elif before:
            trainer.start_from(before.average)
        elif given.start:
            trainer.start_from(_learnt(resolve_model(given.start), trainer.average))
        separator = tokenizer.special(DOCUMENT)
        windows = shards.windows(given.corpus, recipe.window, separator, options.seed)
        held_out = shards.held_out(given.corpus, recipe.window, separator, PROBE)
        asked = replace(recipe, holes=PROBE_HOLES, random_noise=0.0, few_steps=0)
        probe = Probe(held_out, newline, asked) if held_out else None
        if probe is None:
            sys.stderr.write(f"{given.corpus} is too small to hold files out: no probe\n")
        done = trainer.run(windows, _print, probe)
        trainer.export(options.out / "model", base)
    except EngineError as error:
        sys.stderr.write(f"train: {error}\n")
        return 1
    sys.stderr.write("finished\n" if done else f"paused at step {trainer.step}; run it again\n")
    return 0


def _learnt(directory: Path, names: Container[str]) -> dict[str, Tensor]:
    """The weights of the model in `directory` that have these names."""
    weights = load_model(directory, dtype=torch.float32, device=torch.device("cpu")).state_dict()
    return {name: value for name, value in weights.items() if name in names}


def _print(figures: dict[str, float]) -> None:
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

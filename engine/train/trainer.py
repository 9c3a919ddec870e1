"""`python -m engine.train.trainer`: turns a causal model into one that fills holes.

Examples come from `objective`, text from the shards of `corpus`. All weights are trained, in one
masked pass over window and canvases; or only low-rank adapters that work on canvases (`--lora`, for
a CPU): then the window is encoded once, without gradient, by the unchanged causal model. Every batch
follows from the seed and the number of its step, so a resumed run is the unbroken one. Knows nothing
of how holes are cut or the corpus is built.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.cache import PrefixCache
from engine.config import CanvasConfig, ModelConfig, read_json
from engine.errors import EngineError
from engine.model import Branch, Transformer
from engine.pull import resolve_model
from engine.runtime import choose_device, load_model, native_dtype
from engine.tokenizer import Tokenizer
from engine.train import objective
from engine.train.objective import NO_TARGET, Ids, Recipe
from engine.train.shards import iterate

# Special tokens that code never contains. EMPTY is predicted, and the embedding may be frozen: it must
# not be one of those that were never trained, whose rows are all the same (MASK's is one).
MASK, EMPTY, DOCUMENT = "<jupyter_script>", "<|im_end|>", "<|endoftext|>"
STATE = "state"
# What two CPU cores can learn from in an hour: shorter windows and fewer, shorter canvases.
ADAPTER_RECIPE = Recipe(
    window=512, suffix=(8, 32), canvases=1, longest_canvas=32, causal_weight=0.0
)


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
        self._adapters = _canvas(model.config).adapter_rank > 0
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
        self, windows: Callable[[int], Iterator[Ids]], log: Callable[[dict[str, float]], None]
    ) -> bool:
        """Trains until the last step (true) or until the minutes are over (false); saves at the end.

        `windows(n)` gives the run's windows of text from the n-th on.
        """
        begun = time.monotonic()
        stream = windows(self.step * self.options.batch)
        while self.step < self.options.steps:
            if time.monotonic() - begun >= 60 * self.options.minutes:
                break
            figures = self.advance([next(stream) for _ in range(self.options.batch)])
            log({"step": self.step, **figures, "seconds": round(time.monotonic() - begun, 2)})
            if self.step % self.options.save_every == 0:
                self.save()
        self.save()
        return self.step >= self.options.steps

    def advance(self, windows: Sequence[Ids]) -> dict[str, float]:
        """One step on `windows`; returns its loss and accuracies."""
        options, model = self.options, self.model
        examples = [
            objective.example(
                window,
                self._newline,
                model.config.vocab_size,
                _canvas(model.config),
                options.recipe,
                np.random.default_rng([options.seed, self.step, row]),
            )
            for row, window in enumerate(windows)
        ]
        for group in self._optimizer.param_groups:
            group["lr"] = options.rate * self._schedule()
        loss, figures = self._loss(examples)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_([value for _, value in self._weights()], options.clip)
        self._optimizer.step()
        self.step += 1
        self._update_average()
        return {"loss": float(loss.detach()), **figures, "norm": float(norm)}

    def save(self) -> None:
        """Writes the state whole: the old one stays until the new one is complete."""
        self.options.out.mkdir(parents=True, exist_ok=True)
        new = self.options.out / f"{STATE}.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        save_file(self._state(), new / "tensors.safetensors")
        (new / "run.json").write_text(json.dumps({"step": self.step, **self._identity()}))
        old = self.options.out / f"{STATE}.old"
        shutil.rmtree(old, ignore_errors=True)
        current = self.options.out / STATE
        if current.exists():
            current.rename(old)
        new.rename(current)
        shutil.rmtree(old, ignore_errors=True)

    def resume(self) -> bool:
        """Takes up a saved state of the same run, if there is one; EngineError if of another."""
        folder = self.options.out / STATE
        if not folder.exists():
            folder = self.options.out / f"{STATE}.old"  # killed between two renames
        if not folder.exists():
            return False
        run = read_json(folder / "run.json")
        step = run.pop("step")
        if different := [k for k, v in self._identity().items() if run.get(k) != v]:
            raise EngineError(
                f"{folder} is of a run with another {different[0]} ({run.get(different[0])}); "
                "give the same options or another --out"
            )
        tensors = load_file(folder / "tensors.safetensors", device=str(self._device))
        self._load_state(tensors)
        self.step = step
        return True

    def export(self, directory: Path, base: Path) -> None:
        """Writes the averaged weights as a model directory of this engine.

        In bfloat16; with adapters in float16, as the frozen weights they stand beside were read.
        """
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copy(base / "tokenizer.json", directory)
        shutil.copy(base / "generation_config.json", directory)
        canvas = asdict(_canvas(self.model.config))
        dtype = torch.float16 if self._adapters else torch.bfloat16
        name = str(dtype).removeprefix("torch.")
        config = {**read_json(base / "config.json"), "canvas": canvas, "dtype": name}
        (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        frozen = load_model(base, dtype=dtype, device=torch.device("cpu")).state_dict()
        weights = {**frozen, **self.average}
        stored = {
            stored_name(name): weights[name].to(dtype).contiguous().cpu()
            for name in self.model.state_dict()
        }
        save_file(stored, directory / "model.safetensors", metadata={"format": "pt"})

    def _loss(self, examples: Sequence[objective.Example]) -> tuple[Tensor, dict[str, float]]:
        batch = _stacked(examples, self._device)
        rows = batch["targets"] != NO_TARGET
        if self._adapters:
            rows &= batch["segment"] > 0
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            soft = None
            if self._shows_beliefs():
                with torch.no_grad():
                    soft = self._beliefs(self._states(examples, batch, None), batch)
            logits = self.model.logits(self._states(examples, batch, soft)[rows])
        targets, weights = batch["targets"][rows], batch["weights"][rows]
        losses = F.cross_entropy(logits, targets, reduction="none")
        loss = (losses * weights).sum() / len(examples)
        with torch.no_grad():
            right = logits.argmax(-1) == targets
            empty = targets == _canvas(self.model.config).empty_id
            noised, hole = batch["noised"][rows], batch["segment"][rows] > 0
            written = hole & (batch["part"][rows] == objective.WRITTEN)
            figures = {
                "written_loss": losses[written].mean(),
                "written_right": right[written & ~empty].float().mean(),
                "end_right": right[written & empty].float().mean(),
                "noised_right": right[noised & ~empty].float().mean(),
            }
            if not self._adapters:  # they leave it as it is
                figures["causal_loss"] = losses[~hole].mean()
        return loss, {name: round(float(value), 4) for name, value in figures.items()}

    def _shows_beliefs(self) -> bool:
        """Whether this step's canvases are shown what a first pass believed."""
        draw = np.random.default_rng([self.options.seed, self.step]).random()
        return bool(draw < self.options.recipe.self_conditioning)

    def _beliefs(self, states: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """The self-conditioning signal [B, T, D]: what the row before believes of each slot.

        On the token before the hole it is that token; in all rows beside the canvases it is zero.
        """
        soft = torch.zeros_like(states)
        part = batch["part"]
        canvas = part >= objective.CANVAS
        first = canvas & (part != part.roll(1, 1))
        slots = canvas & ~first
        beliefs = self.model.logits(states[slots.roll(-1, 1)]).softmax(-1)
        soft[slots] = self.model.soft_embedding(beliefs).to(soft.dtype)
        soft[first] = self.model.embed(batch["tokens"][first]).to(soft.dtype)
        return soft

    def _states(
        self,
        examples: Sequence[objective.Example],
        batch: dict[str, Tensor],
        soft: Tensor | None,
    ) -> Tensor:
        """Final hidden states [B, T, D] of all rows; with adapters zero in those of windows."""
        if not self._adapters:
            mask = may_see(batch["segment"], batch["part"], batch["sees"])
            states: Tensor = self.model(batch["tokens"], batch["positions"], mask, soft)
            return states
        found_states: list[Tensor] = []
        for row, example in enumerate(examples):
            holes = batch["segment"][row] > 0
            soft_rows = None if soft is None else soft[row][holes]
            found = self._hole_states(example, soft_rows)
            whole = found.new_zeros(len(holes), found.shape[-1])
            found_states.append(whole.index_put((holes.nonzero()[:, 0],), found))
        return torch.stack(found_states)

    def _hole_states(self, made: objective.Example, soft: Tensor | None) -> Tensor:
        """Final hidden states of an example's hole rows, its window encoded first."""
        model = self.model
        cache = PrefixCache(model.config, self._device, model.embed_tokens.weight.dtype)
        with torch.no_grad():
            model.encode(made.tokens[made.segment == 0].tolist(), cache)
        branches = []
        for number in range(1, made.segment.max() + 1):
            rows = made.segment == number
            mask = objective.may_see(made.segment[rows], made.part[rows], made.sees[rows] * 0)
            seen = torch.from_numpy(mask).to(self._device)
            branches.append(Branch(int(made.sees[rows][0]), seen))
        holes = made.segment > 0
        ids, positions = (
            torch.from_numpy(array[holes]).to(self._device)
            for array in (made.tokens, made.positions)
        )
        return model.branches(ids, positions, cache, branches, soft)

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
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        for name, value in self._weights():
            for key, moment in self._optimizer.state.get(value, {}).items():
                tensors[f"optimizer.{key}.{name}"] = moment
        return {name: value.contiguous() for name, value in tensors.items()}

    @torch.no_grad()
    def _load_state(self, tensors: dict[str, Tensor]) -> None:
        for name, value in self._weights():
            value.copy_(tensors[f"model.{name}"])
            self.average[name].copy_(tensors[f"average.{name}"])
            moments = {
                key: tensors[f"optimizer.{key}.{name}"]
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"optimizer.{key}.{name}" in tensors
            }
            if moments:
                # AdamW counts steps on the CPU, whatever the device of the weights.
                moments["step"] = moments["step"].cpu()
                self._optimizer.state[value] = moments


def _stacked(examples: Sequence[objective.Example], device: torch.device) -> dict[str, Tensor]:
    """The arrays of the examples as tensors [B, T], the shorter ones padded."""
    longest = max(len(example.tokens) for example in examples)
    padded = [objective.padded(example, longest) for example in examples]
    return {
        part.name: torch.from_numpy(np.stack([getattr(e, part.name) for e in padded])).to(device)
        for part in fields(objective.Example)
    }


def may_see(segment: Tensor, part: Tensor, sees: Tensor) -> Tensor:
    """`objective.may_see` for a batch on the device: [B, T] each -> [B, T, T]."""
    place = torch.arange(segment.shape[1], device=segment.device)
    earlier = place <= place[:, None]
    query, key = segment[:, :, None], segment[:, None, :]
    causal = (query == 0) & (key == 0) & earlier
    prefix = (query > 0) & (key == 0) & (place < sees[:, :, None])
    known = (part == objective.SUFFIX)[:, None, :] | (part[:, :, None] == part[:, None, :])
    open_rows = (part >= objective.CANVAS)[:, :, None]
    own = (query > 0) & (query == key) & known & (earlier | open_rows)
    padding = (query < 0) & (place == place[:, None])
    return causal | prefix | own | padding


def adapt(
    base: Path,
    canvas_length: int,
    device: torch.device,
    *,
    rank: int = 0,
    self_conditioning: bool = False,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[Transformer, Tokenizer]:
    """The causal model in `base` with a canvas: same weights, two special tokens put to use.

    With a `rank` it gets adapters for canvases, in float32, and with `self_conditioning` the block
    that reads a step's beliefs; at first they change nothing.
    """
    tokenizer = Tokenizer.from_directory(base)
    causal = load_model(base, dtype=dtype, device=device)
    canvas = canvas_config(tokenizer, canvas_length, rank, self_conditioning)
    with torch.device("meta"):
        model = Transformer(replace(causal.config, canvas=canvas))
    weights = causal.state_dict()
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        if name.endswith("adapter_down"):
            drawn = torch.randn(value.shape, generator=generator) * value.shape[1] ** -0.5
            weights[name] = drawn.to(device)
        elif name.endswith("adapter_up") or name == "self_conditioning.down_proj.weight":
            weights[name] = torch.zeros(value.shape, device=device)
        elif name == "self_conditioning.pre_norm.weight":
            weights[name] = torch.ones(value.shape, device=device)
        elif name.startswith("self_conditioning."):
            drawn = torch.randn(value.shape, generator=generator) * value.shape[1] ** -0.5
            weights[name] = drawn.to(device)
    model.load_state_dict(weights, strict=True, assign=True)
    return model, tokenizer


def canvas_config(
    tokenizer: Tokenizer, length: int, rank: int, self_conditioning: bool
) -> CanvasConfig:
    """The canvases a run trains on."""
    return CanvasConfig(
        length=length,
        noise="mask",
        mask_id=tokenizer.special(MASK),
        empty_id=tokenizer.special(EMPTY),
        shifted=True,
        self_conditioning=self_conditioning,
        soft_tokens=8 if self_conditioning else None,
        sealed_suffix=True,
        adapter_rank=rank,
    )


def newline_table(tokenizer: Tokenizer, vocab_size: int) -> NDArray[np.bool_]:
    """Of each id, whether its text has a line end."""
    known = min(vocab_size, tokenizer.vocab_size)
    table = np.zeros(vocab_size, np.bool_)
    table[:known] = ["\n" in tokenizer.decode([token]) for token in range(known)]
    return table


def corpus_windows(
    folder: Path, length: int, separator: int, seed: int
) -> Callable[[int], Iterator[Ids]]:
    """The corpus as one stream of documents with separators, cut into windows; epochs go on."""

    def windows(skip: int) -> Iterator[Ids]:
        rest: Ids = np.empty(0, np.int64)
        epoch = 0
        while True:
            for document in iterate(folder, seed, epoch):
                rest = np.concatenate((rest, [separator], document.ids.astype(np.int64)))
                while len(rest) >= length:
                    if skip > 0:
                        skip -= 1
                    else:
                        yield rest[:length]
                    rest = rest[length:]
            epoch += 1

    return windows


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
    given = parser.parse_args(arguments)
    try:
        device = choose_device(given.device)
        rank = given.lora if given.lora is not None else 32 if device.type == "cpu" else 0
        options = Options(
            out=given.out,
            steps=given.steps,
            minutes=given.minutes,
            batch=given.batch or (1 if rank else 8),
            rate=given.rate or (1e-3 if rank else 3e-4),
            warmup=min(200, given.steps // 20),
            seed=given.seed,
            recipe=ADAPTER_RECIPE if rank else Recipe(),
        )
        base = resolve_model(given.base)
        # Frozen weights take the precision that is fastest here.
        dtype = native_dtype(device) if rank else torch.float32
        model, tokenizer = adapt(
            base,
            options.recipe.canvas,
            device,
            rank=rank,
            self_conditioning=options.recipe.self_conditioning > 0,
            dtype=dtype,
            seed=given.seed,
        )
        trainer = Trainer(model, newline_table(tokenizer, model.config.vocab_size), options)
        if trainer.resume():
            sys.stderr.write(f"resumed at step {trainer.step} of {options.steps}\n")
        windows = corpus_windows(
            given.corpus, options.recipe.window, tokenizer.special(DOCUMENT), options.seed
        )
        done = trainer.run(windows, _print)
        trainer.export(options.out / "model", base)
    except EngineError as error:
        sys.stderr.write(f"train: {error}\n")
        return 1
    sys.stderr.write("finished\n" if done else f"paused at step {trainer.step}; run it again\n")
    return 0


def _print(figures: dict[str, float]) -> None:
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


def _canvas(config: ModelConfig) -> CanvasConfig:
    assert config.canvas, "the trainer's model has a canvas"
    return config.canvas


def stored_name(name: str) -> str:
    """As a Llama checkpoint names it: the inverse of `checkpoint.model_name`."""
    if name == "lm_head.weight":
        return name
    return "model." + name.replace("pre_feedforward_layernorm", "post_attention_layernorm")


if __name__ == "__main__":
    sys.exit(main())

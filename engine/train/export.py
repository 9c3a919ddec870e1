"""`python -m engine.train.export`: what a run learned, in files small enough to ship.

A run of adapters becomes the folder that `dg-lsp pull` lays over their base; one that trained all
weights becomes a whole model directory, packed, in shards. The same run gives the same bytes. Knows
nothing of how a run trains.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine import adapters, hf_config, packed
from engine.checkpoint import save_safetensors, save_shards
from engine.config import CanvasConfig
from engine.errors import EngineError
from engine.packed import Packed
from engine.pull import pull, resolve_model
from engine.tokenizer import Tokenizer
from engine.train import runs
from engine.train.adapt import canvas_config, stored_name

_SHIPPED_AS = "dg-mini"
_LOOKUPS = ("model.embed_tokens.weight", "lm_head.weight")  # each row is a token of its own


@dataclass(frozen=True, slots=True)
class Learned:
    """The averaged weights of a run, by their stored names, and the canvas they were trained on."""

    weights: dict[str, Tensor]
    canvas: CanvasConfig

    @classmethod
    def from_run(cls, run: Path, base: Path) -> Learned:
        """Reads the state a trainer saved in `run`."""
        saved = runs.require(run)
        canvas = canvas_config(Tokenizer.from_directory(base), saved.recipe, saved.rank)
        return cls({stored_name(name): value for name, value in saved.average.items()}, canvas)


def write_adapters(learned: Learned, folder: Path, bits: int) -> None:
    """Writes adapters and canvas into `folder`; a model card is written by hand."""
    if not learned.canvas.adapter_rank:
        raise EngineError("this run trained all weights; it has no adapters to write")
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for name, value in learned.weights.items():
        kept = _compact(value, bits, 64)
        tensors |= kept.named(name) if isinstance(kept, Packed) else {name: kept}
    save_safetensors(tensors, folder / adapters.ADAPTERS)
    _write_json(folder / adapters.CANVAS, asdict(learned.canvas))


def write_directory(learned: Learned, base: Path, directory: Path) -> None:
    """Writes a run of all weights: matrices in 4 bits, lookups in 8, the rest in float16."""
    if directory.exists() and any(directory.iterdir()):
        raise EngineError(f"{directory} is not empty; give a new --out")
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(base / "generation_config.json", directory / "generation_config.json")
    tokenizer = json.dumps(hf_config.read_json(base / "tokenizer.json"), separators=(",", ":"))
    (directory / "tokenizer.json").write_text(tokenizer, encoding="utf-8")  # half of it was blanks
    ours = {"dtype": "float16", "quantization": {"format": packed.FORMAT}}
    config = hf_config.read_json(base / "config.json") | ours | {"canvas": asdict(learned.canvas)}
    _write_json(directory / "config.json", config)
    weights = {
        name: _compact(value, *((8, 192) if name in _LOOKUPS else (4, 32)))
        for name, value in learned.weights.items()
    }
    save_shards(weights, directory)


def _compact(value: Tensor, bits: int, most: int) -> Tensor | Packed:
    """A matrix in groups of at most `most`, where its rows can be cut so; the rest in float16."""
    group = math.gcd(value.shape[-1], most)
    if group >= 16 and packed.can_pack(value.shape, group):
        return packed.pack(value, bits, group)
    return value.to(torch.float16)


def _write_json(path: Path, data: object) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exports a run; prints what was written and how large it is."""
    parser = argparse.ArgumentParser(prog="python -m engine.train.export", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="the --out of the trainer")
    parser.add_argument("--base", default="smollm2-135m", help="what the run started from")
    parser.add_argument("--out", type=Path, required=True, help="the folder or directory to write")
    parser.add_argument("--bits", type=int, default=6, choices=range(2, 9), help="of adapters")
    parser.add_argument(
        "--directory", type=Path, help="with adapters: also the whole model, over its pulled base"
    )
    parser.add_argument("--wheel", type=Path, help="of the base, for --directory; saves a download")
    given = parser.parse_args(arguments)
    try:
        base = resolve_model(given.base)
        learned = Learned.from_run(given.run, base)
        if learned.canvas.adapter_rank:
            write_adapters(learned, given.out, given.bits)
        else:
            write_directory(learned, base, given.out)
        written = [given.out]
        if given.directory:
            written.append(
                pull(_SHIPPED_AS, directory=given.directory, wheel=given.wheel, folder=given.out)
            )
    except EngineError as error:
        sys.stderr.write(f"export: {error}\n")
        return 1
    for folder in written:
        size = sum(file.stat().st_size for file in folder.iterdir())
        sys.stdout.write(f"{folder}: {size / 1e6:.1f} MB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

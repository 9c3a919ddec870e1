"""`python -m engine.quantize MODEL --to int4`: the model once more, in fewer bits.

Planned from the headers, then shard by shard: read, rounded, compared with what was read, written,
read back. A run that was cut short goes on behind the shards that are whole, and the directory gets
its name only when it is. What becomes of which weight is the table in `formats`.
"""

from __future__ import annotations

import argparse
import errno
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file
from torch import Tensor

from engine import formats, hf_config, layouts
from engine.checkpoint import Checkpoint, save_safetensors, write_index
from engine.checksum import sha256
from engine.config import ModelConfig
from engine.errors import EngineError
from engine.model import shapes
from engine.pull import MANIFEST, resolve_model
from engine.report import Report
from engine.weights import PackedWeight

Progress = Callable[[float, str], None]

_STATE = "quantized.json"  # what was made from what, in the directory written
_SHARD_BYTES = 1 << 30  # of the source: bounds what is in memory at once
_CPU = torch.device("cpu")
_GPU = torch.device("cuda")


def quantize(model: Path, out: Path, precision: Literal["fp8", "int4"], progress: Progress) -> str:
    """Writes `model` to the directory `out`, unless it is there; returns the table of errors.

    Raises EngineError for a model that cannot be written like this, for a directory that is
    something else, and when the disk is full.
    """
    config = hf_config.read_model_config(model)
    _refuse(model, config, precision)
    checkpoint = Checkpoint(model, config.family, shapes(config))
    job = _Job(model, out, precision, config.tied_head, checkpoint)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(job.work.with_suffix(".lock"), timeout=0):
            return _run(job, progress)
    except Timeout:
        raise EngineError(f"another run is writing {out}; wait for it") from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise EngineError(
                f"the disk of {out.parent} is full; free some space and run it again to go on"
            ) from None
        raise EngineError(f"cannot write {out}: {error.strerror}; choose another --out") from None


@dataclass(frozen=True, slots=True)
class _Job:
    """What is made from what, and where it is until it is whole."""

    model: Path
    out: Path
    precision: Literal["fp8", "int4"]
    tied_head: bool
    checkpoint: Checkpoint

    @property
    def work(self) -> Path:
        return self.out.with_name(f".{self.out.name}.new")

    @property
    def made_from(self) -> dict[str, Any]:
        files = {p.name: [p.stat().st_size, p.stat().st_mtime_ns] for p in _files(self.model)}
        return {"layout": 1, "precision": self.precision, "source": dict(sorted(files.items()))}

    def plan(self) -> list[list[str]]:
        """The names of each shard's weights."""
        shards: list[list[str]] = [[]]
        room = _SHARD_BYTES
        for name, size in self.checkpoint.sizes.items():
            if shards[-1] and size > room:
                shards.append([])
                room = _SHARD_BYTES
            room -= size
            shards[-1].append(name)
        return shards

    def rounded(self, names: Sequence[str]) -> Iterator[tuple[str, Tensor, formats.Weight]]:
        """Some weights: the name, what is stored, and what becomes of it, on the faster device."""
        device = _GPU if torch.cuda.is_available() else _CPU
        for name, weight in self.checkpoint.stream(dtype=None, device=_CPU, only=names):
            assert isinstance(weight, Tensor), f"{name} is in few bits already"
            weight = weight.to(device)
            one = formats.converted([(name, weight)], self.precision, tied_head=self.tied_head)
            for new_name, made in one:
                yield new_name, weight, made


def _run(job: _Job, progress: Progress) -> str:
    state = _State.read(job.out)
    if state.made_from == job.made_from and state.is_whole(job.out):
        return state.errors().table()
    if job.out.exists() and any(job.out.iterdir()):
        raise EngineError(
            f"{job.out} exists and is not {job.model.name} in {job.precision} as written here; "
            "move it away or choose another --out"
        )
    state = _State.read(job.work)
    if state.made_from != job.made_from:
        shutil.rmtree(job.work, ignore_errors=True)
        job.work.mkdir()
        state = _State(job.made_from, {})
    plan = job.plan()
    names = [f"model-{i:05}-of-{len(plan):05}.safetensors" for i in range(1, len(plan) + 1)]
    kept = {name for name in names if state.has(job.work, name)}
    _need_space(job, [s for s, name in zip(plan, names, strict=True) if name not in kept])
    sizes = [sum(job.checkpoint.sizes[name] for name in shard) for shard in plan]
    done = 0
    for shard, file, size in zip(plan, names, sizes, strict=True):
        if file not in kept:
            progress(done / sum(sizes), f"rounding to {job.precision}")
            state.shards[file] = _write_shard(job, shard, job.work / file)
            state.write(job.work)
        done += size
    _finish(job)
    progress(1.0, f"rounding to {job.precision}")
    return state.errors().table()


def _write_shard(job: _Job, names: Sequence[str], path: Path) -> dict[str, Any]:
    """Rounds and writes some weights; what the file is and how far its weights are off."""
    tensors: dict[str, Tensor] = {}
    errors = formats.Errors()
    for name, weight, made in job.rounded(names):
        errors.add(name, weight, made)
        parts = made.parts() if isinstance(made, PackedWeight) else {}
        named = {f"{name}.{part}": tensor for part, tensor in parts.items()} or {name: weight}
        tensors |= {key: tensor.contiguous().cpu() for key, tensor in named.items()}
    part = path.with_suffix(".part")
    try:
        save_safetensors(tensors, part)
        for name, tensor in load_file(part).items():
            if not torch.equal(tensor.view(torch.uint8), tensors[name].view(torch.uint8)):
                raise EngineError(f"{part}: {name} is not what was written; check the disk")
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
    return {"sha256": sha256(path), "errors": errors.sums}


@dataclass(slots=True)
class _State:
    """What `quantized.json` says: from what, and which shards are whole."""

    made_from: dict[str, Any] | None
    shards: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, directory: Path) -> _State:
        """Nothing where it says nothing."""
        try:
            found = json.loads((directory / _STATE).read_text(encoding="utf-8"))
            return cls(found["made_from"], found["shards"])
        except (OSError, ValueError, KeyError, TypeError):
            return cls(None, {})

    def write(self, directory: Path) -> None:
        """Replaces the file at once, so that a kill leaves the old one or the new one."""
        new = directory / f"{_STATE}.part"
        said = {"made_from": self.made_from, "shards": self.shards}
        new.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
        new.rename(directory / _STATE)

    def has(self, directory: Path, file: str) -> bool:
        """Whether a shard is there as it was written."""
        known = self.shards.get(file)
        path = directory / file
        return known is not None and path.is_file() and sha256(path) == known["sha256"]

    def is_whole(self, directory: Path) -> bool:
        """Whether every shard is there as it was written."""
        return all(self.has(directory, file) for file in self.shards)

    def errors(self) -> formats.Errors:
        """Those of all shards together."""
        total = formats.Errors()
        for shard in self.shards.values():
            for name, (off, size) in shard["errors"].items():
                sums = total.sums.setdefault(name, [0.0, 0.0])
                sums[0] += off
                sums[1] += size
        return total


def _finish(job: _Job) -> None:
    """Writes what is no weight, and gives the directory its name."""
    write_index(job.work)
    for file in _files(job.model):
        weights = file.suffix == ".safetensors" or file.name.endswith(".safetensors.index.json")
        if not weights and file.name not in ("config.json", MANIFEST, _STATE):
            shutil.copyfile(file, job.work / file.name)
    config = hf_config.read_json(job.model / "config.json")
    config["quantization"] = {"format": layouts.OURS, "precision": job.precision}
    (job.work / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if job.out.exists():
        job.out.rmdir()  # it is empty
    job.work.rename(job.out)


def _need_space(job: _Job, shards: Sequence[Sequence[str]]) -> None:
    wanted = 0
    for name in (name for shard in shards for name in shard):
        ours = formats.target(name, job.precision)
        wanted += round(job.checkpoint.sizes[name] * formats.SHARE[ours])
        if job.tied_head and name == "embed_tokens.weight":
            head = formats.target("lm_head.weight", job.precision)
            wanted += round(job.checkpoint.sizes[name] * formats.SHARE[head])
    free = shutil.disk_usage(job.out.parent).free
    if free < wanted:
        raise EngineError(
            f"{job.out} needs {wanted / 1e9:.1f} GB free in {job.out.parent}, "
            f"which has {free / 1e9:.1f} GB"
        )


def _refuse(model: Path, config: ModelConfig, precision: str) -> None:
    settings = hf_config.read_json(model / "config.json")
    ours = settings.get("quantization")
    again = isinstance(ours, dict) and ours.get("format") == layouts.OURS
    if again or "quantization_config" in settings or (model / "hf_quant_config.json").is_file():
        raise EngineError(f"{model} is in few bits already; quantise the bfloat16 release")
    if precision == "int4" and config.experts is None:
        raise EngineError(
            f"int4 is for the experts of a mixture, and {model.name} has none; use --to fp8"
        )


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if path.is_file() and path.name[0] != "."]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; prints the directory written, or one line about what is wrong."""
    parser = argparse.ArgumentParser(
        prog="dg-lsp quantize", description="Write a model in fewer bits."
    )
    parser.add_argument("model", metavar="MODEL", help="a known name or a model directory")
    parser.add_argument(
        "--to",
        required=True,
        choices=["fp8", "int4"],
        help="fp8: all linear layers; int4: the experts in 4 bits, the others in fp8",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: beside it, MODEL-fp8")
    given = parser.parse_args(arguments)
    report = Report()
    try:
        model = resolve_model(given.model).resolve()
        out = (given.out or model.with_name(f"{model.name}-{given.to}")).expanduser().absolute()
        table = quantize(model, out, given.to, report)
    except (EngineError, KeyboardInterrupt) as error:
        report.close()
        interrupted = isinstance(error, KeyboardInterrupt)
        reason = "interrupted; run it again to go on" if interrupted else str(error)
        sys.stderr.write(f"dg-lsp quantize: {reason}\n")
        return 130 if interrupted else 1
    report.close()
    sys.stderr.write(f"{table}\n" if report.used else f"already there, checked\n{table}\n")
    sys.stdout.write(f"{out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

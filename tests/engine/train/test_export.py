"""Exports of a run: small files, the same bytes each time, and the model they came from."""

import json

import pytest
import torch

from engine import packed, pull
from engine.checkpoint import load_tensors
from engine.config import EngineConfig, SamplerConfig
from engine.errors import EngineError
from engine.loading import load_model
from engine.request import InfillRequest, Mode
from engine.runtime import Engine
from engine.train import export
from engine.train.export import Learned
from tests.engine import tiny_wheel
from tests.engine.train.test_trainer import CPU, base, make_options, make_trainer, periodic_windows

__all__ = ["base"]  # the fixture


def trained(base, out, rank):
    """A run of three steps, saved, and its averaged weights."""
    trainer = make_trainer(base, make_options(out, steps=3, rate=1e-2), rank)
    trainer.run(periodic_windows, lambda figures: None)
    return trainer


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def size(folder):
    return sum(len(content) for content in files(folder).values())


def test_adapters_and_their_canvas_are_what_the_run_learned(base, tmp_path):
    trainer = trained(base, tmp_path / "run", rank=16)
    learned = Learned.from_run(tmp_path / "run", base)
    assert learned.canvas == trainer.model.config.canvas
    export.write_adapters(learned, tmp_path / "out", bits=6)
    assert files(tmp_path / "out").keys() == {"adapters.safetensors", "canvas.json"}
    (tmp_path / "out" / "config.json").write_text(
        json.dumps({"quantization": {"format": packed.FORMAT}})
    )
    (tmp_path / "out" / "adapters.safetensors").rename(tmp_path / "out" / "model.safetensors")
    shapes = {name: tuple(value.shape) for name, value in trainer.average.items()}
    loaded = load_tensors(tmp_path / "out", "llama", shapes, dtype=torch.float32, device=CPU)
    for name, value in trainer.average.items():
        step = (value.max() - value.min()) / 63
        assert (loaded[name] - value).abs().max() <= 0.51 * step + 1e-4, name


def test_adapters_of_any_rank_can_be_exported(base, tmp_path):
    trained(base, tmp_path / "run", rank=4)  # too narrow to pack: some stay in float16
    export.write_adapters(Learned.from_run(tmp_path / "run", base), tmp_path / "out", bits=4)
    assert size(tmp_path / "out") > 0


@pytest.mark.parametrize("rank", [0, 16])
def test_the_same_run_gives_the_same_bytes(base, tmp_path, rank, monkeypatch):
    trained(base, tmp_path / "run", rank)
    monkeypatch.setattr(export, "resolve_model", lambda name: base)
    for out in ("one", "two"):
        line = ["--run", str(tmp_path / "run"), "--out", str(tmp_path / out)]
        assert export.main(line) == 0
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_all_weights_become_a_directory_the_engine_fills_holes_with(base, tmp_path):
    trainer = trained(base, tmp_path / "run", rank=0)
    trainer.export(tmp_path / "plain", base)
    export.write_directory(Learned.from_run(tmp_path / "run", base), base, tmp_path / "packed")
    assert size(tmp_path / "packed") < 0.7 * size(tmp_path / "plain")
    plain, small = (
        load_model(tmp_path / name, dtype=torch.float32, device=CPU) for name in ("plain", "packed")
    )
    assert small.config == plain.config
    for (name, ours), theirs in zip(
        small.state_dict().items(), plain.state_dict().values(), strict=True
    ):
        step = theirs.max() - theirs.min()
        assert (ours - theirs).abs().max() <= step / 20, name
    config = EngineConfig(model=tmp_path / "packed", sampler=SamplerConfig(max_steps=3))
    request = InfillRequest(prefix="a = ", suffix="\nb", max_tokens=8)
    assert Engine.load(config).infill(request, cancelled=lambda: False).mode is Mode.FIM


def test_a_directory_that_is_not_empty_is_left_alone(base, tmp_path):
    trained(base, tmp_path / "run", rank=0)
    learned = Learned.from_run(tmp_path / "run", base)
    with pytest.raises(EngineError, match="run is not empty; give a new --out"):
        export.write_directory(learned, base, tmp_path / "run")


def test_a_run_of_all_weights_has_no_adapters(base, tmp_path):
    trained(base, tmp_path / "run", rank=0)
    with pytest.raises(EngineError, match="trained all weights; it has no adapters"):
        export.write_adapters(Learned.from_run(tmp_path / "run", base), tmp_path / "out", bits=6)


def test_the_command_writes_adapters_and_pulls_their_base_under_them(
    base, tmp_path, monkeypatch, capsys
):
    trained(base, tmp_path / "run", rank=16)
    called = []

    def fake(name, **options):
        called.append((name, options))
        options["directory"].mkdir()
        return options["directory"]

    monkeypatch.setattr(export, "resolve_model", lambda name: base)
    monkeypatch.setattr(export, "pull", fake)
    out, whole, wheel = (tmp_path / name for name in ("out", "whole", tiny_wheel.WHEEL))
    line = ["--run", str(tmp_path / "run"), "--out", str(out), "--directory", str(whole)]
    assert export.main([*line, "--wheel", str(wheel)]) == 0
    assert called == [("dg-mini", {"directory": whole, "wheel": wheel, "folder": out})]
    assert "dg-mini" in pull.MODELS
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{out}: 0.")
    assert said[1] == f"{whole}: 0.0 MB"


def test_what_is_no_run_is_refused_in_one_line(base, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export, "resolve_model", lambda name: base)
    assert export.main(["--run", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert said == f"export: {tmp_path} is no training run: it has no state/tensors.safetensors\n"

"""`dg-lsp quantize`: what is written is what loading rounds to, whatever cut the run short."""

import errno
import gc
import json
import os
import shutil
from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from engine import formats, quantize
from engine.cache import PrefixCache
from engine.config import EngineConfig
from engine.errors import ConfigError, EngineError
from engine.loading import load_model
from engine.request import InfillRequest
from engine.runtime import Engine
from engine.weights import Fp8Weight, Int4Weight, PackedWeight
from tests.engine import published, tiny

CPU = torch.device("cpu")
IDS = torch.randint(5, tiny.VOCAB, (12,), generator=torch.Generator().manual_seed(1)).tolist()


def load(directory, precision="bf16"):
    return load_model(directory, dtype=torch.float32, device=CPU, precision=precision)


def run(model, out, precision="int4"):
    return quantize.quantize(model, out, precision, lambda fraction, what: None)


def shards(directory):
    return {path.name: path.read_bytes() for path in directory.glob("*.safetensors")}


def parts(model):
    """All tensors of a model, packed ones by their parts."""
    found = {}
    for name, weight in model.weights():
        named = weight.parts() if isinstance(weight, PackedWeight) else {"": weight}
        found |= {f"{name}.{part}": tensor.float() for part, tensor in named.items()}
    return found


@torch.inference_mode()
def logits(model):
    cache = PrefixCache(model.config, CPU, model.dtype)
    causal = model.encode(IDS[:8], cache)[0]
    return model.logits(torch.cat((causal, model.canvas(torch.tensor([IDS[8:]]), cache, None)[0])))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model whose every row is a whole number of groups."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    tiny.diffusion_gemma(directory, seed=3, num_hidden_layers=2, moe_intermediate_size=32)
    return directory


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(quantize, "_SHARD_BYTES", 60_000)


KEPT = {
    "fp8": {"attention": "fp8", "dense MLP": "fp8", "experts": "fp8"},
    "int4": {"attention": "fp8", "dense MLP": "fp8", "experts": "int4"},
}


@pytest.mark.parametrize("precision", ["fp8", "int4"])
def test_what_is_written_is_what_loading_rounds_to(model, tmp_path, precision, small_shards):
    out = tmp_path / "out"
    run(model, out, precision)
    assert len(shards(out)) > 3
    assert (out / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()
    written, rounded, plain = load(out), load(model, precision), load(model)
    found, expected = parts(written), parts(rounded)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    for name, weight in plain.weights():
        kept = dict(written.weights())[name]
        wanted = {**KEPT[precision], "self-conditioning": "fp8"}
        assert formats.kept(kept) == wanted.get(formats.class_of(name).name, "plain")
        if not isinstance(kept, PackedWeight):
            assert torch.equal(kept, weight), name
    assert isinstance(dict(written.weights())["lm_head.weight"], Fp8Weight)
    assert F.cosine_similarity(logits(written), logits(plain)).median() > 0.9


def test_an_engine_runs_what_was_written(model, tmp_path):
    run(model, tmp_path / "out")
    engine = Engine.load(EngineConfig(model=tmp_path / "out", device="cpu"))
    engine.infill(InfillRequest(prefix="re", max_tokens=3), cancelled=lambda: False)
    assert engine.describe()["weights"]["experts"] == "int4"


def test_the_table_has_the_error_of_each_class(model, tmp_path):
    table = run(model, tmp_path / "out").splitlines()
    assert table[0].split() == ["class", "relative", "error"]
    errors = {line[:28].strip(): float(line[28:]) for line in table[1:]}
    assert errors.keys() == {
        "attention (fp8)",
        "dense MLP (fp8)",
        "experts (int4)",
        "head (fp8)",
        "self-conditioning (fp8)",
    }
    plain, rounded = dict(load(model).weights()), dict(load(tmp_path / "out").weights())
    experts = [name for name, weight in rounded.items() if isinstance(weight, Int4Weight)]
    off = sum(
        float((rounded[n].dequantize(torch.float32) - plain[n]).square().sum()) for n in experts
    )
    size = sum(float(plain[n].square().sum()) for n in experts)
    assert errors["experts (int4)"] == pytest.approx((off / size) ** 0.5, abs=2e-4)


def test_only_one_shard_of_rounded_weights_is_in_memory(model, tmp_path, monkeypatch, small_shards):
    real, seen = quantize.save_safetensors, []

    def save(tensors, path):
        gc.collect()
        few_bits = (torch.uint8, torch.float8_e4m3fn)
        alive = [t for t in gc.get_objects() if type(t) is torch.Tensor and t.dtype in few_bits]
        ours = {t.data_ptr() for t in tensors.values()}
        seen.append(sum(t.nbytes for t in alive if t.data_ptr() not in ours))
        real(tensors, path)

    monkeypatch.setattr(quantize, "save_safetensors", save)
    run(model, tmp_path / "out")
    assert len(seen) > 3
    # Of the shards before nothing is left; the last weight's chunks may be.
    assert max(seen) == seen[0] == 0


@pytest.mark.parametrize("damage", [None, "cut", "gone"])
def test_a_run_that_was_cut_short_goes_on(model, tmp_path, monkeypatch, small_shards, damage):
    whole, out = tmp_path / "whole", tmp_path / "out"
    run(model, whole)
    real, written = quantize.save_safetensors, []

    def save(tensors, path):
        written.append(path.stem)
        if len(written) == 3:
            path.write_bytes(b"half")
            raise KeyboardInterrupt
        real(tensors, path)

    monkeypatch.setattr(quantize, "save_safetensors", save)
    with pytest.raises(KeyboardInterrupt):
        run(model, out)
    assert not out.exists()
    first = tmp_path / ".out.new" / f"{written[0]}.safetensors"
    if damage == "cut":
        first.write_bytes(first.read_bytes()[:-1])
    elif damage == "gone":
        first.unlink()
    run(model, out)
    again = [written[0]] if damage else []
    assert written[3:] == again + sorted(p.stem for p in whole.glob("*.safetensors"))[2:]
    assert shards(out) == shards(whole)
    assert not list(tmp_path.glob(".out.new"))


def test_what_was_made_of_another_source_is_not_gone_on_with(
    model, tmp_path, monkeypatch, small_shards
):
    source, out = tmp_path / "model", tmp_path / "out"
    shutil.copytree(model, source)
    real = quantize.save_safetensors
    saved = []

    def save(tensors, path):
        saved.append(path)
        if len(saved) == 3:
            raise KeyboardInterrupt
        real(tensors, path)

    monkeypatch.setattr(quantize, "save_safetensors", save)
    with pytest.raises(KeyboardInterrupt):
        run(source, out)
    weights = load_file(source / "model.safetensors")
    save_file({name: 2 * tensor for name, tensor in weights.items()}, source / "model.safetensors")
    run(source, out)
    assert len(saved) == 3 + len(shards(out))


def test_a_second_run_checks_what_is_there_and_writes_nothing(model, tmp_path, monkeypatch):
    table = run(model, tmp_path / "out")
    monkeypatch.setattr(quantize, "save_safetensors", None)
    assert run(model, tmp_path / "out") == table


def test_another_directory_is_never_overwritten(model, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(EngineError, match=r"out exists and is not tiny in int4.*--out"):
        run(model, tmp_path / "out")
    run(model, tmp_path / "fp8", "fp8")
    with pytest.raises(EngineError, match="fp8 exists and is not tiny in int4"):
        run(model, tmp_path / "fp8", "int4")
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_a_disk_without_room_is_reported_before_anything_is_written(model, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 1000))
    with pytest.raises(EngineError, match=r"out needs 0\.0 GB free in .*, which has 0\.0 GB"):
        run(model, tmp_path / "out")
    assert not list(tmp_path.glob(".out.new/*.safetensors"))


def test_a_disk_that_fills_up_is_reported(model, tmp_path, monkeypatch):
    def full(tensors, path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(quantize, "save_safetensors", full)
    with pytest.raises(EngineError, match="is full; free some space and run it again to go on"):
        run(model, tmp_path / "out")


def test_a_model_in_few_bits_is_not_rounded_twice(model, tmp_path):
    run(model, tmp_path / "ours", "fp8")
    published.publish(model, tmp_path / "theirs", "modelopt NVFP4")
    for name in ("ours", "theirs"):
        with pytest.raises(EngineError, match=f"{name} is in few bits already"):
            run(tmp_path / name, tmp_path / "out")


def test_int4_without_experts_is_refused(tmp_path):
    tiny.llama(tmp_path / "llama", seed=1)
    with pytest.raises(EngineError, match="int4 is for the experts of a mixture, and llama has"):
        run(tmp_path / "llama", tmp_path / "out")
    run(tmp_path / "llama", tmp_path / "out", "fp8")
    assert isinstance(load(tmp_path / "out").layers[0].mlp.up_proj.weight, Fp8Weight)


def test_rows_that_are_no_whole_groups_are_named(tmp_path):
    tiny.diffusion_gemma(tmp_path / "odd", seed=1, num_hidden_layers=1)
    words = r"experts\.down_proj cannot be kept in int4: rows of 24 values .* groups of 32"
    with pytest.raises(ConfigError, match=words):
        run(tmp_path / "odd", tmp_path / "out")
    with pytest.raises(ConfigError, match=words):
        load(tmp_path / "odd", "int4")


def test_a_weight_that_is_no_number_is_named(model, tmp_path):
    shutil.copytree(model, tmp_path / "bad")
    weights = load_file(model / "model.safetensors")
    weights["model.decoder.layers.1.mlp.up_proj.weight"][3, 4] = torch.nan
    save_file(weights, tmp_path / "bad" / "model.safetensors")
    with pytest.raises(EngineError, match=r"layers\.1\.mlp\.up_proj\.weight would be off by nan"):
        run(tmp_path / "bad", tmp_path / "out")


def test_the_command_writes_beside_the_model_and_prints_where(model, tmp_path, capsys):
    shutil.copytree(model, tmp_path / "mine")
    assert quantize.main([str(tmp_path / "mine"), "--to", "int4"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / 'mine-int4'}\n"
    assert "rounding to int4: 100 %" in said.err
    assert "experts (int4)" in said.err
    config = json.loads((tmp_path / "mine-int4" / "config.json").read_text())
    assert config["quantization"] == {"format": "dg-weights", "precision": "int4"}
    assert quantize.main([str(tmp_path / "mine"), "--to", "int4"]) == 0
    assert capsys.readouterr().err.startswith("already there, checked\nclass")


def test_an_unknown_model_is_one_line(tmp_path, capsys):
    assert quantize.main([str(tmp_path / "nothing"), "--to", "fp8"]) == 1
    assert capsys.readouterr().err.startswith("dg-lsp quantize: unknown model")
    assert quantize.main([str(tmp_path), "--to", "fp8"]) == 1
    assert "is no model directory" in capsys.readouterr().err


def test_int8_and_other_roundings_exclude_each_other(tmp_path):
    with pytest.raises(ConfigError, match="quantize 'fp8' and dtype 'int8' exclude each other"):
        EngineConfig(model=tmp_path, dtype="int8", quantize="fp8")

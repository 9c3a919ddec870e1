"""Held-out trees from archives made here: no network, and a stand-in for npm."""

import io
import os
import sys
import tarfile

import pytest

from bench import held_out, quality
from engine.errors import EngineError
from engine.train.packages import PACKAGES
from engine.train.wheels import Package
from tests.engine.train import packed

TINY = Package("tiny", "1.0", "MIT")
SCRIPT = "exports.size = function size(names) {\n  return names.length;\n};\n"
# Copies what it is asked for from the folder it lies in.
NPM = """#!{python}
import pathlib, shutil, sys
*_, flag, folder, requirement = sys.argv
assert sys.argv[1:3] == ["pack", "--ignore-scripts"] and flag == "--pack-destination"
made = pathlib.Path(__file__).parent / (requirement.replace("@", "-") + ".tgz")
if not made.exists():
    sys.exit("npm error code ETARGET\\nnpm error notarget No matching version found for " + requirement)
shutil.copy(made, folder)
"""


def tarball(folder, name, files, top="package"):
    path = folder / f"{name}-1.0.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for inner, text in files.items():
            about = tarfile.TarInfo(f"{top}/{inner}")
            about.size = len(text)
            archive.addfile(about, io.BytesIO(text.encode()))
    return path


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """The folder of a stand-in for npm, which knows the tarballs in it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "npm").write_text(NPM.replace("{python}", sys.executable))
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder


@pytest.fixture
def lists(monkeypatch, tmp_path):
    """Two packages in place of the lists, the wheel of one fetched before."""
    snake = packed.cached(tmp_path / "out" / ".packages", "snake", {"snake/a.py": "x = 1\n"})
    monkeypatch.setattr(held_out, "HELD_OUT", (snake,))
    monkeypatch.setattr(held_out, "NPM", (TINY,))


def test_each_package_becomes_a_folder_with_holes_to_dig(lists, npm, tmp_path, capsys):
    tarball(npm, "tiny", {"lib/size.js": SCRIPT, "package.json": "{}"})
    out = tmp_path / "out"
    assert held_out.main(["--out", str(out)]) == 0
    trees = capsys.readouterr().out.splitlines()
    assert trees == [str(out / "snake"), str(out / "tiny")]
    assert (out / "snake" / "snake" / "a.py").read_text() == "x = 1\n"
    assert (out / "tiny" / "lib" / "size.js").read_text() == SCRIPT
    assert not list(out.glob("*.part"))
    figures = ("--out", str(tmp_path / "figures"), "--systems", "copy")
    assert quality.main([*figures, "--tree", *trees]) == 0


def test_what_was_fetched_is_kept_and_the_tree_made_anew(lists, npm, tmp_path):
    made = tarball(npm, "tiny", {"a.js": SCRIPT})
    held_out.fetch(tmp_path / "out")
    made.unlink()
    (tmp_path / "out" / "tiny" / "left-over.js").touch()
    held_out.fetch(tmp_path / "out")
    assert [file.name for file in (tmp_path / "out" / "tiny").iterdir()] == ["a.js"]


def test_a_package_can_be_left_out(lists, tmp_path):
    assert held_out.fetch(tmp_path / "out", frozenset({"tiny"})) == [tmp_path / "out" / "snake"]


def test_a_package_that_npm_cannot_fetch_leaves_nothing_and_says_what_to_do(
    lists, npm, tmp_path, capsys
):
    assert held_out.main(["--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "bench.held_out: npm cannot fetch tiny@1.0 (No matching version found for tiny@1.0); "
        "check the network and npm's configuration and run it again to go on, "
        "or leave it out with --skip"
    )
    assert not (tmp_path / "out" / ".packages" / "npm-tiny-1.0").exists()


def test_without_npm_the_cure_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match=r"npm is not installed.*--skip commander express"):
        held_out.npm_tarball(TINY, tmp_path)


def test_a_broken_cache_is_named(tmp_path):
    (tmp_path / "npm-tiny-1.0").mkdir()
    with pytest.raises(EngineError, match=r"npm-tiny-1.0 holds 0 tarballs, not one; delete"):
        held_out.npm_tarball(TINY, tmp_path)


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
    assert not {p.name for p in (*held_out.HELD_OUT, *held_out.NPM)} & {p.name for p in PACKAGES}

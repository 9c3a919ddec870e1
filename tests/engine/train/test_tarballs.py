"""One npm package as files: fetched whole, its licence read, and nothing in it trusted."""

import gzip
import json
import os
import stat
import sys
import tarfile

import pytest

from engine.errors import EngineError
from engine.train import tarballs
from engine.train.sources import Package
from tests.engine.train import packed
from tests.engine.train.packed import member, tarball

TINY = Package("@a/tiny", "1.0.0", "MIT", "npm")


@pytest.fixture
def own_npm(tmp_path, monkeypatch):
    """An npm that knows one folder of tarballs, and writes down how it was called."""
    links = tmp_path / "links"
    links.mkdir()
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(
        f"""#!{sys.executable}
import pathlib, shutil, sys
links = pathlib.Path({str(links)!r})
(links / "called").write_text(" ".join(sys.argv[1:]))
name = sys.argv[2].strip("@").replace("/", "-").replace("@", "-") + ".tgz"
if not (links / name).exists():
    sys.exit("npm error code E404\\nnpm error 404 Not Found - GET https://user:word@example/x\\n"
             "npm error 404 It is not in this registry.\\nnpm error A complete log of this run ...")
shutil.copy(links / name, name)
"""
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return links


def test_npm_fetches_a_tarball_once_runs_nothing_and_the_cache_gives_it_ever_after(
    tmp_path, own_npm
):
    made = packed.npm_tarball(own_npm, TINY.name, {"lib/a.js": "x"})
    first = tarballs.fetch(TINY, tmp_path / "cache")
    assert first.read_bytes() == made.read_bytes()
    assert first.parent == tmp_path / "cache" / "@a+tiny-1.0.0"
    called = (own_npm / "called").read_text()
    assert called.startswith("pack @a/tiny@1.0.0 --ignore-scripts")
    made.unlink()
    assert tarballs.fetch(TINY, tmp_path / "cache") == first


def test_a_package_that_npm_cannot_fetch_leaves_nothing_behind_and_no_address_is_said(
    tmp_path, own_npm
):
    with pytest.raises(
        EngineError, match=r"@a/tiny@1\.0\.0 \(code E404; 404 It is.*--skip"
    ) as told:
        tarballs.fetch(TINY, tmp_path / "cache")
    assert "example" not in str(told.value)
    assert not (tmp_path / "cache" / "@a+tiny-1.0.0").exists()


def test_a_fetch_that_was_killed_is_begun_anew(tmp_path, own_npm):
    packed.npm_tarball(own_npm, TINY.name, {"lib/a.js": "x"})
    torn = tmp_path / "cache" / ".@a+tiny-1.0.0.part" / "torn.tgz"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"to")
    assert tarballs.licence(tarballs.fetch(TINY, tmp_path / "cache")) == "MIT"


def test_without_npm_one_line_says_how_to_build_without_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match=r"npm is not installed.*install Node\.js.*--no-npm"):
        tarballs.fetch(TINY, tmp_path / "cache")
    packed.npm_cached(tmp_path / "cache", TINY.name, {})
    assert tarballs.fetch(TINY, tmp_path / "cache").is_file()  # what is at hand needs no npm


def read(path):
    return [(file.path, file.data) for file in tarballs.files("tiny", path)]


def test_only_scripts_come_out_of_a_tarball_in_order_whatever_its_folder_is_called(tmp_path):
    names = ("z.mjs", "src/a.ts", "src/b.tsx", "a.js", "c.cjs", "d.jsx", "e.mts")
    others = ("readme.md", "x.py", "package.json", "data.json")
    path = tarball(tmp_path / "t.tgz", [member(f"tiny/{name}", name) for name in names + others])
    assert read(path) == [(name, name.encode()) for name in sorted(names)]


@pytest.mark.parametrize(
    "entry",
    [
        member("package/../../escape.js", "x"),
        member("../escape.js", "x"),
        member("/etc/escape.js", "x"),
        member("package//etc/escape.js", "x"),
        member("package/..\\escape.js", "x"),
        member("package/\x1b[31mred.js", "x"),
        member("package/\udce9.js", "x"),
        member("bare.js", "x"),
        member("package/link.js", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("package/hard.js", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
        member("package/pipe.js", type=tarfile.FIFOTYPE),
        member("package/folder.js", type=tarfile.DIRTYPE),
    ],
    ids=lambda entry: ascii(entry[0].name),
)
def test_what_is_no_plain_file_below_the_package_is_no_source(tmp_path, entry):
    path = tarball(tmp_path / "t.tgz", [entry, member("package/good.js", "good")])
    assert read(path) == [("good.js", b"good")]


def test_of_two_files_with_one_name_the_first_counts(tmp_path):
    path = tarball(tmp_path / "t.tgz", [member("package/a.js", "1"), member("package/a.js", "2")])
    assert read(path) == [("a.js", b"1")]


def test_a_long_file_is_cut_where_nobody_would_keep_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tarballs, "_FILE", 10)
    path = tarball(tmp_path / "t.tgz", [member("package/a.js", "x" * 1000)])
    assert read(path) == [("a.js", b"x" * 11)]


def test_a_small_tarball_that_unpacks_to_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tarballs, "_UNPACKED", 1 << 20)
    path = tarball(tmp_path / "t.tgz", [member("package/zeros", bytes(4 << 20))])
    with pytest.raises(EngineError, match=r"t\.tgz unpacks to more than 1 MB; delete it"):
        read(path)


def test_a_size_that_is_only_declared_is_an_end_too_soon(tmp_path):
    header = member("package/a.js", size=8 << 30)[0].tobuf()
    (tmp_path / "t.tgz").write_bytes(gzip.compress(header + b"x" * 512))
    with pytest.raises(EngineError, match=r"t\.tgz is not a readable tarball .*delete it"):
        read(tmp_path / "t.tgz")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a tarball",
        gzip.compress(b"not a tarball" * 100),
        gzip.compress(b"x" * 9000)[:-20],
    ],
    ids=["empty", "no gzip", "no tar", "torn"],
)
def test_what_is_no_tarball_is_said(tmp_path, content):
    (tmp_path / "t.tgz").write_bytes(content)
    with pytest.raises(EngineError, match=r"t\.tgz"):
        tarballs.licence(tmp_path / "t.tgz")


@pytest.mark.parametrize(
    ("about", "stated"),
    [
        ({"license": "(MIT OR Apache-2.0)"}, "(MIT OR Apache-2.0)"),
        ({"license": {"type": "ISC", "url": "x"}}, "ISC"),
        ({"licenses": [{"type": "MIT"}, {"name": "GPL-2.0"}]}, "MIT; GPL-2.0"),
        ({"licenses": ["MIT", 5, None]}, "MIT"),
        ({"license": 7}, ""),
        ({}, ""),
    ],
)
def test_the_licence_is_read_in_all_the_forms_it_had(tmp_path, about, stated):
    path = tarball(tmp_path / "t.tgz", [member("package/package.json", json.dumps(about))])
    assert tarballs.licence(path) == stated


def test_only_the_packages_own_package_json_counts(tmp_path):
    inner = member("package/node_modules/x/package.json", '{"license": "MIT"}')
    with pytest.raises(EngineError, match=r"t\.tgz has no package\.json: it is not an npm package"):
        tarballs.licence(tarball(tmp_path / "t.tgz", [inner]))


@pytest.mark.parametrize("content", ["[]", "{", "\xff", "[" * 100_000])
def test_a_package_json_that_is_none_is_said(tmp_path, content):
    path = tarball(tmp_path / "t.tgz", [member("package/package.json", content)])
    with pytest.raises(EngineError, match=r"the package\.json of .*t\.tgz is no JSON object"):
        tarballs.licence(path)


def test_what_was_compiled_from_a_source_that_is_there_is_marked(tmp_path):
    names = ["src/core.ts", "lib/core.js", "lib/core.d.ts", "lib/hand.js", "lib/hand.d.ts",
             "twin.js", "twin.cjs", "alone.cjs"]  # fmt: skip
    path = packed.npm_tarball(tmp_path, "tiny", dict.fromkeys(names, "x"))
    marked = {file.path for file in tarballs.files("tiny", path) if file.compiled}
    assert marked == {"lib/core.js", "twin.cjs"}

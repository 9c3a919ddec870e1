"""The whole build on tiny packages: what is in it, that it repeats, and that it goes on."""

import json

import pytest

from engine.errors import EngineError
from engine.tokenizer import Tokenizer
from engine.train import corpus, selection, shards
from engine.train.corpus import Options, build
from engine.train.npm_packages import NPM_HELD_OUT, NPM_PACKAGES
from engine.train.packages import HELD_OUT, PACKAGES
from tests.engine import tiny
from tests.engine.train import packed
from tests.engine.train.packed import module, script


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny.write_tokenizer(folder)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def options(tmp_path, model):
    """Three packages in the cache: one to learn from, one copyleft, one held out."""
    cache = tmp_path / "out" / "wheels"
    files = {f"good/{topic}.py": module(topic, 12) for topic in ("run", "walk", "swim", "climb")}
    files |= {"good/copy.py": module("run", 12) + "\n", "good/held.py": module("held")}
    return Options(
        out=tmp_path / "out",
        model=str(model),
        packages=(
            packed.cached(cache, "good", files),
            packed.cached(cache, "viral", {"viral/a.py": module("viral")}, licence="GPL-3.0-only"),
        ),
        held_out=(packed.cached(cache, "kept_back", {"kept_back/a.py": module("held")}),),
        standard_library=False,
        shard_bytes=3000,
    )


def changed(options, **changes):
    given = {name: getattr(options, name) for name in Options.__slots__}
    return Options(**given | changes)


def read(options):
    return list(shards.iterate(options.out, 0, 0))


def test_what_is_kept_is_there_as_written_and_all_else_is_accounted_for(options, model):
    manifest = build(options)
    tokenizer = Tokenizer.from_directory(model)
    texts = {d.origin.path: tokenizer.decode(d.ids.tolist()) for d in read(options)}
    assert texts.pop("good/copy.py") == module("run", 12) + "\n"  # the first by path
    assert texts == {f"good/{t}.py": module(t, 12) for t in ("walk", "swim", "climb")}
    good = manifest["packages"]["good"]
    assert good["dropped"] == {"exact duplicate": 1, "in an evaluation set": 1}
    assert (good["licence"], good["version"], good["files"]) == ("MIT", "1.0", 6)
    assert good["tokens"] == manifest["tokens"] == sum(len(d.ids) for d in read(options))
    assert manifest["excluded"] == {
        "viral==1.0": "copyleft or restricted licence (GPL): GPL-3.0-only"
    }
    assert json.loads((options.out / shards.MANIFEST).read_text()) == manifest


def shard_bytes(options):
    return {path.name: path.read_bytes() for path in options.out.glob("*.npz")}


def test_two_builds_are_equal_and_the_seed_decides(options):
    build(options)
    first = shard_bytes(options)
    assert len(first) > 1
    for path in options.out.glob("*.npz"):
        path.unlink()
    build(options)
    assert shard_bytes(options) == first
    build(changed(options, seed=1))
    assert shard_bytes(options).keys().isdisjoint(first)  # those of the other seed are gone


def test_a_killed_build_keeps_its_shards_and_goes_on_to_the_same_corpus(options):
    whole = build(options)
    expected = shard_bytes(options)
    for path in options.out.glob("*.npz"):
        path.unlink()

    class Killed(Exception):
        pass

    def killer(fraction, what):
        if what == "encoding" and list(options.out.glob("*.npz")):
            raise Killed

    with pytest.raises(Killed):
        build(options, killer)
    (done,) = options.out.glob("*.npz")
    before = done.stat().st_mtime_ns
    with pytest.raises(EngineError, match="no finished corpus"):
        read(options)
    torn = done.with_name(done.name.replace("0000.npz", "0001.part"))
    torn.write_bytes(b"torn")
    (options.out / "theirs.npz").write_bytes(b"not a shard")
    assert build(options) == whole
    assert (options.out / "theirs.npz").read_bytes() == b"not a shard"
    (options.out / "theirs.npz").unlink()
    assert shard_bytes(options) == expected
    assert done.stat().st_mtime_ns == before
    assert not torn.exists()


def test_the_number_of_tokens_is_a_limit_that_one_document_may_pass(options):
    everything = build(options)["tokens"]
    few = build(changed(options, tokens=100))
    assert few["documents"] == 1 and 100 <= few["tokens"] < everything
    assert few["documents_available"] == 4


def test_tests_are_kept_at_a_lower_share_and_give_way_first(options, monkeypatch):
    files = {f"many/tests/test_{i}.py": module(f"check{i}") for i in range(60)}
    files |= {f"many/m{i}.py": module(f"code{i}") for i in range(3)}
    package = packed.cached(options.out / "wheels", "many", files)
    only = changed(options, packages=(package,))
    dropped = build(only)["packages"]["many"]["dropped"]
    expected = pytest.approx(60 * (1 - selection.TEST_SHARE), abs=9)
    assert dropped["test beyond the share"] == expected
    room = {"pip": 3 * len(module("code0")) + 10}
    monkeypatch.setattr(selection, "PACKAGE_CHARS", room)
    manifest = build(only)
    assert {d.origin.path for d in read(only)} == {f"many/m{i}.py" for i in range(3)}
    assert manifest["packages"]["many"]["dropped"]["package beyond its share"] > 0


def test_npm_packages_are_judged_held_out_and_accounted_for_like_wheels(options, model):
    cache = options.out / "tarballs"
    files = {f"src/{t}.ts": script(t, 12) for t in ("run", "walk", "held")}
    files |= {"lib/walk.js": script("walk", 12), "lib/walk.d.ts": script("walk", 12)}
    packages = (
        packed.npm_cached(cache, "@good/scripts", files, licence="(MIT OR Apache-2.0)"),
        packed.npm_cached(cache, "viral", {"a.js": script("viral")}, licence="GPL-3.0-only"),
    )
    held_out = (packed.npm_cached(cache, "kept_back", {"index.js": script("held")}),)
    manifest = build(changed(options, packages=packages, held_out=held_out))
    tokenizer = Tokenizer.from_directory(model)
    texts = {d.origin.path: tokenizer.decode(d.ids.tolist()) for d in read(options)}
    assert texts == {f"src/{t}.ts": script(t, 12) for t in ("run", "walk")}
    assert {d.origin.language for d in read(options)} == {"typescript"}
    assert manifest["languages"] == {"typescript": {"documents": 2, "tokens": manifest["tokens"]}}
    about = manifest["packages"]["@good/scripts"]
    assert about["dropped"] == {"compiled": 1, "built": 1, "in an evaluation set": 1}
    assert (about["licence"], about["version"]) == ("(MIT OR Apache-2.0)", "1.0.0")
    assert manifest["excluded"] == {
        "viral@1.0.0": "copyleft or restricted licence (GPL): GPL-3.0-only"
    }


@pytest.fixture
def both(options):
    """Options of a corpus with as many scripts as modules."""
    modules = {f"good/m{i}.py": module(f"code{i}") for i in range(60)}
    scripts = {f"src/s{i}.js": script(f"code{i}") for i in range(60)}
    packages = (
        packed.cached(options.out / "wheels", "many", modules),
        packed.npm_cached(options.out / "tarballs", "scripts", scripts),
    )
    return changed(options, packages=packages, held_out=())


def written(options):
    """Whether each document is a script, and its tokens, in the order of the shards."""
    documents = [d for path in sorted(options.out.glob("*.npz")) for d in shards.read_shard(path)]
    return [(d.origin.language == "javascript", len(d.ids)) for d in documents]


def test_the_share_of_scripts_holds_from_the_first_document_on(both):
    manifest = build(changed(both, tokens=30_000))
    documents = written(both)
    for count in (10, 20, len(documents)):
        tokens = sum(size for _, size in documents[:count])
        of_scripts = sum(size for is_script, size in documents[:count] if is_script)
        assert of_scripts / tokens == pytest.approx(0.25, abs=2 / count)
    scripts = manifest["languages"]["javascript"]
    assert scripts["tokens"] / manifest["tokens"] == pytest.approx(0.25, abs=0.04)
    build(changed(both, tokens=30_000, script_share=0.6))
    assert sum(is_script for is_script, _ in written(both)) > len(written(both)) / 2


def test_where_one_kind_runs_out_the_other_goes_on(both):
    assert build(both)["documents"] == 120
    assert build(changed(both, script_share=0.9))["documents"] == 120
    assert all(is_script for is_script, _ in written(both)[:5][1:])


def test_a_killed_build_goes_on_with_the_same_mixture(both):
    build(both)
    expected = shard_bytes(both)
    assert len(expected) > 3
    for path in sorted(both.out.glob("*.npz"))[2:]:
        path.unlink()
    (both.out / shards.MANIFEST).unlink()
    build(both)
    assert shard_bytes(both) == expected


def test_the_standard_library_is_a_package_of_its_own(options, monkeypatch, tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "walk.py").write_text(module("stdlib"))
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path / "lib"))
    manifest = build(changed(options, packages=(), standard_library=True))
    assert manifest["packages"]["python"]["licence"] == "PSF-2.0"
    assert [d.origin.path for d in read(options)] == ["walk.py"]


def test_list_shows_every_package_with_its_licence(capsys):
    assert corpus.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(PACKAGES) + len(NPM_PACKAGES) + 1
    assert lines[0].split() == [PACKAGES[0].requirement, PACKAGES[0].licence]
    assert lines[-1].endswith("PSF-2.0")
    assert lines[-2].split()[0] == NPM_PACKAGES[-1].requirement


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--packages", "2", "--npm-packages", "1", "--skip", PACKAGES[0].name],
         [PACKAGES[1], NPM_PACKAGES[0]]),
        (["--packages", "1", "--npm-packages", "2", "--skip", NPM_PACKAGES[0].name],
         [PACKAGES[0], NPM_PACKAGES[1]]),
        (["--packages", "1", "--no-npm"], [PACKAGES[0]]),
    ],
)  # fmt: skip
def test_less_than_the_whole_list_can_be_chosen(capsys, arguments, shown):
    assert corpus.main(["--list", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == [p.requirement for p in shown]


@pytest.mark.parametrize(
    ("arguments", "held_out"), [([], (*HELD_OUT, *NPM_HELD_OUT)), (["--no-npm"], HELD_OUT)]
)
def test_npm_is_asked_for_nothing_when_it_is_not_wanted(monkeypatch, tmp_path, arguments, held_out):
    seen = []

    def interrupted(options, progress):
        seen.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(corpus, "build", interrupted)
    line = ["--out", str(tmp_path), "--packages", "1", "--npm-packages", "1"]
    assert corpus.main([*line, "--script-share", "0.5", *arguments]) == 130
    (options,) = seen
    assert options.held_out == held_out
    assert {p.client for p in options.packages} == {p.client for p in held_out}
    assert options.script_share == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "x", "--tokens", "many"], "'many' is no count above 0; write 5000 or 100M"),
        (["--out", "x", "--packages", "0"], "'0' is no count above 0"),
        (["--out", "x", "--skip", "nosuch"], "--skip nosuch: not in the list; see --list"),
        (["--out", "x", "--script-share", "1"], "'1' is no share between 0 and 1; write 0.25"),
        (["--out", "x", "--script-share", "no"], "'no' is no share between 0 and 1"),
        ([], "--out DIR is needed to build"),
    ],
)
def test_a_bad_argument_is_one_clear_line(capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        corpus.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_an_error_is_one_line_and_an_interruption_says_how_to_go_on(
    tmp_path, capsys, monkeypatch, model
):
    line = ["--out", str(tmp_path), "--model", str(model), "--exclude", str(tmp_path / "no")]
    assert corpus.main(line) == 1
    assert "corpus: --exclude" in capsys.readouterr().err

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(corpus, "build", interrupted)
    assert corpus.main(line) == 130
    assert "corpus: interrupted; run it again to go on" in capsys.readouterr().err


def test_a_build_ends_with_one_line_of_figures(options, capsys, monkeypatch):
    monkeypatch.setattr(corpus, "PACKAGES", options.packages)
    monkeypatch.setattr(corpus, "build", lambda given, progress: build(options, progress))
    assert corpus.main(["--out", str(options.out), "--tokens", "2K"]) == 0
    out, err = capsys.readouterr()
    assert "4 documents of 1 packages" in out
    assert "encoding:" in err

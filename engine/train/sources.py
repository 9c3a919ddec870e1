"""What a package is to the corpus, however it is fetched: pinned, licensed, a set of source files.

Knows no package and no client; `wheels` (pip) and `tarballs` (npm) are the two kinds of archive.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

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

Client = Literal["pip", "npm"]


@dataclass(frozen=True, slots=True)
class Package:
    """A package of the fixed list; `licence` is what the list says, the metadata must agree."""

    name: str
    version: str
    licence: str
    client: Client = "pip"

    @property
    def requirement(self) -> str:
        """What the client is asked for."""
        return f"{self.name}{'@' if self.client == 'npm' else '=='}{self.version}"


def read_list(table: str, client: Client = "pip") -> tuple[Package, ...]:
    """Packages written one a line: name, version, licence."""
    lines = (line.split(maxsplit=2) for line in table.strip().splitlines())
    return tuple(Package(name, version, licence, client) for name, version, licence in lines)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """The bytes of one file of a package, as published; `compiled` if its source is there too."""

    package: str
    path: str
    data: bytes
    compiled: bool = False


class Archives(Protocol):
    """How the packages of one client are fetched and read; the modules themselves fit it."""

    @property
    def FOLDER(self) -> str:
        """Where they are kept, inside the corpus' folder."""

    def fetch(self, package: Package, cache: Path) -> Path:
        """The archive of `package` in `cache`, from there or by the client."""

    def licence(self, archive: Path) -> str:
        """The licence as the archive's metadata states it."""

    def files(self, package: str, archive: Path) -> Iterator[SourceFile]:
        """The source files of an archive, by path."""


def refusal(licence: str) -> str:
    """Why a package under `licence` is left out; empty when it is permissive."""
    if found := _COPYLEFT.search(licence):
        return f"copyleft or restricted licence ({found[0]})"
    return "" if _PERMISSIVE.search(licence) else "unknown licence"


def fetched(package: Package, cache: Path, pattern: str, download: Callable[[Path], None]) -> Path:
    """The one file like `pattern` that `download` leaves in a folder; whole or not there at all."""
    kept = cache / f"{package.name.replace('/', '+')}-{package.version}"
    if not kept.is_dir():
        part = cache / f".{kept.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        download(part)
        part.rename(kept)
    found = list(kept.glob(pattern))
    if len(found) != 1:
        raise EngineError(f"{kept} holds {len(found)} {pattern} instead of one; delete the folder")
    return found[0]

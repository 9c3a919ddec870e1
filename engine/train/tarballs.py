"""One pinned package as source files: its tarball through the user's own npm, licence and text.

Tarballs are read, never unpacked and never run, and trusted in nothing: names, sizes and links are
whatever somebody published. No registry is named here; npm knows the user's registry and mirrors.
Knows nothing of which packages are wanted.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from engine.errors import EngineError
from engine.train.languages import SCRIPT_ENDINGS
from engine.train.sources import Package, SourceFile, fetched

FOLDER: Final = "tarballs"
_UNPACKED = 512 << 20  # bytes of a whole tarball, so that a small file cannot fill the memory
_TYPESCRIPT = re.compile(r"(?<!\.d)\.(?:[mc]?ts|tsx)$")
_FILE = 4 << 20  # bytes of one file; what is longer is cut and too large for a document anyway


def fetch(package: Package, cache: Path) -> Path:
    """The tarball of `package` in `cache`, from there or by npm; whole or not there at all."""
    return fetched(package, cache, "*.tgz", lambda part: _npm_pack(package.requirement, part))


def licence(archive: Path) -> str:
    """The licence as `package.json` states it: an expression, or the objects and lists of old."""
    for path, data in _members(archive, ("package.json",)):
        if path == "package.json":
            try:
                about = json.loads(data)
            except (ValueError, RecursionError):
                about = None
            if isinstance(about, dict):
                return _stated(about.get("license") or about.get("licenses"))
            raise EngineError(f"the package.json of {archive} is no JSON object; delete it")
    raise EngineError(f"{archive} has no package.json: it is not an npm package; delete it")


def files(package: str, archive: Path) -> Iterator[SourceFile]:
    """The JavaScript and TypeScript files of a tarball, by path."""
    found: dict[str, bytes] = {}
    for path, data in _members(archive, SCRIPT_ENDINGS):
        found.setdefault(path, data)
    written = {Path(path).stem for path in found if _TYPESCRIPT.search(path)}
    for path in sorted(found):
        yield SourceFile(package, path, found[path], _is_compiled(path, found, written))


def _is_compiled(path: str, found: Container[str], written: Container[str]) -> bool:
    """Whether it comes from an ES module beside it, or from TypeScript that is published too."""
    ending = Path(path).suffix
    stem = path.removesuffix(ending)
    if ending == ".cjs" and any(stem + other in found for other in (".js", ".mjs", ".mts")):
        return True
    declared = stem + {".js": ".d.ts", ".mjs": ".d.mts", ".cjs": ".d.cts"}.get(ending, ending)
    return declared != path and declared in found and Path(path).stem in written


def _stated(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(filter(None, map(_stated, value)))
    if isinstance(value, dict):
        value = value.get("type") or value.get("name")
    return " ".join(value.split()) if isinstance(value, str) else ""


def _members(archive: Path, endings: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """The plain files whose names end so: path inside the package's folder, and content."""
    with _opened(archive) as tarball:
        for member in tarball:
            inner = member.name.partition("/")[2]
            if member.isreg() and not member.issparse() and inner.endswith(endings):
                if not _is_plain(member.name):
                    continue
                content = tarball.extractfile(member)
                assert content is not None  # what is regular has content
                yield inner, content.read(_FILE + 1)


def _is_plain(name: str) -> bool:
    """Whether a name is a path below one folder, in characters that can be shown."""
    return {"", ".", ".."}.isdisjoint(name.split("/")) and "\\" not in name and name.isprintable()


class _Bounded(gzip.GzipFile):
    """Unpacks no more than a package may hold."""

    read_so_far = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.read_so_far += len(data)
        if self.read_so_far > _UNPACKED:
            raise EngineError(f"{self.name} unpacks to more than {_UNPACKED >> 20} MB; delete it")
        return data


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    try:
        with (
            _Bounded(archive, "rb") as unpacked,
            tarfile.open(fileobj=unpacked, mode="r|") as tarball,
        ):
            yield tarball
    except (OSError, EOFError, ValueError, zlib.error, tarfile.TarError) as error:
        raise EngineError(f"{archive} is not a readable tarball ({error}); delete it") from None


def _npm_pack(requirement: str, folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise EngineError(
            f"npm is not installed, and {requirement} comes by it; install Node.js, or build "
            "without JavaScript and TypeScript with --no-npm"
        )
    line = [npm, "pack", requirement, "--ignore-scripts", "--loglevel=error"]
    done = subprocess.run(
        [*line, "--pack-destination", "."],
        cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        said = [re.sub(r"^npm (?:error|ERR!)\s*", "", text) for text in done.stderr.splitlines()]
        told = [text for text in said if text and "://" not in text and "log of this" not in text]
        raise EngineError(
            f"npm cannot fetch {requirement} ({'; '.join(told[:2]) or 'no reason'}); check the "
            "network and npm's configuration and run it again to go on, leave it out with --skip, "
            "or build without JavaScript and TypeScript with --no-npm"
        )

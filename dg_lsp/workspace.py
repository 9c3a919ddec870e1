"""The workspace's definitions: an index by name, and the walk that fills it, both bounded.

The walk reads source files nearest first, honours `.gitignore` and never follows links. It
yields what it read; the index is plain data that its owner fills. Knows nothing of open documents
or of what a definition is good for.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pathspec import GitIgnoreSpec

from dg_lsp.definitions import Definition, definitions
from dg_lsp.grammars import BY_EXTENSION, language_of

logger = logging.getLogger(__name__)

_NO_DEFINITIONS = {"", "html", "css", "json", "jsonc", "yaml", "toml", "markdown"}
EXTENSIONS = tuple(
    ending for ending, language in BY_EXTENSION.items() if language not in _NO_DEFINITIONS
)
_OBJECT_BYTES = 250  # of a definition beside its characters
_NEVER = {"node_modules", "__pycache__", "site-packages", "venv"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Where the index and the walk stop."""

    files: int = 2_000
    entries: int = 100_000  # of directories, looked at
    file_bytes: int = 64_000  # parsing this much takes 15 ms, and nothing else runs meanwhile
    bytes: int = 20_000_000
    index_bytes: int = 4_000_000  # about 10,000 definitions
    seconds: float = 30.0  # of work, pauses not counted


class Found(NamedTuple):
    """A definition and the file it is in, relative to the workspace."""

    path: str
    definition: Definition


class Index:
    """Definitions by name and by file; the oldest file goes when there are too many."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._files: dict[str, tuple[Definition, ...]] = {}
        self._paths: dict[str, tuple[str, ...]] = {}  # name -> files that define it
        self._bytes = 0

    def __len__(self) -> int:
        return sum(map(len, self._files.values()))

    @property
    def files(self) -> int:
        """How many files are known."""
        return len(self._files)

    @property
    def bytes(self) -> int:
        """About how much memory the definitions take."""
        return self._bytes

    def put(self, path: str, found: tuple[Definition, ...]) -> None:
        """Takes what a file defines now in place of what it did before; no more than has room."""
        self.remove(path)
        sizes = accumulate(map(_size, found))
        kept = tuple(
            definition
            for definition, size in zip(found, sizes, strict=True)
            if size <= self._limits.index_bytes
        )
        needed = sum(map(_size, kept))
        while self._files and (
            self._bytes + needed > self._limits.index_bytes
            or len(self._files) >= self._limits.files
        ):
            self.remove(next(iter(self._files)))
        self._files[path] = kept
        self._bytes += needed
        for name in {definition.name for definition in kept}:
            self._paths[name] = (*self._paths.get(name, ()), path)

    def remove(self, path: str) -> None:
        """Forgets a file, or all files below a folder."""
        for gone in [path] if path in self._files else self._below(path):
            lost = self._files.pop(gone)
            self._bytes -= sum(map(_size, lost))
            for name in {definition.name for definition in lost}:
                if others := tuple(other for other in self._paths[name] if other != gone):
                    self._paths[name] = others
                else:
                    del self._paths[name]

    def __contains__(self, name: str) -> bool:
        return name in self._paths

    def lookup(self, name: str) -> list[Found]:
        """All definitions of `name`, in a stable order."""
        return [
            Found(path, definition)
            for path in sorted(self._paths.get(name, ()))
            for definition in self._files[path]
            if definition.name == name
        ]

    def _below(self, folder: str) -> list[str]:
        return [path for path in self._files if path.startswith(f"{folder}/")]


def _size(definition: Definition) -> int:
    return _OBJECT_BYTES + len(definition.name) + len(definition.text)


def read(root: Path, path: str, limits: Limits | None = None) -> tuple[Definition, ...] | None:
    """What the file `path` below `root` defines; None if it is none to read."""
    limits = limits or Limits()
    language = language_of(path)
    if language in _NO_DEFINITIONS:
        return None
    try:
        status = os.lstat(root / path)
        if not stat.S_ISREG(status.st_mode) or status.st_size > limits.file_bytes:
            return None
        return definitions((root / path).read_text(encoding="utf-8"), language)
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the name
        logger.debug("%s is left out of the index: %s", path, type(error).__name__)
        return None


def crawl(
    root: Path,
    near: Iterable[str] = (),
    allowed: Callable[[str], bool] = lambda path: True,
    limits: Limits | None = None,
    clock: Callable[[], float] = time.thread_time,
    pause: Callable[[], None] = lambda: None,
) -> Iterator[tuple[str, tuple[Definition, ...]]]:
    """Reads the workspace's files, those in the folders of the files `near` first.

    Takes one file a step, so that the caller may stop where it likes. `allowed` says which paths
    may be read at all; `pause` is called before each file and folder, and may wait.
    """
    limits = limits or Limits()
    files = read_bytes = 0
    spent = -clock()
    for path, size in _walk(root, near, allowed, limits, pause):
        pause()
        if files >= limits.files or read_bytes + size > limits.bytes:
            break
        if spent + clock() > limits.seconds:
            logger.info("the index stops at %d files: %s s are over", files, limits.seconds)
            break
        found = read(root, path, limits)
        if found is not None:
            files, read_bytes = files + 1, read_bytes + size
            spent += clock()
            yield path, found
            spent -= clock()


def is_ignored(root: Path, path: str) -> bool:
    """Whether a `.gitignore` of the workspace, or our own rules, leave `path` out."""
    return _Ignored(root).file(path)


def _walk(
    root: Path,
    near: Iterable[str],
    allowed: Callable[[str], bool],
    limits: Limits,
    pause: Callable[[], None],
) -> Iterator[tuple[str, int]]:
    ignored = _Ignored(root)
    folders = deque([*_folders_up(near), ""])
    seen: set[str] = set()
    entries = 0
    while folders:
        folder = folders.popleft()
        if folder in seen or ignored.folder(folder):
            continue
        seen.add(folder)
        pause()
        for entry in _entries(root / folder):
            entries += 1
            if entries > limits.entries:
                logger.info("the index stops at %d directory entries", limits.entries)
                return
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif _is_source(entry, limits) and allowed(path) and not ignored.file(path):
                yield path, entry.stat(follow_symlinks=False).st_size


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        logger.debug("a folder is left out of the index: %s", type(error).__name__)
        return []


def _is_source(entry: os.DirEntry[str], limits: Limits) -> bool:
    if language_of(entry.name) in _NO_DEFINITIONS or not entry.is_file(follow_symlinks=False):
        return False
    try:
        return entry.stat(follow_symlinks=False).st_size <= limits.file_bytes
    except OSError:
        return False  # it went away just now


def _folders_up(files: Iterable[str]) -> list[str]:
    """The folders of the files and those around them, the nearest first."""
    every = [parent for file in files for parent in PurePosixPath(file).parents]
    nearest = sorted(every, key=lambda folder: -len(folder.parts))
    return [
        "" if str(folder) == "." else str(folder) for folder in nearest if ".." not in folder.parts
    ]


class _Ignored:
    """The `.gitignore` files of a tree, read when a folder of theirs is looked into."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._specs: dict[str, GitIgnoreSpec | None] = {}
        self._folders: dict[str, bool] = {"": False}

    def folder(self, path: str) -> bool:
        """Whether the folder or one around it is left out."""
        if path not in self._folders:
            outer, _, name = path.rpartition("/")
            self._folders[path] = (
                self.folder(outer)
                or name in _NEVER
                or name.startswith(".")
                or self._says(path + "/")
            )
            if not self._folders[path] and (self._root / path / "pyvenv.cfg").exists():
                self._folders[path] = True
        return self._folders[path]

    def file(self, path: str) -> bool:
        """Whether the file or a folder around it is left out."""
        return self.folder(path.rpartition("/")[0]) or self._says(path)

    def _says(self, path: str) -> bool:
        """The innermost `.gitignore` that speaks of the path decides."""
        parts = path.rstrip("/").split("/")
        for depth in range(len(parts) - 1, -1, -1):
            spec = self._spec("/".join(parts[:depth]))
            if spec is not None:
                verdict = spec.check_file("/".join(parts[depth:]) + path[len(path.rstrip("/")) :])
                if verdict.include is not None:
                    return verdict.include
        return False

    def _spec(self, folder: str) -> GitIgnoreSpec | None:
        if folder not in self._specs:
            self._specs[folder] = self._read(self._root / folder / ".gitignore")
        return self._specs[folder]

    def _read(self, file: Path) -> GitIgnoreSpec | None:
        try:
            return GitIgnoreSpec.from_lines(file.read_text(encoding="utf-8").splitlines())
        except (OSError, ValueError):  # none there, not UTF-8, or a bad pattern
            return None

"""Languages: which one a file is written in, and its tree-sitter grammar.

Grammars come in wheels of their own and are loaded when a file of theirs is first parsed; one
that is not installed counts as none, and its files are plain text. Knows nothing of what the
trees are used for.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import sys
from functools import cache
from pathlib import PurePosixPath
from time import perf_counter, thread_time

from tree_sitter import Language, Parser, Point, Tree

logger = logging.getLogger(__name__)

LIMIT_S = 0.05  # 64 kB of code take 0.01 s, as much of what is none 0.1 to 0.4 s
_PIECE = 4096  # bytes

# A language as editors call it -> the wheel's module and its function.
_GRAMMARS = {
    "python": ("tree_sitter_python", "language"),
    "javascript": ("tree_sitter_javascript", "language"),
    "javascriptreact": ("tree_sitter_javascript", "language"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
    "typescriptreact": ("tree_sitter_typescript", "language_tsx"),
    "go": ("tree_sitter_go", "language"),
    "rust": ("tree_sitter_rust", "language"),
    "c": ("tree_sitter_c", "language"),
    "cpp": ("tree_sitter_cpp", "language"),
    "java": ("tree_sitter_java", "language"),
    "ruby": ("tree_sitter_ruby", "language"),
    "lua": ("tree_sitter_lua", "language"),
    "shellscript": ("tree_sitter_bash", "language"),
    "html": ("tree_sitter_html", "language"),
    "css": ("tree_sitter_css", "language"),
    "json": ("tree_sitter_json", "language"),
    "jsonc": ("tree_sitter_json", "language"),
    "yaml": ("tree_sitter_yaml", "language"),
    "toml": ("tree_sitter_toml", "language"),
    "markdown": ("tree_sitter_markdown", "language"),
}
LANGUAGES = tuple(_GRAMMARS)
_OTHER_NAMES = {
    "bash": "shellscript",
    "sh": "shellscript",
    "zsh": "shellscript",
    "jsx": "javascriptreact",
    "tsx": "typescriptreact",
    "javascript.jsx": "javascriptreact",
    "typescript.tsx": "typescriptreact",
    "c++": "cpp",
}
BY_EXTENSION = {
    "py": "python",
    "pyi": "python",
    "js": "javascript",
    "cjs": "javascript",
    "mjs": "javascript",
    "jsx": "javascriptreact",
    "ts": "typescript",
    "cts": "typescript",
    "mts": "typescript",
    "tsx": "typescriptreact",
    "go": "go",
    "rs": "rust",
    "c": "c",
    "h": "c",
    "cc": "cpp",
    "cpp": "cpp",
    "cxx": "cpp",
    "hh": "cpp",
    "hpp": "cpp",
    "hxx": "cpp",
    "java": "java",
    "rb": "ruby",
    "lua": "lua",
    "bash": "shellscript",
    "sh": "shellscript",
    "htm": "html",
    "html": "html",
    "css": "css",
    "json": "json",
    "jsonc": "jsonc",
    "yaml": "yaml",
    "yml": "yaml",
    "toml": "toml",
    "markdown": "markdown",
    "md": "markdown",
}


def language_of(path: str) -> str:
    """The language of a file, as editors call it, by its name's ending; empty if not known."""
    return BY_EXTENSION.get(PurePosixPath(path).suffix[1:].lower(), "")


def parse(
    source: bytes, language: str, old: Tree | None = None, limit_s: float = LIMIT_S
) -> Tree | None:
    """The tree of UTF-8 `source`, on the base of an edited `old` one.

    None without a grammar, and where parsing takes more than `limit_s` seconds of this thread's
    time, as it does where a text is not of its language.
    """
    found = grammar(language)
    if found is None:
        return None
    soonest, end = perf_counter() + limit_s, thread_time() + limit_s
    pieces: list[bytes] = []

    def read(start: int, _: Point) -> bytes:
        """Given the bytes as a whole, the library would take no time limit."""
        pieces.append(source[start : start + _PIECE])
        return pieces[-1]

    def late(*_: object) -> bool:
        # Asked some hundred times: the thread's own clock costs 10 µs, the other one nothing.
        return perf_counter() > soonest and thread_time() > end

    # A parser holds what was broken off, and threads must not share one: a new one costs nothing.
    parser = Parser(found)
    try:
        if old is None:  # which the library does not take for the default that it is
            return parser.parse(read, progress_callback=late)
        return parser.parse(read, old, progress_callback=late)
    except ValueError:  # broken off
        logger.debug("a text of %d bytes is too slow to parse as %s", len(source), language)
        return None
    finally:
        if _keeps_pieces(found):
            _free(pieces)


@cache
def _keeps_pieces(language: Language) -> bool:
    """Whether the library never lets go of what it reads, as 0.26.1: that is each text parsed."""
    piece = bytes(range(65, 91))
    before = sys.getrefcount(piece)
    Parser(language).parse(lambda start, _: b"" if start else piece)
    return sys.getrefcount(piece) > before


def _free(pieces: list[bytes]) -> None:
    """Takes back the one reference that the library has kept to each piece."""
    for piece in pieces:
        if len(piece) > 1:  # shorter ones are Python's own and live for ever
            ctypes.pythonapi.Py_DecRef(ctypes.py_object(piece))


@cache
def grammar(language: str) -> Language | None:
    """The grammar of a language as editors call it, loaded now if it has not been."""
    if language in _OTHER_NAMES:
        return grammar(_OTHER_NAMES[language])
    if language not in _GRAMMARS:
        return None
    module, function = _GRAMMARS[language]
    try:
        return Language(getattr(importlib.import_module(module), function)())
    except (ImportError, AttributeError, ValueError) as error:  # ValueError: another ABI
        logger.warning("no grammar for %s, its files are plain text: %s", language, error)
        return None

"""The languages of the corpus: which files are theirs, and what the filters look for in them.

One row each, so that `filters` has no branch per language. Knows nothing of packages but the names
held out for the evaluation.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from engine.train import syntax
from engine.train.npm_packages import NPM_HELD_OUT
from engine.train.packages import HELD_OUT_IMPORTS

_NEVER = re.compile(r"(?!)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """`name` is what editors call it; paths are searched in lower case."""

    name: str
    endings: tuple[str, ...]
    complaint: Callable[[str], str]  # why the syntax of a text is no good; empty when it is
    foreign: re.Pattern[str]  # one whole part of a path: other projects, those held out first
    row: re.Pattern[str]  # a line that holds only literals, as in tables of data
    built: re.Pattern[str] = _NEVER  # in a path: what a tool wrote from other files
    locale: re.Pattern[str] = _NEVER  # in a path: tables of one natural language each
    compiled: re.Pattern[str] = _NEVER  # what compilers and bundlers leave in a text


_PYTHON = Language(
    name="python",
    endings=(".py",),
    complaint=syntax.python_complaint,
    foreign=re.compile("_*(?:" + "|".join(sorted(HELD_OUT_IMPORTS)) + ")_*"),
    row=re.compile(
        r"""[\s\[\](){}]*(?:[rbuf]{0,2}["'].*["']|[-+\d.xa-fA-F, jeE]+)[\s\[\](){},:]*"""
    ),
)


def _script(name: str, endings: tuple[str, ...], module: str, grammar: str) -> Language:
    return Language(
        name=name,
        endings=endings,
        complaint=lambda text: syntax.script_complaint(text, module, grammar),
        foreign=re.compile("(?:" + "|".join(p.name for p in NPM_HELD_OUT) + ")(?:[._-].*)?|libs"),
        row=re.compile(
            r"""[\s\[\](){}]*(?:(?:[\w$]+|"[^"]*"|'[^']*'):\s*)?"""
            r"""(?:["'`].*["'`]|[-+\d.xa-fA-F, e]+|true|false|null)[\s\[\](){},;]*"""
        ),
        built=re.compile(
            r"^(?:[^/]+/)?(?:dist(?:[-_]\w+)*|build|umd|cjs|esm|es|es[56]|amd|iife|min|bundles?)/"
            r"|(?:^|/)(?:generated|__generated__)/"
            r"|[-_.](?:min|bundle|umd|generated)\.\w+$|\.d\.[mc]?ts$"
        ),
        locale=re.compile(r"(?:^|/)(?:locales?|lang|langs|l10n|nls|icon-set)/"),
        compiled=re.compile(
            r"^//[#@] sourceMappingURL="
            r"|^(?:Object\.defineProperty\(exports, ['\"]__esModule|exports\.__esModule = true)"
            r"|^var __(?:importDefault|importStar|createBinding|awaiter|generator|extends|assign"
            r"|decorate|rest|spreadArray|defProp|commonJS|toESM|export|webpack\w*) ="
            r"|^function _(?:interopRequire|classCallCheck|extends|defineProperty)\w*\("
            r"|^/\*{6}/|^\(function webpackUniversalModuleDefinition"
            r"|^[;!]?\(?function ?\(global, factory\)"
            r"|(?:from|require\() ?['\"](?:@babel/runtime|tslib|@swc/helpers)",
            re.MULTILINE,
        ),
    )


_SCRIPTS = (
    _script("javascript", (".js", ".mjs", ".cjs"), "tree_sitter_javascript", "language"),
    _script("javascriptreact", (".jsx",), "tree_sitter_javascript", "language"),
    _script("typescript", (".ts", ".mts", ".cts"), "tree_sitter_typescript", "language_typescript"),
    _script("typescriptreact", (".tsx",), "tree_sitter_typescript", "language_tsx"),
)
_BY_ENDING = {ending: row for row in (_PYTHON, *_SCRIPTS) for ending in row.endings}
SCRIPT_ENDINGS: Final = tuple(ending for row in _SCRIPTS for ending in row.endings)


def language_of(path: str) -> Language | None:
    """The language of a file by its name's ending; None for all that is not learned."""
    return _BY_ENDING.get(PurePosixPath(path).suffix)

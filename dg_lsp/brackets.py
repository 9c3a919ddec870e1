"""Which brackets and strings a piece of text leaves open: a scanner, not a parser.

It goes on where an earlier piece ended, so the text before the cursor is scanned once and each
possible completion after it. Strings and comments are told apart from code by the language's
delimiters; what no delimiter shows (regular expression literals, nested templates) is not seen.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache

OPENERS = {")": "(", "]": "[", "}": "{"}
CLOSERS = {opener: closer for closer, opener in OPENERS.items()}

_C_LIKE = ('"', "'", "//", "/*")
_HASH = ('"', "'", "#")
_DELIMITERS = {  # longer ones first where one begins another
    "python": ('"""', "'''", *_HASH),
    "javascript": (*_C_LIKE, "`"),
    "javascriptreact": (*_C_LIKE, "`"),
    "typescript": (*_C_LIKE, "`"),
    "typescriptreact": (*_C_LIKE, "`"),
    "go": (*_C_LIKE, "`"),
    "rust": ('"', "//", "/*"),
    "c": _C_LIKE,
    "cpp": _C_LIKE,
    "java": ('"""', *_C_LIKE),
    "ruby": _HASH,
    "lua": ('"', "'", "--[[", "[[", "--"),
    "shellscript": _HASH,
    "css": ('"', "'", "/*"),
    "json": ('"',),
    "jsonc": ('"', "//", "/*"),
    "yaml": _HASH,
    "toml": ('"""', "'''", *_HASH),
    "html": ("<!--",),
    "markdown": ("`",),
}
_OTHERS = ('"', "'", "`")
_COMMENTS = {"#", "//", "--", "/*", "--[[", "<!--"}
_ENDS = {"#": "\n", "//": "\n", "--": "\n", "/*": "*/", "--[[": "]]", "[[": "]]", "<!--": "-->"}
_SEVERAL_LINES = {'"""', "'''", "/*", "--[[", "[[", "<!--"}
_TEMPLATE_LANGUAGES = ("javascript", "javascriptreact", "typescript", "typescriptreact", "go")
_CHARACTER = r"'(?:\\[^'\n]*|[^\\'\n])'"  # in Rust a lone ' is a lifetime


@dataclass(frozen=True, slots=True)
class State:
    """What is open at the end of a text.

    `stack` has the open brackets, the innermost last; `inside` the delimiter of the string or
    comment that has not ended; `unmatched` the closers without a partner, `broken` the number
    of strings that a line end cut off.
    """

    stack: str = ""
    inside: str = ""
    unmatched: str = ""
    broken: int = 0

    @property
    def imbalance(self) -> int:
        """How many brackets and strings have no partner."""
        open_string = bool(self.inside) and self.inside not in _COMMENTS
        return len(self.stack) + len(self.unmatched) + self.broken + open_string


def scan(text: str, language: str, state: State | None = None) -> State:
    """The state behind `text`, which comes after what `state` was left by."""
    state = state or State()
    place = 0
    if state.inside:
        place, state = _leave(text, 0, state, language)
    stack, unmatched = list(state.stack), state.unmatched
    token = _tokens(language)
    while found := token.search(text, place):
        place, mark = found.end(), found.group()
        if mark in CLOSERS:
            stack.append(mark)
        elif mark in OPENERS:
            if stack and stack[-1] == OPENERS[mark]:
                stack.pop()
            else:
                unmatched += mark
        elif mark in _delimiters(language):
            place, state = _leave(text, place, replace(state, inside=mark), language)
    return replace(state, stack="".join(stack), unmatched=unmatched)


def closers_of_earlier(text: str, language: str, state: State) -> list[int]:
    """The places in `text` of what closes a bracket or string opened before it, or none at all."""
    places: list[int] = []
    depth, place = len(state.stack), 0
    if state.inside:
        place, left = _leave(text, 0, state, language)
        if not left.inside and state.inside not in _COMMENTS and left.broken == state.broken:
            places.extend(range(place - len(_ENDS.get(state.inside, state.inside)), place))
        state = left
    own = 0
    while not state.inside and (found := _tokens(language).search(text, place)):
        place, mark = found.end(), found.group()
        if mark in CLOSERS:
            own += 1
        elif mark in OPENERS and own:
            own -= 1
        elif mark in OPENERS:
            depth -= 1
            places.append(found.start())
        elif mark in _delimiters(language):
            place, state = _leave(text, place, replace(state, inside=mark), language)
    return places


def open_places(text: str, language: str, state: State) -> list[int]:
    """The places in `text` of the brackets it opens and leaves open, the innermost last."""
    places: list[int] = []
    place = 0
    if state.inside:
        place, state = _leave(text, 0, state, language)
    while not state.inside and (found := _tokens(language).search(text, place)):
        place, mark = found.end(), found.group()
        if mark in CLOSERS:
            places.append(found.start())
        elif mark in OPENERS:
            if places and text[places[-1]] == OPENERS[mark]:
                places.pop()
        elif mark in _delimiters(language):
            place, state = _leave(text, place, replace(state, inside=mark), language)
    return places


def _leave(text: str, place: int, state: State, language: str) -> tuple[int, State]:
    """Goes to the end of the string or comment that `place` is inside of, if it ends."""
    found = _end(state.inside, language).match(text, place)
    assert found, "the pattern matches the empty rest too"
    end = found.group(1)
    if end is None:
        return len(text), state
    cut_off = end == "\n" and state.inside not in _COMMENTS
    return found.end(), replace(state, inside="", broken=state.broken + cut_off)


@cache
def _tokens(language: str) -> re.Pattern[str]:
    marks = "|".join(map(re.escape, _delimiters(language)))
    escaped = r"\\.|" if language in ("shellscript", "") else ""
    character = f"{_CHARACTER}|" if language == "rust" else ""
    return re.compile(f"{escaped}{character}{marks}|[()\\[\\]{{}}]", re.DOTALL)


@cache
def _end(delimiter: str, language: str) -> re.Pattern[str]:
    """Matches from within to the end: group 1 is what ended it, None where nothing does."""
    end = re.escape(_ENDS.get(delimiter, delimiter))
    if delimiter in _ENDS:
        return re.compile(rf".*?(?:({end})|\Z)", re.DOTALL)
    several = (
        delimiter in _SEVERAL_LINES
        or (delimiter == "`" and language in _TEMPLATE_LANGUAGES)
        or language in ("shellscript", "ruby", "rust")
    )
    if several:
        return re.compile(rf"(?:\\.|(?!{end}).)*(?:({end})|\Z)", re.DOTALL)
    return re.compile(rf"(?:\\.|(?!{end})[^\n\\])*(?:({end}|\n)|\\?\Z)", re.DOTALL)


def _delimiters(language: str) -> tuple[str, ...]:
    return _DELIMITERS.get(language, _OTHERS)

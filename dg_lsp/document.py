"""The text of an open document, and a frozen view of it at the cursor.

Positions arrive in the client's code units and leave as code points. Lines end at LF, CRLF
and CR only: form feed, U+2028 and the like are text, as they are for every editor. Knows
nothing of LSP messages or of what the text is used for.
"""

from __future__ import annotations

import io
import re
import zlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

Encoding = Literal["utf-8", "utf-16", "utf-32"]

LINE_END = re.compile(r"\r\n|\n|\r")
# Possessive: with other code behind a thousand blanks each way to part these would be tried.
CLOSERS = re.compile(r"""\s*+[)>}\]"'`]*+\s*+[:{;,]?+\s*+""")
_WORTH_PACKING = 1000  # characters
_PACKING = 1  # the quickest: 64 kB take 0.5 ms
_CODECS: dict[Encoding, tuple[str, int]] = {  # codec and bytes per code unit
    "utf-8": ("utf-8", 1),
    "utf-16": ("utf-16-le", 2),
    "utf-32": ("utf-32-le", 4),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One document at one moment, with the cursor `offset` code points into `text`.

    `path` is relative to the workspace, with forward slashes; empty where there is no file. `unit` is
    what the editor indents by, once it has said so.
    """

    text: str
    offset: int
    uri: str = ""
    path: str = ""
    language: str = ""
    version: int = 0
    unit: str = ""

    @property
    def prefix(self) -> str:
        """All text before the cursor."""
        return self.text[: self.offset]

    @property
    def suffix(self) -> str:
        """All text after the cursor."""
        return self.text[self.offset :]

    @property
    def line_number(self) -> int:
        """The number of the cursor's line, counted from 0; of a CR alone nothing is counted."""
        return self.text.count("\n", 0, self.offset)

    @property
    def line_left(self) -> str:
        """The cursor's line up to the cursor."""
        before = (self.text.rfind(end, 0, self.offset) for end in "\r\n")
        return self.text[max(before) + 1 : self.offset]

    @property
    def line_right(self) -> str:
        """The cursor's line from the cursor on, without its line end."""
        end = LINE_END.search(self.text, self.offset)
        return self.text[self.offset : end.start() if end else len(self.text)]

    @property
    def indent(self) -> str:
        """The blanks that the cursor's line begins with."""
        line = self.line_left + self.line_right
        return line[: len(line) - len(line.lstrip(" \t"))]

    @property
    def newline(self) -> str:
        """How the document ends its lines: as it ends the first one."""
        end = LINE_END.search(self.text)
        return end.group() if end else "\n"

    @property
    def mid_line(self) -> bool:
        """Whether more than closing brackets, quotes and the like follows on the line."""
        return CLOSERS.fullmatch(self.line_right) is None


class Position(NamedTuple):
    """A line and a place on it, counted from 0 in the client's code units."""

    line: int
    character: int


class Edit(NamedTuple):
    """New text for what lies between two positions; without positions, for everything."""

    text: str
    start: Position | None = None
    end: Position | None = None


class Document:
    """The text of one open document, and how long its lines are once somebody asks.

    The text is one string, because many documents are open and few are edited; one at rest takes
    about a third of the room. A client's lone surrogates become U+FFFD, which is as long in each
    encoding.
    """

    __slots__ = (
        "_encoding",
        "_known_lengths",
        "_stored",
        "_typed_to",
        "language",
        "unit",
        "uri",
        "version",
    )

    def __init__(
        self, text: str, *, uri: str, language: str, version: int, encoding: Encoding
    ) -> None:
        self._stored: str | bytes = whole_characters(text)
        self.uri = uri
        self.language = language
        self.version = version
        self.unit = ""  # what the editor indents by, once it has said so
        self._encoding = encoding
        self._known_lengths: array[int] | None = None  # of lines
        self._typed_to: Position | None = None  # where the newest text that was put in ends

    @property
    def text(self) -> str:
        """The whole text; any thread may read it."""
        stored = self._stored
        return stored if isinstance(stored, str) else zlib.decompress(stored).decode()

    def rest(self) -> None:
        """Nobody is expected to ask for the text soon: it takes less room until `wake`."""
        if isinstance(self._stored, str) and len(self._stored) >= _WORTH_PACKING:
            self._stored = zlib.compress(self._stored.encode(), _PACKING)
        self._known_lengths = None

    def wake(self) -> None:
        """The text is about to be used."""
        self._stored = self.text

    def lines(self, first: int, count: int) -> str:
        """The text of so many lines, with their ends."""
        start = self._start_of(first)
        return self.text[start : start + sum(self._lengths[first : first + count])]

    def apply(self, edits: Iterable[Edit], version: int) -> None:
        """Makes the edits in order, each on the result of the one before."""
        for edit in edits:
            text = whole_characters(edit.text)
            if edit.start is None or edit.end is None:
                self._stored, self._known_lengths = text, None
                self._typed_to = None
            else:
                start, end = min(edit.start, edit.end), max(edit.start, edit.end)
                self._splice(start, end, text)
                self._typed_to = self._end_of(text, start) if text else None
        self.version = version

    def was_typed_to(self, position: Position) -> bool:
        """Whether the newest edit put text right before `position`."""
        return position == self._typed_to

    def snapshot(self, position: Position, path: str = "") -> Snapshot | None:
        """The document with the cursor at `position`; None if there is no such line."""
        if not 0 <= position.line < len(self._lengths):
            return None
        content = self._content(position.line)
        return Snapshot(
            text=self.text,
            offset=self._start_of(position.line)
            + code_points(content, position.character, self._encoding),
            uri=self.uri,
            path=path,
            language=self.language,
            version=self.version,
            unit=self.unit,
        )

    @property
    def _lengths(self) -> array[int]:
        """How many code points each line has with its end; an edit changes few of them."""
        if self._known_lengths is None:
            self._known_lengths = _lengths(self.text)
        return self._known_lengths

    def _start_of(self, line: int) -> int:
        """Where a line begins, or where the text ends if there are not so many."""
        return sum(self._lengths[:line])

    def _content(self, line: int) -> str:
        return self.lines(line, 1).rstrip("\r\n")

    def _splice(self, start: Position, end: Position, text: str) -> None:
        """Puts text between two positions; only the lines that it touches are split anew."""
        first, last = self._clamp(start), self._clamp(end)
        left, _ = _cut(self._content(first.line), first.character, self._encoding)
        content = self._content(last.line)
        _, right = _cut(content, last.character, self._encoding)
        line, behind = first.line, last.line + 1
        begin, until = self._start_of(line), self._start_of(behind)
        line_end = self.text[self._start_of(last.line) + len(content) : until]
        changed = left + text + right + line_end
        if line and changed.startswith("\n") and self.text[begin - 1] == "\r":
            line -= 1  # the two become one line end
            before = self._lengths[line]
            changed = self.text[begin - before : begin] + changed
            begin -= before
        lengths = _lengths(changed)
        if behind < len(self._lengths):
            lengths.pop()  # `changed` ends with a line end, and what follows is the old next line
        self._stored = self.text[:begin] + changed + self.text[until:]
        self._lengths[line:behind] = lengths

    def _end_of(self, text: str, start: Position) -> Position:
        """Where text ends that was put in at `start`."""
        first, *others = LINE_END.split(text)
        if others:
            return Position(start.line + len(others), units(others[-1], self._encoding))
        return Position(start.line, start.character + units(first, self._encoding))

    def _clamp(self, position: Position) -> Position:
        """Lines behind the last one mean the end of the document."""
        last = len(self._lengths) - 1
        if position.line > last:
            return Position(last, units(self._content(last), self._encoding))
        return position


def units(text: str, encoding: Encoding) -> int:
    """How many of the client's code units `text` takes."""
    if encoding == "utf-32" or text.isascii():
        return len(text)
    codec, width = _CODECS[encoding]
    return len(text.encode(codec)) // width


def _lengths(text: str) -> array[int]:
    """How long the lines of `text` are with their ends; the last one has none and may be empty."""
    lengths = array("I", map(len, io.StringIO(text, newline="")))
    if not text or text.endswith(("\n", "\r")):
        lengths.append(0)
    return lengths


def _cut(line: str, at: int, encoding: Encoding) -> tuple[str, str]:
    """Both sides of the unit `at`; halves of a character become U+FFFD, so lengths stay true."""
    if encoding == "utf-32" or line.isascii():
        return line[:at], line[at:]
    codec, width = _CODECS[encoding]
    raw = line.encode(codec)
    left, right = raw[: at * width], raw[at * width :]
    return left.decode(codec, "replace"), right.decode(codec, "replace")


def code_points(line: str, at: int, encoding: Encoding) -> int:
    """Code points before the unit `at`; inside a character, those before that character."""
    at = max(0, at)
    if encoding == "utf-32" or line.isascii():
        return min(at, len(line))
    codec, width = _CODECS[encoding]
    return len(line.encode(codec)[: at * width].decode(codec, "ignore"))


def whole_characters(text: str) -> str:
    """The text with U+FFFD for lone surrogates, which no encoding has a place for."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

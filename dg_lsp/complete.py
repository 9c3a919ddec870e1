"""`dg-lsp complete FILE:LINE:COL[-[LINE:]COL]`: one completion of a file on disk.

Document, context, engine and ghost text are those of the language server; here are only the
place in the file and how the answer is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from dg_lsp import context, ghost_text, grammars
from dg_lsp.client import EngineClient, EngineStatus
from dg_lsp.document import LINE_END, Document, Position, Snapshot
from dg_lsp.settings import EngineSettings, Settings
from dg_lsp.terminal import CommandError, Progress, style
from engine.request import Draft, InfillRequest, InfillResult, Mode

MAX_FILE_BYTES = 1_000_000
_LINES_AROUND = 3
_NUMBER = r"(\d{1,9})"
_PLACE = re.compile(rf"(.+?):{_NUMBER}(?::{_NUMBER}(?:-(?:{_NUMBER}:)?{_NUMBER})?)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Place:
    """A cursor as editors show it: lines and columns count from 1; no column is the line's end.

    What stands between the cursor and `end` (line, column) is taken out of the file first.
    """

    file: Path
    line: int
    column: int | None
    end: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Hole:
    """The file with the cursor in it, and the text that was taken out there."""

    place: Place
    snapshot: Snapshot
    removed: str = ""


def run(options: argparse.Namespace) -> int:
    """Asks for the completion and prints it."""
    hole = read(parse_place(options.place))
    snapshot = hole.snapshot
    settings = Settings(
        engine=EngineSettings(model=options.model, device=options.device),
        max_tokens=options.max_tokens,
        deadline_ms=options.deadline_ms,
    )
    request = context.build(snapshot, settings)
    if options.single_line is not None:
        request = replace(request, single_line=options.single_line)
    with Progress(sys.stderr) as progress:
        result = asyncio.run(_ask(settings, request, progress, options.drafts))
    if result.mode is Mode.CAUSAL:
        sys.stderr.write(
            f"note: {result.model} was not trained for infilling: it continues the text before "
            "the cursor, and what follows only tells it where to stop\n"
        )
    text = ghost_text.apply(result.text, snapshot)
    write = _write_json if options.json else _write_text
    write(sys.stdout, hole, text, result)
    return 0


def parse_place(text: str) -> Place:
    """`FILE:LINE`, `FILE:LINE:COL` or `FILE:LINE:COL-[LINE:]COL`; raises CommandError."""
    found = _PLACE.fullmatch(text)
    if found is None:
        raise CommandError(
            f"give the place as FILE:LINE:COL, FILE:LINE or FILE:LINE:COL-[LINE:]COL, got {text!r}"
        )
    file, *numbers = found.groups()
    line, column, end_line, end_column = (None if n is None else int(n) for n in numbers)
    assert line is not None, "the pattern has a line"
    end = None if end_column is None else (end_line or line, end_column)
    return Place(Path(file), line, column, end)


def read(place: Place) -> Hole:
    """The file with its hole; the place gets its column. Raises CommandError."""
    text = _text(place.file)
    snapshot, removed = _at(text, place, place.line, place.column), ""
    if place.end is not None:
        end = _at(text, place, *place.end).offset
        if end < snapshot.offset:
            raise CommandError(
                f"line {place.end[0]}, column {place.end[1]} is before line {place.line}, column "
                f"{place.column}; give the place where the hole ends"
            )
        removed = text[snapshot.offset : end]
        left = text[: snapshot.offset] + text[end:]
        snapshot = _at(left, place, place.line, place.column)
    return Hole(replace(place, column=len(snapshot.line_left) + 1), snapshot, removed)


def _at(text: str, place: Place, line: int, column: int | None) -> Snapshot:
    lines = LINE_END.split(text)
    if not 1 <= line <= len(lines):
        raise CommandError(f"line {line} is out of range: {place.file} has lines 1 to {len(lines)}")
    end = len(lines[line - 1]) + 1
    column = end if column is None else column
    if not 1 <= column <= end:
        raise CommandError(
            f"column {column} is out of range: line {line} of {place.file} has columns 1 to {end}"
        )
    language = grammars.language_of(place.file.name)
    document = Document(text, uri="", language=language, version=0, encoding="utf-32")
    snapshot = document.snapshot(Position(line - 1, column - 1), _shown_path(place.file))
    assert snapshot is not None, f"line {line} of {len(lines)} is not in the document"
    return snapshot


def _text(file: Path) -> str:
    try:
        if file.is_dir():
            raise CommandError(f"{file} is a directory; name a file in it")
        if not file.exists():
            raise CommandError(f"{file} does not exist; check the path")
        if not file.is_file():
            raise CommandError(f"{file} is not a regular file")
        if (size := file.stat().st_size) > MAX_FILE_BYTES:
            raise CommandError(f"{file} is too large: {size} bytes, the limit is {MAX_FILE_BYTES}")
        content = file.read_bytes()
    except (OSError, ValueError) as error:
        raise CommandError(f"{file} cannot be read: {error}") from None
    if b"\0" in content:
        raise CommandError(f"{file} is a binary file: it has NUL bytes; name a text file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CommandError(
            f"{file} is not UTF-8: byte 0x{content[error.start]:02x} in line {line}; "
            "save it as UTF-8 first"
        ) from None


def _shown_path(file: Path) -> str:
    """As the language server names it: relative to the folder one works in, else the name."""
    try:
        return file.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return file.name


async def _ask(
    settings: Settings, request: InfillRequest, progress: Progress, drafts: bool
) -> InfillResult:
    def show(status: EngineStatus) -> None:
        progress.show(status.state, status.message, status.progress)

    def show_draft(draft: Draft) -> None:
        progress.show("draft", f"{draft.step}: {draft.text!r}", 0.0, always=True)

    client = EngineClient(settings.engine, show)
    try:
        return await client.infill(request, show_draft if drafts else None)
    finally:
        await client.aclose()


def _write_json(out: TextIO, hole: Hole, text: str, result: InfillResult) -> None:
    """`text` is what an editor shows, `raw_text` what the engine wrote for the hole."""
    place = hole.place
    assert place.column is not None, "read() fills in the column"
    covered = ghost_text.covered(text, hole.snapshot)
    line, column = place.end or (place.line, place.column)
    answer = {
        **result.to_json(),
        "file": str(place.file),
        "text": text,
        "raw_text": result.text,
        "removed": hole.removed,
        "range": {
            "start": {"line": place.line, "column": place.column},
            "end": {"line": line, "column": column + covered},
        },
    }
    out.write(json.dumps(answer) + "\n")


def _write_text(out: TextIO, hole: Hole, text: str, result: InfillResult) -> None:
    """The lines around the cursor with the fill in its place, and what it took."""
    place, snapshot = hole.place, hole.snapshot
    before = LINE_END.split(snapshot.prefix)[-_LINES_AROUND:]
    suffix = snapshot.suffix[ghost_text.covered(text, snapshot) :]
    after = LINE_END.split(suffix)[:_LINES_AROUND]
    mark = style(out)
    filled = "\n".join(mark.strong(line) for line in LINE_END.split(text))
    head, tail = map(mark.dim, ("\n".join(before), "\n".join(after)))
    out.write(f"{place.file}:{place.line}:{place.column}\n")
    out.write(f"{head}{mark.opening}{filled}{mark.closing}{tail}\n")
    if not text:
        out.write("nothing to show" + (f" of {result.text!r}" if result.text else "") + "\n")
    if hole.removed:
        out.write(f"taken out there: {hole.removed!r}\n")
    out.write(
        f"{result.model}, {result.mode}: {result.tokens} tokens in {result.forwards} forwards, "
        f"stop {result.stop}, {result.cached_tokens} of {result.prompt_tokens} prompt tokens cached\n"
    )
    timings = " · ".join(f"{name} {ms:.1f}" for name, ms in result.timings_ms.items())
    out.write(f"ms: {timings}\n")

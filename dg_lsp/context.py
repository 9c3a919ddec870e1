"""WHAT goes into the prompt: which text around the cursor the engine is given.

Pure: a snapshot and the settings in, a request out. Knows nothing of tokens, templates, LSP or
the engine's process; how the text is laid out for a model is `engine.prompt`'s matter.
"""

from __future__ import annotations

from pathlib import PurePath

from dg_lsp.document import LINE_END, Snapshot
from dg_lsp.settings import Settings
from engine.request import InfillRequest

PREFIX_CHARS = 6000  # about 2,000 tokens
PREFIX_STEP = 2000
SUFFIX_CHARS = 2000


def build(snapshot: Snapshot, settings: Settings) -> InfillRequest:
    """The hole at the snapshot's cursor, with the part of the file that helps to fill it."""
    return InfillRequest(
        prefix=_unix(snapshot.text[_prefix_start(snapshot) : snapshot.offset]),
        suffix=_unix(snapshot.text[snapshot.offset : _suffix_end(snapshot)]),
        path=_relative(snapshot.path),
        language=snapshot.language,
        max_tokens=settings.max_tokens,
        single_line=snapshot.mid_line,
        deadline_ms=settings.deadline_ms,
    )


def _prefix_start(snapshot: Snapshot) -> int:
    """Where the prefix begins: moves by PREFIX_STEP at a time, to the start of a line.

    The engine keeps what it has encoded as long as a prompt begins with it, so the start must
    stand still while one types. A line longer than a step is cut within.
    """
    earliest = snapshot.offset - PREFIX_CHARS
    if earliest <= 0:
        return 0
    step = -(-earliest // PREFIX_STEP) * PREFIX_STEP
    end = LINE_END.search(snapshot.text, step - 1, step + PREFIX_STEP)
    return end.end() if end else step


def _suffix_end(snapshot: Snapshot) -> int:
    """Where the suffix ends: behind the last line that fits, or within a line longer than that."""
    latest = snapshot.offset + SUFFIX_CHARS
    if latest >= len(snapshot.text):
        return len(snapshot.text)
    last = max(snapshot.text.rfind(end, snapshot.offset, latest) for end in "\r\n")
    return last + 1 if last >= 0 else latest


def _unix(text: str) -> str:
    """Models have seen hardly anything but LF; the answer gets the document's line ends again."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _relative(path: str) -> str:
    """An absolute path tells about the user's machine and nothing about the code."""
    return PurePath(path).name if PurePath(path).is_absolute() else path

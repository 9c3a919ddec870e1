"""WHAT goes into the prompt: which text around the cursor the engine is given.

Pure: a snapshot and the settings in, a request out. Knows nothing of tokens, templates, LSP or
the engine's process; how the text is laid out for a model is `engine.prompt`'s matter, and what
is worth having from elsewhere `retrieval`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePath

from dg_lsp import definitions, indentation
from dg_lsp.document import LINE_END, Snapshot
from dg_lsp.settings import Settings
from engine.request import ContextChunk, InfillRequest

_HEAD_CHARS = 8000  # where a file imports
_UP_CHARS = 100_000  # in which the heads around the cursor are looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How many characters go into a prompt; three or four make a token.

    Prefix and context share `before`; the context takes at most `context` of it. The prefix's
    start moves by `before` // 3 at a time.
    """

    before: int = 6000
    context: int = 0
    suffix: int = 2000

    @property
    def retrieved(self) -> int:
        """What is left for text from elsewhere when the file's own head has had its part."""
        return self.context - self.context // 3


FILE_ALONE = Budget()
CPU = Budget(before=3000, context=900)  # 1.5 ms a token, and the engine takes 1,024 at most
GPU = Budget(before=20_000, context=8000, suffix=4000)

_MUCH = 4096  # tokens


def budget_for(prompt_tokens: int) -> Budget:
    """The budget for an engine that takes so many tokens; 0 where it has not said yet."""
    return GPU if prompt_tokens >= _MUCH else CPU


def build(
    snapshot: Snapshot,
    settings: Settings,
    chunks: tuple[ContextChunk, ...] = (),
    budget: Budget = FILE_ALONE,
) -> InfillRequest:
    """The hole at the snapshot's cursor, with the part of the file that helps to fill it.

    `chunks` from elsewhere come first, then what stands at the file's head and around the
    cursor but too far above for the prefix.
    """
    size = sum(len(chunk.text) + 2 for chunk in chunks)
    share = budget.context - budget.retrieved
    start = _prefix_start(snapshot, budget.before - size - share)
    head = _head(snapshot, start, share)
    own = (ContextChunk(_relative(snapshot.path), head),) if head else ()
    return InfillRequest(
        prefix=_unix(snapshot.text[start : snapshot.offset]),
        suffix=_unix(snapshot.text[snapshot.offset : _suffix_end(snapshot, budget.suffix)]),
        path=_relative(snapshot.path),
        language=snapshot.language,
        context=chunks + own,
        max_tokens=settings.max_tokens,
        single_line=snapshot.mid_line,
        deadline_ms=settings.deadline_ms,
    )


def _prefix_start(snapshot: Snapshot, chars: int) -> int:
    """Where the prefix begins: moves by a third of `chars` at a time, to the start of a line.

    The engine keeps what it has encoded as long as a prompt begins with it, so the start must
    stand still while one types. A line longer than a step is cut within.
    """
    earliest = snapshot.offset - chars
    if earliest <= 0:
        return 0
    step = max(1, chars // 3)
    start = -(-earliest // step) * step
    end = LINE_END.search(snapshot.text, start - 1, start + step)
    return end.end() if end else start


def _suffix_end(snapshot: Snapshot, chars: int) -> int:
    """Where the suffix ends: behind the last line that fits, or within a line longer than that."""
    latest = snapshot.offset + chars
    if latest >= len(snapshot.text):
        return len(snapshot.text)
    last = max(snapshot.text.rfind(end, snapshot.offset, latest) for end in "\r\n")
    return last + 1 if last >= 0 else latest


def _head(snapshot: Snapshot, start: int, chars: int) -> str:
    """What the file imports, and the heads of what the cursor is in, as far as before `start`."""
    if not start or not chars:
        return ""
    above = _unix(snapshot.text[: min(start, _HEAD_CHARS)])
    around = "\n".join(_heads(snapshot, start))[:chars]
    room = chars - len(around) - 2
    imported = ""
    for line in _imports(above, snapshot.language).split("\n"):
        if len(imported) + len(line) + 1 > room:
            break
        imported += line + "\n"
    return "\n\n".join(filter(None, [imported.rstrip(), around]))


@lru_cache(maxsize=4)
def _imports(source: str, language: str) -> str:
    return definitions.imports(source, language)


def _heads(snapshot: Snapshot, start: int) -> list[str]:
    """The lines before `start` that the cursor is indented below, the outermost first."""
    text, left = snapshot.text, snapshot.line_left
    near = _unix(text[start : snapshot.offset - len(left)])
    _, deeper = _outer(near, indentation.width(left) if left else 1_000)
    return list(_outer_far(_unix(text[max(0, start - _UP_CHARS) : start]), deeper)[0])


def _outer(above: str, deeper: int) -> tuple[tuple[str, ...], int]:
    """The lines less indented than `deeper`, each than those below it, and the least indentation."""
    found: list[str] = []
    for line in reversed(above.split("\n")):
        if not deeper:
            break
        width = indentation.width(line)
        if line.strip() and width < deeper:
            # What goes with a closer began on a line as far out as the closer is.
            closes = line.lstrip()[0] in ")]}"
            deeper = width + closes
            if not closes:
                found.insert(0, line.rstrip())
    return tuple(found), deeper


@lru_cache(maxsize=4)
def _outer_far(above: str, deeper: int) -> tuple[tuple[str, ...], int]:
    """The same, of text that stays as it is while one types."""
    return _outer(above, deeper)


def _unix(text: str) -> str:
    """Models have seen hardly anything but LF; the answer gets the document's line ends again."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _relative(path: str) -> str:
    """An absolute path tells about the user's machine and nothing about the code."""
    return PurePath(path).name if PurePath(path).is_absolute() else path

"""`dg/didView`: what an editor shows of its documents and how it indents, which no text says.

`{"editors": [{"uri": URI, "formattingOptions": {"tabSize": COLUMNS, "insertSpaces": BOOLEAN},
"visibleRanges": [RANGE, ...]}, ...]}`, at best before a request; any part may be absent.
"""

from __future__ import annotations

from dg_lsp.lsp.connection import Connection

_MOST_COLUMNS = 16


def register(ls: Connection) -> None:
    """Listens to it."""
    ls.feature("dg/didView")(_did_view)


def _did_view(ls: Connection, params: object) -> None:
    editors = getattr(params, "editors", None)
    for editor in editors if isinstance(editors, list) else ():
        uri = getattr(editor, "uri", None)
        if isinstance(uri, str):
            unit = _unit(getattr(editor, "formattingOptions", None))
            ls.session.viewed(uri, unit, _middle(getattr(editor, "visibleRanges", None)))


def _unit(options: object) -> str:
    """What one more level of indentation adds; empty if it is not said."""
    columns = getattr(options, "tabSize", None)
    if getattr(options, "insertSpaces", None) is False:
        return "\t"
    return " " * columns if isinstance(columns, int) and 0 < columns <= _MOST_COLUMNS else ""


def _middle(ranges: object) -> int | None:
    """The line amid what is shown, counted from 0; None if nothing is."""
    try:
        return int(ranges[0].start.line + ranges[-1].end.line) // 2  # type: ignore[index]
    except (AttributeError, IndexError, KeyError, TypeError):
        return None

"""Documents as the client opens, edits and closes them."""

from __future__ import annotations

from lsprotocol import types

from dg_lsp.document import Edit, Position
from dg_lsp.lsp.connection import Connection


def register(ls: Connection) -> None:
    """Takes over the text from pygls, which would keep a copy, split at the wrong characters."""
    ls.take_over(types.TEXT_DOCUMENT_DID_OPEN, _did_open)
    ls.take_over(types.TEXT_DOCUMENT_DID_CHANGE, _did_change)
    ls.take_over(types.TEXT_DOCUMENT_DID_CLOSE, _did_close)
    ls.feature(types.TEXT_DOCUMENT_DID_SAVE, types.SaveOptions())(_did_save)


def _did_open(ls: Connection, params: types.DidOpenTextDocumentParams) -> None:
    item = params.text_document
    ls.session.open(item.uri, item.language_id, item.version, item.text)


def _did_change(ls: Connection, params: types.DidChangeTextDocumentParams) -> None:
    document = params.text_document
    ls.session.change(document.uri, document.version, map(edit, params.content_changes))


def _did_close(ls: Connection, params: types.DidCloseTextDocumentParams) -> None:
    ls.session.close(params.text_document.uri)


def _did_save(ls: Connection, params: types.DidSaveTextDocumentParams) -> None:
    ls.session.save(params.text_document.uri)


def position(place: types.Position) -> Position:
    """A place in the client's units."""
    return Position(place.line, place.character)


def edit(change: types.TextDocumentContentChangeEvent) -> Edit:
    """One change of a text."""
    if isinstance(change, types.TextDocumentContentChangePartial):
        return Edit(change.text, position(change.range.start), position(change.range.end))
    return Edit(change.text)

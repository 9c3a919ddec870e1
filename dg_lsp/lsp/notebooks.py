"""Notebooks as the client opens, edits and closes them; their cells are documents as any other."""

from __future__ import annotations

from collections.abc import Iterable

from lsprotocol import types

from dg_lsp.lsp.connection import Connection
from dg_lsp.lsp.text import edit
from dg_lsp.notebook import Notebook, kernel_language

_PLAIN = "plaintext"
SYNC = types.NotebookDocumentSyncOptions(
    notebook_selector=[types.NotebookDocumentFilterWithNotebook(notebook="*")]
)


def register(ls: Connection) -> None:
    """Takes over notebooks from pygls, which would keep a second copy of their texts."""
    ls.take_over(types.NOTEBOOK_DOCUMENT_DID_OPEN, _did_open)
    ls.take_over(types.NOTEBOOK_DOCUMENT_DID_CHANGE, _did_change)
    ls.take_over(types.NOTEBOOK_DOCUMENT_DID_CLOSE, _did_close)


def _did_open(ls: Connection, params: types.DidOpenNotebookDocumentParams) -> None:
    document = params.notebook_document
    notebook = Notebook(document.uri, kernel_language(document.metadata))
    ls.session.notebooks[document.uri] = notebook
    _open_cells(ls, notebook, params.cell_text_documents)
    notebook.splice(0, 0, _uris(document.cells))


def _did_change(ls: Connection, params: types.DidChangeNotebookDocumentParams) -> None:
    notebook = ls.session.notebooks.get(params.notebook_document.uri)
    if notebook is None:
        return
    if params.change.metadata is not None:
        _change_kernel(ls, notebook, kernel_language(params.change.metadata))
    if (cells := params.change.cells) is not None:
        _change_cells(ls, notebook, cells)


def _change_kernel(ls: Connection, notebook: Notebook, language: str) -> None:
    notebook.language = language
    for uri in notebook.unnamed:
        ls.session.rename_language(uri, language or _PLAIN)


def _change_cells(
    ls: Connection, notebook: Notebook, cells: types.NotebookDocumentCellChanges
) -> None:
    if structure := cells.structure:
        array = structure.array
        notebook.splice(array.start, array.delete_count, _uris(array.cells or ()))
        _open_cells(ls, notebook, structure.did_open or ())
        for gone in structure.did_close or ():
            notebook.unnamed.discard(gone.uri)
            ls.session.close(gone.uri)
    for content in cells.text_content or ():
        document = content.document
        ls.session.change(document.uri, document.version, map(edit, content.changes))


def _did_close(ls: Connection, params: types.DidCloseNotebookDocumentParams) -> None:
    ls.session.notebooks.pop(params.notebook_document.uri, None)
    for cell in params.cell_text_documents:
        ls.session.close(cell.uri)


def _open_cells(
    ls: Connection, notebook: Notebook, cells: Iterable[types.TextDocumentItem]
) -> None:
    """A cell whose language nobody has said has the kernel's."""
    for cell in cells:
        language = cell.language_id
        if language in ("", _PLAIN):
            notebook.unnamed.add(cell.uri)
            language = notebook.language or language
        ls.session.open(cell.uri, language, cell.version, cell.text)


def _uris(cells: Iterable[types.NotebookCell]) -> list[str]:
    return [cell.document for cell in cells]

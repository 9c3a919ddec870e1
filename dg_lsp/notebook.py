"""Notebooks: the cells of one kernel's language, in order, as one text around the cell at hand.

Each cell is a document of its own; a notebook only says which and in what order. Knows nothing of
LSP, outputs or kernels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from dg_lsp.document import Document, Snapshot


@dataclass(slots=True)
class Notebook:
    """One open notebook; `cells` are the URIs of its cells, `language` is its kernel's.

    That is also the language of the `unnamed` cells.
    """

    uri: str
    language: str
    cells: list[str] = field(default_factory=list)
    unnamed: set[str] = field(default_factory=set)

    def splice(self, start: int, delete: int, cells: Iterable[str]) -> None:
        """Puts cells in place of `delete` others."""
        self.cells[start : start + delete] = cells


def widened(
    place: Snapshot, notebook: Notebook, document: Callable[[str], Document | None]
) -> Snapshot:
    """The place with the text of the notebook's other cells before and behind it.

    Only cells of the same language: prose and shell would not parse beside code.
    """
    cells = [
        cell
        for uri in notebook.cells
        if (cell := document(uri)) and cell.language == place.language
    ]
    at = next((number for number, cell in enumerate(cells) if cell.uri == place.uri), None)
    if at is None:
        return place
    gap = 2 * place.newline
    before = "".join(cell.text + gap for cell in cells[:at])
    behind = "".join(gap + cell.text for cell in cells[at + 1 :])
    return dataclasses.replace(
        place, text=before + place.text + behind, offset=len(before) + place.offset
    )


def kernel_language(metadata: object) -> str:
    """What a notebook's metadata say of its kernel's language; empty if nothing."""
    if not isinstance(metadata, Mapping):
        return ""
    inner = kernel_language(metadata.get("metadata"))  # where VS Code puts what the file has
    for key, name in (("language_info", "name"), ("kernelspec", "language")):
        part = metadata.get(key)
        if not inner and isinstance(part, Mapping) and isinstance(part.get(name), str):
            inner = str(part[name])
    return inner

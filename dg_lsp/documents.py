"""The open documents by their URI; only those that were used lately keep their text at hand.

Knows nothing of what documents are used for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice

from dg_lsp.document import Document

AWAKE = 8


class Documents:
    """An editor may hold a thousand documents open, and a person looks at a few."""

    def __init__(self) -> None:
        self._documents: OrderedDict[str, Document] = OrderedDict()  # the latest used last

    def __iter__(self) -> Iterator[Document]:
        return iter(self._documents.values())

    def put(self, document: Document) -> None:
        """Takes a document, in place of one of the same URI."""
        self._documents[document.uri] = document
        self._used(document)

    def get(self, uri: str) -> Document | None:
        """The document, awake; None if it is not open."""
        document = self._documents.get(uri)
        if document is not None:
            self._used(document)
        return document

    def remove(self, uri: str) -> None:
        """Lets go of a document."""
        self._documents.pop(uri, None)

    def _used(self, document: Document) -> None:
        document.wake()
        self._documents.move_to_end(document.uri)
        for other in islice(reversed(self._documents.values()), AWAKE, AWAKE + 1):
            other.rest()

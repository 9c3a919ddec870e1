"""What a document's URI says of its file: its path, and whether it may be written.

Only URIs of the scheme `file` have one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit


def relative_path(uri: str, roots: Sequence[str]) -> str:
    """The path of a file URI below the innermost of the root URIs, else the file's name alone."""
    if not uri.startswith("file:"):
        return ""
    path = uri_path(uri)
    for root in sorted(map(uri_path, roots), key=len, reverse=True):
        folder = root.rstrip("/") + "/"
        if folder != "/" and path.startswith(folder):
            return path[len(folder) :]
    return path.rpartition("/")[2]


def is_read_only(uri: str) -> bool:
    """Whether a URI names a file that is there and that this process may not write."""
    path = uri_path(uri) if uri.startswith("file:") else ""
    return bool(path) and os.access(path, os.F_OK) and not os.access(path, os.W_OK)


def uri_path(uri: str) -> str:
    """The path in a URI, with forward slashes."""
    try:
        return unquote(urlsplit(uri).path)
    except ValueError:  # such as an unclosed bracket in the host's place
        return ""

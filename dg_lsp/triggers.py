"""WHEN to ask: what an editor wants to know, and whether it is worth an answer.

Pure and in plain data; knows nothing of LSP, the engine or what was asked before.
"""

from __future__ import annotations

from dataclasses import dataclass

from dg_lsp.document import Edit, Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A completion that an editor wants at a position, in its own code units.

    `automatic` if typing led to it and no command. `selected` is the item chosen in the editor's
    own list: what it would insert, and for what; only text that extends it can be shown beside it.
    `path` is relative to the workspace, with forward slashes; empty where there is no file.
    """

    uri: str
    position: Position
    path: str = ""
    automatic: bool = True
    selected: Edit | None = None

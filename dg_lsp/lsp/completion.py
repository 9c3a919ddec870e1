"""Inline completion: what the client asks and how it is answered."""

from __future__ import annotations

from lsprotocol import types

from dg_lsp.completion import Completion
from dg_lsp.document import Edit, relative_path
from dg_lsp.lsp.connection import Connection
from dg_lsp.lsp.text import position
from dg_lsp.triggers import Ask


def register(ls: Connection) -> None:
    """Announces inline completion."""
    method = types.TEXT_DOCUMENT_INLINE_COMPLETION
    ls.feature(method, types.InlineCompletionOptions())(_inline_completion)


async def _inline_completion(
    ls: Connection, params: types.InlineCompletionParams
) -> types.InlineCompletionList | None:
    """Superseded: null; nothing to show: an empty list; cancelled: pygls sends the error."""
    uri = params.text_document.uri
    roots = [folder.uri for folder in ls.workspace.folders.values()]
    selected = params.context.selected_completion_info
    ask = Ask(
        uri=uri,
        position=position(params.position),
        path=relative_path(uri, roots or [ls.workspace.root_uri or ""]),
        automatic=params.context.trigger_kind is types.InlineCompletionTriggerKind.Automatic,
        selected=_selected(selected) if selected else None,
    )
    completions = await ls.session.complete(ask)
    if completions is None:
        return None
    return types.InlineCompletionList(items=[_item(completion) for completion in completions])


def _selected(info: types.SelectedCompletionInfo) -> Edit:
    return Edit(info.text, position(info.range.start), position(info.range.end))


def _item(completion: Completion) -> types.InlineCompletionItem:
    start, end = (types.Position(*place) for place in (completion.start, completion.end))
    return types.InlineCompletionItem(
        insert_text=completion.text, range=types.Range(start=start, end=end)
    )

"""Inline completion: what the client asks and how it is answered."""

from __future__ import annotations

from lsprotocol import types

from dg_lsp.completion import Completion
from dg_lsp.document import Edit, Position
from dg_lsp.lsp.connection import Connection
from dg_lsp.lsp.text import position
from dg_lsp.triggers import Ask

ACCEPT = "dgLsp.accept"


def register(ls: Connection) -> None:
    """Announces inline completion."""
    method = types.TEXT_DOCUMENT_INLINE_COMPLETION
    ls.feature(method, types.InlineCompletionOptions())(_inline_completion)


async def _inline_completion(
    ls: Connection, params: types.InlineCompletionParams
) -> types.InlineCompletionList | None:
    """Superseded: null; nothing to show: an empty list; cancelled: pygls sends the error."""
    uri = params.text_document.uri
    path, folder = ls.place(uri)
    selected = params.context.selected_completion_info
    ask = Ask(
        uri=uri,
        position=position(params.position),
        path=path,
        folder=folder,
        automatic=params.context.trigger_kind is types.InlineCompletionTriggerKind.Automatic,
        selected=_selected(selected) if selected else None,
    )
    return inline_list(await ls.session.complete(ask))


def inline_list(completions: list[Completion] | None) -> types.InlineCompletionList | None:
    """The answer to a client that shows ghost text; None where a newer request has taken over."""
    if completions is None:
        return None
    return types.InlineCompletionList(items=[_item(completion) for completion in completions])


def _selected(info: types.SelectedCompletionInfo) -> Edit:
    return Edit(info.text, position(info.range.start), position(info.range.end))


def _item(completion: Completion) -> types.InlineCompletionItem:
    return types.InlineCompletionItem(
        insert_text=completion.text,
        range=_range(completion.start, completion.end),
        command=_accepted(completion),
    )


def _accepted(completion: Completion) -> types.Command:
    """What the client runs when it has inserted the completion."""
    return types.Command(title="accepted", command=ACCEPT, arguments=[completion.id])


def _range(start: Position, end: Position) -> types.Range:
    return types.Range(start=types.Position(*start), end=types.Position(*end))

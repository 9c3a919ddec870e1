"""Completion, inline or in a list: what the client asks and how it is answered."""

from __future__ import annotations

from lsprotocol import types

from dg_lsp.completion import Completion, MenuEntry, menu_entry
from dg_lsp.document import LINE_END, Edit, Position
from dg_lsp.lsp.connection import Connection
from dg_lsp.lsp.text import position

ACCEPT = "dgLsp.accept"
_TRIGGERS = list(".([{=:, ")
_INVOKED = types.CompletionTriggerKind.Invoked


def offer(ls: Connection) -> None:
    """What this client can be offered: inline completion, or else entries in its list."""
    client = ls.client_capabilities.text_document
    inline = client and client.inline_completion
    later = inline and inline.dynamic_registration
    options = None if later else types.InlineCompletionOptions()  # without any, none is announced
    ls.feature(types.TEXT_DOCUMENT_INLINE_COMPLETION, options)(_inline_completion)
    if client and client.completion and not inline and ls.session.settings.completion_menu:
        menu = types.CompletionOptions(trigger_characters=_TRIGGERS)
        ls.feature(types.TEXT_DOCUMENT_COMPLETION, menu)(_completion)


async def announce(ls: Connection) -> None:
    """Registers inline completion with a client that prefers this to static capabilities."""
    client = ls.client_capabilities.text_document
    if client and client.inline_completion and client.inline_completion.dynamic_registration:
        options = types.InlineCompletionRegistrationOptions()
        await ls.announce(types.TEXT_DOCUMENT_INLINE_COMPLETION, options)


async def _inline_completion(
    ls: Connection, params: types.InlineCompletionParams
) -> types.InlineCompletionList | None:
    """Superseded: null; nothing to show: an empty list; cancelled: pygls sends the error."""
    selected = params.context.selected_completion_info
    ask = ls.ask(
        params.text_document.uri,
        position(params.position),
        automatic=params.context.trigger_kind is types.InlineCompletionTriggerKind.Automatic,
        selected=_selected(selected) if selected else None,
    )
    return inline_list(await ls.session.complete(ask))


async def _completion(
    ls: Connection, params: types.CompletionParams
) -> types.CompletionList | None:
    """For clients without inline completion: asked anew at each keystroke."""
    uri, cursor = params.text_document.uri, position(params.position)
    # An editor says of typing and of a command that it was invoked; only one of them typed.
    by_command = params.context and params.context.trigger_kind is _INVOKED
    automatic = not by_command or ls.session.was_typed_to(uri, cursor)
    completions = await ls.session.complete(ls.ask(uri, cursor, automatic=automatic))
    if completions is None:
        return None
    encoding = ls.session.encoding
    items = [
        _menu_item(number, completion, menu_entry(completion, cursor, encoding))
        for number, completion in enumerate(completions)
    ]
    return types.CompletionList(is_incomplete=True, items=items)


def inline_list(completions: list[Completion] | None) -> types.InlineCompletionList | None:
    """The answer to a client that shows ghost text; None where a newer request has taken over."""
    if completions is None:
        return None
    return types.InlineCompletionList(items=[_item(completion) for completion in completions])


def _selected(info: types.SelectedCompletionInfo) -> Edit:
    return Edit(info.text, position(info.range.start), position(info.range.end))


def _item(completion: Completion) -> types.InlineCompletionItem:
    """With line ends that every editor takes for its own; Neovim would draw and insert the CR of another."""
    return types.InlineCompletionItem(
        insert_text=LINE_END.sub("\n", completion.text),
        range=_range(completion.start, completion.end),
        command=_accepted(completion),
    )


def _menu_item(number: int, completion: Completion, entry: MenuEntry) -> types.CompletionItem:
    return types.CompletionItem(
        label=entry.label,
        kind=types.CompletionItemKind.Text,
        detail="dg-lsp",
        documentation=entry.text,
        sort_text=f"!{number}",  # before what other servers offer
        filter_text=entry.text,
        text_edit=types.TextEdit(range=_range(entry.start, entry.end), new_text=entry.text),
        insert_text_format=types.InsertTextFormat.PlainText,
        insert_text_mode=types.InsertTextMode.AsIs,
        command=_accepted(completion),
    )


def _accepted(completion: Completion) -> types.Command:
    """What the client runs when it has inserted the completion."""
    return types.Command(title="accepted", command=ACCEPT, arguments=[completion.id])


def _range(start: Position, end: Position) -> types.Range:
    return types.Range(start=types.Position(*start), end=types.Position(*end))

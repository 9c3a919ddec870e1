"""`workspace/executeCommand`: what a user may have the server do; see `COMMANDS`."""

from __future__ import annotations

from typing import Any, get_args

from lsprotocol import types
from pygls.exceptions import JsonRpcInvalidParams

from dg_lsp.document import Position
from dg_lsp.lsp.completion import ACCEPT, inline_list
from dg_lsp.lsp.connection import Connection
from dg_lsp.stats import Statistics
from dg_lsp.switches import Scope

_SNOOZE_MINUTES = 5


def register(ls: Connection) -> None:
    """Announces them."""
    for name, handler in COMMANDS.items():
        ls.command(name)(handler)


async def _accept(ls: Connection, *arguments: Any) -> None:
    """(ID): a completion was taken; editors run it by themselves."""
    ls.session.feedback.accepted(*_checked(arguments, str))


async def _complete_now(ls: Connection, *arguments: Any) -> types.InlineCompletionList | None:
    """(URI, LINE, CHARACTER): asked for by hand, also where nothing is offered unasked.

    Where completions, or those in the language, are off, and in a secret file, there is none.
    """
    uri, line, character = _checked(arguments, str, int, int)
    ask = ls.ask(uri, Position(line, character), automatic=False)
    return inline_list(await ls.session.complete(ask))


async def _toggle(ls: Connection, *arguments: Any) -> bool:
    """(SCOPE = "global"|"workspace"|"language", URI, LANGUAGE = the document's): whether it is on."""
    given = (*arguments, *("global", "", "")[len(arguments) :])
    scope, uri, language = _checked(given, str, str, str)
    if scope not in get_args(Scope):
        raise JsonRpcInvalidParams(f"a scope is one of {', '.join(get_args(Scope))}")
    return ls.session.toggle(scope, uri, ls.place(uri)[1], language)


async def _snooze(ls: Connection, *arguments: Any) -> None:
    """(MINUTES = 5): nothing unasked for so long; 0 ends that."""
    (minutes,) = _checked(arguments or (_SNOOZE_MINUTES,), (int, float))
    ls.session.snooze(minutes)


async def _restart_engine(ls: Connection, *arguments: Any) -> None:
    """(): ends this user's engine, for all editors, and starts it anew."""
    _checked(arguments)
    await ls.session.restart_engine()


async def _choose_model(ls: Connection, *arguments: Any) -> None:
    """(MODEL): the same with another model, until settings are sent again."""
    (model,) = _checked(arguments, str)
    await ls.session.restart_engine(model)


async def _show_statistics(ls: Connection, *arguments: Any) -> dict[str, Any]:
    """(): the local figures, as `text` and `html` for people and as `figures`."""
    from dg_lsp.stats_page import page  # what few sessions need
    from dg_lsp.stats_report import report, summary

    _checked(arguments)
    book = Statistics()
    figures = summary(book.read())
    shown = {"text": report(figures, book.path), "html": page(figures, book.path)}
    return {**shown, "figures": figures, "path": str(book.path)}


COMMANDS = {
    ACCEPT: _accept,
    "dgLsp.completeNow": _complete_now,
    "dgLsp.toggle": _toggle,
    "dgLsp.snooze": _snooze,
    "dgLsp.restartEngine": _restart_engine,
    "dgLsp.chooseModel": _choose_model,
    "dgLsp.showStatistics": _show_statistics,
}


def _checked(arguments: tuple[Any, ...], *kinds: type | tuple[type, ...]) -> tuple[Any, ...]:
    """The arguments, if they are of these types."""
    fit = len(arguments) == len(kinds) and all(
        isinstance(value, kind) and not isinstance(value, bool)
        for value, kind in zip(arguments, kinds, strict=True)
    )
    if not fit:
        raise JsonRpcInvalidParams("the command takes other arguments; see README.md")
    return arguments

"""What the client tells of a completion: shown, taken in part, done away with.

A completion is named by its identity, the argument of its command: `{"id": ID}`, or Copilot's form,
the whole item.
"""

from __future__ import annotations

from dg_lsp.lsp.connection import Connection


def register(ls: Connection) -> None:
    """Our messages and Copilot's, which say the same."""
    handlers = (
        ("dg/didShow", _did_show),
        ("textDocument/didShowCompletion", _did_show),
        ("dg/didPartiallyAccept", _did_partially_accept),
        ("textDocument/didPartiallyAcceptCompletion", _did_partially_accept),
        ("dg/didReject", _did_reject),
    )
    for method, handler in handlers:
        ls.feature(method)(handler)


def _did_show(ls: Connection, params: object) -> None:
    ls.session.feedback.shown(_identity(params))


def _did_partially_accept(ls: Connection, params: object) -> None:
    length = getattr(params, "acceptedLength", None)
    ls.session.feedback.accepted_in_part(_identity(params), length)


def _did_reject(ls: Connection, params: object) -> None:
    ls.session.feedback.rejected(_identity(params))


def _identity(params: object) -> object:
    """None where there is none; pygls makes objects of what it has no types for."""
    command = getattr(getattr(params, "item", None), "command", None)
    arguments = getattr(command, "arguments", None) or [None]
    return getattr(params, "id", arguments[0])

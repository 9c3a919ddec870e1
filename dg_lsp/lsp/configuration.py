"""Settings as the client sends them, or as it has them fetched."""

from __future__ import annotations

import logging
from typing import Any

from lsprotocol import types
from pygls.exceptions import JsonRpcException

from dg_lsp.lsp.connection import Connection
from dg_lsp.settings import Settings

logger = logging.getLogger(__name__)

_SECTIONS = ["dg-lsp", "dgLsp"]  # VS Code wants no hyphen
_THE_EXTENSIONS = {
    "server",
    "trace",
    "yieldToOthers",
}  # what that for VS Code keeps there for itself


def register(ls: Connection) -> None:
    """Takes settings whenever the client says that they have changed."""
    ls.feature(types.WORKSPACE_DID_CHANGE_CONFIGURATION)(_did_change_configuration)


def section(options: object) -> object:
    """Our part of the configuration, where a client sends the whole of it."""
    if not isinstance(options, dict):
        return options
    ours = next((options[name] for name in _SECTIONS if name in options), options)
    if not isinstance(ours, dict):
        return ours
    return {name: value for name, value in ours.items() if name not in _THE_EXTENSIONS}


def set_log_level(settings: Settings) -> None:
    """pygls logs whole messages, and so source text: only who asks for debugging gets that."""
    logging.getLogger("dg_lsp").setLevel(settings.log_level.upper())
    quiet = logging.DEBUG if settings.log_level == "debug" else logging.CRITICAL
    logging.getLogger("pygls").setLevel(quiet)


async def start(ls: Connection) -> None:
    """Asks to be told of changes and fetches the settings, where the client offers that."""
    method = types.WORKSPACE_DID_CHANGE_CONFIGURATION
    offered = ls.client_capabilities.workspace
    if offered and (change := offered.did_change_configuration) and change.dynamic_registration:
        await ls.announce(
            method, types.DidChangeConfigurationRegistrationOptions(section=_SECTIONS)
        )
    if _can_be_asked(ls):
        await _fetch(ls)


async def _did_change_configuration(
    ls: Connection, params: types.DidChangeConfigurationParams
) -> None:
    if not params.settings and _can_be_asked(ls):
        await _fetch(ls)
    else:
        _apply(ls, params.settings)


async def _fetch(ls: Connection) -> None:
    """Asks the client; of several answers that of the newest question counts."""
    ls.fetches += 1
    mine = ls.fetches
    items = [types.ConfigurationItem(section=name) for name in _SECTIONS]
    try:
        answers = await ls.workspace_configuration_async(types.ConfigurationParams(items=items))
    except JsonRpcException as error:
        logger.info("the client does not tell its settings: %s", type(error).__name__)
        return
    told = next((answer for answer in answers if answer is not None), None)
    if mine == ls.fetches and told is not None:
        _apply(ls, told)


def _apply(ls: Connection, options: Any) -> None:
    ls.session.configure(section(options))
    set_log_level(ls.session.settings)


def _can_be_asked(ls: Connection) -> bool:
    workspace = ls.client_capabilities.workspace
    return bool(workspace and workspace.configuration)

"""The workspace's folders and its files on disk: which there are, and which have changed."""

from __future__ import annotations

from pathlib import Path

from lsprotocol import types
from pygls.uris import to_fs_path

from dg_lsp.lsp.connection import Connection
from dg_lsp.workspace import EXTENSIONS

_METHOD = types.WORKSPACE_DID_CHANGE_WATCHED_FILES


def register(ls: Connection) -> None:
    """Takes what the client says of them."""
    ls.feature(types.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS)(_did_change_folders)
    ls.feature(_METHOD)(_did_change_files)


def take_folders(ls: Connection) -> None:
    """Tells the session which folders the workspace has."""
    uris = [folder.uri for folder in ls.workspace.folders.values()]
    paths = {uri: _path(uri) for uri in uris or [ls.workspace.root_uri or ""]}
    ls.session.set_folders({uri: Path(path) for uri, path in paths.items() if path})


def _path(uri: str) -> str | None:
    """A folder's path; None where the URI names none on this machine."""
    try:
        return to_fs_path(uri)
    except ValueError:  # such as an unclosed bracket in the host's place
        return None


async def watch(ls: Connection) -> None:
    """Has a client that can watch the files of known languages."""
    workspace = ls.client_capabilities.workspace
    watching = workspace and workspace.did_change_watched_files
    if watching and watching.dynamic_registration:
        patterns = (f"**/*.{{{','.join(EXTENSIONS)}}}", "**/.gitignore")
        watchers = [types.FileSystemWatcher(glob_pattern=pattern) for pattern in patterns]
        await ls.announce(
            _METHOD, types.DidChangeWatchedFilesRegistrationOptions(watchers=watchers)
        )


def _did_change_folders(ls: Connection, _: types.DidChangeWorkspaceFoldersParams) -> None:
    take_folders(ls)


def _did_change_files(ls: Connection, params: types.DidChangeWatchedFilesParams) -> None:
    ls.session.files_changed(change.uri for change in params.changes)

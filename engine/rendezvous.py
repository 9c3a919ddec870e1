"""Where clients find the engine: a private directory with a lock, a socket and a runtime file.

    engine.lock   held for the life of the process: one engine per directory
    engine.sock   the unix socket (elsewhere when the path would be too long)
    engine.json   pid, model, protocol and address; written whole, mode 0600
    engine.log    what happened, without source text

Knows nothing of HTTP, models or threads.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import socket
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from engine.errors import EngineError

_SOCKET_PATH_BYTES = 100  # the kernels' limit is 104 to 108 with the closing NUL
_BACKLOG = 64


class AlreadyRunning(EngineError):
    """Another process holds the lock of this directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A listening socket and what a client needs to reach it."""

    sock: socket.socket
    path: Path | None = None
    url: str = ""
    extra_directory: Path | None = None

    @property
    def address(self) -> dict[str, str]:
        """The part of the runtime file that names the socket."""
        return {"socket": str(self.path)} if self.path else {"url": self.url}

    def close(self) -> None:
        """Closes the socket and removes its file."""
        self.sock.close()
        if self.path:
            self.path.unlink(missing_ok=True)
        if self.extra_directory:
            self.extra_directory.rmdir()


def private_directory(path: Path) -> Path:
    """`path`, made if absent; raises EngineError unless it is this user's alone."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise EngineError(f"{path} cannot be used as the runtime directory: {error}") from None
    if not stat.S_ISDIR(found.st_mode):
        raise EngineError(f"{path} must be a directory; choose another runtime directory")
    if hasattr(os, "geteuid"):  # Windows has neither owners nor modes of this kind
        if found.st_uid != os.geteuid():
            raise EngineError(
                f"{path} belongs to user {found.st_uid}, not to you; choose another runtime directory"
            )
        if (mode := stat.S_IMODE(found.st_mode)) & 0o077:
            raise EngineError(
                f"{path} is open to other users (mode {mode:o}); run: chmod 700 {path}"
            )
    return path


def take_lock(directory: Path) -> FileLock:
    """The directory's lock, held until the process ends; raises AlreadyRunning."""
    lock = FileLock(directory / "engine.lock", mode=0o600)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise AlreadyRunning(f"an engine already runs in {directory}") from None
    except OSError as error:
        raise EngineError(f"{directory}/engine.lock cannot be locked: {error}") from None
    return lock


def listen_unix(directory: Path) -> Listener:
    """A unix socket; the caller holds the lock, so an old socket file is a dead one's."""
    path, extra = directory / "engine.sock", None
    if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
        key = hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]
        short = Path(tempfile.gettempdir()) / f"dg-lsp-{os.geteuid()}-{key}"
        extra = private_directory(short)
        path = extra / "engine.sock"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        sock.bind(str(path))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise EngineError(f"cannot listen on {path}: {error}") from None
    return Listener(sock=sock, path=path, extra_directory=extra)


def listen_tcp(address: str, *, has_token: bool) -> Listener:
    """A TCP socket on `[HOST:]PORT`; beyond loopback only with a token of the user's."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdecimal() or int(port) > 65535:
        raise EngineError(f"--tcp must be [HOST:]PORT with a port up to 65535, got {address!r}")
    if not has_token and not _is_loopback(host):
        raise EngineError(
            f"{host} can be reached from other machines: give --token-file FILE, or use 127.0.0.1"
        )
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(target)
        sock.listen(_BACKLOG)
    except OSError as error:
        raise EngineError(f"cannot listen on {address}: {error}") from None
    shown = f"[{host}]" if ":" in host else host
    return Listener(sock=sock, url=f"http://{shown}:{sock.getsockname()[1]}")


def read_token(path: Path) -> str:
    """The token in `path`: one line, of at least 16 characters, readable by its owner only."""
    try:
        mode, token = path.stat().st_mode, path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise EngineError(f"token file {path} cannot be read: {error}") from None
    if os.name == "posix" and mode & 0o077:
        raise EngineError(f"token file {path} is open to other users; run: chmod 600 {path}")
    if len(token) < 16 or len(token.split()) != 1:
        raise EngineError(f"token file {path} must hold one line of at least 16 characters")
    return token


def publish(directory: Path, info: dict[str, Any]) -> None:
    """Writes the runtime file so that a reader sees the old one or the new one, whole."""
    new = directory / f"engine.json.{os.getpid()}"
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(info, file)
    new.replace(directory / "engine.json")


def withdraw(directory: Path) -> None:
    """Removes the runtime file if this process wrote it."""
    path = directory / "engine.json"
    with suppress(OSError, ValueError, AttributeError):  # gone or not ours: nothing to remove
        if json.loads(path.read_text()).get("pid") == os.getpid():
            path.unlink()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

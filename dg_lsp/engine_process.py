"""This user's engine process: where it says it is, and how one is started.

Knows nothing of HTTP or of what the engine does; whether the address in the runtime file
still leads to an engine is for the client to find out.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from dg_lsp.settings import EngineSettings

# -P: a directory the user merely works in must not offer its own `engine` or `torch`.
COMMAND: tuple[str, ...] = (sys.executable, "-P", "-m", "engine.server")
_ERROR_MARK = "dg-lsp engine: error: "
_AGAIN_S = 0.5
_LOCK_PATIENCE_S = 20.0
_TAIL_BYTES = 8192


class EngineUnavailable(Exception):
    """No engine answers, or it cannot answer this; one line that says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An engine's address: a unix socket or a URL, and the token it asks for."""

    socket: str = ""
    url: str = ""
    token: str = ""

    def __str__(self) -> str:
        return self.url or f"unix:{self.socket}"


def runtime_dir() -> Path:
    """The directory in which this user's engine is found; it may not exist yet."""
    if given := os.environ.get("DG_LSP_RUNTIME_DIR"):
        return Path(given).expanduser().absolute()
    import platformdirs

    temporary = Path(tempfile.gettempdir())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a missing XDG_RUNTIME_DIR is nothing to warn about
        try:
            path = Path(platformdirs.user_runtime_dir("dg-lsp"))
        except OSError:
            path = temporary
    if temporary not in (path, *path.parents):
        return path
    # Directly under the sticky temporary directory nobody else can replace it.
    user = str(os.geteuid()) if hasattr(os, "geteuid") else os.environ.get("USERNAME", "user")
    return temporary / f"dg-lsp-{user}"


def published(directory: Path) -> Endpoint | None:
    """What the runtime file says; None where it is absent, damaged or not this user's alone."""
    try:
        with (directory / "engine.json").open("rb") as file:
            if not _is_private(os.fstat(file.fileno())):
                return None
            info = json.loads(file.read())
        values = {key: info.get(key, "") for key in ("socket", "url", "token")}
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    if all(isinstance(value, str) for value in values.values()):
        endpoint = Endpoint(**values)
        return endpoint if endpoint.socket or endpoint.url else None
    return None


def model_argument(model: str) -> str:
    """A model's name as it is; a path made absolute, since the engine runs elsewhere."""
    if model.startswith("~") or os.sep in model or model in (".", ".."):
        return str(Path(model).expanduser().absolute())
    return model


def server_command(settings: EngineSettings, directory: Path) -> list[str]:
    """The command line of an engine process that serves `settings` from `directory`."""
    return [
        *COMMAND,
        *("--runtime-dir", str(directory)),
        *("--model", model_argument(settings.model)),
        *("--device", settings.device),
    ]


class Launch:
    """One attempt to bring up an engine. Others may try at once: the engine's lock decides."""

    def __init__(self, settings: EngineSettings, directory: Path) -> None:
        self._command = server_command(settings, directory)
        self._log = directory / "engine.log"
        self._begun = time.monotonic()
        self._process: subprocess.Popen[bytes] | None = None
        self._last_start = 0.0
        self._log_offset = 0

    def advance(self) -> None:
        """Starts a process where none of ours runs; raises EngineUnavailable if it died."""
        if self._process is not None and (code := self._process.poll()) != 0:
            if code is not None:
                raise EngineUnavailable(self._epitaph(code))
            return
        # It left in peace: another holds the lock, which is coming up or on its way out.
        now = time.monotonic()
        if self._process is not None and now - self._begun > _LOCK_PATIENCE_S:
            raise EngineUnavailable(
                f"another engine process holds {self._log.parent}/engine.lock but cannot be "
                f"reached; end it (see {self._log}) and try again"
            )
        if now - self._last_start >= _AGAIN_S:
            self._last_start = now
            self._start()

    def _start(self) -> None:
        directory = self._log.parent
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _is_private(directory.lstat()):
                raise EngineUnavailable(
                    f"{directory} must be yours alone: run `chmod 700 {directory}`, "
                    "or set DG_LSP_RUNTIME_DIR to another directory"
                )
            log = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise EngineUnavailable(
                f"the engine cannot start: {error}; set DG_LSP_RUNTIME_DIR to a directory of yours"
            ) from None
        try:
            self._log_offset = os.fstat(log).st_size
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=directory,
                start_new_session=True,  # it outlives the editor that happened to come first
            )
        except OSError as error:
            raise EngineUnavailable(f"the engine cannot start: {error}") from None
        finally:
            os.close(log)

    def _epitaph(self, code: int) -> str:
        """Why the process died: its last words, those of another one left aside."""
        with self._log.open("rb") as file:
            file.seek(max(self._log_offset, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
        for line in reversed(lines):
            if line.startswith(_ERROR_MARK):
                return line.removeprefix(_ERROR_MARK)
        last = f": {lines[-1].strip()[:300]}" if lines else ""
        return f"the engine ended at once with code {code}{last}; see {self._log}"


def _is_private(found: os.stat_result) -> bool:
    if not hasattr(os, "geteuid"):
        return True
    return found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077

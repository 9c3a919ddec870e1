"""Reads the workspace's files in a thread of its own, while nobody types.

Hands on what each file defines. Knows which files wait to be read, and nothing of what the
definitions are for.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

from dg_lsp.definitions import Definition
from dg_lsp.workspace import Limits, crawl, is_ignored, read

logger = logging.getLogger(__name__)

QUIET_S = 0.3  # without a keystroke; files are read in such pauses only
_MOST_WAITING = 2_000  # a checkout of another branch changes more than is worth reading one by one

Put = Callable[[Path, str, tuple[Definition, ...] | None], None]


class Reader:
    """Takes what is to be read and gives it to `put`: folder, path and definitions, or None.

    `allowed` too gets a folder of the workspace and a path below it. `put` is called in the thread.
    """

    def __init__(
        self,
        put: Put,
        allowed: Callable[[Path, str], bool] = lambda folder, path: True,
        quiet_s: float = QUIET_S,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._put = put
        self._allowed = allowed
        self._quiet_s = quiet_s
        self._limits = limits
        self._clock = clock
        self._typed = clock() - quiet_s
        self._closed = threading.Event()
        self._waiting: queue.Queue[tuple[Path, str, bool] | None] = queue.Queue(_MOST_WAITING)
        # A daemon, because a file on a network that is down cannot be given up.
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self._thread.start()

    def read_all(self, folder: Path, near: str) -> None:
        """Reads a folder's files, those near the file `near` first."""
        self._add(folder, near, True)

    def read(self, folder: Path, path: str) -> None:
        """Reads one file that has changed, is new or is gone."""
        self._add(folder, path, False)

    def typed(self) -> None:
        """Somebody types: reading waits for a pause."""
        self._typed = self._clock()

    def close(self) -> None:
        """Ends the thread behind the file that it is at; returns at once."""
        self._closed.set()
        if self._waiting.empty():  # else the thread does not wait for work
            self._waiting.put(None)

    def _add(self, folder: Path, path: str, everything: bool) -> None:
        try:
            self._waiting.put_nowait((folder, path, everything))
        except queue.Full:
            logger.info("too many files have changed at once: some are not read again")

    def _run(self) -> None:
        try:
            while (task := self._waiting.get()) is not None:
                folder, path, everything = task
                self._pause()
                if everything:
                    self._read_all(folder, path)
                elif not self._allowed(folder, path) or is_ignored(folder, path):
                    self._put(folder, path, None)
                else:
                    self._put(folder, path, read(folder, path, self._limits))
        except _Closed:
            logger.debug("reading ends early")

    def _read_all(self, folder: Path, near: str) -> None:
        files = crawl(
            folder,
            [near],
            lambda path: self._allowed(folder, path),
            self._limits,
            pause=self._pause,
        )
        for path, found in files:
            self._put(folder, path, found)

    def _pause(self) -> None:
        """Waits until nobody types; raises _Closed when there is no more to do."""
        while (left := self._typed + self._quiet_s - self._clock()) > 0:
            if self._closed.wait(left):
                break
        if self._closed.is_set():
            raise _Closed


class _Closed(Exception):
    """The reader's work is not wanted any more."""

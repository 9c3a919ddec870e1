"""Local figures: how much was shown, accepted and kept, and how fast. Never text, never sent.

One file of JSON lines that its user may read, show and delete (`dg-lsp stats`). All servers of
a user append to it; a lock beside it keeps their lines apart. Knows nothing of what is counted.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

Line = Mapping[str, Any]

MAX_BYTES = 2_000_000  # some 20,000 lines; then the older half goes
_LOCK_S = 0.1  # a keystroke waits no longer for other servers
_KINDS = ("full", "partial", "typed")


def run(options: argparse.Namespace) -> int:
    """Prints the figures, or deletes them."""
    book = Statistics()
    if options.delete:
        try:
            gone = book.delete()
        except OSError as error:
            sys.stderr.write(f"dg-lsp: {book.path} cannot be deleted: {error}\n")
            return 1
        sys.stdout.write(f"deleted {book.path}\n" if gone else "there are no statistics\n")
    elif options.json:
        sys.stdout.write(json.dumps({**summary(book.read()), "path": str(book.path)}) + "\n")
    else:
        sys.stdout.write(report(summary(book.read()), book.path))
    return 0


def default_path() -> Path:
    """This user's file; DG_LSP_STATISTICS names another one."""
    named = os.environ.get("DG_LSP_STATISTICS")
    return Path(named) if named else platformdirs.user_state_path("dg-lsp") / "statistics.jsonl"


class Statistics:
    """The file. What cannot be written now is written with the next line, or lost: never an error."""

    def __init__(
        self,
        path: Path | None = None,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path or default_path()
        self._max_bytes = max_bytes
        self._clock = clock
        self._pending: list[str] = []

    def add(self, event: str, **figures: float | str) -> None:
        """Appends one event with its figures."""
        line = {"at": int(self._clock()), "event": event, **figures}
        self._pending = [*self._pending[-100:], json.dumps(line) + "\n"]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock():
                self._append("".join(self._pending))
            self._pending = []
        except (OSError, Timeout) as error:
            logger.debug("statistics are not written: %s", type(error).__name__)

    def read(self) -> list[dict[str, Any]]:
        """All lines, the oldest first; what is no line of ours is passed over."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        return [line for line in map(_parsed, text.splitlines()) if line]

    def delete(self) -> bool:
        """Deletes the file; returns whether there was one. Raises OSError."""
        if not self.path.exists():
            return False
        with self._lock():
            self.path.unlink(missing_ok=True)
        return True

    def _lock(self) -> FileLock:
        return FileLock(f"{self.path}.lock", timeout=_LOCK_S)

    def _append(self, lines: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(lines)
            size = file.tell()
        if size > self._max_bytes:
            data = self.path.read_bytes()
            start = data.find(b"\n", len(data) - self._max_bytes // 2) + 1
            shorter = self.path.with_suffix(".new")
            shorter.write_bytes(data[start:])
            shorter.replace(self.path)


def summary(lines: Iterable[Line]) -> dict[str, Any]:
    """The figures of all lines together; shares are 0 to 1, None where nothing was counted."""
    lines = list(lines)
    counts = Counter(str(line["event"]) for line in lines)
    outcomes = [line for line in lines if line["event"] == "outcome"]
    how = Counter(str(line.get("how")) for line in outcomes)
    completed, typed = _sum(outcomes, "accepted"), _sum(lines, "typed")
    waits = sorted(float(line["ms"]) for line in lines if line["event"] == "shown" and "ms" in line)
    kept = {
        int(after): _share(_sum(at, "kept"), _sum(at, "of"))
        for after in sorted({line.get("after_s", 0) for line in lines} - {0})
        if (at := [line for line in lines if line.get("after_s") == after])
    }
    return {
        "since": min((int(line["at"]) for line in lines), default=None),
        "shown": counts["shown"],
        "rejected": how["rejected"],
        "accepted": {kind: how[kind] for kind in _KINDS},
        "acceptance": _share(how["full"] + how["partial"], counts["shown"]),
        "completed_share": _share(completed, completed + typed),
        "retained_after_s": kept,
        "latency_ms": {"p50": _quantile(waits, 0.5), "p95": _quantile(waits, 0.95)},
    }


def report(figures: Mapping[str, Any], path: Path) -> str:
    """A summary in lines for people."""
    if not figures["since"]:
        return f"no statistics yet (in {path})\n"
    accepted, latency = figures["accepted"], figures["latency_ms"]
    kept = ", ".join(
        f"{_percent(share)} after {after} s" for after, share in figures["retained_after_s"].items()
    )
    return (
        f"since {time.strftime('%Y-%m-%d', time.localtime(figures['since']))} (in {path})\n"
        f"shown      {figures['shown']}\n"
        f"accepted   {accepted['full']} whole, {accepted['partial']} in part"
        f" ({_percent(figures['acceptance'])}); {accepted['typed']} typed as shown\n"
        f"retained   {kept or 'not known yet'}\n"
        f"completed  {_percent(figures['completed_share'])} of what was written\n"
        f"latency    p50 {_ms(latency['p50'])}, p95 {_ms(latency['p95'])}\n"
    )


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except ValueError:  # such as half a line after a crash
        return None
    known = isinstance(line, dict) and isinstance(line.get("at"), int) and "event" in line
    return line if known else None


def _sum(lines: Iterable[Line], key: str) -> float:
    return sum(float(line.get(key, 0)) for line in lines)


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 3) if whole else None


def _quantile(values: list[float], share: float) -> float | None:
    if len(values) < 2:
        return values[0] if values else None
    points = statistics.quantiles(values, n=100, method="inclusive")
    return round(points[int(100 * share) - 1], 1)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f} ms"

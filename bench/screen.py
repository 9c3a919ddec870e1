"""What stands on the screen while a recording is typed, and what is counted of it.

The session of the server is asked after every key, as an editor does that does not wait itself;
what it shows is typed through, or accepted when it is right and the typist pauses.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.clock import AtOnce
from bench.fates import Fate, fates
from bench.scripted import TAIL, Work
from bench.typist import Key, Recording
from dg_lsp.cache import LOOK_BACK
from dg_lsp.document import Edit, Position, Snapshot
from dg_lsp.session import Engine, Session
from dg_lsp.surroundings import Surroundings
from dg_lsp.triggers import Ask

URI = "file:///bench/typed"
LOOK_S = 0.35  # how long a typist sees a completion before accepting it


@dataclass(slots=True)
class Figures:
    """What is counted in a replay; times in milliseconds, by the way the answer came."""

    keys: int = 0
    asked: int = 0
    accepted: int = 0
    flickers: int = 0
    looked_at: int = 0  # keys that were pressed with something on the screen
    as_shown: int = 0  # of these, those it goes on with
    replies: Counter[str] = field(default_factory=Counter)
    times: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    work: list[Work] = field(default_factory=list)
    fates: dict[str, Fate] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """The figures of the table."""
        spent = sum(work.seconds for work in self.work)
        wasted = sum(work.seconds for work in self.work if not work.shown)
        shown = sum(self.replies[path] for path in ("known", "running", "engine"))
        return {
            "keys": self.keys,
            "accepted": self.accepted,
            "known_share_of_keys": _share(self.replies["known"], self.asked),
            "known_share_of_shown": _share(self.replies["known"], shown),
            "replies": dict(self.replies),
            "keys_with_something_shown": self.looked_at,
            "keys_as_shown": self.as_shown,
            "engine_requests": len(self.work),
            "engine_s": round(spent, 1),
            "engine_wasted_share": _share(wasted, spent),
            "fates": {name: fate.row() for name, fate in sorted(self.fates.items())},
            "flickers": self.flickers,
            "ms": {
                path: [round(_quantile(times, q), 1) for q in (0.5, 0.95)] + [len(times)]
                for path, times in sorted(self.times.items())
            },
        }


def together(all_figures: Sequence[Figures]) -> Figures:
    """The figures of several replays as one's."""
    total = Figures()
    for figures in all_figures:
        total.keys += figures.keys
        total.asked += figures.asked
        total.accepted += figures.accepted
        total.flickers += figures.flickers
        total.replies += figures.replies
        total.looked_at += figures.looked_at
        total.as_shown += figures.as_shown
        total.work += figures.work
        for name, fate in figures.fates.items():
            total.fates[name] = total.fates.get(name, Fate()) + fate
        for path, times in figures.times.items():
            total.times[path] += times
    return total


class Replay:
    """One recording, one session, and what stands on the screen."""

    def __init__(
        self, recording: Recording, make: Callable[[list[Work]], Engine], ahead: bool
    ) -> None:
        self.figures = Figures()
        self._recording = recording
        self._states = {text: number for number, text in enumerate(recording.texts())}
        self._session = Session(
            lambda settings, on_status: make(self.figures.work),
            lambda _: None,
            lambda _: None,
            around=Surroundings(thread=AtOnce()),
        )
        self._session.encoding = "utf-32"
        self._session.initialize({"askAhead": ahead})
        self._uri = ""
        self._text, self._cursor, self._version = "", 0, 0
        self._ghost = ""  # behind the cursor
        self._accepts: tuple[str, int] | None = None  # the text and cursor if it is accepted
        self._seen_at = 0.0
        self._asking: asyncio.Task[None] | None = None

    async def run(self, seconds: float = float("inf")) -> Figures:
        """Types what was recorded into one new document, and leaves."""
        await self.type(URI, seconds)
        await self._session.aclose()
        *_, final = self._recording.texts()
        self.figures.fates = fates(self.figures.work, final, self._session.settings.min_score)
        return self.figures

    async def type(self, uri: str, seconds: float = float("inf")) -> None:
        """Types what was recorded into a new document, in so many seconds at most."""
        loop = asyncio.get_running_loop()
        self._uri, self._text, self._cursor = uri, self._recording.start, 0
        self._session.open(uri, self._recording.language, self._version, self._text)
        begun, number, keys = loop.time(), 0, self._recording.keys
        due = begun
        while number < len(keys) and loop.time() - begun < seconds:
            key = keys[number]
            due = max(due + key.gap_ms / 1000, loop.time())
            if (then := self._wanted(number, due - loop.time())) is not None:
                await asyncio.sleep(max(0.0, self._seen_at + LOOK_S - loop.time()))
                number, due = then + 1, loop.time()
                self._accept()
                if self._asking is not None:
                    await asyncio.wait({self._asking})
                continue
            await asyncio.sleep(due - loop.time())
            self._press(key)
            number += 1
        if self._asking is not None:
            self._asking.cancel()
        self._hide()
        self._session.close(uri)

    def _wanted(self, number: int, pause: float) -> int | None:
        """The key after which the text is what accepting makes of it, if there is time to see."""
        loop = asyncio.get_running_loop()
        if self._accepts is None or loop.time() + pause < self._seen_at + LOOK_S:
            return None
        then = self._states.get(self._accepts[0], -1)
        return then if then >= number + 4 else None

    def _accept(self) -> None:
        assert self._accepts is not None, "asked only while something is shown"
        text, cursor = self._accepts
        self.figures.accepted += 1
        first = len(_common(self._text, text))
        behind = len(_common(self._text[first:][::-1], text[first:][::-1]))
        start = _position(self._text, first)
        end = _position(self._text, len(self._text) - behind)
        self._change(Edit(text[first : len(text) - behind], start, end))
        self._text, self._cursor = text, cursor
        self._hide()
        self._ask("after tab")

    def _press(self, key: Key) -> None:
        self.figures.keys += 1
        before, self._text = self._text, key.apply(self._text)
        typed = self._text[key.at : key.cursor]
        self.figures.looked_at += bool(self._ghost)
        if typed and key.at == self._cursor and self._ghost.startswith(typed):
            self.figures.as_shown += 1
            self._ghost = self._ghost[len(typed) :]  # what an editor does until it hears more
        else:
            self._hide()
        self._cursor = key.cursor
        if self._text != before or key.inserted:
            start, end = _position(before, key.at), _position(before, key.at + key.deleted)
            self._change(Edit(key.inserted, start, end))
            self._ask("")

    def _change(self, edit: Edit) -> None:
        self._version += 1
        self._session.change(self._uri, self._version, [edit])

    def _hide(self) -> None:
        self._ghost, self._accepts = "", None

    def _ask(self, path: str) -> None:
        if self._asking is not None:
            self._asking.cancel()
        self._asking = asyncio.create_task(self._show(path))

    async def _show(self, path: str) -> None:
        """Asks, and puts the answer on the screen."""
        loop = asyncio.get_running_loop()
        self.figures.asked += 1
        begun, requests = loop.time(), len(self.figures.work)
        busy = any(not work.seconds for work in self.figures.work)
        here = Snapshot(text=self._text, offset=self._cursor, uri=self._uri)
        ask = Ask(uri=self._uri, position=_position(self._text, self._cursor))
        completions = await self._session.complete(ask)
        took = 1000 * (loop.time() - begun)
        if completions is None:
            self.figures.replies["out of date"] += 1
            return
        if not completions:
            self.figures.replies["nothing"] += 1
            self._judge("")
            return
        asked = any(
            work.finished and here.prefix.endswith(work.tail)
            for work in self.figures.work[requests:]
        )
        way = "engine" if asked else "running" if busy and took > 5 else "known"
        self.figures.replies[way] += 1
        best = completions[0]
        line = here.line_left
        ghost = best.text.removeprefix(line)
        covered = best.end.character - len(line)
        size = "block" if "\n" in ghost else "line"
        self.figures.times[path or ("known" if way == "known" else size)].append(took)
        self._credit(here)
        self._judge(ghost)
        self._ghost, self._seen_at = ghost, self._seen_at if self._ghost == ghost else loop.time()
        self._accepts = (
            here.prefix + ghost + here.suffix[covered:],
            here.offset + len(ghost),
        )

    def _judge(self, ghost: str) -> None:
        """A flicker: what stands on the screen, typed as suggested, changes all the same."""
        self.figures.flickers += bool(self._ghost) and self._ghost != ghost
        if not ghost:
            self._hide()

    def _credit(self, here: Snapshot) -> None:
        """The newest finished work that could have led here was not in vain."""
        for work in reversed(self.figures.work):
            if work.finished and work.tail in here.prefix[-TAIL - LOOK_BACK :]:
                work.shown = True
                return


def _common(one: str, other: str) -> str:
    size = next(
        (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )
    return one[:size]


def _position(text: str, offset: int) -> Position:
    return Position(text.count("\n", 0, offset), offset - text.rfind("\n", 0, offset) - 1)


def _quantile(times: Sequence[float], q: float) -> float:
    return sorted(times)[min(len(times) - 1, int(q * len(times)))]


def _share(part: float, whole: float) -> float:
    return round(part / whole, 3) if whole else 0.0

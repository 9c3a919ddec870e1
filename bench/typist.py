"""Recordings of someone typing real source code into an editor, made by a seeded typist.

    python -m bench.typist SOURCE FIRST LAST [--seed N] > bench/recordings/NAME.json

Lines FIRST to LAST of a file are taken out and typed in again: with a person's rhythm, typing
errors and their correction, pauses, and looks elsewhere; the editor closes brackets and indents.
Knows nothing of completions.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

RECORDINGS = Path(__file__).parent / "recordings"
LANGUAGES = {".md": "markdown", ".py": "python", ".sh": "shellscript"}

_PAIRS = {"(": ")", "[": "]", "{": "}", '"': '"', "'": "'"}


class Key(NamedTuple):
    """One edit or move: what is at `at` loses `deleted` characters and gains `inserted`.

    `gap_ms` is the time since the key before; `cursor` is where the cursor is afterwards. Places
    are counted in characters.
    """

    gap_ms: int
    at: int
    deleted: int
    inserted: str
    cursor: int

    def apply(self, text: str) -> str:
        """The text after this key."""
        return text[: self.at] + self.inserted + text[self.at + self.deleted :]


@dataclass(frozen=True, slots=True)
class Recording:
    """A text and the keys that were typed into it."""

    name: str
    language: str
    start: str
    keys: tuple[Key, ...]

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Reads what `dump` wrote."""
        data = json.loads(path.read_text(encoding="utf-8"))
        keys = tuple(Key(*key) for key in data["keys"])
        return cls(path.stem, data["language"], data["start"], keys)

    def dump(self) -> str:
        """JSON, one line."""
        data = {"language": self.language, "start": self.start, "keys": self.keys}
        return json.dumps(data, separators=(",", ":"), ensure_ascii=False)

    def texts(self) -> Iterator[str]:
        """The text after each key."""
        text = self.start
        for key in self.keys:
            text = key.apply(text)
            yield text


@dataclass(slots=True)
class Typist:
    """Types into `text` at `cursor`, and writes down each key."""

    rng: random.Random
    text: str
    cursor: int
    keys: list[Key] = field(default_factory=list)
    pause_ms: float = 0.0

    def type(self, wanted: str) -> None:
        """Types the text, character by character."""
        lines = wanted.split("\n")
        for number, line in enumerate(lines):
            if number:
                self._enter(line)
            self._line(line)
            if number % 7 == 6:
                self._look_elsewhere()

    def _line(self, line: str) -> None:
        blanks = line[: len(line) - len(line.lstrip())]
        missing = blanks.removeprefix(self._indentation())
        if missing:
            self._press(0, missing)
        closers: list[tuple[str, int]] = []  # closed by the editor, with their place in the line
        for place in range(len(blanks), len(line)):
            char = line[place]
            if closers and closers[-1] == (char, place):
                closers.pop()
                self._press(1, char, back=0)  # typed over
            elif char in _PAIRS and (end := _closed_at(line, place)) is not None:
                closers.append((_PAIRS[char], end))
                self._press(0, char + _PAIRS[char], back=1)
            else:
                if char.isalpha() and self.rng.random() < 0.015:
                    self._slip(line[place : place + 3])
                self._press(0, char)
            if char == " " and self.rng.random() < 0.05:
                self.pause_ms += self.rng.uniform(500, 2500)

    def _enter(self, line: str) -> None:
        """The editor indents as the line above, unless the next one is blank or less deep."""
        above, own = self._indentation(), line[: len(line) - len(line.lstrip())]
        kept = above if line.strip() and own.startswith(above) else ""
        self.pause_ms += self.rng.expovariate(1 / 600)
        self._press(0, "\n" + kept)

    def _slip(self, rest: str) -> None:
        """A wrong letter, perhaps more before it is seen, and back."""
        more = rest[1 : 1 + self.rng.randrange(3)]
        wrong = self.rng.choice("abcdefghijklmnopqrstuvwxyz") + more
        for char in wrong:
            self._press(0, char)
        self.pause_ms += 200
        for _ in wrong:
            self.cursor -= 1
            self._press(1, "")

    def _look_elsewhere(self) -> None:
        here = self.cursor
        self.pause_ms += self.rng.uniform(800, 2000)
        self.cursor = self.rng.randrange(len(self.text))
        self._press(0, "")
        self.pause_ms += self.rng.uniform(500, 1500)
        self.cursor = here
        self._press(0, "")

    def _indentation(self) -> str:
        line = self.text[self.text.rfind("\n", 0, self.cursor) + 1 : self.cursor]
        return line[: len(line) - len(line.lstrip())]

    def _press(self, deleted: int, inserted: str, back: int = 0) -> None:
        gap = self.rng.lognormvariate(4.9, 0.4) + self.pause_ms  # the median is 134 ms
        self.pause_ms = 0.0
        at = self.cursor
        self.cursor = at + len(inserted) - back
        key = Key(round(gap), at, deleted, inserted, self.cursor)
        self.keys.append(key)
        self.text = key.apply(self.text)


def record(name: str, language: str, source: str, first: int, last: int, seed: int) -> Recording:
    """Lines `first` to `last` of the source, counted from 1, typed anew; raises ValueError."""
    lines = source.split("\n")
    if not 1 <= first <= last <= len(lines):
        raise ValueError(f"lines must be within 1 to {len(lines)}, got {first} to {last}")
    before = "".join(line + "\n" for line in lines[: first - 1])
    start = before + "\n".join(["", *lines[last:]])
    typist = Typist(random.Random(seed), start, len(before))
    typist.type("\n".join(lines[first - 1 : last]))
    assert typist.text == source, "what was typed is the source again"
    return Recording(name, language, start, tuple(typist.keys))


def _closed_at(line: str, place: int) -> int | None:
    """Where the pair opened at `place` is closed on the line, as an editor would close it."""
    opener, closer = line[place], _PAIRS[line[place]]
    behind = line[place + 1 :]
    if opener == closer:
        end = behind.find(closer)
        return place + 1 + end if end >= 0 and "\\" not in behind[:end] else None
    depth = 0
    for offset, char in enumerate(behind):
        if char in "\"'":
            return None  # brackets within strings are not told from others here
        depth += (char == opener) - (char == closer)
        if depth < 0:
            return place + 1 + offset
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    source = options.source.read_text(encoding="utf-8")
    language = LANGUAGES[options.source.suffix]
    name = options.source.stem
    recording = record(name, language, source, options.first, options.last, options.seed)
    sys.stdout.write(recording.dump() + "\n")


if __name__ == "__main__":
    main()

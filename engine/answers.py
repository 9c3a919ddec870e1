"""Earlier answers: what was written, or was being written, for the last few requests.

A request that continues an earlier one (somebody typed on, went back, or edited elsewhere) mostly
gets the rest of the earlier answer. What comes of that is the caller's: a draft to verify, the
first look of a canvas. Pure; knows nothing of tokens, models or requests.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

_TAIL = 120  # characters before the cursor by which a place is known
_TYPED = 40  # characters typed since, at most, that may differ from the answer


@dataclass(frozen=True, slots=True)
class Earlier:
    """What was answered where the cursor stood, `typed` characters ago."""

    text: str
    typed: str = ""

    @property
    def left(self) -> str:
        """What is left of the answer, as if its beginning had been typed over."""
        return self.text[len(self.typed) :]

    @property
    def rest(self) -> str:
        """What is left of it where it was typed as written; else nothing."""
        return self.left if self.text.startswith(self.typed) else ""


class Answers:
    """The last few answers, oldest first out."""

    def __init__(self, most: int = 8) -> None:
        self._kept: deque[tuple[str, str]] = deque(maxlen=most)  # the text before, and the answer

    def remember(self, prefix: str, text: str) -> None:
        """Keeps what was last answered behind `prefix`, finished or not."""
        before = prefix[-_TAIL - _TYPED :]
        if self._kept and self._kept[-1][0] == before:
            if self._kept[-1][1].startswith(text):
                return  # the same answer, not as far
            self._kept.pop()
        if text:
            self._kept.append((before, text))

    def find(self, prefix: str) -> Earlier | None:
        """The newest answer that goes on from `prefix`, else the newest that somebody typed over.

        An older one that goes on in the same way, and further, completes it. Behind a shorter
        prefix than before, what was taken back is part of the answer.
        """
        rest = ""
        for before, text in reversed(self._kept):
            whole = before + text
            place = _place(whole, len(before), prefix)
            if place is not None and whole.startswith(rest, place):
                rest = whole[place:]
        if rest:
            return Earlier(rest)
        for before, text in reversed(self._kept):
            for typed in range(1, min(_TYPED, len(prefix)) + 1):
                if before[-_TAIL:] == prefix[:-typed][-_TAIL:]:
                    return Earlier(text, prefix[-typed:])
        return None

    def clear(self) -> None:
        """Forgets all of them."""
        self._kept.clear()


def _place(whole: str, cursor: int, prefix: str) -> int | None:
    """Where the end of `prefix` ends in `whole`: typed on from `cursor`, else taken back from there."""
    tail = prefix[-_TAIL:]
    at = whole.find(tail, max(0, cursor - len(tail)))
    if at < 0:
        at = whole.rfind(tail)
    if at < 0 or (len(prefix) < _TAIL and at > 0):  # a file's beginning stands nowhere else
        return None
    return at + len(tail)

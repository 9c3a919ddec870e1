"""What the ids of a hole read as: without what was healed, cut where the text ends, and judged.

Knows one request and the tokenizer, nothing of models or caches.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from engine import confidence, endings
from engine.confidence import CALIBRATION
from engine.infill import Filled
from engine.request import Candidate, InfillRequest, StopReason
from engine.tokenizer import Tokenizer


class Wording:
    """Of one request, whose prompt ends before `healed`: that text is written anew, and taken off."""

    def __init__(self, request: InfillRequest, healed: str, tokenizer: Tokenizer) -> None:
        self._request = request
        self._healed = healed
        self._tokenizer = tokenizer

    def text(self, ids: Sequence[int]) -> str:
        """The text for the hole: what was written, without what was healed."""
        written = self._tokenizer.decode(ids)
        return written[len(self._healed) :] if written.startswith(self._healed) else ""

    def ids(self, text: str) -> tuple[int, ...]:
        """The ids of `text`, cut, with what is healed before it; nothing for nothing."""
        if not text:
            return ()
        return tuple(self._tokenizer.encode(self._healed + self.cut(text)[0]))

    def cut(self, text: str) -> tuple[str, StopReason | None]:
        """`text` up to where it ends, and why it ends there; None where nothing ends it."""
        request = self._request
        end = endings.find_end(text, request.suffix, single_line=request.single_line)
        return (text[: end[0]], end[1]) if end else (text, None)

    def read(self, ids: Sequence[int]) -> str:
        """The text for the hole, cut."""
        return self.cut(self.text(ids))[0]

    def stop(self, ids: Sequence[int]) -> StopReason | None:
        """Why nothing more is to be written after `ids`; None where there is."""
        return self.cut(self.text(ids))[1]

    def beginning(self, filled: Filled, text: str) -> Filled:
        """Of what was written, the ids that spell what was healed and the beginning `text`."""
        wanted = len(self._healed) + len(text)
        count = bisect_left(
            range(len(filled.ids)),
            wanted,
            key=lambda n: len(self._tokenizer.decode(filled.ids[:n])),
        )
        return filled.first(count)

    def candidate(self, filled: Filled, text: str) -> Candidate:
        """The beginning `text` of what was written, judged by the tokens that spell it."""
        evidence = confidence.evidence(self.beginning(filled, text))
        return Candidate(text=text, confidence=CALIBRATION.of(evidence), evidence=evidence)

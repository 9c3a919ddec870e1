"""WHAT can be shown again: answers whose acceptance would still lead to the same text.

An answer given at one place serves at every later place at which it has been typed in part: the
rest of it is the answer there, so that what is shown stands still while one types it. Closers
that an editor puts right of the cursor, or that one types over, change nothing of that. Texts are
kept as hashes, so that an entry costs the same in a long document. Knows nothing of the engine.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from dg_lsp.document import CLOSERS, Snapshot

ENTRIES = 200
LOOK_BACK = 128  # characters typed since an answer was given that is not on the screen

_CLOSERS = ")]}>\"'`"


@dataclass(frozen=True, slots=True)
class Offer:
    """Text to insert at the cursor, in place of `covered` characters right of it.

    `wanted` also by who did not ask.
    """

    text: str
    covered: int = 0
    wanted: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """What there is to show at one place, the best first."""

    offers: tuple[Offer, ...] = ()

    @property
    def unasked(self) -> Answer:
        """What of it is shown to who did not ask."""
        return Answer(tuple(offer for offer in self.offers if offer.wanted))


@dataclass(frozen=True, slots=True)
class _Entry:
    """An answer and its place; of each offer the length and hash of what follows it."""

    offset: int
    before: int
    answer: Answer
    behind: tuple[tuple[int, int], ...]


_Key = tuple[str, int, int]


class Cache:
    """The latest answers, the least recently used out first."""

    def __init__(self, entries: int = ENTRIES) -> None:
        self._most = entries
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._shown: dict[str, _Key] = {}  # by document, what stands on its screen

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, place: Snapshot) -> bool:
        """Whether `find` would find something, be it that there is nothing to show."""
        return self._search(place, unasked=False)[1] is not None

    def put(self, place: Snapshot, answer: Answer) -> None:
        """Keeps the answer given at `place`, even if there is nothing to show."""
        rests = [place.text[place.offset + offer.covered :] for offer in answer.offers]
        self._entries[_key(place)] = _Entry(
            offset=place.offset,
            before=hash(place.prefix),
            answer=answer,
            behind=tuple((len(rest), hash(rest)) for rest in rests),
        )
        while len(self._entries) > self._most:
            self._entries.popitem(last=False)

    def find(self, place: Snapshot, *, unasked: bool = False) -> Answer | None:
        """What is left to show at `place`, first of what is shown already; None if not known.

        To who did not ask, what is wanted. That nothing is, is known only where the engine was asked:
        who types on as it wrote gives it more to go by.
        """
        key, answer = self._search(place, unasked)
        if key is not None:
            self._entries.move_to_end(key)
            self._shown[place.uri] = key
        return answer

    def forget(self, uri: str) -> None:
        """Drops a document's answers."""
        self._shown.pop(uri, None)
        for key in [key for key in self._entries if key[0] == uri]:
            del self._entries[key]

    def clear(self) -> None:
        """Drops all answers."""
        self._entries.clear()
        self._shown.clear()

    def _search(self, place: Snapshot, unasked: bool) -> tuple[_Key | None, Answer | None]:
        shown = self._shown.get(place.uri)
        first = [shown] if shown is not None and shown in self._entries else []
        for key in first + list(reversed(self._entries)):
            entry = self._entries[key]
            near = key == shown or place.offset - entry.offset <= LOOK_BACK
            if key[0] == place.uri and near and (answer := _rest(entry, place)):
                answer = answer.unasked if unasked else answer
                if answer.offers:
                    return key, answer
        exact = _key(place)
        return (exact, Answer()) if exact in self._entries else (None, None)


def typed_since(old: Snapshot, new: Snapshot) -> str | None:
    """What was typed at the cursor of `old` to come to `new`; None if more than that changed.

    Closers right of the cursor may have come and gone meanwhile.
    """
    if old.uri != new.uri or old.offset > new.offset or old.prefix != new.text[: old.offset]:
        return None
    before, after = (place.suffix.lstrip(_CLOSERS) for place in (old, new))
    return new.text[old.offset : new.offset] if before == after else None


def _rest(entry: _Entry, place: Snapshot) -> Answer | None:
    """What is left of an answer where part of it has been typed; None where nothing fits."""
    if entry.offset > place.offset:
        return None
    typed = place.text[entry.offset : place.offset]
    offers = []
    for offer, (length, behind) in zip(entry.answer.offers, entry.behind, strict=True):
        rest, covered = offer.text.removeprefix(typed), len(place.text) - length - place.offset
        if not offer.text.startswith(typed) or not rest or covered < 0:
            continue
        end = place.offset + covered
        closers = "\n" not in (gone := place.text[place.offset : end]) and CLOSERS.fullmatch(gone)
        if closers and hash(place.text[end:]) == behind:
            offers.append(Offer(rest, covered, offer.wanted))
    if not offers or hash(place.text[: entry.offset]) != entry.before:
        return None
    return Answer(tuple(offers))


def _key(place: Snapshot) -> _Key:
    return place.uri, place.offset, hash(place.text)

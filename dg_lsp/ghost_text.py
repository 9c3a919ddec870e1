"""WHAT is shown: turns the engine's text into the ghost text, or into nothing.

Each filter is a pure function of the text and the snapshot it was asked for; they run in the
order of FILTERS, and an empty text means nothing to show. Knows nothing of LSP or the engine.
"""

from __future__ import annotations

from collections.abc import Callable

from dg_lsp.document import LINE_END, Snapshot

Filter = Callable[[str, Snapshot], str]

_OPENERS = {")": "(", "]": "[", "}": "{"}
_QUOTES = "\"'`"


def apply(text: str, snapshot: Snapshot) -> str:
    """What of the engine's `text` to insert at the snapshot's cursor; empty for nothing."""
    for keep in FILTERS:
        text = keep(text, snapshot)
    return text


def covered(text: str, snapshot: Snapshot) -> int:
    """How many characters right of the cursor the completion writes anew.

    These are the closers an editor put there, when the text closes the same and goes on, as in
    `print(║)` filled with `x) or y`.
    """
    closers = snapshot.line_right.rstrip()
    first = LINE_END.split(text, maxsplit=1)[0]
    rest = iter(first)
    if snapshot.mid_line or not all(char in rest for char in "".join(closers.split())):
        return 0
    line_now = snapshot.line_left + snapshot.line_right
    closes = _imbalance(snapshot.line_left + first) <= _imbalance(line_now)
    return len(closers) if closes else 0


def unify_newlines(text: str, snapshot: Snapshot) -> str:
    """The filters behind this one see LF only."""
    return LINE_END.sub("\n", text)


def keep_one_line(text: str, snapshot: Snapshot) -> str:
    """In the middle of a line, what follows the first line would tear the line apart."""
    return text.partition("\n")[0] if snapshot.mid_line else text


def drop_repeated_suffix(text: str, snapshot: Snapshot) -> str:
    """Drops the longest end of the text with which the suffix begins, blanks aside.

    Or which begins with all of the suffix, when the text runs on past the document's end.
    """
    anew = covered(text, snapshot) if "\n" in text else 0
    behind = snapshot.offset + (len(snapshot.line_right) if anew else 0)
    # Blanks are left out of the comparison, so look further than the text is long.
    ahead = LINE_END.sub("\n", snapshot.text[behind : behind + 4 * len(text) + 1000])
    head, _ = _without_blanks(ahead)
    whole = head.rstrip("\n") if head.startswith("\n") else ""
    tail, places = _without_blanks(text)
    for start, place in enumerate(places):
        repeats = head.startswith(tail[start:]) or (whole and tail.startswith(whole, start))
        if repeats and _may_end_at(place, text, ahead, snapshot):
            # A single line left over covers no closers, so it is compared once more.
            return drop_repeated_suffix(text[:place], snapshot) if anew else text[:place]
    return text


def strip_trailing_blanks(text: str, snapshot: Snapshot) -> str:
    """Blanks at the end are noise, unless code follows right behind the cursor."""
    if snapshot.mid_line and not snapshot.line_right[0].isspace():
        return text
    return text.rstrip()


def drop_invisible(text: str, snapshot: Snapshot) -> str:
    """Text without a visible character is nothing to show."""
    return text if any(c.isprintable() and not c.isspace() for c in text) else ""


def use_document_newlines(text: str, snapshot: Snapshot) -> str:
    """Lines end as the document's lines do."""
    return text.replace("\n", snapshot.newline)


FILTERS: tuple[Filter, ...] = (
    unify_newlines,
    keep_one_line,
    strip_trailing_blanks,
    drop_repeated_suffix,
    strip_trailing_blanks,  # again: of what is left
    drop_invisible,
    use_document_newlines,
)


def _without_blanks(text: str) -> tuple[str, list[int]]:
    """The text without blanks, a run of line ends as one; and the place of each character."""
    kept: list[str] = []
    places: list[int] = []
    for place, char in enumerate(text):
        if not char.isspace() or (char == "\n" and kept[-1:] != ["\n"]):
            kept.append(char)
            places.append(place)
    return "".join(kept), places


def _may_end_at(place: int, text: str, ahead: str, snapshot: Snapshot) -> bool:
    """Whether what lies behind `place` really is what comes `ahead` in the document.

    A line is if it is as far indented. The rest of a line is not if it would cut a word in two
    or drop a bracket that closes one of the completion's own.
    """
    if text[place] == "\n":
        return _first_indent(text[place:]) == _first_indent(ahead)
    if place and _is_word(text[place - 1]) and _is_word(text[place]):
        return False
    left, right = snapshot.line_left, snapshot.line_right
    return _imbalance(left + text[:place] + right) <= _imbalance(left + text + right)


def _first_indent(text: str) -> int:
    line = next((line for line in text.split("\n") if line.strip()), "").expandtabs(4)
    return len(line) - len(line.lstrip())


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"


def _imbalance(text: str) -> int:
    """How many brackets and quotes have no partner; strings and comments are not told apart."""
    open_brackets: list[str] = []
    unmatched = sum(text.count(quote) % 2 for quote in _QUOTES)
    for char in text:
        if char in _OPENERS.values():
            open_brackets.append(char)
        elif char in _OPENERS:
            if open_brackets and open_brackets[-1] == _OPENERS[char]:
                open_brackets.pop()
            else:
                unmatched += 1
    return unmatched + len(open_brackets)

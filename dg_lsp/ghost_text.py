"""WHAT is shown: turns the engine's text into the ghost text, or into nothing.

Each filter is a pure function of the text and the snapshot it was asked for; they run in the
order of FILTERS, and an empty text means nothing to show. Knows nothing of LSP or the engine.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from dg_lsp import brackets, indentation, repetition
from dg_lsp.document import LINE_END, Snapshot, whole_characters
from dg_lsp.syntax import Window, window

Filter = Callable[[str, Snapshot], str]

_MOST_CHARS = 20_000
_CLOSERS = ")]}\"'`"
_CLOSER_LINE = re.compile(r"\s*(?:[)\]}]+|(?:end|fi|done|esac)\b)[;,)]*\s*")
_GOES_ON = re.compile(
    r"\s*[)\]}]*\s*(?:else|elif|elsif|elseif|except|finally|catch|rescue|ensure|when|case|default)\b"
)


def apply(text: str, snapshot: Snapshot) -> str:
    """What of the engine's `text` to insert at the snapshot's cursor; empty for nothing."""
    for keep in FILTERS:
        text = keep(text, snapshot)
    return text


def covered(text: str, snapshot: Snapshot) -> int:
    """How many characters right of the cursor the completion writes anew.

    These are the closers an editor put there, when the text closes the same and goes on, as in
    `print(║)` filled with `x) or y`. A closer whose partner stands before the cursor is not
    written anew by one whose partner the text itself opens.
    """
    closers = snapshot.line_right.rstrip()
    if snapshot.mid_line or not closers:
        return 0
    first = LINE_END.split(text, maxsplit=1)[0]
    if closers[-1] not in _CLOSERS and not first.rstrip().endswith(closers[-1]):
        return 0
    here = window(snapshot)
    earlier = set(here.closes_earlier(first))
    has_partner = len(here.state().stack) >= sum(char in brackets.OPENERS for char in closers)
    place = 0
    for char in "".join(closers.split()):
        place = first.find(char, place)
        while place >= 0 and char in _CLOSERS and has_partner and place not in earlier:
            place = first.find(char, place + 1)
        if place < 0:
            return 0
        place += 1
    left = snapshot.line_left
    line_now = brackets.scan(left + snapshot.line_right, snapshot.language)
    line_then = brackets.scan(left + first, snapshot.language)
    return len(closers) if line_then.imbalance <= line_now.imbalance else 0


def replace_lone_surrogates(text: str, snapshot: Snapshot) -> str:
    """JSON can carry them, but neither a parser nor an editor takes them; documents have none."""
    return whole_characters(text)


def drop_endless(text: str, snapshot: Snapshot) -> str:
    """More than any hole holds is no answer, and the filters would be long at it."""
    return text if len(text) <= _MOST_CHARS else ""


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


def drop_near_copy(text: str, snapshot: Snapshot) -> str:
    """Drops lines at the end that are nearly the document's next ones."""
    lines = text.split("\n")
    after = window(snapshot).after.split("\n")[1:]
    ahead = [line for line in after[: 2 * len(lines) + 2] if line.strip()]
    for start in range(len(lines)):
        said = [line for line in lines[start:] if line.strip()]
        if start == 0 and said:
            said[0] = snapshot.line_left + said[0]
        if not said or len(said) > len(ahead):
            continue
        if repetition.is_near_copy(said, ahead[: len(said)]):
            return "\n".join(lines[:start])
    return text


def cut_repetition(text: str, snapshot: Snapshot) -> str:
    """Drops the further turns of a model that is caught in a loop."""
    first, *others = text.split("\n")
    lines = [repetition.without_loop_in_line(line) for line in (first, *others)]
    *before, left = window(snapshot).before.split("\n")
    start = repetition.loop_start(before, [left + lines[0], *lines[1:]])
    return "\n".join(lines if start is None else lines[:start])


def stop_at_scope(text: str, snapshot: Snapshot) -> str:
    """Ends the text where it leaves the block that the cursor is in, or that it begins."""
    here = window(snapshot)
    lines = text.split("\n")
    begun = bool(here.line_left.strip()) and indentation.opens_block(here.line_left + lines[0])
    outer = here.line_left or next((line for line in lines if line.strip()), "")
    base, deeper, blank = indentation.width(outer), False, False
    depth, end = len(here.state().stack), len(lines[0])
    for line in lines[1:]:
        state = here.state(text[: end + 1])
        if not line.strip():
            blank = True
        elif not state.inside and len(state.stack) <= depth:
            own = indentation.width(line)
            starts = end + 1 + len(line) - len(line.lstrip())
            leaves = own < base or (
                deeper
                and own == base
                and (
                    (begun and not _GOES_ON.match(line))
                    or (blank and (base == 0 or here.starts_definition(text, starts)))
                )
            )
            if leaves and not (_GOES_ON.match(line) and own >= base):
                return _with_closer(text, end, line, here)
            deeper, blank = deeper or own > base, False
        elif indentation.width(line) > base:
            deeper = True
        end += 1 + len(line)
    return text


def balance_brackets(text: str, snapshot: Snapshot) -> str:
    """Closes what the text opened and left open; drops what closes more than is open."""
    here = window(snapshot)
    if here.imbalance(text) <= here.imbalance() or covered(text, snapshot):
        return text
    own = here.state(text).stack[len(here.state().stack) :]
    if own and _body_follows(text, here):
        return text
    if own and not here.state(text).inside:
        closed = _closed(text, own, here)
        if here.imbalance(closed) <= here.imbalance():
            return closed
    if here.language == "shellscript":
        return text  # a `case` closes what nothing opened
    for place in here.closes_earlier(text):
        kept = text[:place].rstrip()
        if kept.strip() and here.imbalance(kept) <= here.imbalance():
            return kept
    return text


def fit_indentation(text: str, snapshot: Snapshot) -> str:
    """Indents as the document does, and where it has no block yet, as the editor would."""
    here = window(snapshot)
    before = here.before.split("\n")
    left = here.line_left
    document = indentation.unit([*before, *here.after.split("\n")], indentation.lead(left))
    document = document or snapshot.unit
    first, *others = text.split("\n")
    if not left.strip() and first.strip():
        above = next((line for line in reversed(before[:-1]) if line.strip()), "")
        if not indentation.opens_block(above) and len(left + indentation.lead(first)) > len(
            max(left, indentation.lead(above), key=len)
        ):
            first = first.lstrip(" \t")
    if not others or here.state(first).inside:
        return "\n".join([first, *others])
    return "\n".join(indentation.adopt([first, *others], indentation.lead(left + first), document))


def drop_broken(text: str, snapshot: Snapshot) -> str:
    """Drops lines from the end until the rest brings no error into the syntax tree."""
    here = window(snapshot)
    if covered(text, snapshot):
        return text
    while text.strip() and here.breaks(text):
        text = text.rpartition("\n")[0].rstrip()
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
    drop_endless,
    replace_lone_surrogates,
    unify_newlines,
    keep_one_line,
    strip_trailing_blanks,
    drop_repeated_suffix,
    drop_near_copy,
    cut_repetition,
    stop_at_scope,
    strip_trailing_blanks,
    balance_brackets,
    fit_indentation,
    drop_broken,
    strip_trailing_blanks,  # again: of what is left
    drop_invisible,
    use_document_newlines,
)


def _with_closer(text: str, end: int, line: str, here: Window) -> str:
    """The text up to `end`, or with the closing `line` where nothing else closes the block."""
    kept, closed = text[:end], text[: end + 1 + len(line)]
    found = _CLOSER_LINE.match(line)
    if found is None:
        return kept
    closed = closed[: end + 1 + found.end()].rstrip()
    if here.imbalance(closed) < here.imbalance(kept):
        return closed
    if line.strip()[0].isalpha() and here.breaks(kept) and not here.breaks(closed):
        return closed
    return kept


def _body_follows(text: str, here: Window) -> bool:
    """Whether the document goes on with the inside of what the text ends by opening."""
    line = (here.line_left + text).rpartition("\n")[2]
    below = next((line for line in here.after.split("\n")[1:] if line.strip()), "")
    return indentation.width(below) > indentation.width(line)


def _closed(text: str, own: str, here: Window) -> str:
    """The text with its `own` open brackets closed, a block's on a line of its own."""
    places = brackets.open_places(text, here.language, here.state())
    for opener, place in zip(reversed(own), reversed(places), strict=False):
        if opener == "{" and "\n" in text and not text.rstrip().endswith("{"):
            start = text.rfind("\n", 0, place) + 1
            line = text[start:place] if start else here.line_left + text[:place]
            text = f"{text.rstrip()}\n{indentation.lead(line)}}}"
        else:
            text += brackets.CLOSERS[opener]
    return text


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
    here = window(snapshot)
    return here.imbalance(text[:place]) <= here.imbalance(text)


def _first_indent(text: str) -> int:
    return indentation.width(next((line for line in text.split("\n") if line.strip()), ""))


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"

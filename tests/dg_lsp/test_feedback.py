"""A document, what is shown in it, and what is then done to its text."""

import pytest

from dg_lsp.document import Document, Edit, Position
from dg_lsp.feedback import Feedback

AFTER = "  x = call(one, two)"
BLOCK = "if x:\n    one()\n    two()"


class Desk:
    """Line 1 is what is completed; the cursor is where the last edit ended."""

    def __init__(self, text):
        self.document = Document(
            f"first\n{text}\nlast",
            uri="file:///a.py",
            language="python",
            version=1,
            encoding="utf-8",
        )
        self.place = Position(1, len(text))
        self.records = []
        self.timers = []
        self.feedback = Feedback(
            lambda event, **figures: self.records.append((event, figures)),
            lambda seconds, call: self.timers.append((seconds, call)),
        )

    def offer(self, *texts):
        return self.feedback.offered(self.document, 1, texts, 12.34)

    def edit(self, text, start=None, end=None):
        edit = Edit(text, start or self.place, end or start or self.place)
        self.document.apply([edit], self.document.version + 1)
        *above, last = text.split("\n")
        line = self.place.line + len(above)
        self.place = Position(line, len(last) + (0 if above else self.place.character))
        self.feedback.changed(self.document, [edit])

    def type(self, text):
        for character in text:
            self.edit(character)

    def outcomes(self):
        return [
            (figures["how"], figures["accepted"], figures.get("typed", 0))
            for event, figures in self.records
            if event == "outcome"
        ]


def test_an_answer_counts_as_shown_once_with_its_wait_and_length():
    desk = Desk("  x = ")
    ids = desk.offer(AFTER, "  x = call")
    assert len(set(ids)) == 2
    assert desk.offer(AFTER, "  x = call") == ids
    assert desk.records == [("shown", {"language": "python", "ms": 12.3, "chars": 14})]


def test_text_that_comes_at_once_was_accepted_whole():
    desk = Desk("  x = ")
    desk.offer(AFTER)
    desk.edit("call(one, two)")
    assert desk.outcomes() == [("full", 14, 0)]


def test_an_editor_that_replaces_the_line_accepts_as_well():
    desk = Desk("  x = ")
    desk.offer(AFTER)
    desk.edit(AFTER, Position(1, 0), Position(1, 6))
    assert desk.outcomes() == [("full", 14, 0)]


def test_a_block_is_accepted_over_several_lines():
    desk = Desk("if")
    desk.offer(BLOCK)
    desk.edit(BLOCK[2:])
    assert desk.outcomes() == [("full", len(BLOCK) - 2, 0)]


def test_what_comes_letter_by_letter_was_typed():
    desk = Desk("  x = ")
    desk.offer(AFTER)
    desk.type("call(one, two)")
    assert desk.outcomes() == [("typed", 0, 14)]


def test_a_bracket_with_its_partner_is_typing():
    desk = Desk("  x = ")
    desk.offer("  x = f()")
    desk.type("f")
    desk.edit("()")
    assert desk.outcomes() == [("typed", 0, 3)]


def test_word_by_word_and_then_another_way_is_partial():
    desk = Desk("  x = ")
    desk.offer(AFTER)
    desk.edit("call(")
    desk.offer(AFTER)  # asked again, the same is shown
    desk.edit("one")
    desk.type(")")
    assert desk.outcomes() == [("partial", 8, 1)]  # the other way was typed


def test_a_part_typed_and_the_rest_accepted_is_whole_and_counts_each():
    desk = Desk("  x = ")
    desk.offer(AFTER)
    desk.type("ca")
    desk.edit("ll(one, two)")
    assert desk.outcomes() == [("full", 12, 2)]


def test_the_shorter_of_two_alternatives_can_be_the_one_accepted():
    desk = Desk("if")
    desk.offer(BLOCK, "if x:")
    desk.edit(" x:")
    assert desk.outcomes() == [("full", 3, 0)]


@pytest.mark.parametrize("leave", ["type", "delete", "elsewhere", "close", "other", "nothing"])
def test_what_is_left_has_no_outcome_and_what_was_taken_before_is_partial(leave):
    desk, taken = Desk("  x = "), Desk("  x = ")
    for each in (desk, taken):
        each.offer(AFTER)
    taken.edit("call(")
    for each in (desk, taken):
        match leave:
            case "type":
                each.type("z")
            case "delete":
                each.edit("", Position(1, 2), Position(1, 6))
            case "elsewhere":
                each.edit("z", Position(0, 0))
            case "close":
                each.feedback.closed(each.document.uri)
            case "other":
                each.offer("  x = other")
            case "nothing":
                each.offer()
        assert each.document.uri not in each.feedback._watched or leave == "other"
    assert desk.outcomes() == []
    assert [outcome[:2] for outcome in taken.outcomes()] == [("partial", 5)]


def test_what_an_editor_says_is_believed_and_counted_once():
    desk = Desk("  x = ")
    (id_,) = desk.offer(AFTER)
    desk.feedback.accepted(id_)
    desk.edit("call(one, two)")
    desk.feedback.accepted(id_)
    assert desk.outcomes() == [("full", 14, 0)]


def test_an_editor_may_say_how_much_was_taken():
    desk = Desk("  x = ")
    (id_,) = desk.offer(AFTER)
    desk.feedback.accepted_in_part(id_, 4)
    desk.feedback.rejected(id_)
    assert desk.outcomes() == [("partial", 4, 0)]


def test_what_is_done_away_with_was_rejected():
    desk = Desk("  x = ")
    (id_,) = desk.offer(AFTER)
    desk.feedback.rejected(id_)
    assert desk.outcomes() == [("rejected", 0, 0)]


def test_a_client_that_reports_what_it_shows_is_not_credited_with_more():
    desk = Desk("  x = ")
    (first,) = desk.offer(AFTER)
    desk.feedback.shown(first)
    (second,) = desk.offer("  x = second")
    desk.offer("  x = third")
    desk.feedback.shown(second)  # it has gone already
    assert len(desk.records) == 1
    (fourth,) = desk.offer("  x = fourth")
    desk.feedback.shown(fourth)
    desk.feedback.shown(fourth)
    assert [event for event, _ in desk.records] == ["shown", "shown"]


@pytest.mark.parametrize("nonsense", [None, 7, "", "gone", ["x"], {}])
def test_identities_that_mean_nothing_are_passed_over(nonsense):
    desk = Desk("  x = ")
    desk.offer(AFTER)
    for tell in (desk.feedback.shown, desk.feedback.accepted, desk.feedback.rejected):
        tell(nonsense)
    desk.feedback.accepted_in_part(nonsense, nonsense)
    assert desk.outcomes() == []


def test_typing_counts_and_pasting_does_not():
    desk = Desk("")
    desk.type("abc")
    desk.edit("pasted from somewhere")
    desk.offer("abcpasted from somewhere else")
    assert desk.records[0][1]["typed"] == 3


def test_what_is_kept_is_measured_later_line_by_line():
    desk = Desk("if")
    desk.offer(BLOCK)
    desk.edit(BLOCK[2:])
    desk.edit("moved\n", Position(0, 0))
    desk.edit("three", Position(4, 4), Position(4, 7))
    assert [seconds for seconds, _ in desk.timers] == [15, 120, 600]
    desk.timers[0][1]()
    assert desk.records[-1] == ("retained", {"after_s": 15, "kept": 7, "of": 12, "typed": 11})


def test_no_record_has_text():
    desk = Desk("  x = ")
    desk.offer(AFTER)
    desk.edit("call(one, two)")
    for _, call in desk.timers:
        call()
    assert not any(word in str(desk.records) for word in ("call", "one", "first"))

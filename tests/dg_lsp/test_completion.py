"""How a completion is put into an editor's list; where it goes is tested with the session."""

import pytest

from dg_lsp.completion import Completion, menu_entry
from dg_lsp.document import Position


def entry(text, typed, end=None, encoding="utf-8"):
    """The entry for a completion behind `typed`, on line 3; the end is `typed`'s if none is given."""
    widths = {
        "utf-8": lambda t: len(t.encode()),
        "utf-16": lambda t: len(t.encode("utf-16-le")) // 2,
    }
    place = Position(3, widths.get(encoding, len)(typed))
    completion = Completion(text=text, start=Position(3, 0), end=end or place)
    return menu_entry(completion, place, encoding), place


@pytest.mark.parametrize(
    ("typed", "word"),
    [("  x = nam", "nam"), ("  x = ", ""), ("a.", ""), ("a.b_1", "b_1"), ("", ""), ("é", "é")],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_an_entry_begins_with_the_word_by_which_the_list_is_filtered(typed, word, encoding):
    found, place = entry(typed + "e(1)", typed, encoding=encoding)
    assert found.text == word + "e(1)"
    before, _ = entry(typed, typed[: len(typed) - len(word)], encoding=encoding)
    assert (found.start, found.end) == (before.end, place)


def test_characters_beyond_the_16_bits_count_as_the_client_counts_them():
    found, _ = entry("😀 = nam", "😀 = na", encoding="utf-16")
    assert (found.text, found.start) == ("nam", Position(3, 5))


def test_closers_that_are_written_anew_are_replaced():
    found, _ = entry("f(x) + y)", "f(", end=Position(3, 3))
    assert (found.text, found.start, found.end) == ("x) + y)", Position(3, 2), Position(3, 3))


@pytest.mark.parametrize(
    ("added", "label"),
    [
        (" x:\n    return x", "if x: …"),
        (" x", "if x"),
        ("\r\n    y", "if …"),
    ],
)
def test_the_label_is_the_first_line_and_says_whether_more_follows(added, label):
    assert entry(f"if{added}", "if")[0].label == label


def test_the_label_of_a_text_that_begins_with_a_line_end_is_its_first_words():
    assert entry("):\n    pass", "):")[0].label == "pass …"


def test_a_line_of_a_megabyte_is_searched_once():
    found, _ = entry(
        "a" * 1_000_000 + " é 😀b" + "c", "a" * 1_000_000 + " é 😀b", encoding="utf-16"
    )
    assert (found.text, found.start) == ("bc", Position(3, 1_000_005))

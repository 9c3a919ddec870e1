import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dg_lsp import document as document_module
from dg_lsp.document import Document, Edit, Position, Snapshot, units

ENCODINGS = ("utf-8", "utf-16", "utf-32")
# Few characters, so that line ends meet often; each kind that has ever been split wrongly.
ALPHABET = "ab é😀\r\n\f\v\x85\x1c\u2028\u2029"
texts = st.text(ALPHABET, max_size=30)
encodings = st.sampled_from(ENCODINGS)


def document(text, encoding="utf-16"):
    return Document(text, uri="file:///a.py", language="python", version=1, encoding=encoding)


def at(drawn, **fields):
    """A snapshot whose cursor is drawn in the text."""
    left, _, right = drawn.partition("║")
    return Snapshot(text=left + right, offset=len(left), **fields)


class NaiveText:
    """The client's side, slow and plain: code units in a list, lines counted each time."""

    def __init__(self, text, encoding):
        self.encoding = encoding
        self.units = self.to_units(text)

    def to_units(self, text):
        if self.encoding == "utf-32":
            return list(text)
        codec, width = {"utf-8": ("utf-8", 1), "utf-16": ("utf-16-le", 2)}[self.encoding]
        raw = text.encode(codec)
        return [raw[i : i + width] for i in range(0, len(raw), width)]

    def to_text(self, units):
        if self.encoding == "utf-32":
            return "".join(units)
        codec = {"utf-8": "utf-8", "utf-16": "utf-16-le"}[self.encoding]
        return b"".join(units).decode(codec)

    @property
    def text(self):
        return self.to_text(self.units)

    def lines(self):
        """(start, end of the content) of each line, in units."""
        newline, carriage = self.to_units("\n")[0], self.to_units("\r")[0]
        lines, start, i = [], 0, 0
        while i < len(self.units):
            if self.units[i] in (newline, carriage):
                lines.append((start, i))
                if self.units[i] == carriage and self.units[i + 1 : i + 2] == [newline]:
                    i += 1
                start = i + 1
            i += 1
        return [*lines, (start, len(self.units))]

    def index(self, position):
        lines = self.lines()
        if position.line >= len(lines):
            return len(self.units)
        start, end = lines[position.line]
        return min(start + position.character, end)

    def edit(self, edit):
        start, end = sorted((self.index(edit.start), self.index(edit.end)))
        self.units[start:end] = self.to_units(edit.text)


def positions(data, naive):
    """A position that does not split a character; sometimes behind the end of a line or file."""
    lines = naive.lines()
    line = data.draw(st.integers(0, len(lines)))
    if line == len(lines):
        return Position(line, data.draw(st.integers(0, 5)))
    start, end = lines[line]
    content = naive.to_text(naive.units[start:end])
    column = data.draw(st.integers(0, len(content)))
    beyond = data.draw(st.sampled_from([0, 0, 0, 3])) if column == len(content) else 0
    return Position(line, units(content[:column], naive.encoding) + beyond)


@given(texts, encodings, st.data())
def test_any_edits_leave_the_text_equal_to_the_clients(text, encoding, data):
    naive, store = NaiveText(text, encoding), document(text, encoding)
    for version in range(2, data.draw(st.integers(3, 6))):
        edit = Edit(data.draw(texts), positions(data, naive), positions(data, naive))
        naive.edit(edit)
        store.apply([edit], version)
        assert store.text == naive.text
        assert store.version == version
        assert store._lengths == document(naive.text)._lengths
        if data.draw(st.booleans()):
            store.rest()


@given(texts, encodings, st.data())
def test_a_position_becomes_the_offset_of_the_same_place(text, encoding, data):
    naive = NaiveText(text, encoding)
    position = positions(data, naive)
    snapshot = document(text, encoding).snapshot(position)
    if position.line == len(naive.lines()):
        assert snapshot is None
        return
    assert snapshot.prefix == naive.to_text(naive.units[: naive.index(position)])
    assert snapshot.prefix + snapshot.suffix == text
    start, end = naive.lines()[position.line]
    assert units(snapshot.line_left, encoding) == min(position.character, end - start)
    assert snapshot.line_left + snapshot.line_right == naive.to_text(naive.units[start:end])


@given(st.text(st.characters(categories=("Cs", "Lu", "So")), max_size=12), encodings)
@example("\ud83d", "utf-16")
@example("\ude00\ud83d", "utf-16")
def test_lone_surrogates_keep_their_length_and_never_break_the_text(text, encoding):
    store = document("x", encoding)
    store.apply([Edit(text, Position(0, 1), Position(0, 1))], 2)
    store.text.encode("utf-8")
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert store.text == "x" + joined
    assert units(store.text, "utf-16") == 1 + len(text.encode("utf-16-le", "surrogatepass")) // 2


def test_an_edit_within_a_surrogate_pair_keeps_the_client_and_us_in_step():
    store = document("a😀b\nc")
    store.apply([Edit("x", Position(0, 2), Position(0, 2))], 2)
    assert store.text == "a\ufffdx\ufffdb\nc"
    assert store.snapshot(Position(0, 2)).line_right == "x\ufffdb"


def test_a_cursor_within_a_character_means_the_place_before_it():
    assert document("a😀b").snapshot(Position(0, 2)).line_left == "a"
    assert document("aéb", "utf-8").snapshot(Position(0, 2)).line_left == "a"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [""]),
        ("a", ["a"]),
        ("a\n", ["a\n", ""]),
        ("a\rb\r\nc\nd", ["a\r", "b\r\n", "c\n", "d"]),
        ("a\fb\x85c\u2028d\x1ce\n", ["a\fb\x85c\u2028d\x1ce\n", ""]),
        ("\r\r\n\n", ["\r", "\r\n", "\n", ""]),
    ],
)
def test_lines_end_at_lf_crlf_and_cr_only(text, lines):
    store = document(text)
    assert [store.lines(number, 1) for number in range(len(store._lengths))] == lines


def test_a_line_feed_typed_behind_a_carriage_return_makes_one_line_end():
    store = document("a\rb")
    store.apply([Edit("\n", Position(1, 0), Position(1, 0))], 2)
    assert store.text == "a\r\nb"
    assert store.snapshot(Position(1, 0)).line_right == "b"


def test_positions_swapped_or_behind_the_end_are_put_right():
    store = document("one\ntwo")
    store.apply([Edit("X", Position(0, 3), Position(0, 1))], 2)
    assert store.text == "oX\ntwo"
    store.apply([Edit("!", Position(9, 9), Position(9, 9))], 3)
    assert store.text == "oX\ntwo!"
    store.apply([Edit("?", Position(0, 99), Position(0, 99))], 4)
    assert store.text == "oX?\ntwo!"


def test_edits_of_one_change_are_made_one_after_the_other():
    store = document("abc")
    place = Position(0, 0)
    store.apply([Edit("x\n", place, place), Edit("y", Position(1, 0), Position(1, 1))], 2)
    assert store.text == "x\nybc"
    store.apply([Edit("new")], 3)
    assert store.text == "new"


def test_a_keystroke_splits_the_changed_line_only(monkeypatch):
    store = document("line\n" * 50_000)
    store.snapshot(Position(0, 0))
    split, original = [], document_module._lengths
    monkeypatch.setattr(
        document_module, "_lengths", lambda text: split.append(text) or original(text)
    )
    store.apply([Edit("x", Position(25_000, 2), Position(25_000, 2))], 2)
    assert split == ["lixne\n"]


def test_a_document_that_nobody_edits_takes_no_more_than_its_text():
    text = "line\n" * 50_000
    tracemalloc.start()
    stores = [document(text + str(number)) for number in range(4)]
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 1.1 * sum(len(store.text) for store in stores)


def test_a_document_at_rest_takes_less_and_is_the_same():
    text = "".join(f"    x{number} = function(é😀, {number})\r\n" for number in range(1000))
    store = document(text)
    store.snapshot(Position(9, 0))
    tracemalloc.start()
    store.wake()
    store.rest()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < len(text) / 2
    assert store.text == text
    store.apply([Edit("y", Position(0, 0), Position(0, 0))], 2)
    assert store.text == "y" + text


def test_a_short_text_at_rest_stays_as_it_is():
    text = "x = 1"
    store = document(text)
    store.rest()
    assert store.text is text


@pytest.mark.parametrize(
    ("drawn", "left", "right", "indent"),
    [
        ("║", "", "", ""),
        ("a\n\t b║c\r\nd", "\t b", "c", "\t "),
        ("a\r║", "", "", ""),
        ("a\r\n║  b\u2028c\r", "", "  b\u2028c", "  "),
    ],
)
def test_a_snapshot_knows_the_cursors_line(drawn, left, right, indent):
    snapshot = at(drawn)
    assert (snapshot.line_left, snapshot.line_right, snapshot.indent) == (left, right, indent)


@pytest.mark.parametrize(
    ("text", "newline"), [("a", "\n"), ("a\nb\r\n", "\n"), ("a\r\nb\n", "\r\n"), ("a\rb\n", "\r")]
)
def test_a_snapshot_takes_the_first_line_end_for_the_documents(text, newline):
    assert Snapshot(text=text, offset=0).newline == newline


@pytest.mark.parametrize("right", ["", "  ", ")", " )]}", '")', "):", ");", "},", "`>", " {"])
def test_closers_behind_the_cursor_are_not_the_middle_of_a_line(right):
    assert not at(f"f(║{right}\nx = 1").mid_line


@pytest.mark.parametrize("right", ["x", ", b)", "+ 1", ") + 1", ".foo()", ");;"])
def test_code_behind_the_cursor_is_the_middle_of_a_line(right):
    assert at(f"f(║{right}\n").mid_line


def test_code_behind_very_many_blanks_is_found_at_once():
    assert at("f(║" + " " * 1_000_000 + "x").mid_line
    assert not at("f(║" + " " * 1_000_000 + ")" + " " * 1_000_000).mid_line


def test_a_place_before_the_line_is_its_start():
    for text in ("a\nb", "a\né"):
        assert document(text).snapshot(Position(1, -5)).offset == 2

import itertools

import pytest

from dg_lsp import context
from dg_lsp.context import Budget
from dg_lsp.document import Snapshot
from dg_lsp.retrieval import JUMP_LINES, Retrieval

SHAPES = '''class Square(Shape):
    """Four equal sides."""

    def area(self, unit: str) -> float:
        """How large it is."""
        return self.side**2


def paint(shape: Shape, colour: str, *, layers: int = 1) -> None:
    """Covers the shape."""
    shape.covered = colour
'''
USER = "from shapes import paint\n\n\ndef decorate(house):\n    ║\n"


def at(drawn, uri="user.py", version=0, language="python"):
    left, _, right = drawn.partition("║")
    return Snapshot(
        text=left + right,
        offset=len(left),
        uri=uri,
        path=uri,
        language=language,
        version=version,
    )


def numbered(lines, line, name="value"):
    """A text of that many different lines, with the cursor at the end of one."""
    text = [f"{name}_{i} = compute_{name}_{i}(first_{i}, second_{i})" for i in range(lines)]
    text[line] += "║"
    return "\n".join(text) + "\n"


def retrieval(**files):
    found = Retrieval()
    for name, text in files.items():
        found.update(f"{name}.py", "python", text)
    return found


def room(chars):
    """A budget with `chars` for what is retrieved."""
    budget = Budget(before=3000, context=3 * chars // 2)
    assert budget.retrieved == chars
    return budget


def texts(found, snapshot, chars=2000):
    return [chunk.text for chunk in found.look(snapshot, room(chars))]


def test_an_imported_function_comes_with_its_head_and_docstring():
    (chunk,) = retrieval(shapes=SHAPES).look(at(USER), room(2000))
    assert chunk.path == "shapes.py"
    assert chunk.text == (
        "def paint(shape: Shape, colour: str, *, layers: int = 1) -> None:\n"
        '    """Covers the shape."""'
    )


def test_a_used_name_is_found_without_an_import():
    found = retrieval(shapes=SHAPES)
    assert "class Square(Shape):" in texts(found, at("x = Square(║)\n"))[0]


def test_what_stands_near_the_cursor_is_not_said_again():
    found = retrieval(shapes=SHAPES, user=USER.replace("║", "pass"))
    own = at(SHAPES.replace("covered", "covered║"), uri="shapes.py")
    assert texts(found, own) == []
    assert texts(found, at(SHAPES + "\npaint(║)", uri="copy.py")) == []


def test_an_imported_name_wins_over_a_used_one_and_a_near_one_over_a_far_one():
    one = "def target_one(value):\n    pass\n"
    two = "def target_two(value):\n    pass\n"
    three = "def target_three(value):\n    pass\n"
    found = retrieval(one=one, two=two, three=three)
    drawn = (
        "from one import target_one\n"
        + "x = target_three(0)\n"
        + "y = 1\n" * 50
        + "target_two(║)\n"
    )
    fits = len("def target_one(value):") + 4
    assert texts(found, at(drawn), fits) == ["def target_one(value):"]
    assert texts(found, at(drawn), 2 * fits) == ["def target_one(value):", "def target_two(value):"]


@pytest.mark.parametrize("module", ["shapes", "walls"])
def test_the_file_that_is_imported_wins_among_those_that_define_a_name(module):
    found = retrieval(shapes="def paint(shape):\n    pass\n", walls="def paint(walls):\n    pass\n")
    (chunk,) = found.look(at(USER.replace("shapes", module)), room(24))
    assert chunk.path == f"{module}.py"


def test_a_name_that_everything_defines_says_nothing():
    files = {f"m{i}": "def run(value):\n    pass\n" for i in range(9)}
    assert texts(retrieval(**files), at("run(║)\n")) == []


@pytest.mark.parametrize("chars", [0, 30, 100, 400, 2000])
def test_the_chunks_keep_within_their_room(chars):
    found = retrieval(
        shapes=SHAPES, **{f"m{i}": f"def name_{i}(a, b, c):\n    pass\n" for i in range(40)}
    )
    for line in range(0, 400, 100):
        found.visit(at(numbered(400, line), version=line))
    found.settle()
    drawn = (
        "from shapes import *\n" + "".join(f"name_{i}(Square, paint)\n" for i in range(40)) + "║"
    )
    assert sum(len(text) + 2 for text in texts(found, at(drawn), chars)) <= chars


def test_a_place_one_has_jumped_away_from_comes_back_after_a_pause():
    found = Retrieval()
    found.visit(at(numbered(300, 250)))
    here = at(numbered(300, 10))
    found.visit(here)
    assert texts(found, here, 9000) == []
    found.settle()
    (text,) = texts(found, here, 9000)
    assert text.count("\n") == 63 and "value_250 = " in text and "value_10 = " not in text


def test_a_small_move_leaves_nothing_behind():
    found = Retrieval()
    found.visit(at(numbered(300, 250)))
    here = at(numbered(300, 250 - JUMP_LINES))
    found.visit(here)
    found.settle()
    assert texts(found, here, 9000) == []


@pytest.mark.parametrize("leave", ["other file", "saving", "closing"])
def test_leaving_saving_and_closing_keep_the_place(leave):
    found = Retrieval()
    found.visit(at(numbered(100, 50, "old"), uri="old.py"))
    if leave == "saving":
        found.saved("old.py")
    if leave == "closing":
        found.closed("old.py")
    here = at(numbered(100, 50, "new"), uri="new.py")
    found.visit(here)
    found.settle()
    assert "old_50 = " in "".join(texts(found, here, 9000))


def test_what_is_on_the_screen_beside_the_cursors_document_comes_after_a_pause():
    found = Retrieval()
    here = at(numbered(100, 50, "new"), uri="new.py")
    found.visit(here)
    found.seen(at(numbered(100, 50, "beside"), uri="beside.py"))
    found.seen(at(numbered(100, 90, "new"), uri="new.py"))
    assert texts(found, here, 9000) == []
    found.settle()
    (text,) = texts(found, here, 9000)
    assert "beside_50 = " in text and "beside_99 = " not in text


def test_what_is_much_like_the_cursors_window_is_left_out():
    found = Retrieval()
    found.visit(at(numbered(100, 50, "same"), uri="old.py"))
    here = at(numbered(100, 99, "same"), uri="new.py")
    found.visit(here)
    found.settle()
    assert texts(found, here, 9000) == []


def test_recent_edits_elsewhere_come_along():
    found = Retrieval()
    for version in range(3):
        found.visit(at(numbered(60, 30, "old"), uri="old.py", version=version))
    here = at(USER)
    found.visit(here)
    (text,) = texts(found, here, 800)
    assert "old_30 = " in text and text.count("\n") == 9


def test_the_latest_edit_of_a_place_replaces_the_earlier():
    found = Retrieval()
    for version in range(30):
        drawn = numbered(60, 30, "old").replace("║", f"  # {'x' * version}║")
        found.visit(at(drawn, uri="old.py", version=version))
    here = at(USER)
    found.visit(here)
    (text,) = texts(found, here, 800)
    assert "# " + "x" * 29 in text


def test_definitions_come_last_and_places_first():
    found = retrieval(shapes=SHAPES)
    for version in range(2):
        found.visit(at(numbered(300, 30, "edit"), uri="edit.py", version=version))
    found.visit(at(numbered(300, 200, "place"), uri="place.py"))
    here = at(USER)
    found.visit(here)
    found.settle()
    order = [chunk.path for chunk in found.look(here, room(20_000))]
    assert order == ["edit.py", "place.py", "edit.py", "shapes.py"]


def test_a_forgotten_file_is_given_nowhere():
    found = retrieval(shapes=SHAPES)
    for version in range(2):
        found.visit(at(numbered(100, 50, "old"), uri="shapes.py", version=version))
    here = at(USER)
    found.visit(here)
    found.settle()
    assert texts(found, here, 9000)
    found.forget("shapes.py")
    assert texts(found, here, 9000) == []


def test_when_time_is_up_it_goes_without():
    ticks = itertools.count()
    found = Retrieval(clock=lambda: next(ticks) * 0.03)
    found.update("shapes.py", "python", SHAPES)
    for version in range(2):
        found.visit(at(numbered(100, 50, "old"), uri="old.py", version=version))
    here = at(USER)
    found.visit(here)
    assert [chunk.path for chunk in found.look(here, room(9000))] == ["shapes.py"]


def test_a_document_without_a_path_or_too_large_is_not_indexed():
    found = Retrieval()
    found.update("", "python", SHAPES)
    found.update("big.py", "python", SHAPES + "x = 1\n" * 20_000)
    assert len(found.index) == 0


def test_a_request_with_all_of_it_keeps_the_budget():
    found = retrieval(shapes=SHAPES)
    for line in (30, 200, 30, 200):
        found.visit(at(numbered(300, line, "old"), uri="old.py", version=line))
    body = "".join(f"    house.name_{i} = paint(Square, {i})\n" for i in range(900))
    here = at("from shapes import paint\n\n\ndef decorate(house):\n" + body + "    ║\n")
    found.visit(here)
    for budget in (context.CPU, context.GPU):
        chunks = found.look(here, budget)
        request = context.build(here, context.Settings(), chunks, budget)
        size = len(request.prefix) + sum(len(chunk.text) + 2 for chunk in request.context)
        assert size <= budget.before
        assert [chunk.path for chunk in request.context][-2:] == ["shapes.py", "user.py"]


def test_several_lines_put_in_at_once_are_kept_and_fewer_are_not():
    found = Retrieval()
    found.pasted("old.py", "one = two\nthree = four\nfive = six")
    found.pasted("old.py", "first = 1\nsecond = 2\nthird = 3\nfourth = 4")
    found.settle()
    assert texts(found, at(USER), 9000) == ["first = 1\nsecond = 2\nthird = 3\nfourth = 4"]


def test_of_much_that_is_put_in_64_lines_are_kept():
    found = Retrieval()
    found.pasted("old.py", numbered(900, 0))
    found.settle()
    (text,) = texts(found, at(USER), 9000)
    assert text.count("\n") == 63


def test_the_place_that_one_comes_to_is_kept_too():
    found = Retrieval()
    found.visit(at(USER))
    found.visit(at(numbered(300, 250, "new"), uri="new.py"))
    here = at(numbered(300, 20, "new"), uri="new.py")
    found.settle()
    assert "new_250 = " in "".join(texts(found, here, 9000))


def test_what_stands_in_the_prompt_anyway_is_no_chunk():
    """Places of the file itself, far enough for the ring and near enough for the prefix."""
    found = Retrieval()
    found.visit(at(numbered(300, 130)))
    here = at(numbered(300, 200))
    found.visit(here)
    found.settle()
    near = Budget(before=20_000, context=8000, suffix=4000)
    assert found.look(here, near) == ()
    short = Budget(before=2000, context=8000)
    assert "value_130 = " in "".join(chunk.text for chunk in found.look(here, short))

import pytest

from dg_lsp.document import Document, Position
from dg_lsp.notebook import Notebook, kernel_language, widened


def document(uri, text, language="python"):
    return Document(text, uri=uri, language=language, version=1, encoding="utf-8")


CELLS = [
    document("a", "import x\r\n"),
    document("b", "# Prose", "markdown"),
    document("c", "y = \r\nz"),
    document("d", "ls", "shellscript"),
    document("e", "last"),
]
BOOK = Notebook("book", "python", [cell.uri for cell in CELLS])
DOCUMENTS = {cell.uri: cell for cell in CELLS}


def test_code_before_and_behind_comes_around_the_cell():
    place = DOCUMENTS["c"].snapshot(Position(0, 4))
    wide = widened(place, BOOK, DOCUMENTS.get)
    assert wide.prefix == "import x\r\n\r\n\r\ny = "
    assert wide.suffix == "\r\nz\r\n\r\nlast"
    assert (wide.line_left, wide.line_right) == (place.line_left, place.line_right)


def test_a_cell_of_another_language_sees_its_own_kind():
    place = DOCUMENTS["b"].snapshot(Position(0, 2))
    assert widened(place, BOOK, DOCUMENTS.get) == place


def test_cells_that_are_not_open_and_places_elsewhere_change_nothing():
    place = DOCUMENTS["a"].snapshot(Position(0, 0))
    assert widened(place, BOOK, {"a": DOCUMENTS["a"]}.get) == place
    assert widened(place, Notebook("other", "python", ["e"]), DOCUMENTS.get) == place


def test_cells_are_put_in_taken_out_and_moved():
    book = Notebook("book", "", ["a", "b", "c"])
    book.splice(1, 1, ["x", "y"])
    assert book.cells == ["a", "x", "y", "c"]
    book.splice(9, 2, ["end"])
    assert book.cells == ["a", "x", "y", "c", "end"]


@pytest.mark.parametrize(
    ("metadata", "language"),
    [
        ({"language_info": {"name": "python"}}, "python"),
        ({"kernelspec": {"language": "julia"}}, "julia"),
        ({"language_info": {"name": "r"}, "kernelspec": {"language": "R"}}, "r"),
        ({"metadata": {"kernelspec": {"language": "python"}}}, "python"),
        ({"language_info": 3, "metadata": []}, ""),
        (None, ""),
        ([], ""),
    ],
)
def test_the_kernels_language_is_found_where_notebooks_have_it(metadata, language):
    assert kernel_language(metadata) == language

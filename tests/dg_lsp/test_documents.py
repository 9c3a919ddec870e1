from dg_lsp.document import Document, Edit, Position
from dg_lsp.documents import AWAKE, Documents

LONG = "some_value = function(argument)\n" * 100


def document(number, text=LONG):
    uri = f"file:///{number}.py"
    return Document(text, uri=uri, language="python", version=1, encoding="utf-16")


def filled(count):
    every = [document(number) for number in range(count)]
    documents = Documents()
    for one in every:
        documents.put(one)
    return documents, every


def awake(every):
    """The numbers of those whose text is at hand: it is the same object each time."""
    return {number for number, one in enumerate(every) if one.text is one.text}


def test_the_latest_used_are_awake_and_no_others():
    documents, every = filled(AWAKE + 3)
    assert awake(every) == set(range(3, AWAKE + 3))
    assert documents.get(every[0].uri) is every[0]
    assert awake(every) == {0, *range(4, AWAKE + 3)}


def test_all_keep_their_text_through_rest_and_edits():
    documents, every = filled(3 * AWAKE)
    for number, one in enumerate(every):
        found = documents.get(one.uri)
        found.apply([Edit(str(number), Position(1, 0), Position(1, 0))], 2)
    first, rest = LONG.split("\n", 1)
    assert [one.text for one in documents] == [
        f"{first}\n{number}{rest}" for number in range(len(every))
    ]


def test_what_is_removed_or_replaced_is_gone():
    documents, (one, other) = filled(2)
    documents.remove(one.uri)
    documents.remove("file:///never.py")
    newer = document(1, "x")
    documents.put(newer)
    assert list(documents) == [newer]
    assert documents.get(one.uri) is None
    assert documents.get(other.uri) is newer

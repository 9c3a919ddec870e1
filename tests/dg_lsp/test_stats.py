import json
import multiprocessing

import pytest

from dg_lsp.stats import Statistics


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "statistics.jsonl"


def add_many(path, name, count):
    book = Statistics(path)
    for number in range(count):
        book.add("shown", ms=number, language=name)


def test_a_line_is_json_with_its_time_and_figures(path):
    Statistics(path, clock=lambda: 7.9).add("shown", ms=12.5)
    assert path.read_text() == '{"at": 7, "event": "shown", "ms": 12.5}\n'


def test_several_servers_lose_no_line_of_each_other(path):
    context = multiprocessing.get_context("spawn")
    names = ["a", "b", "c"]
    workers = [context.Process(target=add_many, args=(path, name, 60)) for name in names]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    lines = [line for line in map(json.loads, path.read_text().splitlines()) if "ms" in line]
    for name in names:
        assert [line["ms"] for line in lines if line["language"] == name] == list(range(60))


def test_the_file_stays_small_and_keeps_the_newest_whole_lines(path):
    book = Statistics(path, max_bytes=2000)
    for number in range(500):
        book.add("shown", ms=number)
        assert path.stat().st_size <= 2000
    kept = [line["ms"] for line in book.read()]
    assert kept == list(range(kept[0], 500)) and len(kept) > 10
    assert [file.name for file in path.parent.iterdir() if file.suffix == ".new"] == []


def test_what_is_no_line_of_ours_is_passed_over(path):
    book = Statistics(path)
    book.add("shown", ms=1)
    with path.open("a") as file:
        file.write('{"half\n[1]\n\x00\n{"event": 1}\n')
    book.add("shown", ms=2)
    assert [line["ms"] for line in book.read()] == [1, 2]


def test_a_file_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").touch()
    book = Statistics(tmp_path / "file" / "statistics.jsonl")
    book.add("shown", ms=1)
    assert (book.read(), book.delete()) == ([], False)


def test_deleting_says_whether_there_was_anything(path):
    book = Statistics(path)
    book.add("shown", ms=1)
    assert [book.delete(), book.delete()] == [True, False]
    assert not path.exists()

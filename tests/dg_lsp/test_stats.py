import json
import multiprocessing
import re

import pytest

from dg_lsp import cli
from dg_lsp.stats import Statistics, report, summary


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "statistics.jsonl"


def add_many(path, name, count):
    book = Statistics(path)
    for number in range(count):
        book.add("shown", ms=number, language=name)
    while book._pending:  # what found the file locked goes with the next line
        book.add("end")


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


LINES = [
    *({"at": 5, "event": "shown", "ms": ms} for ms in range(101)),
    {"at": 6, "event": "outcome", "how": "full", "accepted": 30, "typed": 5},
    {"at": 6, "event": "outcome", "how": "partial", "accepted": 10},
    {"at": 6, "event": "outcome", "how": "typed", "accepted": 0, "typed": 5},
    {"at": 6, "event": "outcome", "how": "rejected", "accepted": 0},
    {"at": 7, "event": "retained", "after_s": 15, "kept": 40, "of": 40},
    {"at": 8, "event": "retained", "after_s": 600, "kept": 5, "of": 20},
    {"at": 8, "event": "retained", "after_s": 600, "kept": 5, "of": 20},
]


def test_the_summary_counts_shares_and_quantiles():
    assert summary(LINES) == {
        "since": 5,
        "shown": 101,
        "rejected": 1,
        "accepted": {"full": 1, "partial": 1, "typed": 1},
        "acceptance": round(2 / 101, 3),
        "completed_share": 0.8,
        "retained_after_s": {15: 1.0, 600: 0.25},
        "latency_ms": {"p50": 50.0, "p95": 95.0},
    }


def test_the_report_says_it_in_words(path):
    text = report(summary(LINES), path)
    assert "shown      101\n" in text
    assert "1 whole, 1 in part (2 %); 1 typed as shown" in text
    assert "100 % after 15 s, 25 % after 600 s" in text
    assert "80 % of what was written" in text
    assert re.search(r"p50 50 ms, p95 95 ms", text)


def test_without_figures_the_report_says_so(path):
    assert report(summary([]), path) == f"no statistics yet (in {path})\n"
    assert "latency    p50 3 ms" in report(summary([LINES[3]]), path)


def test_the_command_shows_and_deletes_them(path, monkeypatch, capsys):
    monkeypatch.setenv("DG_LSP_STATISTICS", str(path))
    Statistics().add("shown", ms=1)
    assert cli.run(["stats"]) == 0
    assert "shown      1\n" in capsys.readouterr().out
    assert cli.run(["stats", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["shown"], figures["path"]) == (1, str(path))
    assert [cli.run(["stats", "--delete"]) for _ in range(2)] == [0, 0]
    assert capsys.readouterr().out == f"deleted {path}\nthere are no statistics\n"


def test_the_command_says_when_it_cannot_delete(path, monkeypatch, capsys):
    monkeypatch.setenv("DG_LSP_STATISTICS", str(path))
    path.mkdir(parents=True)
    assert cli.run(["stats", "--delete"]) == 1
    assert capsys.readouterr().err.startswith(f"dg-lsp: {path} cannot be deleted: ")

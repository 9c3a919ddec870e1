import json
import re

import pytest

from dg_lsp import cli
from dg_lsp.stats import Statistics
from dg_lsp.stats_report import report, summary


@pytest.fixture
def path(tmp_path):
    return tmp_path / "statistics.jsonl"


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

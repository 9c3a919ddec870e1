"""The page of figures: bars are as long as their values, and nothing in it can run."""

import re
from pathlib import Path

import pytest

from dg_lsp.stats_page import page
from dg_lsp.stats_report import summary

AT = 1_700_000_000
LINES = [
    *({"at": AT, "event": "shown", "ms": ms} for ms in (100, 100, 100, 400)),
    {"at": AT, "event": "outcome", "how": "full", "accepted": 30},
    {"at": AT, "event": "outcome", "how": "rejected", "accepted": 0},
    {"at": AT, "event": "retained", "after_s": 15, "kept": 9, "of": 10},
]


def bar(html: str, name: str) -> tuple[int, str]:
    """A bar's length in pixels, and what is written beside it."""
    found = re.search(rf'>{name}</text><rect [^>]*width="(\d+)"[^>]*/><text [^>]*>([^<]*)<', html)
    assert found, f"no bar for {name}"
    return int(found[1]), found[2]


@pytest.mark.parametrize(
    ("name", "length", "shown"),
    [
        ("shown", 260, "4"),
        ("accepted whole", 65, "1"),
        ("accepted in part", 0, "0"),
        ("of what was shown, accepted", 65, "25%"),
        ("after 15 s", 234, "90%"),
        ("95 % within", 260, "355 ms"),
        ("half of them within", 73, "100 ms"),
    ],
)
def test_a_bar_is_as_long_as_its_value_and_the_value_stands_beside_it(name, length, shown):
    assert bar(page(summary(LINES), Path("/f")), name) == (length, shown)


def test_what_is_not_known_is_a_dash():
    html = page(summary([{"at": AT, "event": "shown"}]), Path("/f"))
    assert bar(html, "half of them within") == (0, "–")


def test_without_figures_the_page_says_so():
    html = page(summary([]), Path("/f"))
    assert "No figures yet" in html and "<svg" not in html


def test_a_path_cannot_become_markup_and_no_script_runs():
    html = page(summary(LINES), Path('/<script>&"'))
    assert "<script" not in html and "&lt;script&gt;&amp;&quot;" in html
    assert "default-src 'none'" in html

import pytest

from bench import report


def row(system="copy", split="1 line", cluster="a", length=10, exact=True, passed=None, **other):
    scores = {"exact": exact, "similarity": 0.5, "parses": True, "passed": passed}
    return {
        "hole": "h",
        "system": system,
        "split": split,
        "language": "python",
        "cluster": cluster,
        "length": length,
        "raw": scores,
        "shown": scores | {"exact": True},
        "forwards": 4,
        "tokens": 8,
        "ms": 100.0,
        "decode_ms": 60.0,
        "mode": "causal",
        "error": "",
        **other,
    }


def test_figures_are_means_by_split_and_system():
    rows = [row(exact=i < 3, cluster=str(i), ms=100.0 * i) for i in range(5)]
    _, figures = report.of([*rows, row(system="engine", exact=False)], "sealed")
    copy = figures["splits"]["1 line"]["copy"]
    assert copy["exact_raw"][0] == pytest.approx(0.6)
    assert copy["exact_shown"][0] == 1
    assert copy["exact_raw"][1] < 0.6 < copy["exact_raw"][2]
    assert (copy["forwards"], copy["tokens_per_forward"]) == (4, 2)
    assert (copy["ms_p50"], copy["ms_p95"], copy["decode_ms_p50"]) == (200, 380, 60)
    assert figures["splits"]["1 line"]["engine"]["exact_raw"][0] == 0


def test_pass_at_1_is_over_the_holes_with_unit_tests():
    assert report.summary([row(), row()])["passed_raw"] is None
    found = report.summary([row(passed=True), row(passed=False, cluster="b"), row()])
    assert found["passed_raw"][0] == pytest.approx(0.5)


def test_holes_of_one_function_are_one_cluster():
    assert report.summary([row(), row(), row(cluster="b")])["clusters"] == 2


@pytest.mark.parametrize(
    ("characters", "name"),
    [(1, "1-15"), (15, "1-15"), (16, "16-40"), (250, "101-250"), (251, "over 250")],
)
def test_lengths_fall_into_buckets(characters, name):
    assert report.length_bucket(characters) == name


def test_the_buckets_stand_in_the_order_of_length():
    _, figures = report.of([row(length=300), row(length=5), row(length=50)], "sealed")
    assert list(figures["lengths"]) == ["1-15", "41-100", "over 250"]


def test_the_table_has_a_line_for_each_split_and_system():
    text, _ = report.of([row(), row(system="engine", passed=True)], "sealed")
    table = [line for line in text.splitlines() if line.startswith("| 1 line")]
    assert len(table) == 2
    assert table[0].count("|") == table[1].count("|")
    assert "| copy | 1 | 100.0 [21-100] | 100.0 [21-100] |  |  | 50.0 | 50.0 |" in table[0]
    assert "| engine | 1 | 100.0 [21-100] | 100.0 [21-100] | 100.0 [21-100] |" in table[1]
    assert "sealed" in text


def test_languages_have_a_table_where_there_are_several():
    text, figures = report.of([row(), row(language="go", exact=False)], "sealed")
    assert figures["languages"]["go"]["copy"]["exact_raw"][0] == 0
    table = text.partition("### By language")[2]
    assert "| python | copy | 1 |" in table
    assert "| go | copy | 1 |" in table
    assert "By language" not in report.of([row()], "sealed")[0]


def told_and_not(told, not_told, **other):
    """Rows of a diffusion model for holes where the oracle and the plain fill were right or not."""
    rows = []
    for i, pair in enumerate(zip(told, not_told, strict=True)):
        for system, right in zip(("oracle m", "engine m"), pair, strict=True):
            here = {"hole": str(i), "cluster": str(i), "mode": "diffusion", **other}
            rows.append(row(system=system, exact=right, **here))
    return rows


def test_what_knowing_the_length_is_worth_is_told_by_split_and_length():
    rows = told_and_not([True, True, True, False], [True, False, False, False])
    text, figures = report.of([row(hole="0"), *rows], "sealed")
    found = figures["gaps"]["splits"]["1 line"]["m"]
    assert found["holes"] == 4
    oracle, unknown, (gap, low, high) = found["exact_raw"]
    assert (oracle, unknown, gap) == (0.75, 0.25, 0.5)
    assert low < 0.5 < high
    assert found["passed_raw"] is None
    assert found["exact_shown"][2][0] == 0
    assert figures["gaps"]["lengths"]["1-15"]["m"] == found
    table = text.partition("### The length of the hole known (oracle) or not, by split")[2]
    assert "| 1 line | m | 4 | raw | 75.0 | 25.0 | +50.0 [" in table
    assert "| 1 line | m | 4 | shown | 100.0 | 100.0 | +0.0 [" in table
    assert "| 1-15 | m | 4 | raw |" in table.partition("### The same by characters")[2]


def test_only_the_same_way_of_filling_is_compared_with_the_oracle():
    others = [row(system="engine m", hole="0", mode="fim"), row(system="causal m", hole="0")]
    oracle = row(system="oracle m", hole="0", mode="diffusion")
    text, figures = report.of([*others, oracle], "sealed")
    assert figures["gaps"] == {"splits": {}, "lengths": {}}
    assert "oracle)" not in text
    asked = row(system="diffusion m", hole="0", mode="diffusion", exact=False)
    _, figures = report.of([*others, oracle, asked], "sealed")
    assert figures["gaps"]["splits"]["1 line"]["m"]["exact_raw"][:2] == [1, 0]


def test_answers_that_failed_are_told_with_the_reason():
    text, _ = report.of([row(error="too long"), row(error="too long"), row()], "sealed")
    assert "2 answers of copy failed: too long" in text

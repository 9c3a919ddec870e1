import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import metrics


def test_a_fill_is_exact_but_for_blanks_at_its_end():
    assert metrics.exact("a + b  \n", "a + b")
    assert not metrics.exact(" a + b", "a + b")
    assert metrics.exact("", "\n")


def test_similarity_is_one_minus_the_share_of_edits():
    assert metrics.similarity("abcd", "abxd") == pytest.approx(0.75)
    assert metrics.similarity("abc", "abc\n") == 1
    assert metrics.similarity("", "abc") == 0


def test_a_fill_parses_if_it_adds_no_error_of_its_own():
    good = "def f(x):\n    return x\n"
    assert metrics.parses(good, good, "python")
    assert not metrics.parses("def f(x):\n    return (x\n", good, "python")
    broken = "def g(:\n    pass\n"
    assert metrics.parses(broken + good, broken + good, "python")
    assert not metrics.parses(broken + "def f(x):\n    return x +\n", broken + good, "python")


def test_each_language_has_its_own_syntax():
    good = "fn f(x: u8) -> u8 { x }\n"
    assert metrics.parses(good, good, "rust")
    assert not metrics.parses("fn f(x: u8) -> u8 { x\n", good, "rust")
    assert metrics.errors(good, "python") > 0


def test_a_missing_token_is_an_error_too():
    assert metrics.errors("def f(x)\n    return x\n", "python") > 0
    assert metrics.errors("def f(x):\n    return 'é'\n", "python") == 0


def test_independent_values_have_wilsons_interval():
    found = metrics.mean([1.0] * 20 + [0.0] * 80, [str(i) for i in range(100)])
    assert found.value == pytest.approx(0.2)
    # Wilson's interval of 20 in 100, by hand: 0.1334 to 0.2888.
    assert (found.low, found.high) == (
        pytest.approx(0.134, abs=2e-3),
        pytest.approx(0.289, abs=2e-3),
    )
    assert (found.n, found.clusters) == (100, 100)


def test_values_alike_within_a_cluster_widen_the_interval():
    values = [1.0] * 20 + [0.0] * 80
    alone = metrics.mean(values, [str(i) for i in range(100)])
    together = metrics.mean(values, [str(i // 10) for i in range(100)])
    assert together.high - together.low > 2 * (alone.high - alone.low)
    ten = metrics.mean([1.0] * 2 + [0.0] * 8, [str(i) for i in range(10)])
    assert (together.low, together.high) == (pytest.approx(ten.low), pytest.approx(ten.high))


def test_a_mean_of_zero_keeps_an_interval():
    found = metrics.mean([0.0] * 30, [str(i % 10) for i in range(30)])
    assert found.low == 0
    assert found.high == pytest.approx(0.2775, abs=1e-3)  # of 0 in 10 clusters


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5)), min_size=1, max_size=40))
def test_an_interval_holds_its_mean_within_0_and_1(pairs):
    found = metrics.mean([v for v, _ in pairs], [str(c) for _, c in pairs])
    assert 0 <= found.low <= found.value + 1e-9
    assert found.value - 1e-9 <= found.high <= 1


def test_a_difference_of_pairs_has_agrestis_and_mins_interval():
    # 12 pairs differ one way and 4 the other: (8 ± 1.96 sqrt(17 - 8² / 52)) / 52, by hand.
    pairs = [(1, 0)] * 12 + [(0, 1)] * 4 + [(1, 1)] * 34
    found = metrics.difference(pairs, [str(i) for i in range(50)])
    assert found.value == pytest.approx(0.16)
    assert found.low == pytest.approx(0.0042, abs=2e-3)
    assert found.high == pytest.approx(0.3035, abs=2e-3)


def test_where_no_pair_differs_the_difference_keeps_an_interval():
    found = metrics.difference([(1, 1)] * 10, [str(i) for i in range(10)])
    assert found.value == 0
    assert -0.3 < found.low < -0.1
    assert found.high == pytest.approx(-found.low)


def test_pairs_alike_within_a_cluster_widen_the_interval():
    pairs = [(1, 0)] * 20 + [(0, 0)] * 80
    alone = metrics.difference(pairs, [str(i) for i in range(100)])
    together = metrics.difference(pairs, [str(i // 10) for i in range(100)])
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_percentiles_lie_between_neighbours():
    assert metrics.percentile([3.0, 1.0, 2.0], 50) == 2
    assert metrics.percentile([1.0, 2.0], 50) == 1.5
    assert metrics.percentile(list(range(101)), 95) == 95
    assert metrics.percentile([7.0], 95) == 7

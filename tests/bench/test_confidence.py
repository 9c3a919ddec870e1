"""The report on the engine's confidence, on answers that are known to be as right as they say."""

import math
import random

import pytest

from bench import confidence


@pytest.mark.parametrize(
    ("text", "rest", "right"),
    [
        ("a + b", "a + b\nc\n", True),
        ("a + b  ", "a + b\nc\n", True),  # blanks at the end aside
        ("a\nb", "a\nb\nc\n", True),
        ("a", "a + b\n", True),  # right as far as it goes
        ("a", "abc\n", False),  # but not within a word
        ("a)", "a))\n", True),
        ("b", "a + b\n", False),
        ("", "a\n", False),
    ],
)
def test_a_text_is_right_if_what_stood_there_goes_on_with_it(text, rest, right):
    assert confidence.stands(text, rest) is right


def test_auc_is_the_share_of_pairs_in_order():
    assert confidence.auc([0.9, 0.5, 0.1], [True, False, False]) == 1.0
    assert confidence.auc([0.1, 0.5, 0.9], [True, False, False]) == 0.0
    assert confidence.auc([0.5, 0.5, 0.1], [True, False, False]) == 0.75


def made(count, bias, slope, seed):
    """Texts that are right as often as a curve of that bias and slope says."""
    draws = random.Random(seed)
    surprises = [draws.uniform(0, 6) for _ in range(count)]
    promised = [1 / (1 + math.exp(slope * math.sqrt(s) - bias)) for s in surprises]
    return surprises, promised, [draws.random() < p for p in promised]


def test_the_fit_finds_the_curve_that_the_answers_were_made_with():
    surprises, _, right = made(20_000, 1.0, 1.5, seed=1)
    assert confidence.fit(surprises, right) == pytest.approx((1.0, 1.5), abs=0.15)


def test_the_fit_of_answers_that_a_line_divides_is_finite():
    bias, slope = confidence.fit([0.1, 0.2, 4.0, 5.0], [True, True, False, False])
    assert 0 < slope < 100 and math.isfinite(bias)


def test_the_report_says_what_was_promised_and_what_a_threshold_shows():
    surprises, promised, right = made(4_000, 1.0, 1.5, seed=2)
    rows = [
        {
            "texts": [{"surprise": s, "probability": 0.5, "confidence": p, "right": r}],
            "offers": [{"right": r, "confidence": p}],
        }
        for s, p, r in zip(surprises, promised, right, strict=True)
    ]
    lines = confidence.report(rows).splitlines()
    table = [line.strip("| ").split(" | ") for line in lines if line.startswith("| 0.")]
    bins, gates = table[:4], table[4:]  # nothing is surer than sigmoid(1)
    for _, _, told, seen in bins:
        assert abs(int(told.strip("%")) - int(seen.strip("%"))) < 8
    assert ("| mean probability of tokens | 0.500 |") in "\n".join(lines), "it is the same for all"
    assert gates[0][1] == "100%" and gates[0][3] == str(sum(right))
    kept = [r for p, r in zip(promised, right, strict=True) if p >= 0.5]
    (half,) = (row for row in gates if row[0] == "0.5")
    assert half[1] == f"{len(kept) / len(rows):.0%}"
    assert half[2].startswith(f"{sum(kept) / len(kept):.0%} (")
    assert half[3] == str(sum(kept))


def test_the_first_of_what_a_threshold_lets_through_counts():
    """Of a doubtful block the sure first line is what is shown."""
    offers = [{"right": False, "confidence": 0.1}, {"right": True, "confidence": 0.6}]
    row = {"texts": [], "offers": offers}
    assert confidence._shown_right(row, 0.0) is False
    assert confidence._shown_right(row, 0.2) is True
    assert confidence._shown_right(row, 0.7) is None

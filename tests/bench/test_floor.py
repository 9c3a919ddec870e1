"""The least time of a step against sums made by hand, and against published floors."""

from dataclasses import replace

import pytest

from bench import floor
from bench.floor import Rates
from engine import released
from engine.plan import PRECISIONS

CONFIG = released.config()
BF16, FP8, INT4, INT4_BF16_HEAD = PRECISIONS
H200 = Rates(bandwidth=4.3e12, flops=800e12)


@pytest.mark.parametrize(
    ("precision", "rows", "milliseconds"),
    [
        (BF16, 32, 10.8),
        (BF16, 64, 12.0),
        (BF16, 128, 12.2),
        (BF16, 256, 12.5),
        (INT4, 32, 3.4),
        (INT4, 64, 3.8),
        (INT4, 128, 3.9),
    ],
)
def test_floors_of_an_h200_under_uniform_routing(precision, rows, milliseconds):
    seconds = floor.step_seconds(CONFIG, precision, H200, rows=rows, prefix=1024)
    assert 1000 * seconds == pytest.approx(milliseconds, rel=0.04)


def test_distinct_experts_by_lot():
    found = [round(floor.distinct_experts(CONFIG, rows)) for rows in (1, 16, 32, 64, 256)]
    assert found == [8, 82, 112, 126, 128]


def test_parts_by_hand():
    parts = floor.step_parts(CONFIG, INT4, rows=64, prefix=1024, experts=55)
    table = 262_144 * 2816
    assert parts["head"] == (table + 4 * 262_144, 2 * 64 * table)
    assert parts["self-conditioning"] == (2 * table, 2 * 64 * table)
    # 1023 prefix tokens and 64 rows in sliding layers, 1024 and 64 in full ones.
    keys = 25 * 1087 * 8192 + 5 * 1088 * 4096
    products = 4 * 64 * (25 * 1087 * 16 * 256 + 5 * 1088 * 16 * 512)
    assert parts["attention"] == (keys, products)
    values = 30 * 128 * 3 * 2816 * 704
    moved, flops = parts["experts"]
    assert moved == pytest.approx((values * 17 / 32 + 4 * 30 * 128 * 4224) * 55 / 128)
    assert flops == 2 * 64 * values * 8 / 128


def test_self_conditioning_by_a_few_tokens_reads_their_embeddings_only():
    few = replace(CONFIG, canvas=replace(CONFIG.canvas, soft_tokens=16))
    parts = floor.step_parts(few, INT4, rows=64, prefix=1024)
    assert parts["self-conditioning"] == (64 * 16 * 2816 * 2, 2 * 64 * 16 * 2816)


def test_a_part_takes_the_slower_of_reading_and_multiplying():
    endless = Rates(bandwidth=1e30, flops=1.0)
    parts = floor.step_parts(CONFIG, BF16, rows=64, prefix=1024)
    flops = sum(part[1] for part in parts.values())
    seconds = floor.step_seconds(CONFIG, BF16, endless, rows=64, prefix=1024)
    assert seconds == pytest.approx(flops)
    assert flops / 64 == pytest.approx(9.9e9, rel=0.03), "a token's, as published"
    read = floor.step_seconds(CONFIG, BF16, Rates(1.0, 1e30), rows=64, prefix=1024)
    assert read == pytest.approx(sum(part[0] for part in parts.values()))


def test_the_embedding_is_the_head_where_there_is_no_copy():
    with_copy, without = (
        floor.step_parts(CONFIG, precision, rows=1, prefix=1)["head"][0]
        for precision in (INT4, INT4_BF16_HEAD)
    )
    assert without == 2 * 262_144 * 2816
    assert with_copy == pytest.approx(without / 2, rel=0.01)

"""The number of threads under scripted loads, and what Linux really says."""

import sys
import time

import pytest

from engine.threads import Threads, Usage, usage


def choices(most, *loads):
    """`loads`: seconds that pass, cores at work, and of them this process' own."""
    moments = [Usage(100.0, 50.0, 5.0)]
    for passed, busy, own in loads:
        last = moments[-1]
        moments.append(
            Usage(last.clock + passed, last.busy + busy * passed, last.own + own * passed)
        )
    threads = Threads(most, iter(moments).__next__)
    return [threads.choose() for _ in loads]


@pytest.mark.parametrize(
    ("most", "loads", "expected"),
    [
        (2, [(1, 0, 0)], [2]),
        (2, [(1, 2, 2)], [2]),  # it is this process that works
        (2, [(1, 1, 0)], [1]),
        (2, [(1, 2, 1)], [1]),
        (2, [(1, 0.4, 0)], [2]),
        (2, [(1, 2, 0)], [1]),  # never none
        (8, [(1, 3.1, 0)], [5]),
        (2, [(1, 1, 0), (1, 0, 0)], [1, 2]),
        (2, [(1, 1, 0), (0.1, 0, 0)], [1, 1]),  # too short to say anything
        (2, [(60, 1, 0), (1, 1, 0)], [2, 1]),  # too long ago
        (1, [(1, 0, 0)], [1]),
    ],
)
def test_others_cores_are_left_to_them(most, loads, expected):
    assert choices(most, *loads) == expected


def test_where_the_system_does_not_tell_all_are_used():
    assert Threads(4, lambda: None).choose() == 4


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/stat")
def test_own_work_is_counted_as_work_and_as_own():
    before = usage()
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    after = usage()
    assert after.own - before.own >= 0.3
    assert after.busy - before.busy > 0.2
    assert after.clock > before.clock

"""Tests in simulated time: an hour of it takes no longer than what is computed in it."""

import functools

from bench.clock import run


def simulated(test):
    """Runs a coroutine test on a loop that skips all waiting."""

    @functools.wraps(test)
    def synchronous(*arguments, **fixtures):
        return run(test(*arguments, **fixtures))

    return synchronous

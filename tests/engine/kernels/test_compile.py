"""Every kernel is compiled for each GPU it is meant for, with the constants it runs with there."""

import dataclasses
from unittest import mock

import pytest
from triton.backends.compiler import GPUTarget
from triton.backends.driver import GPUDriver
from triton.runtime import driver

from bench.compile_kernels import COMPILED, TARGETS, Build, Usage, builds, compile_all, launches


@pytest.mark.timeout(900)
def test_every_kernel_compiles_without_spilling_and_fits():
    usages = compile_all([build for target in TARGETS for build in builds(target, (64, 256))])
    assert [usage.complaint for usage in usages if usage.complaint] == []
    committed = COMPILED.read_text(encoding="utf-8")
    missing = {u.build.label for u in usages if f"`{u.build.label}`" not in committed}
    assert missing == set(), "python -m bench.compile_kernels --write"


class Claimed(GPUDriver):
    """A driver that claims to have an H200, as far as compiling goes."""

    def __init__(self):
        pass

    get_current_device = get_current_stream = lambda self, *_: 0
    get_current_target = lambda self: GPUTarget("cuda", 90, 32)  # noqa: E731


Claimed.__abstractmethods__ = frozenset()


@pytest.fixture
def asked():
    """What Triton is asked to compile, and does not."""
    sources = []
    with (
        mock.patch.object(driver, "_active", Claimed()),
        mock.patch("triton.compiler.compile", lambda source, **_: sources.append(source)),
    ):
        yield sources


def test_what_is_compiled_ahead_is_what_the_first_launch_would_compile(asked):
    for build, (kernel, grid, args, meta) in launches(90, TARGETS[90], (64, 256)).items():
        kernel.device_caches.clear()
        kernel.warmup(*args, grid=grid, **meta)
        kernel.device_caches.clear()
        source = asked.pop()
        assert source.signature == dict(build.signature)
        constants = {(kernel.arg_names.index(name),): value for name, value in build.constants}
        assert source.constants == constants
        aligned = {place for (place,), what in source.attrs.items() if what}
        assert aligned == set(build.aligned), build.label


def test_spills_and_too_much_shared_memory_are_complaints():
    build = Build(
        architecture=89,
        case="a case",
        module="engine.kernels.norms",
        kernel="_kernel",
        signature=(),
        constants=(("WIDTH", 5), ("weight", None)),
        aligned=(),
        options=(),
    )
    good = Usage(build, registers=255, stack=0, shared=101_376)
    assert good.complaint == ""
    spills = dataclasses.replace(good, stack=8)
    assert spills.complaint == "a case: _kernel(WIDTH=5) on sm_89 spills: 8 bytes of stack"
    big = dataclasses.replace(good, shared=101_377)
    assert "takes 101377 bytes of shared memory, of 101376" in big.complaint

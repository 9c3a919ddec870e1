"""Every kernel is compiled for each GPU it is meant for, with the constants it runs with there."""

import dataclasses

import pytest

from bench.compile_kernels import COMPILED, TARGETS, Build, Usage, builds, compile_all


@pytest.mark.timeout(400)
def test_every_kernel_compiles_without_spilling_and_fits():
    usages = compile_all([build for target in TARGETS for build in builds(target, (64, 256))])
    assert [usage.complaint for usage in usages if usage.complaint] == []
    committed = COMPILED.read_text(encoding="utf-8")
    missing = {u.build.label for u in usages if f"`{u.build.label}`" not in committed}
    assert missing == set(), "python -m bench.compile_kernels --write"


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

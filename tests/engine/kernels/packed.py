"""Random weights in every stored form."""

import torch

from engine.weights import to_fp4, to_fp8, to_int4

FORMS = {
    "whole": lambda weight: weight,
    "fp8": to_fp8,
    "int4 by 32": lambda weight: to_int4(weight, 32),
    "int4 by 32, bfloat16 scales": lambda weight: to_int4(weight, 32, torch.bfloat16),
    "int4 by 64": lambda weight: to_int4(weight, 64),
    "fp4": to_fp4,
}
PACKED = {name: form for name, form in FORMS.items() if name != "whole"}


def compare(ours, theirs, form, dtype):
    """Equal up to rounding, measured against the root mean square: sums cancel.

    In FP8 the two may round a number that lies between two codes differently, which in bfloat16, where
    what comes before is rounded more or less often, happens to a few in a hundred.
    """
    assert ours.dtype is theirs.dtype is dtype
    assert ours.isfinite().all()
    error = (ours.float() - theirs.float()).abs().max() / theirs.float().square().mean().sqrt()
    exact = {torch.float32: 2e-5, torch.float16: 1e-2, torch.bfloat16: 6e-2}[dtype]
    if form == "fp8":
        exact = 0.25 if dtype is torch.bfloat16 else 5e-2
        off = (ours.float() - theirs.float()).norm() / theirs.float().norm()
        assert off <= 5e-2, float(off)
    assert error <= exact, float(error)

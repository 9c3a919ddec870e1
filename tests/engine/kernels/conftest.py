"""Kernels run on a CUDA device, or under Triton's interpreter in a process of its own.

`TRITON_INTERPRET=1 pytest tests/engine/kernels` is that process: the variable must be set before
Triton is imported, and would reach the processes other tests start.
"""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
COMPILED = torch.cuda.is_available() and not INTERPRETED
WITHOUT_TRITON = {"test_int8.py", "test_dispatch.py"}
COMPILES = {"test_compile.py"}
collect_ignore = []
for path in Path(__file__).parent.glob("test_*.py"):
    runs = not INTERPRETED if path.name in COMPILES else INTERPRETED or COMPILED
    if path.name not in WITHOUT_TRITON and not (find_spec("triton") and runs):
        collect_ignore.append(path.name)


@pytest.fixture
def device():
    return torch.device("cuda" if COMPILED else "cpu")


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """What a kernel allocates is NaN, or a number no result has, until the kernel writes it."""

    def filled(tensor):
        if tensor.is_floating_point() and tensor.element_size() > 1:
            return tensor.fill_(torch.nan)
        return tensor.fill_(99)

    empty, empty_like = torch.empty, torch.empty_like
    monkeypatch.setattr(torch, "empty", lambda *a, **k: filled(empty(*a, **k)))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: filled(empty_like(*a, **k)))

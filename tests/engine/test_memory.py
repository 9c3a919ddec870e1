"""Freed memory goes back, and where that cannot be asked for nothing happens."""

import ctypes
import subprocess
import sys

import psutil
import pytest
import torch

from engine import memory


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_what_was_freed_leaves_the_process():
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("this C library gives memory back by itself, or never")
    process = psutil.Process()
    held, kept = [], []
    for _ in range(800):  # small enough for the heap, with something that stays between them
        held.append(torch.ones(30_000))
        kept.append(torch.ones(64))
    grown = process.memory_info().rss
    del held
    memory.give_back()
    assert process.memory_info().rss < grown - 50_000_000


def test_a_process_that_saves_has_a_torch_without_numpy():
    program = (
        "from engine import memory; memory.save(); import sys, torch; "
        "assert torch.ones(2, 2).matmul(torch.ones(2)).tolist() == [2.0, 2.0]; "
        "print([name for name in sys.modules if name.startswith('numpy.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("there is no such library"))
    memory.give_back()
    memory.save()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    memory.give_back()
    memory.save()

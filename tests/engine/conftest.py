"""Tiny models gain nothing from threads, and lose much when other processes want the cores."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is first imported

import pytest
import torch

torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    no_device = pytest.mark.skip(reason="needs a CUDA device; its CPU twin runs everywhere")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(no_device)

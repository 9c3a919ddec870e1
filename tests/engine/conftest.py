"""Tiny models gain nothing from threads, and lose much when other processes want the cores."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is first imported

import torch

torch.set_num_threads(1)

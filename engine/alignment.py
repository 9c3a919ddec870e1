"""Where text of unknown length meets what is known to follow it.

A model that saw the suffix in its prompt writes the hole and then goes on with the suffix. From one
forward over that canvas the suffix is scored at every place at once. Pure functions of tensors;
knows nothing of models or of what is done where they meet. Source of the idea: none published that
is known; it is tried on scripted models only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def alignment(logits: Tensor, suffix: Sequence[int]) -> Tensor:
    """For each length L of the hole, the mean log-probability of `suffix` written from slot L on.

    `logits` [N, V] predict the N slots of a canvas; the scores [N - M + 1] are in nats a token, for
    the M ids of the suffix.
    """
    slots, count = len(logits), len(suffix)
    assert 0 < count <= slots, f"a suffix of {count} tokens cannot stand in {slots} slots"
    ids = torch.tensor(list(suffix), device=logits.device)
    scored = logits[:, ids] - logits.logsumexp(-1, keepdim=True)  # [N, M]
    offset = torch.arange(count, device=logits.device)
    start = torch.arange(slots - count + 1, device=logits.device)[:, None]
    return scored[start + offset, offset].mean(-1)


def meeting(scores: Tensor, *, least: float) -> int | None:
    """The length of the hole with the best of `scores`, the shortest of equals; None below `least`."""
    best = scores.max()
    if best < least:
        return None
    return int((scores >= best - 1e-4).nonzero()[0])

"""Every kernel at the released model's shapes: what is compiled ahead of time and what is timed.

On the meta device the tensors have no memory, which is enough to see what would be launched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.kernels import norms, reference

HIDDEN = 2816
EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Case:
    """One call: the fast function and its plain twin, which take the same arguments.

    `moved` is what must be read and written at the least, in bytes; `flops` what must be computed.
    """

    name: str
    fast: Callable[..., Any]
    plain: Callable[..., Any]
    args: tuple[Any, ...]
    moved: int
    flops: int = 0


def cases(device: torch.device, rows: tuple[int, ...] = (64, 256)) -> Iterator[Case]:
    """All cases, made one by one: the tensors of one are gone before the next one's come."""
    for count in rows:
        yield from _norms(device, count)


def _norms(device: torch.device, rows: int) -> Iterator[Case]:
    def some(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, dtype=torch.bfloat16)

    x, branch, other = some(1, rows, HIDDEN), some(1, rows, HIDDEN), some(1, rows, HIDDEN)
    weights = tuple(some(HIDDEN) for _ in range(4))
    yield Case(
        f"residual and norms after attention, {rows} rows",
        norms.join_attention,
        reference.join_attention,
        (x, branch, *weights[:3], EPS),
        moved=5 * x.nbytes,
    )
    yield Case(
        f"residual and norms after the MLPs, {rows} rows",
        norms.join_feedforward,
        reference.join_feedforward,
        (x, branch, other, weights, some(1), EPS),
        moved=5 * x.nbytes,
    )
    for heads, kv_heads, dim in ((16, 8, 256), (16, 2, 512)):
        q, k, v = some(1, rows, heads, dim), *(some(1, rows, kv_heads, dim) for _ in range(2))
        yield Case(
            f"norms and rotation of heads, {dim} dims, {rows} rows",
            norms.prepare_heads,
            reference.prepare_heads,
            (q, k, v, some(dim), some(dim), some(rows, dim // 2), some(rows, dim // 2), EPS),
            moved=2 * sum(t.nbytes for t in (q, k, v)),
        )

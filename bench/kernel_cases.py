"""Every kernel at the released model's shapes: what is compiled ahead of time and what is timed.

On the meta device the tensors have no memory, which is enough to see what would be launched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.kernels import (
    attending,
    deciding,
    dense,
    embedding,
    head,
    moe,
    norms,
    reference,
    routing,
)
from engine.storage import PAGE
from engine.weights import FP8, Fp4Weight, Fp8Weight, Int4Weight, PackedWeight

HIDDEN, VOCABULARY = 2816, 262_144
EXPERTS, TOP, INNER = 128, 8, 704
FORMS = ("bf16", "fp8", "int4 by 32", "int4 by 64", "fp4")
EPS = 1e-6
# Outputs and inputs of what attention reads and writes in both kinds of layers, and of gate and up.
LINEARS = (
    *((8192, HIDDEN), (HIDDEN, 4096)),
    *((9216, HIDDEN), (HIDDEN, 8192)),
    (4224, HIDDEN),
)
MOST_IN_HOLE, MOST_ON_CANVAS = 256, 384
PREFIX, DTYPE = 1024, torch.bfloat16
TINY: dict[str, Any] = {  # in place of the constants above, to see that all of it runs
    "HIDDEN": 64,
    "VOCABULARY": 500,
    "EXPERTS": 4,
    "TOP": 2,
    "INNER": 64,
    "PREFIX": 40,
    "LINEARS": ((128, 64),),
    "DTYPE": torch.float16,  # in which Triton's interpreter is right
}


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
    """All cases, made one by one: the tensors of one are gone before the next one's come.

    More rows than a canvas and its suffix may have are a prompt's, which has no canvas and no head.
    """
    for count in rows:
        yield from _norms(device, count)
        yield from _mixtures(device, count)
        yield from _linears(device, count)
        yield _gated(device, count)
        if count <= MOST_ON_CANVAS:
            yield from _attentions(device, count)
        if count <= MOST_IN_HOLE:
            yield from _heads(device, count)
            yield _decision(device, count)


def _norms(device: torch.device, rows: int) -> Iterator[Case]:
    def some(*shape: int) -> Tensor:
        return _some(device, *shape)

    x, branch, routed = some(1, rows, HIDDEN), some(1, rows, HIDDEN), some(1, rows, TOP, HIDDEN)
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
        (x, branch, routed, weights, some(1), EPS),
        moved=(4 + TOP) * x.nbytes,
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


def _mixtures(device: torch.device, rows: int) -> Iterator[Case]:
    """Rows choose evenly, so that about all experts are read: the most there is to do."""
    x = _some(device, rows, HIDDEN)
    router = (_some(device, HIDDEN), _some(device, EXPERTS, HIDDEN), _some(device, EXPERTS))
    yield Case(
        f"routing, {rows} rows",
        routing.route,
        reference.route,
        (x, *router, TOP, EPS),
        moved=x.nbytes + router[1].nbytes,
        flops=2 * rows * EXPERTS * HIDDEN,
    )
    indices = torch.rand(rows, EXPERTS, device=device).topk(TOP).indices
    weights = torch.rand(rows, TOP, device=device)
    hit = EXPERTS if device.type == "meta" else int((indices.flatten().bincount() > 0).sum())
    for form in FORMS:
        gate_up = _weight(device, form, EXPERTS, 2 * INNER, HIDDEN)
        down = _weight(device, form, EXPERTS, HIDDEN, INNER)
        yield Case(
            f"experts {form}, {rows} rows, {hit} of {EXPERTS} hit",
            moe.experts,
            reference.experts,
            (x, weights, indices, gate_up, down, "gelu_tanh"),
            moved=(1 + TOP) * x.nbytes + (gate_up.nbytes + down.nbytes) * hit // EXPERTS,
            flops=2 * rows * TOP * 3 * INNER * HIDDEN,
        )


def _linears(device: torch.device, rows: int) -> Iterator[Case]:
    """The linear layers of a sliding and a full layer, and the first of the dense MLP."""
    for outputs, inputs in LINEARS:
        x = _some(device, rows, inputs)
        for form in ("fp8", "int4 by 32"):
            weight = _weight(device, form, outputs, inputs)
            assert isinstance(weight, PackedWeight)
            yield Case(
                f"linear {form}, {inputs} to {outputs}, {rows} rows",
                dense.linear,
                reference.linear,
                (x, weight),
                moved=x.nbytes + weight.nbytes + 2 * rows * outputs,
                flops=2 * rows * outputs * inputs,
            )


def _gated(device: torch.device, rows: int) -> Case:
    """The dense MLP, and that of self-conditioning."""
    both, width = LINEARS[-1]
    x = _some(device, rows, width)
    gate_up, down = _weight(device, "fp8", both, width), _weight(device, "fp8", width, both // 2)
    assert isinstance(gate_up, PackedWeight) and isinstance(down, PackedWeight)
    return Case(
        f"gated MLP fp8, {width} to {both // 2}, {rows} rows",
        dense.gated_mlp,
        reference.gated_mlp,
        (x, gate_up, down, "gelu_tanh"),
        moved=2 * x.nbytes + gate_up.nbytes + down.nbytes,
        flops=3 * rows * both * width,
    )


def _attentions(device: torch.device, rows: int) -> Iterator[Case]:
    """A sliding and a full layer, one canvas; the prefix's pages lie among others'."""
    pages = -(-PREFIX // PAGE)
    table = torch.randperm(2 * pages)[:pages].to(device, torch.int32)
    for kv_heads, dim in ((8, 256), (2, 512)):
        stored = [_some(device, kv_heads, 2 * pages, PAGE, dim) for _ in range(2)]
        own = [_some(device, 1, kv_heads, rows, dim) for _ in range(2)]
        bounds = torch.tensor([0, PREFIX], dtype=torch.int32, device=device)
        q = _some(device, 1, rows, 16, dim)
        seen = torch.tensor([[[0, rows // 2], [rows // 2, rows]]], dtype=torch.int32, device=device)
        yield Case(
            f"attention, {dim} dims, prefix {PREFIX}, {rows} rows",
            attending.canvas_attention,
            reference.canvas_attention,
            (q, *stored, table, bounds, *own, 1.0, seen),
            moved=2 * q.nbytes + sum(t.nbytes * (PREFIX + rows) // rows for t in own),
            flops=4 * rows * 16 * dim * (PREFIX + rows),
        )


def _heads(device: torch.device, rows: int, likely: int = 16) -> Iterator[Case]:
    """What a step asks of the vocabulary; the plain twin writes the logits and reads them again."""
    hidden = _some(device, 1, rows, HIDDEN)
    temperature, uniform = torch.ones(1, device=device), torch.rand(1, rows, device=device)
    bias = torch.zeros(VOCABULARY, device=device)
    for form in ("bf16", "fp8", "int4 by 32", "fp4"):
        table = _weight(device, form, VOCABULARY, HIDDEN)
        if isinstance(table, PackedWeight):
            yield Case(
                f"logits {form}, {rows} rows",
                dense.linear,
                reference.linear,
                (hidden, table),
                moved=hidden.nbytes + table.nbytes + 2 * rows * VOCABULARY,
                flops=2 * rows * HIDDEN * VOCABULARY,
            )
        yield Case(
            f"head {form}, likeliest {likely}, {rows} rows",
            head.believe,
            reference.believe,
            (hidden, table, 30.0, temperature, uniform, bias, likely),
            moved=hidden.nbytes + table.nbytes,
            flops=2 * rows * HIDDEN * VOCABULARY,
        )
    table = _some(device, VOCABULARY, HIDDEN)
    ids = torch.randint(0, VOCABULARY, (1, rows, likely), device=device)
    yield Case(
        f"self-conditioning, likeliest {likely}, {rows} rows",
        embedding.soft_embedding,
        reference.soft_embedding,
        (table, ids, torch.rand(1, rows, likely, device=device), 53.0),
        moved=rows * (likely + 1) * 2 * HIDDEN,
        flops=2 * rows * likely * HIDDEN,
    )


def _decision(device: torch.device, rows: int) -> Case:
    entropy = torch.rand(1, rows, device=device)
    ids = [torch.randint(0, VOCABULARY, (1, rows), device=device) for _ in range(2)]
    return Case(
        f"accept and renoise, hole of {rows}",
        deciding.accept_and_renoise,
        reference.accept_and_renoise,
        (entropy, *ids, 0.1),
        moved=7 * entropy.nbytes,
    )


def _weight(device: torch.device, form: str, *shape: int) -> Tensor | PackedWeight:
    """Random codes and small scales: as fast as real ones, and made without a float copy."""
    if form == "bf16":
        return _some(device, *shape)

    def codes(*shape: int) -> Tensor:
        return torch.randint(0, 256, shape, device=device, dtype=torch.uint8)

    *rows, inputs = shape
    factor = torch.full(rows, 0.01, device=device)
    if form == "fp8":
        return Fp8Weight((codes(*shape) & 0xBF).view(FP8), factor)  # without NaN
    group = 16 if form == "fp4" else int(form.removeprefix("int4 by "))
    scale = _some(device, *rows, inputs // group).to(FP8)
    packed = Fp4Weight if form == "fp4" else Int4Weight
    return packed(codes(*rows, inputs // 2), scale, factor)


def _some(device: torch.device, *shape: int) -> Tensor:
    return torch.randn(shape, device=device, dtype=DTYPE)

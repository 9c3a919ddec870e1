"""Matrices of few bits: codes in groups along each row, every group with a scale and a minimum.

value = minimum + scale · code, in float32. A block of GGUF's Q4_1 is such a group of 32 as it
stands, so repacking loses nothing. Knows nothing of files; what is stored describes itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.errors import CheckpointError

FORMAT = "dg-packed"
PARTS = {"codes": "U8", "scales": "F16", "minima": "F16"}  # with safetensors' names of dtypes
_TOGETHER = 8  # codes of b bits in b bytes
_AT_ONCE = 1 << 18  # values unpacked together: what fits a CPU's cache


@dataclass(frozen=True, slots=True)
class Packed:
    """A matrix [R, C] of b bits a value, in G groups a row.

    `codes` uint8 [R, C / 8, b]: eight codes in b bytes, the first in the lowest bits of the first.
    `scales` and `minima` float16 [R, G].
    """

    codes: Tensor
    scales: Tensor
    minima: Tensor

    def __post_init__(self) -> None:
        kinds = (self.codes.dtype, self.scales.dtype, self.minima.dtype)
        assert kinds == (torch.uint8, torch.float16, torch.float16), f"packed as {kinds}"
        packed_shape(self.codes.shape, self.scales.shape, self.minima.shape)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        return packed_shape(self.codes.shape, self.scales.shape, self.minima.shape)

    @property
    def nbytes(self) -> int:
        """What it takes in memory and on disk."""
        return self.codes.nbytes + self.scales.nbytes + self.minima.nbytes

    def named(self, name: str) -> dict[str, Tensor]:
        """The tensors to store for the matrix `name`."""
        return {f"{name}.{part}": getattr(self, part) for part in PARTS}

    def unpack(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The matrix in `dtype`; raises CheckpointError when a scale or minimum is no number."""
        if not (self.scales.isfinite().all() and self.minima.isfinite().all()):
            raise CheckpointError("a packed matrix has a scale or minimum that is no number")
        rows, columns = self.shape
        values = torch.empty(rows, columns, dtype=dtype, device=self.codes.device)
        step = max(1, _AT_ONCE // columns)
        for start in range(0, rows, step):
            values[start : start + step] = self._rows(slice(start, start + step))
        return values

    def _rows(self, some: slice) -> Tensor:
        """Some rows in float32."""
        codes, scales, minima = self.codes[some], self.scales[some], self.minima[some]
        width = codes.shape[2]
        words = torch.zeros(codes.shape[:2], dtype=torch.int64, device=codes.device)
        for byte in range(width):
            words |= codes[:, :, byte].to(torch.int64) << 8 * byte
        values = torch.empty(*words.shape, _TOGETHER, device=words.device)
        for place in range(_TOGETHER):
            values[:, :, place] = (words >> width * place) & (1 << width) - 1
        grouped = values.view(*scales.shape, -1)
        grouped.mul_(scales.float()[:, :, None]).add_(minima.float()[:, :, None])
        return grouped.view(len(codes), -1)


def packed_shape(
    codes: Sequence[int], scales: Sequence[int], minima: Sequence[int]
) -> tuple[int, int]:
    """Rows and columns of the matrix whose parts have these shapes; CheckpointError if there is none."""
    if len(codes) == 3 and len(scales) == 2 and 1 <= codes[2] <= 8:
        rows, columns = codes[0], codes[1] * _TOGETHER
        whole = scales[1] > 0 and columns % scales[1] == 0
        if whole and scales[0] == rows and tuple(minima) == tuple(scales):
            return rows, columns
    raise CheckpointError(
        f"codes {list(codes)}, scales {list(scales)} and minima {list(minima)} make no matrix"
    )


def pack(values: Tensor, bits: int, group: int) -> Packed:
    """The matrix [R, C] with groups of `group` values spread over all codes of `bits` bits.

    Raises CheckpointError for what cannot be cut like this or what float16 cannot hold.
    """
    if not can_pack(values.shape, group):
        raise CheckpointError(
            f"{list(values.shape)} cannot be packed: it takes a matrix whose rows are whole "
            f"groups of {group} and whole eights"
        )
    grouped = values.float().view(values.shape[0], -1, group)
    least, most = grouped.amin(-1), grouped.amax(-1)
    top = (1 << bits) - 1
    minima, scales = least.half(), ((most - least) / top).half()
    if not (minima.isfinite().all() and scales.isfinite().all()):
        raise CheckpointError("a matrix to be packed has values float16 cannot hold")
    steps = (grouped - minima.float()[:, :, None]) / scales.float()[:, :, None]
    # A group of equal values has scale 0: its codes stand for nothing.
    codes = steps.nan_to_num(0, 0, 0).round().clamp(0, top).to(torch.uint8)
    return from_codes(codes.view(values.shape), scales, minima, bits)


def can_pack(shape: Sequence[int], group: int) -> bool:
    """Whether a tensor of this shape is a matrix that can be cut into such groups."""
    return len(shape) == 2 and 0 not in shape and not (shape[1] % group or shape[1] % _TOGETHER)


def from_codes(codes: Tensor, scales: Tensor, minima: Tensor, bits: int) -> Packed:
    """A matrix whose codes [R, C] (uint8) are known already."""
    assert int(codes.max()) < 1 << bits, f"a code of {int(codes.max())} in {bits} bits"
    eights = codes.view(codes.shape[0], -1, _TOGETHER)
    words = torch.zeros(eights.shape[:2], dtype=torch.int64, device=codes.device)
    for place in range(_TOGETHER):
        words |= eights[:, :, place].to(torch.int64) << bits * place
    parts = [(words >> 8 * byte & 255).to(torch.uint8) for byte in range(bits)]
    return Packed(torch.stack(parts, dim=-1), scales, minima)

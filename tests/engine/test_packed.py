"""Packed matrices: what is on the grid comes back exactly, the rest within half a step."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine import packed
from engine.errors import CheckpointError
from engine.packed import Packed


@st.composite
def layouts(draw):
    """bits, group, rows, columns: any matrix that can be packed."""
    group = draw(st.sampled_from([1, 2, 8, 12, 24, 32]))
    eights = [columns for columns in range(8, 161, 8) if columns % group == 0]
    return (
        draw(st.integers(1, 8)),
        group,
        draw(st.integers(1, 5)),
        draw(st.sampled_from(eights)),
    )


def drawn(layout, seed):
    """Codes and factors of a random packed matrix."""
    bits, group, rows, columns = layout
    rng = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 1 << bits, (rows, columns), generator=rng, dtype=torch.uint8)
    scales = (torch.rand(rows, columns // group, generator=rng) + 0.01).half()
    minima = torch.randn(rows, columns // group, generator=rng).half()
    return codes, scales, minima


def naive(codes, scales, minima):
    group = codes.shape[1] // scales.shape[1]
    wide = [factor.float().repeat_interleave(group, dim=1) for factor in (scales, minima)]
    return codes.float() * wide[0] + wide[1]


@given(layouts(), st.integers(0, 1000))
def test_codes_come_back_and_stand_for_scale_and_minimum(layout, seed):
    codes, scales, minima = drawn(layout, seed)
    made = packed.from_codes(codes, scales, minima, layout[0])
    assert made.shape == tuple(codes.shape)
    assert made.codes.nbytes * 8 == codes.numel() * layout[0]
    assert torch.equal(made.unpack(), naive(codes, scales, minima))


@given(layouts().filter(lambda layout: layout[1] > 1), st.integers(0, 1000))
def test_values_on_the_grid_are_packed_without_loss(layout, seed):
    bits, group = layout[:2]
    codes, scales, minima = drawn(layout, seed)
    # A group says where its grid begins and ends by using both ends.
    codes[:, ::group], codes[:, 1::group] = 0, (1 << bits) - 1
    values = naive(codes, scales, minima)
    assert torch.equal(packed.pack(values, bits, group).unpack(), values)


@given(layouts(), st.integers(0, 1000), st.floats(-6, 4))
def test_other_values_are_off_by_half_a_step_at_most(layout, seed, magnitude):
    bits, group, rows, columns = layout
    rng = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, columns, generator=rng) * 10**magnitude
    grouped = values.view(rows, -1, group)
    span = grouped.amax(-1) - grouped.amin(-1)
    largest = grouped.abs().amax(-1)
    step = span / ((1 << bits) - 1)
    # float16 holds 11 bits of scale and minimum, and nothing finer than 2^-24.
    bound = step / 2 + (span + largest) * 2**-11 + (1 << bits) * 2**-24
    off = (packed.pack(values, bits, group).unpack() - values).view(rows, -1, group).abs()
    assert (off.amax(-1) <= bound).all()


def test_the_bytes_are_those_of_a_little_endian_stream_of_codes():
    codes = torch.arange(8, dtype=torch.uint8).view(1, 8)
    ones = torch.ones(1, 1, dtype=torch.float16)
    made = packed.from_codes(codes, ones, ones, bits=4)
    assert made.codes.flatten().tolist() == [0x10, 0x32, 0x54, 0x76]
    made = packed.from_codes(codes, ones, ones, bits=6)
    assert int.from_bytes(bytes(made.codes.flatten().tolist()), "little") == sum(
        code << 6 * place for place, code in enumerate(range(8))
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_many_rows_are_unpacked_as_few_are_in_any_dtype(monkeypatch, dtype):
    values = torch.randn(50, 32)
    made = packed.pack(values, 4, 32)
    whole = made.unpack(dtype)
    assert whole.dtype == dtype
    monkeypatch.setattr(packed, "_AT_ONCE", 100)
    assert torch.equal(made.unpack(dtype), whole)
    assert torch.equal(made.unpack().to(dtype), whole)


def test_equal_values_need_no_steps():
    values = torch.tensor([[0.5] * 8 + [0.0] * 8])
    assert torch.equal(packed.pack(values, 4, 8).unpack(), values)


@pytest.mark.parametrize("shape", [(8,), (2, 2, 8), (2, 12), (2, 40), (0, 32), (2, 0)])
def test_what_is_no_matrix_of_whole_groups_is_refused(shape):
    assert not packed.can_pack(shape, 32)
    with pytest.raises(CheckpointError, match=r"cannot be packed: .* whole groups of 32 and whole"):
        packed.pack(torch.zeros(shape), 4, 32)


@pytest.mark.parametrize("value", [1e6, -1e6, float("inf"), float("nan")])
def test_values_float16_cannot_hold_are_refused(value):
    values = torch.zeros(1, 32)
    values[0, 3] = value
    with pytest.raises(CheckpointError, match="values float16 cannot hold"):
        packed.pack(values, 4, 32)


@pytest.mark.parametrize(
    ("codes", "scales", "minima"),
    [
        ((4, 4), (4, 1), (4, 1)),
        ((4, 4, 0), (4, 1), (4, 1)),
        ((4, 4, 9), (4, 1), (4, 1)),
        ((4, 4, 4), (4,), (4,)),
        ((4, 4, 4), (3, 1), (3, 1)),
        ((4, 4, 4), (4, 1), (4, 2)),
        ((4, 4, 4), (4, 3), (4, 3)),
        ((4, 4, 4), (4, 0), (4, 0)),
    ],
)
def test_shapes_that_do_not_fit_together_are_refused(codes, scales, minima):
    with pytest.raises(CheckpointError, match="make no matrix"):
        packed.packed_shape(codes, scales, minima)


@pytest.mark.parametrize("part", ["scales", "minima"])
def test_a_factor_that_is_no_number_is_refused(part):
    made = packed.pack(torch.randn(2, 32), 4, 32)
    getattr(made, part)[1, 0] = float("nan")
    with pytest.raises(CheckpointError, match="a scale or minimum that is no number"):
        made.unpack()


def test_parts_of_other_dtypes_are_a_programmers_error():
    made = packed.pack(torch.randn(2, 32), 4, 32)
    with pytest.raises(AssertionError, match="packed as"):
        Packed(made.codes, made.scales.float(), made.minima)
    with pytest.raises(AssertionError, match="a code of 16 in 4 bits"):
        packed.from_codes(torch.full((1, 8), 16, dtype=torch.uint8), made.scales, made.minima, 4)

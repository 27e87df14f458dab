# SPDX-License-Identifier: GPL-2.0-only
"""Words in memory wrap around as C's do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from physmem import word
from physmem.ram import Ram
from physmem.space import AddressSpace

AT = 4096 - 8
U64 = st.integers(0, (1 << 64) - 1)
S64 = st.integers(-(1 << 63), (1 << 63) - 1)
S32 = st.integers(-(1 << 31), (1 << 31) - 1)


@pytest.fixture(scope="module")
def space() -> AddressSpace:
    return AddressSpace(
        Ram(4096),
        page_offset=0,
        start_kernel_map=0,
        phys_base=0,
        kernel_image_size=0,
        mem_map=0,
        memmap=memoryview(bytearray()).cast("Q"),
        memmap_shift=21,
        list_poison1=0,
        list_poison2=0,
    )


@given(old=U64, delta=S64)
def test_add_u64(space: AddressSpace, old: int, delta: int) -> None:
    space.ram.set_u64(AT, old)
    word.add_u64(space, AT, delta)
    assert space.ram.u64(AT) == (old + delta) % (1 << 64)


@given(old=S32, delta=S32)
def test_add_s32(space: AddressSpace, old: int, delta: int) -> None:
    space.ram.set_u64(AT, (1 << 64) - 1)
    space.ram.set_u32(AT, old)
    word.add_s32(space, AT, delta)
    assert space.ram.i32(AT) == (old + delta + (1 << 31)) % (1 << 32) - (1 << 31)
    assert space.ram.u32(AT + 4) == 0xFFFFFFFF, "nothing is carried into the neighbour"


@given(old=st.integers(0, 255), delta=st.integers(0, 255))
def test_add_u8(space: AddressSpace, old: int, delta: int) -> None:
    space.ram.write(AT, bytes([0, old, 0]))
    word.add_u8(space, AT + 1, delta)
    assert space.ram.read(AT, 3) == bytes([0, (old + delta) % 256, 0])


@given(value=S32)
def test_assign_s32(space: AddressSpace, value: int) -> None:
    word.assign_s32(space, AT, value)
    assert space.ram.i32(AT) == value


@given(old=U64, mask=U64)
def test_bits(space: AddressSpace, old: int, mask: int) -> None:
    space.ram.set_u64(AT, old)
    word.set_bits(space, AT, mask)
    assert space.ram.u64(AT) == old | mask
    word.clear_bits(space, AT, mask)
    assert space.ram.u64(AT) == old & ~mask


@pytest.mark.parametrize(("nr", "value"), [(0, 1), (31, 1 << 31), (63, 1 << 63), (64, 1), (1 << 31, 1)])
def test_a_bit_is_64_bits_wide_and_its_number_modulo_64(nr: int, value: int) -> None:
    assert word.bit(nr) == value


def test_outside_memory(address_space: Callable[..., AddressSpace]) -> None:
    space = address_space(Ram(4096))
    with pytest.raises(IndexError):
        word.add_u64(space, 4096, 1)

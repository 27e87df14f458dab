# SPDX-License-Identifier: GPL-2.0-only
"""Address arithmetic: round trips, and every address that has no other name."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from physmem import address, paging
from physmem.dump import Dump, open_dump
from physmem.errors import AddressError, CorruptionError
from physmem.ram import Ram
from physmem.space import UNMAPPED, AddressSpace

ORACLE = Path(__file__).parents[1] / "data" / "oracle"
PAGE_OFFSET = 0xFFFF880000000000
MEM_MAP = 0xFFFFEA0000000000
KERNEL = 0xFFFFFFFF80000000
MIB = 1 << 20

Real = tuple[Dump, AddressSpace]


@pytest.fixture(scope="module", params=["n128_s1", "n256x2_s6n", "u128_s1"])
def real(request: pytest.FixtureRequest) -> Iterator[Real]:
    """A real kernel, and its address space over a copy of its memory."""
    with open_dump(ORACLE / request.param / "A.vmcore.xz") as dump:
        yield dump, dump.address_space(Ram.from_image(dump.image, dump.max_pfn << 12))


@given(data=st.data())
def test_a_page_frame_has_one_name_of_each_kind(real: Real, data: st.DataObject) -> None:
    dump, space = real
    pfn = data.draw(st.integers(0, dump.max_pfn - 1))
    page, phys = address.pfn_to_page(space, pfn), pfn << 12
    assert address.page_to_pfn(space, page) == pfn
    assert address.page_to_phys(space, page) == phys
    assert address.page_address(space, page) == address.phys_to_virt(space, phys) == PAGE_OFFSET + phys
    assert address.virt_to_phys(space, PAGE_OFFSET + phys) == phys
    va = PAGE_OFFSET + phys + data.draw(st.integers(0, 4095))
    assert address.virt_to_page(space, va) == page
    assert address.virt_addr_valid(space, va)
    assert address.pfn_has_page(space, pfn)


def kernels_rule(space: AddressSpace, va: int) -> bool:
    """``__virt_addr_valid`` (arch/x86/mm/physaddr.c) step by step, sums modulo 2^64 and their carries."""
    word = (1 << 64) - 1
    above = va - space.start_kernel_map & word
    if va > above:
        phys = above + space.phys_base & word
        if above >= space.kernel_image_size:
            return False
    else:
        phys = above + (space.start_kernel_map - space.page_offset) & word
        if phys > above or phys >> 46:
            return False
    return address.pfn_has_page(space, phys >> 12)


@given(data=st.data())
def test_which_addresses_are_valid(real: Real, data: st.DataObject) -> None:
    """Not the user's, nor the page array's, nor those of modules, which are above the room of the image."""
    dump, whole = real
    options = dump.space(whole.ram)
    assert options["kernel_image_size"] == 512 << 20
    room = data.draw(st.sampled_from([512 << 20, 32 << 20]))
    space = AddressSpace(whole.ram, **options | {"kernel_image_size": room})  # type: ignore[arg-type]
    start = data.draw(st.sampled_from([0, PAGE_OFFSET, MEM_MAP, KERNEL, KERNEL + room, (1 << 64) - (256 << 20)]))
    va = start + data.draw(st.integers(-(200 << 20), 200 << 20)) & (1 << 64) - 1
    assert address.virt_addr_valid(space, va) == kernels_rule(space, va)
    assert not address.virt_addr_valid(space, KERNEL + room)
    assert address.virt_addr_valid(space, KERNEL + (32 << 20) - 1)


@given(data=st.data())
def test_the_page_array_is_where_the_page_tables_say(real: Real, data: st.DataObject) -> None:
    dump, space = real
    page = address.pfn_to_page(space, data.draw(st.integers(0, dump.max_pfn - 1)))
    field = page + 8 * data.draw(st.integers(0, 7))
    phys = paging.walk(dump.memory, dump.pgd, field).phys
    assert phys == address.off(space, field) == address.lookup(space, field) == dump.virt_to_phys(field)
    assert phys == address.page_off(space, page) + field - page


@given(data=st.data())
def test_kernel_text_and_direct_map_are_a_subtraction(real: Real, data: st.DataObject) -> None:
    dump, space = real
    phys = 8 * data.draw(st.integers(0, (space.size >> 3) - 1))
    assert address.off(space, PAGE_OFFSET + phys) == phys
    assert address.off(space, KERNEL + phys) == phys
    assert address.virt_to_phys(space, KERNEL + phys) == phys
    assert address.virt_to_page(space, KERNEL + phys) == address.virt_to_page(space, PAGE_OFFSET + phys)
    assert dump.virt_to_phys(PAGE_OFFSET + phys) == dump.virt_to_phys(KERNEL + phys) == phys


# -- addresses of nothing -------------------------------------------------------------------

NOTHING = {
    "NULL": (0, "not a kernel address: below the direct map"),
    "user space": (0x7FFF12345678, "not a kernel address: below the direct map"),
    "just below the direct map": (PAGE_OFFSET - 8, "not a kernel address: below the direct map"),
    "odd": (PAGE_OFFSET + 4, "not aligned to 8 bytes"),
    "past the end of memory": (
        PAGE_OFFSET + 64 * MIB,
        r"no memory is mapped here \(physical memory ends at 0x4000000\)",
    ),
    "past the page array": (MEM_MAP + 2 * MIB, "no memory of the page array is mapped here"),
    "past the kernel's memory": (KERNEL + 64 * MIB, "no memory is mapped here"),
    "modules": (KERNEL + 512 * MIB, "no memory is mapped here"),
    "the last word": ((1 << 64) - 8, "no memory is mapped here"),
}


@pytest.fixture
def space(address_space: Callable[..., AddressSpace]) -> AddressSpace:
    """64 MiB, whose page array is the chunk from physical 2 MiB."""
    return address_space(Ram(64 * MIB))


@pytest.mark.parametrize(("va", "reason"), NOTHING.values(), ids=NOTHING)
def test_addresses_of_nothing(space: AddressSpace, va: int, reason: str) -> None:
    assert address.lookup(space, va) == UNMAPPED
    with pytest.raises(AddressError, match=f"address {va:#x}: {reason}"):
        address.off(space, va)


@pytest.mark.parametrize("page", [0, MEM_MAP - 64, MEM_MAP + 32, MEM_MAP + 2 * MIB, PAGE_OFFSET, (1 << 64) - 64])
def test_what_is_no_struct_page(space: AddressSpace, page: int) -> None:
    with pytest.raises(CorruptionError, match=f"page_pointer: {page:#x} is not an element of the page array"):
        address.page_off(space, page)


def test_a_page_array_with_holes(address_space: Callable[..., AddressSpace]) -> None:
    """Three chunks: one at 4 MiB, none, one that would lie outside memory."""
    memmap = memoryview(array("Q", [4 * MIB, UNMAPPED, 128 * MIB]))
    space = address_space(Ram(64 * MIB), memmap=memmap)
    per_chunk = 2 * MIB // 64
    assert address.pfn_has_page(space, per_chunk - 1)
    assert address.page_off(space, MEM_MAP + 64 * (per_chunk - 1)) == 6 * MIB - 64
    for pfn in (per_chunk, 2 * per_chunk, 3 * per_chunk, 1 << 32):
        assert not address.pfn_has_page(space, pfn)
        assert not address.virt_addr_valid(space, PAGE_OFFSET + (pfn << 12))
        page = address.pfn_to_page(space, pfn)
        assert address.lookup(space, page) == UNMAPPED
        with pytest.raises(CorruptionError):
            address.page_off(space, page)


def test_a_page_array_of_small_pages(address_space: Callable[..., AddressSpace]) -> None:
    memmap = memoryview(array("Q", [0x9000, 0x3000, UNMAPPED, 0x5000]))
    space = address_space(Ram(1 * MIB), memmap=memmap, memmap_shift=12)
    assert address.page_off(space, MEM_MAP + 4096 - 64) == 0xA000 - 64
    assert address.page_off(space, MEM_MAP + 4096) == 0x3000
    assert address.off(space, MEM_MAP + 3 * 4096 + 8) == 0x5008
    assert address.lookup(space, MEM_MAP + 2 * 4096) == UNMAPPED


def test_a_flat_page_array_is_part_of_the_direct_map(address_space: Callable[..., AddressSpace]) -> None:
    """FLATMEM: ``mem_map`` is a direct-map address, and every address above it is still itself."""
    space = address_space(Ram(64 * MIB), mem_map=PAGE_OFFSET + 2 * MIB)
    page = address.pfn_to_page(space, 5000)
    assert page == PAGE_OFFSET + 2 * MIB + 5000 * 64
    assert address.page_off(space, page) == address.off(space, page) == 2 * MIB + 5000 * 64
    assert address.page_to_pfn(space, page) == 5000
    assert address.off(space, PAGE_OFFSET + 32 * MIB) == 32 * MIB


def test_a_kernel_that_was_moved(address_space: Callable[..., AddressSpace]) -> None:
    space = address_space(Ram(64 * MIB), phys_base=16 * MIB)
    assert address.off(space, KERNEL + 8) == 16 * MIB + 8
    assert address.virt_to_phys(space, KERNEL) == 16 * MIB
    assert address.virt_to_page(space, KERNEL) == MEM_MAP + 64 * (16 * MIB >> 12)


@given(va=st.integers(0, (1 << 64) - 1))
def test_what_is_found_is_inside_memory(real: Real, va: int) -> None:
    _, space = real
    phys = address.lookup(space, va)
    assert phys == UNMAPPED or (phys < space.size and phys % 8 == 0)
    if phys == UNMAPPED:
        with pytest.raises(AddressError):
            address.off(space, va)

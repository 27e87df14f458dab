# SPDX-License-Identifier: GPL-2.0-only
"""Where a kernel has its regions: from VMCOREINFO, from its variables, from its page tables."""

from __future__ import annotations

import pytest

from physmem import paging
from physmem.errors import AbsentError, AddressError, CorruptionError, LayoutError, SymbolError
from physmem.image import VmcoreInfo
from physmem.ram import Ram
from physmem.ranges import Ranges
from physmem.regions import START_KERNEL_MAP, KernelImage, PageTables, Regions
from physmem.structs.layout import Layout
from physmem.symbols import Symbols

RAM = 64 << 20
PHYS_BASE = 0x1000000
PGD = START_KERNEL_MAP + 0x200000
VARIABLES = START_KERNEL_MAP + 0x300000

NOTE = {
    "SYMBOL(_stext)": f"{START_KERNEL_MAP + 0x100000:x}",
    "SYMBOL(swapper_pg_dir)": f"{PGD:x}",
    "NUMBER(phys_base)": str(PHYS_BASE),
    "NUMBER(KERNEL_IMAGE_SIZE)": str(1 << 30),
}
NOTHING = Layout.of([], {}, {}, "nothing")


@pytest.fixture
def ram() -> Ram:
    return Ram(RAM)


def regions(ram: Ram, note: dict[str, str], layout: Layout = NOTHING, **variables: int) -> Regions:
    """The regions of a kernel that has these variables."""
    places = {}
    for number, (name, value) in enumerate(variables.items()):
        places[name] = VARIABLES + 8 * number
        ram.set_u64(places[name] - START_KERNEL_MAP + PHYS_BASE, value)
    names = {key[7:-1]: int(value, 16) for key, value in note.items() if key.startswith("SYMBOL(")}
    return Regions.of(VmcoreInfo(note), Symbols(places | names, "a test"), layout, ram)


MOVED = {
    "page_offset_base": 0xFFFF88E4C0000000,
    "vmemmap_base": 0xFFFFF2A500000000,
    "vmalloc_base": 0xFFFF9000C0000000,
}


def test_a_kernel_that_moves_its_regions(ram: Ram) -> None:
    found = regions(ram, NOTE, **MOVED)
    assert found.page_offset == MOVED["page_offset_base"]
    assert found.vmemmap == MOVED["vmemmap_base"]
    assert found.direct_map_size == MOVED["vmalloc_base"] - MOVED["page_offset_base"]
    assert (found.levels, found.sme_mask, found.pgd) == (4, 0, PHYS_BASE + 0x200000)
    assert (found.start_kernel_map, found.phys_base) == (START_KERNEL_MAP, PHYS_BASE)
    assert found.kernel_image_size == 1 << 30


def test_a_newer_kernel_tells_two_of_them(ram: Ram) -> None:
    note = NOTE | {"SYMBOL(vmemmap)": "fffff9b4c0000000", "NUMBER(VMALLOC_START)": "0xffff8d00c0000000"}
    found = regions(ram, note, **MOVED)
    assert found.vmemmap == 0xFFFFF9B4C0000000
    assert found.direct_map_size == 0xFFFF8D00C0000000 - MOVED["page_offset_base"]


def test_five_levels(ram: Ram) -> None:
    moved = {"page_offset_base": 0xFF11000000000000, "vmemmap_base": 0xFFD4000000000000}
    found = regions(ram, NOTE | {"NUMBER(pgtable_l5_enabled)": "1"}, **moved)
    assert found.levels == 5
    assert found.direct_map_size == 1 << 52
    assert found.linear(0xFF11000000000000 + (1 << 50)) == 1 << 50


def test_a_kernel_that_has_them_in_its_layout(ram: Ram) -> None:
    layout = Layout.of(
        [], {}, {"PAGE_OFFSET": 0xFFFF880000000000, "VMEMMAP_START": 0xFFFFEA0000000000, "MAX_PHYSMEM_BITS": 40}, "x"
    )
    found = regions(ram, NOTE, layout)
    assert (found.page_offset, found.vmemmap) == (0xFFFF880000000000, 0xFFFFEA0000000000)
    assert found.direct_map_size == 1 << 40
    # What the kernel itself has is nearer to the truth.
    assert regions(ram, NOTE, layout, **MOVED).page_offset == MOVED["page_offset_base"]


@pytest.mark.parametrize("page_offset", [0xFFFF888000000000, 0xFFFF880000000000])
def test_a_kernel_that_tells_nothing(ram: Ram, page_offset: int) -> None:
    # A page table that maps the direct map by pages of 1 GiB.
    pud = 0x5000
    ram.set_u64(PHYS_BASE + 0x200000 + 8 * (page_offset >> 39 & 511), pud | 3)
    ram.set_u64(pud + 8 * (page_offset >> 30 & 511), 0x83)
    found = regions(ram, NOTE)
    assert (found.page_offset, found.vmemmap) == (page_offset, 0xFFFFEA0000000000)
    assert found.direct_map_size == 1 << 46


def test_no_way_to_know(ram: Ram) -> None:
    with pytest.raises(LayoutError, match="PAGE_OFFSET is unknown"):
        regions(ram, NOTE)
    note = {key: value for key, value in NOTE.items() if "pg_dir" not in key}
    with pytest.raises(SymbolError, match="where the kernel's page tables are"):
        regions(ram, note, **MOVED)


@pytest.mark.parametrize("value", [0, 0x7FFF00000000, 0xFFFF888000000001, 0xFFFF888010000000, 0x8000000000000000])
def test_a_variable_that_cannot_be(ram: Ram, value: int) -> None:
    with pytest.raises(CorruptionError, match="page_offset_base: 0x"):
        regions(ram, NOTE, **(MOVED | {"page_offset_base": value}))


def test_a_variable_that_is_absent(ram: Ram) -> None:
    holes = Ram(RAM, Ranges([(0, RAM)]) - Ranges([(PHYS_BASE + 0x300000, PHYS_BASE + 0x301000)]))
    with pytest.raises(AbsentError):
        Regions.of(
            VmcoreInfo(NOTE), Symbols({"page_offset_base": VARIABLES, "swapper_pg_dir": PGD}, "x"), NOTHING, holes
        )


# -- the kernel's image --------------------------------------------------------


def test_the_image(ram: Ram) -> None:
    ram.set_u64(0x1000, 0x1234)
    image = KernelImage(ram, START_KERNEL_MAP, -0x10000000, 1 << 30)
    assert image.u64(START_KERNEL_MAP + 0x10001000) == 0x1234
    assert image.read(START_KERNEL_MAP + 0x10001000, 2) == b"\x34\x12"
    assert START_KERNEL_MAP in image
    assert START_KERNEL_MAP + (1 << 30) not in image
    assert START_KERNEL_MAP - 1 not in image
    # The last one would be below physical 0.
    for outside in (START_KERNEL_MAP - 8, START_KERNEL_MAP + (1 << 30), 0, START_KERNEL_MAP):
        with pytest.raises(AddressError, match="not in the kernel's image"):
            image.u64(outside)


def test_as_much_of_the_image_as_there_is() -> None:
    image = KernelImage(Ram(0x3000, Ranges([(0, 0x1000), (0x2000, 0x3000)])), START_KERNEL_MAP, 0, 1 << 30)
    assert len(image.read_present(START_KERNEL_MAP + 0xFF0, 100)) == 16
    assert len(image.read_present(START_KERNEL_MAP + 0x2000, 100)) == 100
    assert image.read_present(START_KERNEL_MAP + 0x1000, 100) == b""


@pytest.mark.parametrize("phys_base", [0, 0x200000, 0x2200000])
def test_phys_base_is_found_where_it_says_it_is(ram: Ram, phys_base: int) -> None:
    ram.set_u64(0x500000, 1)
    at = START_KERNEL_MAP + 0x500000
    ram.set_u64(0x500000 + phys_base, phys_base)
    image = KernelImage.of(VmcoreInfo({}), {"phys_base": at}, NOTHING, ram)
    assert image.phys_base == phys_base
    assert image.size == 512 << 20


def test_phys_base_is_not_there(ram: Ram) -> None:
    ram.set_u64(0x500000, 1)
    with pytest.raises(LayoutError, match="phys_base is not found"):
        KernelImage.of(VmcoreInfo({}), {"phys_base": START_KERNEL_MAP + 0x500000}, NOTHING, ram)


# -- translation -----------------------------------------------------------------


def test_regions_that_are_mapped_by_subtraction(ram: Ram) -> None:
    found = regions(ram, NOTE, **MOVED)
    assert found.linear(START_KERNEL_MAP + 5) == PHYS_BASE + 5
    assert found.linear(MOVED["page_offset_base"] + 5) == 5
    assert found.linear(MOVED["vmalloc_base"] - 1) == MOVED["vmalloc_base"] - 1 - MOVED["page_offset_base"]
    for elsewhere in (MOVED["vmalloc_base"], MOVED["page_offset_base"] - 1, 0, START_KERNEL_MAP + (1 << 30)):
        assert found.linear(elsewhere) is None


def test_encrypted_page_tables(ram: Ram) -> None:
    mask = 1 << 47
    va = 0xFFFFC00000000000
    ram.set_u64(0x1000 + 8 * (va >> 39 & 511), mask | 0x2003)
    ram.set_u64(0x2000, mask | 0x3003)
    ram.set_u64(0x3000, mask | 0x4003)
    ram.set_u64(0x4000, mask | 0xABC000 | 3)
    with pytest.raises((AbsentError, AddressError)):
        paging.walk(ram, 0x1000, va)
    tables = PageTables(ram, mask)
    assert paging.walk(tables, 0x1000, va + 5).phys == 0xABC005
    pieces, shift = paging.chunks(tables, 0x1000, va, va + (1 << 21))
    assert (shift, int(pieces[0])) == (12, 0xABC000)
    assert list(paging.runs(tables, 0x1000, va, va + (1 << 21))) == [(va, va + 4096, 0xABC000)]
    assert tables.ranges == ram.ranges
    assert tables.size == ram.size
    assert tables.read(0x4000, 16) == (0xABC003).to_bytes(8, "little") + bytes(8)
    note = NOTE | {"NUMBER(sme_mask)": str(mask), "SYMBOL(swapper_pg_dir)": f"{PGD:x}"}
    found = regions(ram, note, **MOVED)
    assert found.sme_mask == mask
    assert found.pgd == PHYS_BASE + 0x200000

# SPDX-License-Identifier: GPL-2.0-only
"""Page tables, as the CPU would walk them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelmm.bringup.memblock import Memblock
from kernelmm.bringup.tables import map_range, split_mem_range
from physmem import paging
from physmem.errors import UsageError

PAGE = 4096
MIB = 1 << 20
GIB = 1 << 30


def walk(machine: Any, va: int) -> tuple[int | None, int]:
    """Physical address and page size."""
    found = paging.walk(machine.mm.ram, machine.dump.pgd, va)
    return found.phys, found.page_size


# -- which pages ----------------------------------------------------------------------------------


@given(st.integers(0, 5 << 18), st.integers(1, 3 << 18), st.booleans())
def test_pieces_cover_the_range_and_are_aligned(start: int, size: int, gbpages: bool) -> None:
    memblock = Memblock()
    memblock.add(start * PAGE, (start + size) * PAGE)
    pieces = split_mem_range(start * PAGE, (start + size) * PAGE, memblock, 30 if gbpages else 21)
    assert pieces[0].start == start * PAGE
    assert pieces[-1].end == (start + size) * PAGE
    for one, other in pairwise(pieces):
        assert one.end == other.start
        assert one.shift != other.shift
    assert all(piece.shift in ((12, 21, 30) if gbpages else (12, 21)) for piece in pieces)
    # Around this range there is no memory: large pages are inside it.
    assert all(point % (1 << piece.shift) == 0 for piece in pieces for point in (piece.start, piece.end))
    # And nothing is in smaller pages than it must be.
    for piece in pieces:
        for shift in range(piece.shift + 9, 31 if gbpages else 22, 9):
            first = -(-piece.start >> shift) << shift
            assert first + (1 << shift) > piece.end


def test_edges_get_large_pages_if_there_is_memory_around_them() -> None:
    memblock = Memblock()
    memblock.add(0, 4 * GIB)
    assert split_mem_range(MIB, 3 * MIB, memblock) == [(MIB, 3 * MIB, 30)]
    assert split_mem_range(MIB, 3 * MIB, memblock, 21) == [(MIB, 3 * MIB, 21)]


# -- a machine's tables ---------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "gbpages"), [("16M", True), ("100M", True), ("5G", True), ("5G", False)])
def test_everything_is_where_it_should_be(booted: Callable[..., Any], size: str, gbpages: bool) -> None:
    machine = booted(size, gbpages=gbpages)
    kernel = machine.kernel
    sizes = set()
    for start, end in machine.mm.ram.ranges:
        for phys in {start, (start + end) // 2 & -PAGE, end - PAGE}:
            found, page_size = walk(machine, kernel.va(phys) + 123)
            assert found == phys + 123
            sizes.add(page_size)
    assert sizes <= {PAGE, 2 * MIB, GIB}
    assert (GIB in sizes) == (size == "5G" and gbpages)
    # Beyond memory there is nothing, but for the ISA range.
    assert walk(machine, kernel.va(machine.mm.ram.size + GIB)) == (None, 0)
    assert walk(machine, kernel.va(0xA0000)) == (0xA0000, PAGE)
    # The kernel's image, executable; its data in the direct map, not.
    image = machine.dump.symbols["_stext"]
    assert walk(machine, image) == (kernel.phys(image), 2 * MIB)
    steps = paging.walk(machine.mm.ram, machine.dump.pgd, image).steps
    assert "NX" not in steps[-1].flags
    steps = paging.walk(machine.mm.ram, machine.dump.pgd, kernel.va(kernel.phys(image))).steps
    assert "NX" in steps[-1].flags
    assert walk(machine, 0xFFFFFFFFA0000000) == (None, 0)


def test_the_page_array_is_mapped_by_pages_of_2_mib(booted: Callable[..., Any]) -> None:
    machine = booted("300M")
    start = machine.dump.layout.constant("VMEMMAP_START")
    seen = set()
    for section in range(3):
        phys, page_size = walk(machine, start + section * 2 * MIB)
        assert page_size == 2 * MIB
        seen.add(phys)
    assert len(seen) == 3
    assert walk(machine, start + 3 * 2 * MIB) == (None, 0)


def test_tables_are_reserved(booted: Callable[..., Any]) -> None:
    """No table is in memory that somebody else may be given."""
    machine = booted("5G", gbpages=False)
    tables = set()
    for start, end in machine.mm.ram.ranges:
        for phys in range(start, end, 64 * MIB):
            steps = paging.walk(machine.mm.ram, machine.dump.pgd, machine.kernel.va(phys)).steps
            tables |= {step.table >> 12 for step in steps}
    assert len(tables) > 5
    array, exists = machine.dump.pages(0, machine.dump.max_pfn, ["flags"])
    for table in tables:
        assert exists[table]
        assert int(array["flags"][table]) >> 10 & 1


def test_what_is_mapped_stays(booted: Callable[..., Any]) -> None:
    machine = booted("64M")
    kernel = machine.kernel
    phys = machine.dump.virt_to_phys(kernel.symbols["mem_section"])
    va = kernel.va(phys) & -PAGE

    def nothing() -> int:
        raise AssertionError("no table is missing")

    map_range(kernel, va, va + PAGE, 0x5000, 12, nothing)
    assert walk(machine, va) == (phys & -PAGE, 2 * MIB)


def test_too_little_memory_in_one_piece(booted: Callable[..., Any]) -> None:
    busy = tuple((i * 2 * MIB, i * 2 * MIB + PAGE) for i in range(2, 8))
    with pytest.raises(UsageError, match="too little memory to boot"):
        booted("16M", reserved=busy)

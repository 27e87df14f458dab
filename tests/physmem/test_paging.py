# SPDX-License-Identifier: GPL-2.0-only
"""Page tables: walks over tables written by hand, over tables made at random, and over a real kernel's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from physmem import paging
from physmem.dump import open_dump
from physmem.errors import AbsentError, AddressError, CorruptionError
from physmem.ram import Ram
from physmem.ranges import Ranges
from physmem.space import UNMAPPED

PAGE = 4096
RW_ACCESSED_DIRTY = 0x63  # PRESENT RW ACCESSED DIRTY
LARGE = 0x80
NX = 1 << 63

PGD, P4D, PUD, PMD, PTE = (n * PAGE for n in range(1, 6))


@pytest.fixture
def ram() -> Ram:
    return Ram(16 * PAGE)


def indices(va: int, *shifts: int) -> list[int]:
    return [va >> shift & 511 for shift in shifts]


def test_every_level_of_a_small_page(ram: Ram) -> None:
    va = 0xFFFF_C123_4567_89AB
    pgd, pud, pmd, pte = indices(va, 39, 30, 21, 12)
    ram.set_u64(PGD + 8 * pgd, PUD | 0x67)
    ram.set_u64(PUD + 8 * pud, PMD | 0x63)
    ram.set_u64(PMD + 8 * pmd, PTE | 0x63)
    ram.set_u64(PTE + 8 * pte, 0xABCDE000 | 0x163 | NX)
    walk = paging.walk(ram, PGD, va)
    assert (walk.va, walk.phys, walk.page_size) == (va, 0xABCDE9AB, 4096)
    assert [(step.level, step.table, step.index, step.shift) for step in walk.steps] == [
        ("PGD", PGD, pgd, 39),
        ("PUD", PUD, pud, 30),
        ("PMD", PMD, pmd, 21),
        ("PTE", PTE, pte, 12),
    ]
    assert [step.is_leaf for step in walk.steps] == [False, False, False, True]
    assert walk.steps[0].flags == ["PRESENT", "RW", "USER", "ACCESSED", "DIRTY"]
    assert walk.steps[3].flags == ["PRESENT", "RW", "ACCESSED", "DIRTY", "GLOBAL", "NX"]
    assert walk.steps[3].at == PTE + 8 * pte


@pytest.mark.parametrize(
    ("level", "size", "phys"), [("PMD", 2 << 20, 0x1234_5600_0000), ("PUD", 1 << 30, 0x1234_4000_0000)]
)
def test_large_pages(ram: Ram, level: str, size: int, phys: int) -> None:
    va = 0x0000_7FFF_FFFF_FFFF
    pgd, pud, pmd = indices(va, 39, 30, 21)
    ram.set_u64(PGD + 8 * pgd, PUD | RW_ACCESSED_DIRTY)
    # Bit 12 of a large page's entry is PAT, not address.
    leaf = phys | RW_ACCESSED_DIRTY | LARGE | 1 << 12 | NX
    if level == "PMD":
        ram.set_u64(PUD + 8 * pud, PMD | RW_ACCESSED_DIRTY)
        ram.set_u64(PMD + 8 * pmd, leaf)
    else:
        ram.set_u64(PUD + 8 * pud, leaf)
    walk = paging.walk(ram, PGD, va)
    assert (walk.phys, walk.page_size) == (phys + size - 1, size)
    assert (walk.steps[-1].level, walk.steps[-1].is_leaf) == (level, True)


def test_the_large_bit_means_nothing_in_a_pgd_entry(ram: Ram) -> None:
    ram.set_u64(PGD, PUD | RW_ACCESSED_DIRTY | LARGE)
    assert [step.level for step in paging.walk(ram, PGD, 0).steps] == ["PGD", "PUD"]


def test_five_levels(ram: Ram) -> None:
    va = 0xFF12_3456_789A_BCDE
    pgd, p4d, pud, pmd, pte = indices(va, 48, 39, 30, 21, 12)
    for table, index, entry in ((PGD, pgd, P4D), (P4D, p4d, PUD), (PUD, pud, PMD), (PMD, pmd, PTE), (PTE, pte, 0x7000)):
        ram.set_u64(table + 8 * index, entry | RW_ACCESSED_DIRTY)
    walk = paging.walk(ram, PGD, va, levels=5)
    assert (walk.phys, len(walk.steps)) == (0x7CDE, 5)
    with pytest.raises(AddressError, match="not canonical: bits 63 to 47"):
        paging.walk(ram, PGD, va)


@pytest.mark.parametrize("missing", range(4))
def test_not_present_ends_the_walk(ram: Ram, missing: int) -> None:
    entries = [(PGD, PUD), (PUD, PMD), (PMD, PTE), (PTE, 0x9000)]
    for level, (table, entry) in enumerate(entries):
        ram.set_u64(table, entry | (0x62 if level == missing else 0x63))
    walk = paging.walk(ram, PGD, 0)
    assert (walk.phys, walk.page_size, len(walk.steps)) == (None, 0, missing + 1)


def test_an_absent_table_is_named() -> None:
    ram = Ram(16 * PAGE, Ranges([(PGD, PGD + PAGE)]))
    ram.set_u64(PGD, PUD | RW_ACCESSED_DIRTY)
    with pytest.raises(AbsentError) as caught:
        paging.walk(ram, PGD, 5 << 30)
    assert caught.value.phys == PUD + 8 * 5


@pytest.mark.parametrize(
    ("va", "levels", "canonical"),
    [
        (0, 4, True),
        (0x0000_7FFF_FFFF_FFFF, 4, True),
        (0x0000_8000_0000_0000, 4, False),
        (0xFFFF_7FFF_FFFF_FFFF, 4, False),
        (0xFFFF_8000_0000_0000, 4, True),
        ((1 << 64) - 1, 4, True),
        (0x0000_8000_0000_0000, 5, True),
        (0x0100_0000_0000_0000, 5, False),
        (0xFF00_0000_0000_0000, 5, True),
        (0xFEFF_FFFF_FFFF_FFFF, 5, False),
        (1 << 64, 4, False),
        (-1, 4, False),
    ],
)
def test_canonical_addresses(va: int, levels: int, canonical: bool) -> None:
    assert paging.is_canonical(va, levels) is canonical
    if not canonical and va >= 0:
        with pytest.raises(AddressError, match="not canonical"):
            paging.walk(Ram(PAGE), 0, va, levels)


@pytest.mark.parametrize("levels", [0, 3, 6])
def test_there_are_four_or_five_levels(levels: int) -> None:
    with pytest.raises(AddressError, match=f"page tables of {levels} levels"):
        paging.walk(Ram(PAGE), 0, 0, levels)


def test_tables_that_lead_to_themselves_end(ram: Ram) -> None:
    for entry in range(512):
        ram.set_u64(PGD + 8 * entry, PGD | RW_ACCESSED_DIRTY)
    assert paging.walk(ram, PGD, 0x1234_5678_9000).phys == PGD
    assert paging.chunks(ram, PGD, 0, 1 << 21)[1] == 12


# -- many pages at once --------------------------------------------------------------------

START = 0xFFFF_EA00_3F80_0000
#: What may be in an entry of the two PMD tables behind START, and where: a piece of 2 MiB.
PIECES = st.lists(st.sampled_from(["nothing", "large", "small", "absent"]), min_size=8, max_size=8)


@settings(deadline=None)
@given(pieces=PIECES, holes=st.sets(st.integers(0, 511), max_size=20), giant=st.booleans())
def test_chunks_are_many_walks(pieces: list[str], holes: set[int], giant: bool) -> None:
    """Four pieces before and four behind a boundary of 1 GiB; the second half may be one page of 1 GiB."""
    absent = 12 * PAGE
    ram = Ram(24 * PAGE, Ranges([(0, absent), (absent + PAGE, 24 * PAGE)]))
    second_pmd = 6 * PAGE
    pgd, pud = indices(START, 39, 30)
    ram.set_u64(PGD + 8 * pgd, PUD | RW_ACCESSED_DIRTY)
    ram.set_u64(PUD + 8 * pud, PMD | RW_ACCESSED_DIRTY)
    ram.set_u64(
        PUD + 8 * (pud + 1), 0x40000000 | RW_ACCESSED_DIRTY | LARGE if giant else second_pmd | RW_ACCESSED_DIRTY
    )
    for number, piece in enumerate(pieces):
        small = (16 + number) * PAGE
        for hole in range(512):
            mapped = 0x1000 * (hole + 100) | RW_ACCESSED_DIRTY
            ram.set_u64(small + 8 * hole, 0 if hole in holes else mapped)
        entry = {
            "nothing": 0,
            "large": (0x1000_0000 + (number << 21)) | RW_ACCESSED_DIRTY | LARGE,
            "small": small | RW_ACCESSED_DIRTY,
            "absent": absent | RW_ACCESSED_DIRTY,
        }[piece]
        table, index = (PMD, 508 + number) if number < 4 else (second_pmd, number - 4)
        ram.set_u64(table + 8 * index, entry)
    found, shift = paging.chunks(ram, PGD, START, START + (8 << 21))
    assert shift == (12 if {"small", "absent"} & set(pieces[: 4 if giant else 8]) else 21)
    assert len(found) == 8 << 21 - shift
    # Stretches say the same, as long as they can be.
    told, last = [UNMAPPED] * len(found), (0, 0, 0)
    for begin, end, phys in paging.runs(ram, PGD, START, START + (8 << 21)):
        assert begin > last[1] or phys != last[2] + last[1] - last[0]
        last = begin, end, phys
        for va in range(begin, end, 1 << shift):
            told[(va - START) >> shift] = phys + va - begin
    assert told == found.tolist()
    for number, phys in enumerate(found.tolist()):
        try:
            walked = paging.walk(ram, PGD, START + (number << shift)).phys
        except AbsentError:
            walked = None
        assert phys == (UNMAPPED if walked is None else walked)


def test_a_real_kernels_tables(oracle: Callable[[str], Any]) -> None:
    with open_dump(oracle("n128_s1").a) as dump:
        page_array = paging.walk(dump.memory, dump.pgd, 0xFFFFEA0000000000)
        assert (page_array.page_size, page_array.phys) == (2 << 20, dump.virt_to_phys(0xFFFFEA0000000000))
        # The direct map and the kernel's text map what they are said to map.
        for va in (0xFFFF880000100000, 0xFFFF880007C0A81B, dump.symbols["vm_stat"], dump.symbols["node_data"]):
            assert paging.walk(dump.memory, dump.pgd, va).phys == dump.virt_to_phys(va)
        found, shift = paging.chunks(dump.memory, dump.pgd, 0xFFFF880000000000, 0xFFFF880008000000)
        assert shift in (12, 21)
        step = 1 << shift
        assert [phys for i, phys in enumerate(found.tolist()) if phys not in (i * step, UNMAPPED)] == []


@pytest.mark.parametrize("told", [paging.chunks, lambda *where: list(paging.runs(*where))])
def test_a_table_that_is_met_twice_is_corruption(told: Callable[..., object], ram: Ram) -> None:
    """A small image could claim to map more than any memory holds."""
    pgd, pud, pmd = indices(START, 39, 30, 21)
    ram.set_u64(PGD + 8 * pgd, PUD | RW_ACCESSED_DIRTY)
    ram.set_u64(PUD + 8 * pud, PMD | RW_ACCESSED_DIRTY)
    ram.set_u64(PTE, 0xABC000 | RW_ACCESSED_DIRTY)
    for number in range(2):
        ram.set_u64(PMD + 8 * (pmd + number), PTE | RW_ACCESSED_DIRTY)
    with pytest.raises(CorruptionError, match="the table at 0x5000 maps two parts"):
        told(ram, PGD, START, START + (2 << 21))

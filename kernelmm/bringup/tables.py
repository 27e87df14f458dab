# SPDX-License-Identifier: GPL-2.0-only
"""Page tables: the kernel image, the direct map, the vmemmap (arch/x86/mm/init.c, init_64.c, kernel/head_64.S).

The direct map has pages as large as the memory allows: 1 GiB and 2 MiB where memory is whole, 4 KiB at
its edges.  It is made from the top down, so that each step finds memory for its tables in what the step
before has mapped; the very first tables are in the kernel image (brk).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from kernelmm.bringup.kernel import Kernel
from kernelmm.bringup.linker import EARLY_PGT_PAGES
from kernelmm.bringup.memblock import Memblock
from kernelmm.bringup.rounding import round_down, round_up
from physmem.errors import UsageError
from physmem.paging import LARGE, PRESENT, PTE_ADDRESS

__all__ = ["init_mem_mapping", "map_range", "setup_kernel_mapping", "split_mem_range", "vmemmap_populate"]

PAGE_SIZE = 4096
PMD_SIZE = 1 << 21
PUD_SIZE = 1 << 30
ISA_END_ADDRESS = 1 << 20

PAGE_SHIFT, PMD_SHIFT, PUD_SHIFT, PGD_SHIFT = 12, 21, 30, 39

# arch/x86/include/asm/pgtable_types.h
_KERNPG_TABLE = 0x063  # present, writable, accessed, dirty
_PAGE_TABLE = 0x067  # and for user mode: the last level decides
PAGE_KERNEL = 1 << 63 | 0x163  # global, not executable
PAGE_KERNEL_LARGE = 1 << 63 | 0x1E3
PAGE_KERNEL_LARGE_EXEC = 0x1E3

_AllocTable = Callable[[], int]


class Piece(NamedTuple):
    """Physical [start, end), to be mapped by pages of 2^shift bytes."""

    start: int
    end: int
    shift: int


def setup_kernel_mapping(kernel: Kernel, start: int, end: int) -> None:
    """Map the kernel image, by pages of 2 MiB (``init_level4_pgt``, after ``cleanup_highmap``).

    :param start: physical address where it begins
    :param end: where it ends
    """
    phys = {name: kernel.phys(kernel.symbols[name]) for name in kernel.symbols if name.startswith(("init_l", "level"))}
    kernel.words(phys["init_level4_pgt"], 512)[511] = phys["level3_kernel_pgt"] | _PAGE_TABLE
    kernel.words(phys["level3_kernel_pgt"], 512)[510] = phys["level2_kernel_pgt"] | _KERNPG_TABLE
    kernel.words(phys["level3_kernel_pgt"], 512)[511] = phys["level2_fixmap_pgt"] | _PAGE_TABLE
    pmds = kernel.words(phys["level2_kernel_pgt"], 512)
    for at in range(start, end, PMD_SIZE):
        pmds[(at - kernel.phys_base) >> PMD_SHIFT] = at | PAGE_KERNEL_LARGE_EXEC


def map_range(kernel: Kernel, va: int, end: int, phys: int, shift: int, alloc: _AllocTable) -> None:
    """Map kernel addresses [va, end) to ``phys`` by pages of 2^shift bytes; what is mapped already stays.

    :param alloc: gives the physical address of a page of zeros
    """
    prot = PAGE_KERNEL if shift == PAGE_SHIFT else PAGE_KERNEL_LARGE
    top = kernel.phys(kernel.symbols["init_level4_pgt"])
    _fill(kernel, top, PGD_SHIFT, (va, end, phys), shift, prot, alloc)


def _fill(
    kernel: Kernel, table: int, level: int, run: tuple[int, int, int], shift: int, prot: int, alloc: _AllocTable
) -> None:
    """:func:`map_range` for the part of ``run`` (va, end, phys) in one table, whose entries map 2^level bytes each."""
    va, end, phys = run
    entries = kernel.words(table, 512)
    first, last = va >> level & 511, end - 1 >> level & 511
    indices = list(range(first, last + 1))
    if level == shift:
        here = entries[first : last + 1]
        large = np.uint64((phys & -(1 << level)) | prot) + (np.arange(len(here), dtype=np.uint64) << np.uint64(level))
        tables = (here != 0) & (here & np.uint64(LARGE) == 0)
        np.copyto(here, large, where=here == 0)
        if level == PAGE_SHIFT or not tables.any():
            return
        # There are smaller pages here already: the gaps between them get smaller pages too.
        indices = [first + int(i) for i in np.flatnonzero(tables)]
        shift -= 9
        prot = PAGE_KERNEL if shift == PAGE_SHIFT else PAGE_KERNEL_LARGE
    for index in indices:
        entry_va = (va & -(1 << level)) + (index - first << level)
        low, high = max(va, entry_va), min(end, entry_va + (1 << level))
        entry = int(entries[index])
        if not entry & PRESENT:
            entry = alloc() | _PAGE_TABLE
            entries[index] = entry
        if not entry & LARGE:
            _fill(kernel, entry & PTE_ADDRESS, level - 9, (low, high, phys + low - va), shift, prot, alloc)


def split_mem_range(start: int, end: int, memblock: Memblock, largest: int = PUD_SHIFT) -> list[Piece]:
    """``split_mem_range``: which pages to map physical [start, end) by, of 2^largest bytes at most.

    1 GiB in the middle, then outwards 2 MiB and 4 KiB, as alignment allows; but an edge gets larger
    pages after all if there is memory all around it.
    """
    head = min(round_up(start, PMD_SIZE), end)
    middle = max(head, min(round_up(head, PUD_SIZE), round_down(end, PMD_SIZE)))
    after = max(middle, round_down(end, PUD_SIZE))
    tail = max(after, round_down(end, PMD_SIZE))
    cuts = pairwise((start, head, middle, after, tail, end))
    pieces: list[Piece] = []
    for (low, high), shift in zip(cuts, (PAGE_SHIFT, PMD_SHIFT, PUD_SHIFT, PMD_SHIFT, PAGE_SHIFT), strict=True):
        if low == high:
            continue
        for larger in (PMD_SHIFT, PUD_SHIFT):
            if shift < larger and memblock.is_memory(round_down(low, 1 << larger), round_up(high, 1 << larger)):
                shift = larger
        shift = min(shift, largest)
        if pieces and pieces[-1].shift == shift:
            low = pieces.pop().start
        pieces.append(Piece(low, high, shift))
    return pieces


def init_mem_mapping(kernel: Kernel, memblock: Memblock, end: int, largest: int = PUD_SHIFT) -> None:
    """``init_mem_mapping``: the direct map of all memory below ``end``, and of the ISA range.

    :param largest: log2 of the bytes of the largest pages (``page_size_mask``)
    """
    direct = _DirectMap(kernel, memblock, largest)
    direct.init_memory_mapping(0, ISA_END_ADDRESS)
    direct.top_down(ISA_END_ADDRESS, end)


class _DirectMap:
    """The direct map while it grows.

    :ivar lowest: from this physical address on, memory is mapped (as far as it is memory)
    :ivar highest: up to this one
    """

    def __init__(self, kernel: Kernel, memblock: Memblock, largest: int) -> None:
        self.kernel = kernel
        self.memblock = memblock
        self.largest = largest
        self.lowest = self.highest = 0
        self.early = kernel.phys(kernel.symbols["__brk_base"])
        self.early_end = self.early + EARLY_PGT_PAGES * PAGE_SIZE

    def alloc_low_page(self) -> int:
        """``alloc_low_page``: a page for a table, which the direct map maps already, or the kernel image."""
        if self.early < self.early_end:
            self.early += PAGE_SIZE
            return self.early - PAGE_SIZE
        found = self.memblock.find_in_range(self.lowest, self.highest, PAGE_SIZE, PAGE_SIZE)
        if found is None:
            raise UsageError("too little memory to boot: no page left for the page tables of the direct map")
        self.memblock.reserve(found, found + PAGE_SIZE)
        return found

    def init_memory_mapping(self, start: int, end: int) -> None:
        """``init_memory_mapping``: map physical [start, end)."""
        for piece in split_mem_range(start, end, self.memblock, self.largest):
            va = self.kernel.va(piece.start)
            map_range(self.kernel, va, va + piece.end - piece.start, piece.start, piece.shift, self.alloc_low_page)
        self.highest = max(self.highest, end)

    def init_range_memory_mapping(self, start: int, end: int) -> int:
        """``init_range_memory_mapping``: map the memory in [start, end), not the holes; bytes mapped."""
        mapped = 0
        for start_pfn, end_pfn, _ in self.memblock.pfn_ranges():
            low, high = max(start, start_pfn * PAGE_SIZE), min(end, end_pfn * PAGE_SIZE)
            if low < high:
                self.init_memory_mapping(low, high)
                mapped += high - low
        return mapped

    def top_down(self, map_start: int, map_end: int) -> None:
        """``memory_map_top_down``: map 2 MiB near the end of memory, then larger and larger steps below."""
        found = self.memblock.find_in_range(map_start, map_end, PMD_SIZE, PMD_SIZE)
        if found is None:
            raise UsageError("too little memory to boot: nowhere 2 MiB in one piece")
        real_end = last = found + PMD_SIZE
        self.highest, self.lowest = 0, real_end
        mapped, step = 0, PMD_SIZE
        while last > map_start:
            start = max(round_down(last - 1, step), map_start) if last > step else map_start
            mapped += self.init_range_memory_mapping(start, last)
            self.lowest = last = start
            if mapped >= step:
                # One table of the step's pages costs a table of pages 512 times smaller, less one bit to be safe.
                step <<= PMD_SHIFT - PAGE_SHIFT - 1
        if real_end < map_end:
            self.init_range_memory_mapping(real_end, map_end)


def vmemmap_populate(kernel: Kernel, start: int, end: int, alloc_table: _AllocTable, alloc_block: _AllocTable) -> None:
    """``vmemmap_populate_hugepages``: back the page array at kernel addresses [start, end) by pages of 2 MiB.

    :param alloc_table: gives the physical address of a page for a page table
    :param alloc_block: gives that of 2 MiB, aligned to their size
    """
    top = kernel.phys(kernel.symbols["init_level4_pgt"])
    for va in range(round_down(start, PMD_SIZE), end, PMD_SIZE):
        table = top
        for level in (PGD_SHIFT, PUD_SHIFT):
            entries = kernel.words(table, 512)
            index = va >> level & 511
            if not int(entries[index]) & PRESENT:
                entries[index] = alloc_table() | _PAGE_TABLE
            table = int(entries[index]) & PTE_ADDRESS
        pmds = kernel.words(table, 512)
        if not pmds[va >> PMD_SHIFT & 511]:
            pmds[va >> PMD_SHIFT & 511] = alloc_block() | PAGE_KERNEL_LARGE

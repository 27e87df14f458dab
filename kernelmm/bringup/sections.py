# SPDX-License-Identifier: GPL-2.0-only
"""Sections: the sparse memory map, classic or virtual (mm/sparse.c, mm/sparse-vmemmap.c).

Physical memory is cut into sections of 128 MiB.  A section that has memory at all is *present*: it has
entries in the page array, whether its memory is whole or not, and a *usemap* with four bits for each of
its pageblocks.  ``mem_section`` is a table of tables; a section's entry says where its part of the page
array would begin if PFN 0 were in it, with flags in the low bits.
"""

from __future__ import annotations

from itertools import groupby

import numpy as np
import numpy.typing as npt

from kernelmm.bringup.kernel import Kernel
from kernelmm.bringup.memblock import Memblock
from kernelmm.bringup.rounding import div_round_up, round_up
from kernelmm.bringup.tables import vmemmap_populate
from physmem.memory_model import MemoryModel

__all__ = ["memory_present", "present_sections", "section_ptr", "sparse_init", "sparse_init_one_section"]

PAGE_SIZE = 4096
PMD_SIZE = 1 << 21
#: Below it is memory for old devices, which the page array does not take if it can help it.
MAX_DMA_ADDRESS = 16 << 20

SECTION_MARKED_PRESENT = 1
SECTION_HAS_MEM_MAP = 2
#: Before a section has its page array, its entry keeps its node.
SECTION_NID_SHIFT = 2


def section_ptr(kernel: Kernel, nr: int) -> int:
    """``__nr_to_section``: ``struct mem_section *``, or 0 if its part of the table does not exist."""
    per_root = kernel.layout.constant("SECTIONS_PER_ROOT")
    root = kernel.var("mem_section", nr // per_root)
    return root + nr % per_root * kernel.layout.sizeof("mem_section") if root else 0


def section_maps(kernel: Kernel, root: int) -> npt.NDArray[np.uint64]:
    """``section_mem_map`` of all sections of a part of the table: the live words."""
    per_root = kernel.layout.constant("SECTIONS_PER_ROOT")
    size = kernel.layout.sizeof("mem_section") // 8
    words = kernel.words(kernel.phys(kernel.var("mem_section", root)), per_root * size)
    return words[kernel.layout.offsetof("mem_section", "section_mem_map") // 8 :: size]


def present_sections(kernel: Kernel) -> list[int]:
    """The numbers of the sections that are present, ascending."""
    per_root = kernel.layout.constant("SECTIONS_PER_ROOT")
    roots = kernel.words(kernel.phys(kernel.symbols["mem_section"]), kernel.layout.constant("NR_SECTION_ROOTS"))
    found: list[int] = []
    for root in np.flatnonzero(roots).tolist():
        present = section_maps(kernel, root) & np.uint64(SECTION_MARKED_PRESENT)
        found += (np.flatnonzero(present) + root * per_root).tolist()
    return found


def memory_present(kernel: Kernel, memblock: Memblock, nid: int, start_pfn: int, end_pfn: int) -> None:
    """``memory_present``: mark the sections of [start_pfn, end_pfn); a section that nodes share is the first one's."""
    shift = kernel.layout.constant("PFN_SECTION_SHIFT")
    per_root = kernel.layout.constant("SECTIONS_PER_ROOT")
    first, last = start_pfn >> shift, end_pfn - 1 >> shift
    for root in range(first // per_root, last // per_root + 1):
        if not kernel.var("mem_section", root):
            size = per_root * kernel.layout.sizeof("mem_section")
            table = memblock.alloc(size, nid=nid, what="the table of sections")
            kernel.set_var("mem_section", kernel.va(table), root)
        low, high = max(first - root * per_root, 0), min(last + 1 - root * per_root, per_root)
        maps = section_maps(kernel, root)[low:high]
        maps[maps == 0] = nid << SECTION_NID_SHIFT | SECTION_MARKED_PRESENT


def sparse_memory_present_with_active_regions(kernel: Kernel, memblock: Memblock) -> None:
    """``sparse_memory_present_with_active_regions``: mark the sections of all memory."""
    for start_pfn, end_pfn, nid in memblock.pfn_ranges():
        memory_present(kernel, memblock, nid, start_pfn, end_pfn)


def sparse_init(kernel: Kernel, memblock: Memblock) -> None:
    """``sparse_init``: give every present section its usemap and its part of the page array.

    What the sections of a node need is allocated in one piece.  The page array is on the sections' node.
    The usemaps are all on node 0: the kernel takes the node's number from a pgdat that nobody has filled yet.
    """
    usemap_size = div_round_up(kernel.layout.constant("SECTION_BLOCKFLAGS_BITS"), 64) * 8
    sections = present_sections(kernel)
    at = {nr: section_ptr(kernel, nr) for nr in sections}

    def early_nid(nr: int) -> int:
        return kernel.get(at[nr], "mem_section.section_mem_map") >> SECTION_NID_SHIFT

    runs = [(nid, list(run)) for nid, run in groupby(sections, key=early_nid)]
    usemaps: dict[int, int] = {}
    for _, run in runs:
        usemap = memblock.alloc(usemap_size * len(run), nid=0, what="pageblock flags")
        usemaps |= {nr: usemap + i * usemap_size for i, nr in enumerate(run)}
    populate = populate_node if kernel.model is MemoryModel.SPARSEMEM_VMEMMAP else sparse_mem_maps_populate_node
    mem_maps: dict[int, int] = {}
    for nid, run in runs:
        mem_maps |= populate(kernel, memblock, nid, run)
    for nr in sections:
        sparse_init_one_section(kernel, at[nr], nr, mem_maps[nr], kernel.va(usemaps[nr]))


def sparse_mem_maps_populate_node(kernel: Kernel, memblock: Memblock, nid: int, run: list[int]) -> dict[int, int]:
    """``sparse_mem_maps_populate_node`` without a virtual memory map: memory for the page array of the sections in
    ``run``, in one piece if possible; where each section's part is.
    """
    size = round_up(_memmap_size(kernel), PAGE_SIZE)
    whole = memblock.try_alloc(size * len(run), PAGE_SIZE, nid, MAX_DMA_ADDRESS)
    if whole is not None:
        return {nr: kernel.va(whole + i * size) for i, nr in enumerate(run)}
    return {nr: kernel.va(memblock.alloc(size, PAGE_SIZE, nid, MAX_DMA_ADDRESS, what="the page array")) for nr in run}


def populate_node(kernel: Kernel, memblock: Memblock, nid: int, run: list[int]) -> dict[int, int]:
    """``sparse_mem_maps_populate_node`` with one: back the page array of the sections in ``run``, in one piece if
    possible; where each section's part is.
    """
    size = _memmap_size(kernel)
    whole = memblock.try_alloc(size * len(run), PMD_SIZE, nid, MAX_DMA_ADDRESS)

    def block() -> int:
        nonlocal whole
        if whole is None:
            return memblock.alloc(PMD_SIZE, PMD_SIZE, nid, MAX_DMA_ADDRESS, what="the page array")
        whole += PMD_SIZE
        return whole - PMD_SIZE

    def table() -> int:
        return memblock.alloc(PAGE_SIZE, PAGE_SIZE, nid, MAX_DMA_ADDRESS, what="the page tables of the page array")

    start = kernel.layout.constant("VMEMMAP_START")
    for nr in run:
        vmemmap_populate(kernel, start + nr * size, start + (nr + 1) * size, table, block)
    return {nr: start + nr * size for nr in run}


def sparse_init_one_section(kernel: Kernel, section: int, nr: int, mem_map: int, usemap: int) -> None:
    """``sparse_init_one_section``: enter the page array and the usemap of a present section.

    :param section: ``struct mem_section *``
    :param mem_map: the section's part of the page array, a kernel address
    :param usemap: its pageblock flags, a kernel address
    """
    flags = SECTION_MARKED_PRESENT | SECTION_HAS_MEM_MAP
    kernel.set(section, "mem_section.section_mem_map", sparse_encode_mem_map(kernel, mem_map, nr) | flags)
    kernel.set(section, "mem_section.pageblock_flags", usemap)


def sparse_encode_mem_map(kernel: Kernel, mem_map: int, nr: int) -> int:
    """``sparse_encode_mem_map``: where a section's page array would begin if it began with PFN 0."""
    return mem_map - (nr << kernel.layout.constant("PFN_SECTION_SHIFT")) * kernel.layout.sizeof("page")


def _memmap_size(kernel: Kernel) -> int:
    """Bytes of a section's part of the page array: a multiple of 2 MiB."""
    return kernel.layout.constant("PAGES_PER_SECTION") * kernel.layout.sizeof("page")

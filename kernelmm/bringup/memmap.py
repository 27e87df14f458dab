# SPDX-License-Identifier: GPL-2.0-only
"""The page array: what every ``struct page`` says before its page is released (mm/page_alloc.c).

Each page knows its zone and node, in the upper bits of its flags.  All pages are reserved at first, with
one reference; bring-up releases those that are nobody's.  All pageblocks begin as movable.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt

from kernelmm.bringup.deferred import BLOCK, DeferredRam, Span, fill
from kernelmm.bringup.kernel import Kernel, Zone
from kernelmm.bringup.memblock import Memblock
from kernelmm.bringup.nodes import early_pfn_in_nid
from kernelmm.bringup.rounding import div_round_up, round_down, round_up
from kernelmm.bringup.sections import present_sections, section_ptr
from physmem import abi
from physmem.memory_model import MemoryModel
from physmem.ranges import Ranges

__all__ = ["memmap_init_zone", "page_links", "set_page_links", "set_pageblocks_movable", "write_out"]


def page_links(kernel: Kernel, nid: int, idx: int, pfn: int) -> int:
    """``set_page_links``: the bits of ``page->flags`` that say zone and node, and of classic sparse memory, section."""
    constant = kernel.layout.constant
    zone = (idx & constant("ZONES_MASK")) << constant("ZONES_PGSHIFT")
    node = (nid & constant("NODES_MASK")) << constant("NODES_PGSHIFT")
    if kernel.model is not MemoryModel.SPARSEMEM:
        return zone | node
    section = pfn >> constant("PFN_SECTION_SHIFT") & constant("SECTIONS_MASK")
    return zone | node | section << constant("SECTIONS_PGSHIFT")


def same_links(kernel: Kernel, start_pfn: int, end_pfn: int) -> Iterator[tuple[int, int]]:
    """Cut [start_pfn, end_pfn) where the links change inside a zone: at sections, if flags have their numbers."""
    if kernel.model is not MemoryModel.SPARSEMEM:
        yield start_pfn, end_pfn
        return
    step = kernel.layout.constant("PAGES_PER_SECTION")
    for first in range(round_down(start_pfn, step), end_pfn, step):
        yield max(start_pfn, first), min(end_pfn, first + step)


def _links_mask(kernel: Kernel) -> int:
    constant = kernel.layout.constant
    fields = ("ZONES", "NODES", "SECTIONS")
    return sum(constant(f"{name}_MASK") << constant(f"{name}_PGSHIFT") for name in fields)


def set_page_links(kernel: Kernel, zone: Zone, start_pfn: int, end_pfn: int) -> None:
    """Enter zone, node and section into the flags of pages [start_pfn, end_pfn); their other bits stay."""
    keep = ~_links_mask(kernel) & (1 << 64) - 1
    for low, high in same_links(kernel, start_pfn, end_pfn):
        links = page_links(kernel, zone.nid, zone.idx, low)
        for first, last, phys in kernel.page_runs(low, high):
            flags = kernel.words(phys, (last - first) * abi.SIZEOF_PAGE // 8)[:: abi.SIZEOF_PAGE // 8]
            flags[:] = flags & np.uint64(keep) | np.uint64(links)


def memmap_init_zone(kernel: Kernel, memblock: Memblock, zone: Zone, start_pfn: int, size: int) -> None:
    """``memmap_init_zone``: the entries of the pages that the zone spans.

    Pages in holes have entries too, if their section is present; pages of another node are left to it.
    In a :class:`~kernelmm.bringup.deferred.DeferredRam`, whole blocks are deferred.
    """
    end_pfn = start_pfn + size
    kernel.set_var("highest_memmap_pfn", max(kernel.var("highest_memmap_pfn"), end_pfn - 1))
    # page_cpupid_reset_last: no CPU and process has used it yet.
    cpupid = kernel.layout.constant("LAST_CPUPID_MASK") << kernel.layout.constant("LAST_CPUPID_PGSHIFT")
    for low, high in early_pfns(kernel, memblock, zone.nid) & Ranges([(start_pfn, end_pfn)]):
        set_pageblocks_movable(kernel, zone, low, high)
        for run_first, run_last, run_phys in kernel.page_runs(low, high):
            for first, last in same_links(kernel, run_first, run_last):
                flags = page_links(kernel, zone.nid, zone.idx, first) | cpupid
                _init_run(kernel, first, last, run_phys + (first - run_first) * abi.SIZEOF_PAGE, flags)


def _init_run(kernel: Kernel, first: int, last: int, phys: int, flags: int) -> None:
    """Initialise, or defer, the contiguous entries of pages [first, last), which begin at ``phys``."""
    low, high = round_up(first, BLOCK), round_down(last, BLOCK)
    if not isinstance(kernel.ram, DeferredRam) or low >= high:
        low = high = last
    for begin, end in ((first, low), (high, last)):
        entries = kernel.words(phys + (begin - first) * abi.SIZEOF_PAGE, (end - begin) * abi.SIZEOF_PAGE // 8)
        pages = np.uint64(kernel.pfn_to_page(begin)) + np.arange(end - begin, dtype=np.uint64) * np.uint64(
            abi.SIZEOF_PAGE
        )
        fill(entries.reshape(-1, abi.SIZEOF_PAGE // 8), pages, flags | 1 << abi.PG_reserved, 1)
    if low < high and isinstance(kernel.ram, DeferredRam):
        at = phys + (low - first) * abi.SIZEOF_PAGE
        kernel.ram.defer(Span(at, at + (high - low) * abi.SIZEOF_PAGE, kernel.pfn_to_page(low), flags))


def write_out(kernel: Kernel, start_pfn: int, end_pfn: int) -> None:
    """See to it that the entries of pages [start_pfn, end_pfn) are in memory."""
    if isinstance(kernel.ram, DeferredRam):
        for first, last, phys in kernel.page_runs(start_pfn, end_pfn):
            for at in range(phys, phys + (last - first) * abi.SIZEOF_PAGE, BLOCK * abi.SIZEOF_PAGE):
                kernel.ram.write_out(at)
            kernel.ram.write_out(phys + (last - first - 1) * abi.SIZEOF_PAGE)


def early_pfns(kernel: Kernel, memblock: Memblock, nid: int) -> Ranges:
    """``early_pfn_valid`` and ``early_pfn_in_nid``: pages of present sections that are not another node's memory.

    In a flat memory map, every page below ``max_pfn`` is valid.
    """
    if kernel.model is MemoryModel.FLATMEM:
        return Ranges([(0, kernel.var("max_pfn"))])
    per_section = kernel.layout.constant("PAGES_PER_SECTION")
    present = Ranges((nr * per_section, (nr + 1) * per_section) for nr in present_sections(kernel))
    return present & early_pfn_in_nid(memblock, nid)


def set_pageblocks_movable(kernel: Kernel, zone: Zone, start_pfn: int, end_pfn: int) -> None:
    """``set_pageblock_migratetype(MIGRATE_MOVABLE)`` of the pageblocks of a zone that begin in [start_pfn, end_pfn)."""
    if kernel.model is MemoryModel.FLATMEM:
        # The zone's own bits count from its first pageblock.
        base = round_down(kernel.get(zone.at, "zone.zone_start_pfn"), abi.PAGEBLOCK_NR_PAGES)
        first, last = (div_round_up(pfn - base, abi.PAGEBLOCK_NR_PAGES) for pfn in (start_pfn, end_pfn))
        usemap = kernel.get(zone.at, "zone.pageblock_flags")
        bits = _movable(round_up(last, 16) * abi.PAGEBLOCK_NR_PAGES, first, last)
        kernel.words(kernel.phys(usemap), len(bits))[:] |= bits
        return
    shift = kernel.layout.constant("PFN_SECTION_SHIFT")
    for nr in range(start_pfn >> shift, (end_pfn - 1 >> shift) + 1):
        low, high = max(start_pfn, nr << shift), min(end_pfn, nr + 1 << shift)
        first, last = (div_round_up(pfn - (nr << shift), abi.PAGEBLOCK_NR_PAGES) for pfn in (low, high))
        bits = _movable(1 << shift, first, last)
        usemap = kernel.get(section_ptr(kernel, nr), "mem_section.pageblock_flags")
        kernel.words(kernel.phys(usemap), len(bits))[:] |= bits


@cache
def _movable(pages: int, first: int, last: int) -> npt.NDArray[np.uint64]:
    """The pageblock flags of a section of so many pages whose pageblocks [first, last) are movable.

    A pageblock has four bits, the migratetype in the upper three; the first of a word is uppermost.
    """
    blocks = np.arange(pages // abi.PAGEBLOCK_NR_PAGES, dtype=np.uint64)
    movable = ((blocks >= first) & (blocks < last)).astype(np.uint64) * np.uint64(abi.MIGRATE_MOVABLE)
    bits: npt.NDArray[np.uint64] = (
        (movable << np.uint64(61) - blocks % np.uint64(16) * np.uint64(4)).reshape(-1, 16).sum(1)
    )
    return bits

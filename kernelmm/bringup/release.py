# SPDX-License-Identifier: GPL-2.0-only
"""Releasing memory: from memblock to the free lists (mm/nobootmem.c, mm/page_alloc.c, mm/cma.c).

What memblock has not reserved is freed, in blocks as large as their alignment allows, from low to high
addresses.  The blocks go the same way as every freed page goes; only runs of blocks of the largest order
may go together, which leaves the same bytes.
"""

from __future__ import annotations

import numpy as np

from kernelmm import gfp
from kernelmm.bringup.deferred import BLOCK, DeferredRam
from kernelmm.bringup.kernel import Kernel
from kernelmm.bringup.memblock import Memblock
from kernelmm.bringup.memmap import write_out
from kernelmm.bringup.printk import printk
from kernelmm.bringup.rounding import div_round_up, round_down, round_up
from kernelmm.core import entry, mmzone, page, vmstat
from kernelmm.core.free import __free_pages as free_pages
from physmem import abi, address, list_head
from physmem.errors import UsageError
from physmem.ranges import Ranges

__all__ = [
    "cma_activate_area",
    "dma_contiguous_reserve",
    "free_all_bootmem",
    "free_pages_bootmem",
    "init_cma_reserved_areas",
    "init_cma_reserved_pageblock",
]

PAGE_SIZE = 4096
LARGEST = abi.MAX_ORDER - 1
#: Bytes of the page array from one block of the largest order to the next.
_STRIDE = BLOCK * abi.SIZEOF_PAGE


def free_all_bootmem(kernel: Kernel, memblock: Memblock) -> int:
    """``free_all_bootmem``: free all memory that is not reserved; pages freed."""
    for zone in kernel.zones():
        kernel.set(zone.at, "zone.managed_pages", 0)
    pages = 0
    for start, end in memblock.free_ranges():
        start_pfn, end_pfn = div_round_up(start, PAGE_SIZE), end // PAGE_SIZE
        if start_pfn < end_pfn:
            free_pages_memory(kernel, start_pfn, end_pfn)
            pages += end_pfn - start_pfn
    kernel.set_var("totalram_pages", kernel.var("totalram_pages") + pages)
    return pages


def free_pages_memory(kernel: Kernel, start: int, end: int) -> None:
    """``__free_pages_memory``: free pages [start, end), each time the largest aligned block."""
    while start < end:
        order = min(LARGEST, (start & -start).bit_length() - 1 if start else LARGEST)
        while start + (1 << order) > end:
            order -= 1
        if order == LARGEST:
            start += _free_largest_blocks(kernel, start, round_down(end, BLOCK))
        else:
            free_pages_bootmem(kernel, start, order)
            start += 1 << order


def free_pages_bootmem(kernel: Kernel, pfn: int, order: int) -> None:
    """``__free_pages_bootmem``: make a reserved block ordinary, count it as managed, and free it."""
    mm = kernel.mm
    pg = address.pfn_to_page(mm, pfn)
    at = _clear_reserved(kernel, pfn, 1 << order)
    kernel.add(mmzone.page_zone(mm, at), "zone.managed_pages", 1 << order)
    page.set_count(mm, at, 1)
    free_pages(mm, pg, order)


def _clear_reserved(kernel: Kernel, pfn: int, pages: int) -> int:
    """Take PG_reserved off the pages of a block, and their references; physical address of the first entry."""
    write_out(kernel, pfn, pfn + pages)
    at = address.page_off(kernel.mm, address.pfn_to_page(kernel.mm, pfn))
    entries = kernel.words(at, pages * abi.SIZEOF_PAGE // 8).reshape(pages, -1)
    entries[:, abi.PAGE_FLAGS // 8] &= np.uint64((1 << 64) - 1 - (1 << abi.PG_reserved))
    entries[:, abi.PAGE_MAPCOUNT // 8] &= np.uint64(0xFFFFFFFF)
    return int(at)


def _free_largest_blocks(kernel: Kernel, start: int, end: int) -> int:
    """Free the first blocks of the largest order in [start, end); pages freed.

    One at a time; but blocks whose entries are deferred all at once, as far as these are contiguous.
    """
    at = address.page_off(kernel.mm, address.pfn_to_page(kernel.mm, start))
    ram = kernel.ram
    span = ram.span(at) if isinstance(ram, DeferredRam) else None
    if not isinstance(ram, DeferredRam) or span is None or kernel.mm.debug_pages:
        free_pages_bootmem(kernel, start, LARGEST)
        return BLOCK
    blocks = min((end - start) // BLOCK, (span.end - at) // _STRIDE)
    _free_deferred(kernel, ram, start, at, blocks)
    return blocks * BLOCK


def _free_deferred(kernel: Kernel, ram: DeferredRam, start: int, at: int, blocks: int) -> None:
    """What :func:`free_pages_bootmem` does to each of these blocks in turn, without their entries.

    A block of the largest order has no buddy to be joined with.  Each goes to the head of its list.

    :param at: physical address of the first entry
    """
    mm, pages = kernel.mm, blocks * BLOCK
    ram.free(at, blocks)
    zone = int(mmzone.page_zone(mm, at))
    z = kernel.phys(zone)
    # Bring-up has made all pageblocks movable.
    head = mmzone.free_list(mm, LARGEST, abi.MIGRATE_MOVABLE)
    lowest = int(address.pfn_to_page(mm, start)) + abi.PAGE_LRU
    first = list_head.first(mm, z + head)
    mm.as_u64[(at + abi.PAGE_LRU) >> 3] = first
    mm.as_u64[(address.off(mm, first) + abi.LIST_PREV) >> 3] = lowest
    mm.as_u64[(at + (blocks - 1) * _STRIDE + abi.PAGE_LRU_PREV) >> 3] = zone + head
    mm.as_u64[(z + head) >> 3] = lowest + (blocks - 1) * _STRIDE
    mmzone.add_nr_free(mm, z, LARGEST, blocks)
    kernel.add(zone, "zone.managed_pages", pages)
    vmstat.count_vm_events(mm, mm.pgfree, pages)
    vmstat.mod_zone_page_state(mm, z, mmzone.this_cpu_pageset(mm, z), abi.NR_FREE_PAGES, pages)
    if mm.smp:
        # Both tickets of the zone's lock, once for each block.
        for ticket in (z + mm.zone_lock, z + mm.zone_lock + 1):
            mm.as_u8[ticket] = mm.as_u8[ticket] + blocks * mm.ticket_lock_inc & 0xFF


# -- contiguous memory ------------------------------------------------------------


def dma_contiguous_reserve(kernel: Kernel, memblock: Memblock, size: int, base: int = 0, limit: int = 0) -> None:
    """``dma_contiguous_reserve``: keep memory for contiguous allocations (``cma=``), the highest there is.

    :param size: bytes; rounded up to blocks of the largest order
    :param base: the first physical address that it may have
    :param limit: it ends at this address at the latest; 0: anywhere.  If there is room for ``size`` bytes exactly,
        it begins at ``base``, wherever that is
    :raises UsageError: there is no such piece of memory; a kernel would say so, and go on without
    """
    align = PAGE_SIZE * BLOCK
    fixed = base != 0 and base + size == limit
    low, wanted = round_up(base, align), round_up(size, align)
    high = min(round_down(limit, align) or memblock.end, memblock.end)
    if fixed:
        found = low if (Ranges(memblock.free_ranges())).covers(low, low + wanted) else None
    else:
        found = memblock.find_in_range(low, high, wanted, align)
    if found is None:
        place = f" at {low:#x}" if fixed else f" from {low:#x} to {high:#x}" if base else ""
        raise UsageError(f"cma={size:#x}{place}: there is no such piece of memory")
    memblock.reserve(found, found + wanted)
    printk(kernel, f"cma: Reserved {wanted >> 20} MiB at {found:#018x}")
    base, size = found, wanted
    area = kernel.symbols["cma_areas"]
    kernel.set(area, "cma.base_pfn", base // PAGE_SIZE)
    kernel.set(area, "cma.count", size // PAGE_SIZE)
    kernel.set(area, "cma.order_per_bit", 0)
    kernel.set_var("cma_area_count", 1)
    kernel.set_var("dma_contiguous_default_area", area)
    kernel.set_var("totalcma_pages", size // PAGE_SIZE)


def init_cma_reserved_areas(kernel: Kernel) -> None:
    """``cma_init_reserved_areas``: all areas, up to the first that cannot be."""
    for i in range(kernel.var("cma_area_count")):
        if not cma_activate_area(kernel, kernel.symbols["cma_areas"] + i * kernel.layout.sizeof("cma")):
            # What Linux says from 5.10 on; 4.0 says nothing.
            printk(kernel, "cma: CMA area reserved could not be activated")
            return


def cma_activate_area(kernel: Kernel, area: int) -> bool:
    """``cma_activate_area``: free an area's pageblocks, as MIGRATE_CMA; False if it is not in one zone, or there is no
    page for its bitmap.

    If it is not in one zone, the pageblocks before the border of the zone are free by now, for movable pages, but
    nobody can allocate from the area; the others stay reserved for ever.
    """
    base, count = kernel.get(area, "cma.base_pfn"), kernel.get(area, "cma.count")
    # The bitmap is a slab's in Linux; here it has pages of its own.
    order = (div_round_up(count, 8 * PAGE_SIZE) - 1).bit_length()
    bitmap = entry.__get_free_pages(kernel.mm, gfp.GFP_KERNEL | gfp.__GFP_ZERO, order)
    kernel.set(area, "cma.bitmap", bitmap)
    if not bitmap:
        return False
    zone = _zone(kernel, base)
    for pfn in range(base, base + count, abi.PAGEBLOCK_NR_PAGES):
        if {_zone(kernel, pfn), _zone(kernel, pfn + abi.PAGEBLOCK_NR_PAGES - 1)} != {zone}:
            free_pages(kernel.mm, address.virt_to_page(kernel.mm, bitmap), order)
            kernel.set(area, "cma.count", 0)
            return False
        init_cma_reserved_pageblock(kernel, pfn)
    kernel.set(area, "cma.lock.count", 1)
    kernel.init_list_head(kernel.at(area, "cma.lock.wait_list"))
    return True


def init_cma_reserved_pageblock(kernel: Kernel, pfn: int) -> None:
    """``init_cma_reserved_pageblock``: free a reserved pageblock, for movable pages and contiguous allocations only."""
    mm = kernel.mm
    at = _clear_reserved(kernel, pfn, abi.PAGEBLOCK_NR_PAGES)
    mmzone.set_pageblock_migratetype(mm, pfn, mm.migrate_cma)
    page.set_count(mm, at, 1)
    free_pages(mm, address.pfn_to_page(mm, pfn), abi.PAGEBLOCK_ORDER)
    adjust_managed_page_count(kernel, pfn, abi.PAGEBLOCK_NR_PAGES)


def adjust_managed_page_count(kernel: Kernel, pfn: int, count: int) -> None:
    """``adjust_managed_page_count``: the zone of a page has more pages to manage."""
    kernel.add(_zone(kernel, pfn), "zone.managed_pages", count)
    kernel.set_var("totalram_pages", kernel.var("totalram_pages") + count)


def _zone(kernel: Kernel, pfn: int) -> int:
    """``page_zone(pfn_to_page(pfn))``."""
    write_out(kernel, pfn, pfn + 1)
    return int(mmzone.page_zone(kernel.mm, address.page_off(kernel.mm, address.pfn_to_page(kernel.mm, pfn))))

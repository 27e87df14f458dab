# SPDX-License-Identifier: GPL-2.0-only
"""CONFIG_DEBUG_VM: the assertions on the way of a page back to the free lists.

Each method is one place of mm/page_alloc.c or include/linux/mm.h of Linux 4.0, called by the core
while ``mm.debug_vm`` is on; the conditions are printed as the kernel's preprocessor leaves them.
A condition that is true ends in :class:`~kernelmm.study.reporter.VmBugOn`.
"""

from __future__ import annotations

from kernelmm.core import compound, mmzone
from kernelmm.core import page as page_fields
from kernelmm.core.mm import Mm
from kernelmm.study.reporter import Reporter
from physmem import abi, address
from physmem.errors import AddressError
from physmem.structs.layout import Layout

__all__ = ["DebugVm"]

PAGE_ALLOC_C = "mm/page_alloc.c"
MM_H = "include/linux/mm.h"


class DebugVm:
    """The assertions of one kernel.

    :param reporter: where a failed one is printed
    """

    def __init__(self, layout: Layout, reporter: Reporter) -> None:
        self.reporter = reporter
        self.zone_wait_table = layout.offsetof("zone", "wait_table")
        self.nr_pageflags = layout.constant("NR_PAGEFLAGS")

    def page_is_buddy(self, mm: Mm, buddy_at: int) -> None:
        """A free block's head has no users."""
        if page_fields.count(mm, buddy_at) != 0:
            self.reporter.vm_bug_on_page(mm, page_at(mm, buddy_at), "page_count(buddy) != 0", PAGE_ALLOC_C, 541)

    def free_one_page(self, mm: Mm, page: int, zone: int, migratetype: int) -> None:
        """The zone is set up, the page has lost its flags, and somebody has looked up its mobility."""
        at = address.page_off(mm, page)
        if mm.as_u64[(address.off(mm, zone) + self.zone_wait_table) >> 3] == 0:
            self.reporter.vm_bug_on("!zone_is_initialized(zone)", PAGE_ALLOC_C, 584)
        if mm.as_u64[(at + abi.PAGE_FLAGS) >> 3] & mm.check_at_prep:
            condition = f"page->flags & ((1 << {self.nr_pageflags}) - 1)"
            self.reporter.vm_bug_on_page(mm, page, condition, PAGE_ALLOC_C, 585)
        if migratetype == -1:
            self.reporter.vm_bug_on("migratetype == -1", PAGE_ALLOC_C, 587)

    def page_idx(self, mm: Mm, page: int, zone: int, page_idx: int, order: int) -> None:
        """The block is aligned to its size, and lies in the zone."""
        if page_idx & ((1 << order) - 1):
            self.reporter.vm_bug_on_page(mm, page, "page_idx & ((1 << order) - 1)", PAGE_ALLOC_C, 602)
        if self.bad_range(mm, zone, page):
            self.reporter.vm_bug_on_page(mm, page, "bad_range(zone, page)", PAGE_ALLOC_C, 603)

    def bad_range(self, mm: Mm, zone: int, page: int) -> bool:
        """``bad_range``: the page lies outside the zone's pages, or its flags name another zone."""
        z = address.off(mm, zone)
        pfn = address.page_to_pfn(mm, page)
        if not mmzone.spans_pfn(mm, z, pfn):
            start = mm.as_u64[(z + mm.zone_start_pfn) >> 3]
            end = start + mm.as_u64[(z + mm.zone_spanned_pages) >> 3]
            name = zone_name(mm, z)
            node = mmzone.zone_nid(mm, z)
            self.reporter.printk(f"page 0x{pfn:x} outside node {node} zone {name} [ 0x{start:x} - 0x{end:x} ]")
            return True
        return mmzone.page_zone(mm, address.page_off(mm, page)) != zone

    def free_pages_prepare(self, mm: Mm, page: int, order: int) -> None:
        """Not a tail; a compound page is freed with its own order."""
        at = address.page_off(mm, page)
        if page_fields.test_flag(mm, at, abi.PG_tail):
            self.reporter.vm_bug_on_page(mm, page, "PageTail(page)", PAGE_ALLOC_C, 786)
        if page_fields.compound(mm, at) and compound.compound_order(mm, page) != order:
            self.reporter.vm_bug_on_page(mm, page, "compound && compound_order(page) != order", PAGE_ALLOC_C, 787)

    def free_pages(self, mm: Mm, addr: int) -> None:
        """The address is one of a page frame."""
        if not address.virt_addr_valid(mm, addr):
            self.reporter.vm_bug_on("!virt_addr_valid((void *)addr)", PAGE_ALLOC_C, 2922)

    def put_page_testzero(self, mm: Mm, at: int) -> None:
        """There is a reference to drop."""
        if page_fields.count(mm, at) == 0:
            self.reporter.vm_bug_on_page(mm, page_at(mm, at), "atomic_read(&page->_count) == 0", MM_H, 340)


def page_at(mm: Mm, at: int) -> int:
    """The ``struct page *`` of an entry of the page array whose physical address is ``at``."""
    for chunk, phys in enumerate(mm.memmap):
        if phys <= at < phys + (1 << mm.memmap_shift):
            return mm.mem_map + (chunk << mm.memmap_shift) + at - phys
    raise AddressError(at, "no entry of the page array is at this physical address")


def zone_name(mm: Mm, z: int) -> str:
    """``zone->name`` of the zone at physical ``z``; ``?`` if the image does not have the string."""
    va = mm.as_u64[(z + mm.zone_name) >> 3]
    at = address.virt_to_phys(mm, va) if va >= mm.page_offset else mm.size
    if not mm.ram.ranges.covers(at, at + 8):
        return "?"
    return mm.ram.read(at, 8).split(b"\0")[0].decode("ascii", "replace")

# SPDX-License-Identifier: GPL-2.0-only
"""CONFIG_DEBUG_VM: the assertions on the way of a page from the free lists to its owner and back.

Each method is one place of mm/page_alloc.c, mm/internal.h or include/linux of Linux 4.0, called by the core
while ``mm.debug_vm`` is on; the conditions are printed as the kernel's preprocessor leaves them.
A condition that is true ends in :class:`~kernelmm.study.reporter.VmBugOn`.
"""

from __future__ import annotations

from kernelmm import gfp
from kernelmm.core import compound, mmzone
from kernelmm.core import page as page_fields
from kernelmm.core.mm import Mm
from kernelmm.study.reporter import Reporter
from physmem import abi, address
from physmem.errors import AddressError
from physmem.structs.layout import Layout

__all__ = ["DebugVm"]

PAGE_ALLOC_C = "mm/page_alloc.c"
SWAP_C = "mm/swap.c"
INTERNAL_H = "mm/internal.h"
MM_H = "include/linux/mm.h"
GFP_H = "include/linux/gfp.h"
# Inside a class Python would mangle a name with two underscores.
HIGHMEM = gfp.__GFP_HIGHMEM
ZERO = gfp.__GFP_ZERO


class DebugVm:
    """The assertions of one kernel.

    :param reporter: where a failed one is printed
    """

    def __init__(self, layout: Layout, reporter: Reporter) -> None:
        self.reporter = reporter
        self.zone_wait_table = layout.offsetof("zone", "wait_table")
        self.nr_pageflags = layout.constant("NR_PAGEFLAGS")

    # -- a page is taken -----------------------------------------------------

    def gfp_zone(self, mm: Mm, gfp_mask: int) -> None:
        """The zone modifiers go together."""
        if gfp.GFP_ZONE_BAD >> (gfp_mask & gfp.GFP_ZONEMASK) & 1:
            self.reporter.vm_bug_on("(GFP_ZONE_BAD >> bit) & 1", GFP_H, 258)

    def get_free_pages(self, mm: Mm, gfp_mask: int) -> None:
        """High memory has no address to return."""
        if gfp_mask & HIGHMEM:
            self.reporter.vm_bug_on("(gfp_mask & __GFP_HIGHMEM) != 0", PAGE_ALLOC_C, 2892)

    def exact_node(self, mm: Mm, nid: int) -> None:
        """``alloc_pages_exact_node``: there is such a node."""
        if not 0 <= nid < mm.nr_node_ids or not mmzone.node_data(mm, nid):
            self.reporter.vm_bug_on("nid < 0 || nid >= MAX_NUMNODES || !node_online(nid)", GFP_H, 322)

    def range(self, mm: Mm, page: int, zone: int, line: int) -> None:
        """A page that is split off, or handed out, lies in the zone it is taken from."""
        if self.bad_range(mm, zone, page):
            what = "&page[size]" if line == 910 else "page"
            self.reporter.vm_bug_on_page(mm, page, f"bad_range(zone, {what})", PAGE_ALLOC_C, line)

    def set_buddy(self, mm: Mm, at: int) -> None:
        """``__SetPageBuddy``: nobody maps the page, and it heads no free block yet."""
        if page_fields.mapcount(mm, at) != -1:
            self.reporter.vm_bug_on_page(mm, page_at(mm, at), "atomic_read(&page->_mapcount) != -1", MM_H, 592)

    def clear_buddy(self, mm: Mm, at: int) -> None:
        """``__ClearPageBuddy``: what was on a free list heads a free block."""
        if not page_fields.buddy(mm, at):
            self.reporter.vm_bug_on_page(mm, page_at(mm, at), "!PageBuddy(page)", MM_H, 598)

    def move_freepages(self, mm: Mm, start: int, end: int) -> None:
        """A pageblock's pages are of one zone."""
        zones = {mmzone.page_zone(mm, written(mm, address.pfn_to_page(mm, pfn))) for pfn in (start, end)}
        if len(zones) > 1:
            self.reporter.vm_bug_on("page_zone(start_page) != page_zone(end_page)", PAGE_ALLOC_C, 1068)

    def nid(self, mm: Mm, page: int, zone: int) -> None:
        """Each of them is of its node."""
        if page_fields.nid(mm, written(mm, page)) != mmzone.zone_nid(mm, mmzone.zone_off(mm, zone)):
            self.reporter.vm_bug_on_page(mm, page, "page_to_nid(page) != zone_to_nid(zone)", PAGE_ALLOC_C, 1073)

    def pageblock(self, mm: Mm, page: int, pfn: int) -> None:
        """``set_pfnblock_flags_mask``: the zone of a pageblock spans it."""
        zone = mmzone.page_zone(mm, written(mm, page))
        if not mmzone.spans_pfn(mm, mmzone.zone_off(mm, zone), pfn):
            self.reporter.vm_bug_on_page(mm, page, "!zone_spans_pfn(zone, pfn)", PAGE_ALLOC_C, 6161)

    def prep_new_page(self, mm: Mm, page: int, gfp_flags: int) -> None:
        """``prep_zero_page``: an interrupt does not clear high memory."""
        if gfp_flags & ZERO and gfp_flags & HIGHMEM and mm.in_interrupt:
            self.reporter.vm_bug_on("(gfp_flags & __GFP_HIGHMEM) && in_interrupt()", PAGE_ALLOC_C, 392)

    # -- a page is in use ----------------------------------------------------

    def split_page(self, mm: Mm, page: int) -> None:
        """Only a block that is in use, and not compound, can be split."""
        at = address.page_off(mm, page)
        if page_fields.compound(mm, at):
            self.reporter.vm_bug_on_page(mm, page, "PageCompound(page)", PAGE_ALLOC_C, 1557)
        if page_fields.count(mm, at) == 0:
            self.reporter.vm_bug_on_page(mm, page, "!page_count(page)", PAGE_ALLOC_C, 1558)

    def set_page_refcounted(self, mm: Mm, page: int) -> None:
        """What becomes a page of its own has no references yet, and is no tail."""
        at = address.page_off(mm, page)
        if page_fields.test_flag(mm, at, abi.PG_tail):
            self.reporter.vm_bug_on_page(mm, page, "PageTail(page)", INTERNAL_H, 45)
        if page_fields.count(mm, at) != 0:
            self.reporter.vm_bug_on_page(mm, page, "atomic_read(&page->_count)", INTERNAL_H, 46)

    def get_page(self, mm: Mm, at: int) -> None:
        """Only who has a reference can take another."""
        if page_fields.count(mm, at) <= 0:
            self.reporter.vm_bug_on_page(mm, page_at(mm, at), "atomic_read(&page->_count) <= 0", MM_H, 548)

    def get_page_tail(self, mm: Mm, at: int, head_at: int, refcounted: bool) -> None:
        """``__get_page_tail``: a tail belongs to a head that is in use, and is counted by its mapcount only.

        :param refcounted: the tail's references are counted (not of a slab or hugetlb page)
        """
        is_head = page_fields.test_flag(mm, head_at, abi.PG_head)
        if not refcounted and not is_head:
            self.reporter.vm_bug_on_page(mm, page_at(mm, head_at), "!PageHead(page_head)", SWAP_C, 300)
        if page_fields.count(mm, head_at) <= 0:
            condition = "atomic_read(&page->first_page->_count) <= 0"
            self.reporter.vm_bug_on_page(mm, page_at(mm, at), condition, INTERNAL_H, 64)
        if self.page_mapcount(mm, at) < 0:
            self.reporter.vm_bug_on_page(mm, page_at(mm, at), "page_mapcount(page) < 0", MM_H, 531)
        if page_fields.count(mm, at) != 0:
            self.reporter.vm_bug_on_page(mm, page_at(mm, at), "atomic_read(&page->_count) != 0", MM_H, 532)
        if not is_head:
            self.reporter.vm_bug_on_page(mm, page_at(mm, head_at), "!PageHead(page)", MM_H, 521)

    def page_mapcount(self, mm: Mm, at: int) -> int:
        """``page_mapcount``: of a page that is no slab's, which keeps something else there."""
        if page_fields.test_flag(mm, at, abi.PG_slab):
            self.reporter.vm_bug_on_page(mm, page_at(mm, at), "PageSlab(page)", MM_H, 488)
        return page_fields.mapcount(mm, at) + 1

    def lru_cache_add(self, mm: Mm, page: int, line: int) -> None:
        """A page that comes onto an LRU list is on none yet, and not both active and unevictable."""
        flags = mm.as_u64[(address.page_off(mm, page) + abi.PAGE_FLAGS) >> 3]
        if line == 662 and flags >> abi.PG_active & 1 and flags >> abi.PG_unevictable & 1:
            self.reporter.vm_bug_on_page(mm, page, "PageActive(page) && PageUnevictable(page)", SWAP_C, line)
        if flags >> abi.PG_lru & 1:
            self.reporter.vm_bug_on_page(mm, page, "PageLRU(page)", SWAP_C, 663 if line == 662 else line)

    # -- a page is freed -----------------------------------------------------

    def put_unrefcounted(self, mm: Mm, at: int, head_at: int) -> None:
        """``put_unrefcounted_compound_page``: the tail of a slab or hugetlb page counts nothing itself."""
        if not page_fields.test_flag(mm, head_at, abi.PG_head):
            self.reporter.vm_bug_on_page(mm, page_at(mm, head_at), "!PageHead(page_head)", SWAP_C, 125)
        if self.page_mapcount(mm, at) != 0:
            self.reporter.vm_bug_on_page(mm, page_at(mm, at), "page_mapcount(page) != 0", SWAP_C, 126)

    def put_last_by_tail(self, mm: Mm, head_at: int) -> None:
        """A slab page is never given back through a tail."""
        if page_fields.test_flag(mm, head_at, abi.PG_slab):
            self.reporter.vm_bug_on_page(mm, page_at(mm, head_at), "PageSlab(page_head)", SWAP_C, 142)

    def put_refcounted(self, mm: Mm, at: int) -> None:
        """``put_refcounted_compound_page``: somebody has taken a reference through this tail."""
        if self.page_mapcount(mm, at) <= 0:
            self.reporter.vm_bug_on_page(mm, page_at(mm, at), "page_mapcount(page) <= 0", SWAP_C, 206)

    def put_refcounted_done(self, mm: Mm, at: int, head_at: int) -> None:
        """And noted it where tails do."""
        if page_fields.count(mm, head_at) <= 0:
            condition = "atomic_read(&page_head->_count) <= 0"
            self.reporter.vm_bug_on_page(mm, page_at(mm, head_at), condition, SWAP_C, 208)
        if page_fields.count(mm, at) != 0:
            self.reporter.vm_bug_on_page(mm, page_at(mm, at), "atomic_read(&page->_count) != 0", SWAP_C, 209)

    def put_dangling(self, mm: Mm, at: int) -> None:
        """A tail's head is in use."""
        self.reporter.vm_bug_on_page(mm, page_at(mm, at), "PageTail(page)", SWAP_C, 220)

    def free_kmem_pages(self, mm: Mm, addr: int) -> None:
        """``free_kmem_pages``: the address is one of a page frame."""
        if not address.virt_addr_valid(mm, addr):
            self.reporter.vm_bug_on("!virt_addr_valid((void *)addr)", PAGE_ALLOC_C, 2973)

    def guard_is_buddy(self, mm: Mm, buddy_at: int) -> None:
        """A guard page has no users."""
        if page_fields.count(mm, buddy_at) != 0:
            self.reporter.vm_bug_on_page(mm, page_at(mm, buddy_at), "page_count(buddy) != 0", PAGE_ALLOC_C, 527)

    def free_tail_pages_check(self, mm: Mm, head: int, page: int) -> bool:
        """``free_tail_pages_check``: whether a page of a compound page is no tail of its head; then it is reported."""
        at = address.page_off(mm, page)
        reason = ""
        if not page_fields.test_flag(mm, at, abi.PG_tail):
            reason = "PageTail not set"
        elif mm.as_u64[(at + abi.PAGE_FIRST_PAGE) >> 3] != head:
            reason = "first_page not consistent"
        if reason:
            mm.bad_page(page, reason, 0)
        return bool(reason)

    def page_is_buddy(self, mm: Mm, buddy_at: int) -> None:
        """A free block's head has no users."""
        if page_fields.count(mm, buddy_at) != 0:
            self.reporter.vm_bug_on_page(mm, page_at(mm, buddy_at), "page_count(buddy) != 0", PAGE_ALLOC_C, 541)

    def free_one_page(self, mm: Mm, page: int, zone: int, migratetype: int) -> None:
        """The zone is set up, the page has lost its flags, and somebody has looked up its mobility."""
        at = address.page_off(mm, page)
        if mm.as_u64[(mmzone.zone_off(mm, zone) + self.zone_wait_table) >> 3] == 0:
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
        z = mmzone.zone_off(mm, zone)
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


def written(mm: Mm, page: int) -> int:
    """Physical address of a ``struct page``, which a page array that is not all written out may not have yet."""
    at = address.page_off(mm, page)
    if mm.deferred is not None:
        mm.deferred.write_out(at)
    return at


def page_at(mm: Mm, at: int) -> int:
    """The ``struct page *`` of an entry of the page array whose physical address is ``at``."""
    for chunk, phys in enumerate(mm.memmap):
        if phys <= at < phys + (1 << mm.memmap_shift):
            return address.phys_to_virt(mm, at) if mm.sectioned else mm.mem_map + (chunk << mm.memmap_shift) + at - phys
    raise AddressError(at, "no entry of the page array is at this physical address")


def zone_name(mm: Mm, z: int) -> str:
    """``zone->name`` of the zone at physical ``z``; ``?`` if the image does not have the string."""
    va = mm.as_u64[(z + mm.zone_name) >> 3]
    at = address.virt_to_phys(mm, va) if va >= mm.page_offset else mm.size
    if not mm.ram.ranges.covers(at, at + 8):
        return "?"
    return mm.ram.read(at, 8).split(b"\0")[0].decode("ascii", "replace")

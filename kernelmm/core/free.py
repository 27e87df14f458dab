# SPDX-License-Identifier: GPL-2.0-only
# room: compiled
"""Giving pages back: from ``free_pages(addr, order)`` down to ``__free_one_page`` (mm/page_alloc.c, mm/swap.c).

Dropping the last reference frees.  A single page goes to the CPU's list, a larger block
straight to the buddy lists.  On the way every page is checked; a page in a bad state is
reported and never freed, so that nobody gets it again.
"""

from __future__ import annotations

from kernelmm.core import buddy, compound, mmzone, page, pcp
from kernelmm.core.mm import Mm
from physmem import abi, address, list_head, word
from physmem.ctype import s32, u32, u64


def free_pages_check(mm: Mm, pg: u64, at: u64) -> bool:
    """Whether one page is in a bad state (then reported); a good one loses its flags and last_cpupid."""
    flags: u64 = page.flags(mm, at)
    if page.is_bad(mm, at, mm.check_at_free):
        mm.bad_page_at_free(pg, at)
        return True
    # page_cpupid_reset_last sets all bits of the field.
    flags |= mm.last_cpupid_bits
    if flags & mm.check_at_prep != 0:
        flags ^= flags & mm.check_at_prep
    page.set_flags(mm, at, flags)
    return False


def check_tails(mm: Mm, pg: u64, at: u64, order: u32) -> s32:
    """With CONFIG_DEBUG_VM, all but the first page of a compound page: how often one was found bad."""
    i: u64
    bad: s32 = 0
    for i in range(1, word.bit(order)):
        if mm.checker.free_tail_pages_check(mm, pg, pg + (i << abi.SIZEOF_PAGE_SHIFT)):
            bad += 1
        if free_pages_check(mm, pg + (i << abi.SIZEOF_PAGE_SHIFT), at + (i << abi.SIZEOF_PAGE_SHIFT)):
            bad += 1
    return bad


def free_pages_prepare(mm: Mm, pg: u64, at: u64, order: u32) -> bool:
    """Check every page of a block about to be freed; False if any is bad, and then none of it is freed."""
    i: u64
    bad: s32 = 0
    debugging: bool = mm.debugging
    tails: bool = False
    if debugging and mm.debug_vm:
        mm.check_free_pages_prepare(pg, order)
        tails = page.compound(mm, at)
    if mm.tracing:
        mm.tracer.mm_page_free(mm, pg, order)
    if debugging:
        mm.page_untracked(pg, order)
    if page.mapping(mm, at) & 1 != 0:
        # PageAnon: the mapping of an anonymous page may stay to the end.
        page.set_mapping(mm, at, 0)
    if free_pages_check(mm, pg, at):
        bad += 1
    if tails:
        bad += check_tails(mm, pg, at, order)
    else:
        for i in range(1, word.bit(order)):
            if free_pages_check(mm, pg + (i << abi.SIZEOF_PAGE_SHIFT), at + (i << abi.SIZEOF_PAGE_SHIFT)):
                bad += 1
    if debugging and bad == 0:
        mm.page_freed(pg, order)
    return bad == 0


def free_one_page(mm: Mm, zone: u64, pg: u64, pfn: u64, order: u32, migratetype: s32) -> None:
    """Put one block on the zone's buddy lists, under its lock."""
    z: u64 = mmzone.zone_off(mm, zone)
    pageset: u64 = mmzone.this_cpu_pageset(mm, z)
    mmzone.spin_lock(mm, z)
    pcp.reset_pages_scanned(mm, z, pageset)
    if mmzone.has_isolate_pageblock(mm, z) or migratetype == mm.migrate_isolate:
        # Isolation may have begun since the caller looked.
        migratetype = mmzone.pageblock_migratetype(mm, pfn)
    if migratetype >= mm.migrate_types:
        mm.bad_migratetype(pg, migratetype)
    buddy.__free_one_page(mm, pg, pfn, zone, z, pageset, order, migratetype)
    mmzone.spin_unlock(mm, z)


def __free_pages_ok(mm: Mm, pg: u64, order: u32) -> None:
    """Free a block whose last reference is gone."""
    at: u64 = address.block_off(mm, pg, order)
    pfn: u64 = address.page_to_pfn(mm, pg)
    migratetype: s32
    if not free_pages_prepare(mm, pg, at, order):
        return
    migratetype = mmzone.pageblock_migratetype(mm, pfn)
    word.add_u64(mm, mm.vm_events + 8 * mm.pgfree, word.bit(order))
    page.set_freepage_migratetype(mm, at, migratetype)
    free_one_page(mm, mmzone.page_zone(mm, at), pg, pfn, order, migratetype)


def free_hot_cold_page(mm: Mm, pg: u64, cold: bool) -> None:
    """Free a single page whose last reference is gone: to the head (or, if cold, tail) of the CPU's list.

    A list that has reached its high mark returns a batch to the buddy lists.
    """
    at: u64 = address.page_off(mm, pg)
    pfn: u64 = address.page_to_pfn(mm, pg)
    zone: u64
    z: u64
    pset: u64
    pageset: u64
    lists: u64
    migratetype: s32
    batch: s32
    if not free_pages_prepare(mm, pg, at, 0):
        return
    zone = mmzone.page_zone(mm, at)
    z = mmzone.zone_off(mm, zone)
    migratetype = mmzone.pageblock_migratetype(mm, pfn)
    page.set_freepage_migratetype(mm, at, migratetype)
    word.add_u64(mm, mm.vm_events + 8 * mm.pgfree, 1)
    if migratetype >= abi.MIGRATE_PCPTYPES:
        # No per-cpu lists for the rest: isolated pages must not hide there, the others go with the movable ones.
        if migratetype == mm.migrate_isolate:
            free_one_page(mm, zone, pg, pfn, 0, migratetype)
            return
        migratetype = abi.MIGRATE_MOVABLE
    lists = abi.PCP_LISTS + abi.SIZEOF_LIST_HEAD * migratetype
    pset = mmzone.this_cpu_pageset_va(mm, z)
    pageset = mmzone.pageset_off(mm, pset)
    if cold:
        list_head.list_add_tail(mm, pg + abi.PAGE_LRU, at + abi.PAGE_LRU, pset + lists, pageset + lists)
    else:
        list_head.list_add(mm, pg + abi.PAGE_LRU, at + abi.PAGE_LRU, pset + lists, pageset + lists)
    word.add_s32(mm, pageset + abi.PCP_COUNT, 1)
    if mmzone.pcp_count(mm, pageset) >= mmzone.pcp_high(mm, pageset):
        batch = mmzone.pcp_batch(mm, pageset)
        pcp.free_pcppages_bulk(mm, zone, batch, pset, pageset)
        word.add_s32(mm, pageset + abi.PCP_COUNT, -batch)


def __free_pages(mm: Mm, pg: u64, order: u32) -> None:
    """``__free_pages``: drop one reference to a block; the last one frees it."""
    if page.put_testzero(mm, address.page_off(mm, pg)):
        if order == 0:
            free_hot_cold_page(mm, pg, False)
        else:
            __free_pages_ok(mm, pg, order)


def free_pages(mm: Mm, addr: u64, order: u32) -> None:
    """``free_pages``: by direct-map address; address 0 is no page and does nothing."""
    if addr == 0:
        return
    if mm.debug_vm:
        mm.check_free_pages(addr)
    __free_pages(mm, address.virt_to_page(mm, addr), order)


def put_compound_or_single(mm: Mm, pg: u64, at: u64) -> None:
    """Free what has lost its last reference: by its destructor if it is a compound page."""
    order: u64
    if page.test_flag(mm, at, abi.PG_lru):
        mm.page_cache_release(pg)
    if page.test_flag(mm, at, abi.PG_head):
        if mm.as_u64[(at + abi.SIZEOF_PAGE + abi.PAGE_COMPOUND_DTOR) >> 3] != mm.free_compound_page:
            mm.unsupported("a compound page with a destructor other than free_compound_page")
        order = compound.compound_order(mm, pg)
        if order >= abi.MAX_ORDER:
            mm.bad_order(pg, order)
        __free_pages_ok(mm, pg, order)
    else:
        free_hot_cold_page(mm, pg, False)


def put_page(mm: Mm, pg: u64) -> None:
    """``put_page``: drop one reference to a page, or through a tail to its compound page."""
    at: u64 = address.page_off(mm, pg)
    head: u64
    head_at: u64
    if not page.test_flag(mm, at, abi.PG_tail):
        if page.put_testzero(mm, at):
            put_compound_or_single(mm, pg, at)
        return
    head = page.first_page(mm, at)
    head_at = address.page_off(mm, head)
    if not compound.compound_tail_refcounted(mm, head_at):
        if mm.debug_vm:
            mm.checker.put_unrefcounted(mm, at, head_at)
        if page.put_testzero(mm, head_at):
            if mm.debug_vm:
                mm.checker.put_last_by_tail(mm, head_at)
            put_compound_or_single(mm, head, head_at)
        return
    if head == pg or not compound.get_page_unless_zero(mm, head_at):
        # A tail that is not in use as such: its own count.
        if mm.debug_vm:
            mm.checker.put_dangling(mm, at)
        if page.put_testzero(mm, at):
            put_compound_or_single(mm, pg, at)
        return
    # The tail's share: one reference of the head, noted in the tail's mapcount; then the one just taken.
    word.add_s32(mm, head_at + abi.PAGE_COUNT, -1)
    if mm.debug_vm:
        mm.checker.put_refcounted(mm, at)
    word.add_s32(mm, at + abi.PAGE_MAPCOUNT, -1)
    if mm.debug_vm:
        mm.checker.put_refcounted_done(mm, at, head_at)
    if page.put_testzero(mm, head_at):
        put_compound_or_single(mm, head, head_at)


def split_page(mm: Mm, pg: u64, order: u32) -> None:
    """``split_page``: turn an allocated (not compound) block into single pages, each with one reference."""
    i: u64
    if mm.debugging:
        mm.page_split(pg, order)
    for i in range(1, word.bit(order)):
        if mm.debug_vm:
            mm.checker.set_page_refcounted(mm, pg + (i << abi.SIZEOF_PAGE_SHIFT))
        page.set_count(mm, address.page_off(mm, pg + (i << abi.SIZEOF_PAGE_SHIFT)), 1)

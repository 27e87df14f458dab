# SPDX-License-Identifier: GPL-2.0-only
"""Taking a range of memory out of circulation (mm/page_isolation.c, mm/compaction.c, mm/page_alloc.c).

A pageblock made MIGRATE_ISOLATE keeps its free pages where nobody allocates, and pages freed
meanwhile stay there too.  Who isolates pageblocks to have them empty is in
:mod:`~kernelmm.pressure.contig` and :mod:`~kernelmm.pressure.hotplug`.

Errors are the kernel's: a negative errno.  Ranges are PFNs, half-open.
"""

from __future__ import annotations

import errno

from kernelmm.core import free, mmzone, page, pcp, vmstat, watermark
from kernelmm.core.mm import Mm
from kernelmm.core.mobility import move_freepages, move_freepages_block
from physmem import abi, address, list_head
from physmem.errors import CorruptionError, UsageError

__all__ = [
    "has_unmovable_pages",
    "isolate_free_page",
    "isolate_freepages_range",
    "split_free_page",
    "start_isolate_page_range",
    "test_pages_isolated",
    "undo_isolate_page_range",
]

_free_pages = vars(free)["__free_pages"]
#: How many pages compaction looks at before it lets others have the lock.
SWAP_CLUSTER_MAX = 32


def zone_span(mm: Mm, z: int) -> tuple[int, int]:
    """PFNs of the zone at ``z``: the first, and one past the last.

    :raises CorruptionError: it claims more than the page array has, so that no scan of it would end
    """
    start = mm.as_u64[(z + mm.zone_start_pfn) >> 3]
    end = start + mm.as_u64[(z + mm.zone_spanned_pages) >> 3]
    limit = (mm.memmap_chunks << mm.memmap_shift) >> abi.SIZEOF_PAGE_SHIFT
    if end > limit:
        raise CorruptionError("node_span", f"a zone from pfn {start} to {end}; the page array has {limit}")
    return start, end


def zone_of(mm: Mm, pfn: int) -> int:
    """``page_zone(pfn_to_page(pfn))``."""
    return mmzone.page_zone(mm, at_of(mm, pfn))


def at_of(mm: Mm, pfn: int) -> int:
    """Physical address of the PFN's ``struct page``, which is written out if that was deferred."""
    at = address.page_off(mm, address.pfn_to_page(mm, pfn))
    if mm.deferred is not None:
        mm.deferred.write_out(at)
    return at


def count_free(mm: Mm, z: int, nr_pages: int, migratetype: int) -> None:
    """``__mod_zone_freepage_state`` on the running CPU."""
    vmstat.mod_zone_freepage_state(mm, z, mmzone.this_cpu_pageset(mm, z), nr_pages, migratetype)


# -- isolating and releasing pageblocks ----------------------------------------


def has_unmovable_pages(mm: Mm, zone: int, pfn: int, skip_hwpoisoned_pages: bool) -> bool:
    """``has_unmovable_pages``: the pageblock at ``pfn`` has a page in use that is not on an LRU list."""
    z = mmzone.zone_off(mm, zone)
    migratetype = mmzone.pageblock_migratetype(mm, pfn)
    if mmzone.zone_idx(mm, zone, z) == mm.max_nr_zones - 1:
        return False  # ZONE_MOVABLE
    if migratetype in (abi.MIGRATE_MOVABLE, mm.migrate_cma):
        return False
    check = pfn
    while check < pfn + abi.PAGEBLOCK_NR_PAGES:
        at = at_of(mm, check)
        if page.count(mm, at) == 0:
            check += 1 << page.order(mm, at) if page.buddy(mm, at) else 1
        elif page.test_flag(mm, at, abi.PG_lru) or (skip_hwpoisoned_pages and mm.hwpoisoned(at)):
            check += 1
        else:
            return True
    return False


def is_pageblock_removable_nolock(mm: Mm, pfn: int) -> bool:
    """``is_pageblock_removable_nolock``: nothing keeps this pageblock from going offline; a guess, without the lock."""
    zone = zone_of(mm, pfn)
    if not mmzone.spans_pfn(mm, mmzone.zone_off(mm, zone), pfn):
        return False
    return not has_unmovable_pages(mm, zone, pfn, True)


def set_migratetype_isolate(mm: Mm, pfn: int, skip_hwpoisoned_pages: bool) -> int:
    """``set_migratetype_isolate``: isolate one pageblock; 0 or -EBUSY."""
    zone = zone_of(mm, pfn)
    z = mmzone.zone_off(mm, zone)
    mmzone.spin_lock(mm, z)
    busy = has_unmovable_pages(mm, zone, pfn, skip_hwpoisoned_pages)
    if not busy:
        migratetype = mmzone.pageblock_migratetype(mm, pfn)
        mmzone.set_pageblock_migratetype(mm, pfn, mm.migrate_isolate)
        mmzone.add_nr_isolate_pageblock(mm, z, 1)
        moved = move_freepages_block(mm, zone, pfn, mm.migrate_isolate)
        count_free(mm, z, -moved, migratetype)
    mmzone.spin_unlock(mm, z)
    if busy:
        return -errno.EBUSY
    pcp.drain_all_pages(mm, zone)
    return 0


def unset_migratetype_isolate(mm: Mm, pfn: int, migratetype: int) -> None:
    """``unset_migratetype_isolate``: give a pageblock back, as ``migratetype``.

    A free block of a pageblock or more may have a free buddy that it was kept from joining: it is taken
    off its list and freed anew.
    """
    zone = zone_of(mm, pfn)
    z = mmzone.zone_off(mm, zone)
    isolated_order = -1
    mmzone.spin_lock(mm, z)
    if mmzone.pageblock_migratetype(mm, pfn) == mm.migrate_isolate:
        at = at_of(mm, pfn)
        if page.buddy(mm, at) and page.order(mm, at) >= abi.PAGEBLOCK_ORDER:
            order = page.order(mm, at)
            buddy_pfn = pfn ^ (1 << order)
            if mmzone.pageblock_migratetype(mm, buddy_pfn) != mm.migrate_isolate:
                isolate_free_page(mm, pfn, order)
                page.set_count(mm, at, 1)
                isolated_order = order
        if isolated_order < 0:
            count_free(mm, z, move_freepages_block(mm, zone, pfn, migratetype), migratetype)
        mmzone.set_pageblock_migratetype(mm, pfn, migratetype)
        mmzone.add_nr_isolate_pageblock(mm, z, -1)
    mmzone.spin_unlock(mm, z)
    if isolated_order >= 0:
        _free_pages(mm, address.pfn_to_page(mm, pfn), isolated_order)


def _require_pageblocks(start_pfn: int, end_pfn: int) -> None:
    if (start_pfn | end_pfn) % abi.PAGEBLOCK_NR_PAGES or start_pfn > end_pfn:
        raise UsageError(f"pfns {start_pfn} to {end_pfn}: not a range of whole pageblocks")


def start_isolate_page_range(
    mm: Mm, start_pfn: int, end_pfn: int, migratetype: int, skip_hwpoisoned_pages: bool = False
) -> int:
    """``start_isolate_page_range``: isolate every pageblock of a range, or none; 0 or -EBUSY.

    :raises UsageError: the range is not one of whole pageblocks
    """
    _require_pageblocks(start_pfn, end_pfn)
    for pfn in range(start_pfn, end_pfn, abi.PAGEBLOCK_NR_PAGES):
        if set_migratetype_isolate(mm, pfn, skip_hwpoisoned_pages):
            for undo in range(start_pfn, pfn, abi.PAGEBLOCK_NR_PAGES):
                unset_migratetype_isolate(mm, undo, migratetype)
            return -errno.EBUSY
    return 0


def undo_isolate_page_range(mm: Mm, start_pfn: int, end_pfn: int, migratetype: int) -> int:
    """``undo_isolate_page_range``: give every isolated pageblock of a range back; 0.

    :raises UsageError: the range is not one of whole pageblocks
    """
    _require_pageblocks(start_pfn, end_pfn)
    for pfn in range(start_pfn, end_pfn, abi.PAGEBLOCK_NR_PAGES):
        if mmzone.pageblock_migratetype(mm, pfn) == mm.migrate_isolate:
            unset_migratetype_isolate(mm, pfn, migratetype)
    return 0


def test_pages_isolated(mm: Mm, start_pfn: int, end_pfn: int, skip_hwpoisoned_pages: bool) -> bool:
    """``test_pages_isolated() == 0``: every page of the range is free and isolated.

    Free blocks that are not on the isolated lists yet are moved there on the way.
    """
    for pfn in range(start_pfn, end_pfn, abi.PAGEBLOCK_NR_PAGES):
        if mmzone.pageblock_migratetype(mm, pfn) != mm.migrate_isolate:
            return False
    zone = zone_of(mm, start_pfn)
    z = mmzone.zone_off(mm, zone)
    mmzone.spin_lock(mm, z)
    pfn = start_pfn
    while pfn < end_pfn:
        at = at_of(mm, pfn)
        if page.buddy(mm, at):
            order = page.order(mm, at)
            if page.freepage_migratetype(mm, at) != mm.migrate_isolate:
                move_freepages(mm, mmzone.page_zone(mm, at), pfn, pfn + (1 << order) - 1, mm.migrate_isolate)
            pfn += 1 << order
        elif (page.count(mm, at) == 0 and page.freepage_migratetype(mm, at) == mm.migrate_isolate) or (
            skip_hwpoisoned_pages and mm.hwpoisoned(at)
        ):
            pfn += 1
        else:
            break
    mmzone.spin_unlock(mm, z)
    return pfn >= end_pfn


# -- taking free pages as they lie ---------------------------------------------


def isolate_free_page(mm: Mm, pfn: int, order: int) -> int:
    """``__isolate_free_page``: take a free block off its list where it lies; its pages, or 0 below the low watermark.

    The caller holds ``zone->lock``.
    """
    at = at_of(mm, pfn)
    zone = mmzone.page_zone(mm, at)
    z = mmzone.zone_off(mm, zone)
    migratetype = mmzone.pageblock_migratetype(mm, pfn)
    if migratetype != mm.migrate_isolate:
        mark = watermark.wmark_pages(mm, z, watermark.WMARK_LOW) + (1 << order)
        if not watermark.zone_watermark_ok(mm, z, 0, mark, 0, 0):
            return 0
        count_free(mm, z, -(1 << order), migratetype)
    list_head.list_del(mm, address.pfn_to_page(mm, pfn) + abi.PAGE_LRU, at + abi.PAGE_LRU)
    mmzone.add_nr_free(mm, z, order, -1)
    page.rmv_order(mm, at)
    if order >= abi.PAGEBLOCK_ORDER - 1:
        for block in range(pfn, pfn + (1 << order) - 1, abi.PAGEBLOCK_NR_PAGES):
            if mmzone.pageblock_migratetype(mm, block) not in (mm.migrate_isolate, mm.migrate_cma):
                mmzone.set_pageblock_migratetype(mm, block, abi.MIGRATE_MOVABLE)
    if mm.debug_pages:
        mm.aids.isolate_free_page(mm, address.pfn_to_page(mm, pfn), order)
    return 1 << order


def split_free_page(mm: Mm, pfn: int) -> int:
    """``split_free_page``: take the free block headed at ``pfn`` as single pages, a reference each; how many, or 0."""
    order = page.order(mm, at_of(mm, pfn))
    taken = isolate_free_page(mm, pfn, order)
    if taken:
        page.set_count(mm, at_of(mm, pfn), 1)
        free.split_page(mm, address.pfn_to_page(mm, pfn), order)
    return taken


def _isolate_freepages_block(mm: Mm, zone: int, start_pfn: int, end_pfn: int) -> int:
    """``isolate_freepages_block``, strict: put every page of [start, end) on the free list that the caller has on
    its stack; their number, or 0 if one is in use.
    """
    z = mmzone.zone_off(mm, zone)
    head_at = address.off(mm, mm.stack)
    locked = False
    scanned = isolated = 0
    pfn = start_pfn
    while pfn < end_pfn:
        if pfn % SWAP_CLUSTER_MAX == 0 and locked:
            mmzone.spin_unlock(mm, z)
            locked = False
        scanned += 1
        if not page.buddy(mm, at_of(mm, pfn)):
            break
        if not locked:
            mmzone.spin_lock(mm, z)
            locked = True
        taken = split_free_page(mm, pfn)
        if not taken:
            break
        for each in range(pfn, pfn + taken):
            lru = address.pfn_to_page(mm, each) + abi.PAGE_LRU
            list_head.list_add(mm, lru, at_of(mm, each) + abi.PAGE_LRU, mm.stack, head_at)
        isolated += taken
        pfn += taken
    if mm.tracing:
        mm.tracer.mm_compaction_isolate_freepages(mm, start_pfn, pfn, scanned, isolated)
    if pfn < end_pfn:
        isolated = 0
    if locked:
        mmzone.spin_unlock(mm, z)
    vmstat.count_vm_events(mm, mm.compactfree_scanned, scanned)
    if isolated:
        vmstat.count_vm_events(mm, mm.compactisolated, isolated)
    return isolated


def isolate_freepages_range(mm: Mm, zone: int, start_pfn: int, end_pfn: int) -> int:
    """``isolate_freepages_range``: take every page of the range; where the last block taken ends, or 0.

    The range may begin inside no free block and end inside one.
    """
    list_head.init_list_head(mm, mm.stack, address.off(mm, mm.stack))
    pfn = start_pfn
    while pfn < end_pfn:
        block_end = min((pfn // abi.PAGEBLOCK_NR_PAGES + 1) * abi.PAGEBLOCK_NR_PAGES, end_pfn)
        first, last = at_of(mm, pfn), at_of(mm, block_end - 1)
        if mmzone.page_zone(mm, first) != zone or page.zone_id(mm, first) != page.zone_id(mm, last):
            break
        isolated = _isolate_freepages_block(mm, zone, pfn, block_end)
        if not isolated:
            break
        pfn += isolated
    if pfn < end_pfn:
        _release_freepages(mm)
        return 0
    if mm.debug_pages:
        mm.aids.map_list(mm, mm.stack)
    return pfn


def _release_freepages(mm: Mm) -> None:
    """``release_freepages``: free what is on the free list."""
    head_at = address.off(mm, mm.stack)
    while not list_head.list_empty(mm, mm.stack, head_at):
        pg = list_head.first(mm, head_at) - abi.PAGE_LRU
        list_head.list_del(mm, pg + abi.PAGE_LRU, address.page_off(mm, pg) + abi.PAGE_LRU)
        _free_pages(mm, pg, 0)

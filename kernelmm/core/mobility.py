# SPDX-License-Identifier: GPL-2.0-only
# room: compiled
"""Grouping pages by mobility, and what happens when a group runs out (mm/page_alloc.c).

Each pageblock (512 pages) has a migratetype, and free blocks go to the list of theirs, so
that pages that can be moved stay together.  An allocation that finds its own lists empty
takes the *largest* block it can from another mobility, and perhaps the whole pageblock with
it; the last resort is MIGRATE_RESERVE.
"""

from __future__ import annotations

from kernelmm.core import buddy, mmzone, page
from kernelmm.core.mm import Mm
from physmem import abi, address, list_head, word
from physmem.ctype import s32, u32, u64


def fallback(mm: Mm, migratetype: s32, i: s32) -> s32:
    """``fallbacks[migratetype][i]``: where to look next; MIGRATE_RESERVE ends the row."""
    if migratetype == abi.MIGRATE_MOVABLE:
        # CMA pageblocks take movable pages only, and before anything else is broken up.
        if mm.migrate_cma >= 0:
            i -= 1
            if i < 0:
                return mm.migrate_cma
        if i == 0:
            return abi.MIGRATE_RECLAIMABLE
        if i == 1:
            return abi.MIGRATE_UNMOVABLE
    elif migratetype == abi.MIGRATE_UNMOVABLE:
        if i == 0:
            return abi.MIGRATE_RECLAIMABLE
        if i == 1:
            return abi.MIGRATE_MOVABLE
    elif migratetype == abi.MIGRATE_RECLAIMABLE:
        if i == 0:
            return abi.MIGRATE_UNMOVABLE
        if i == 1:
            return abi.MIGRATE_MOVABLE
    return abi.MIGRATE_RESERVE


def move_freepages(mm: Mm, zone: u64, start_pfn: u64, end_pfn: u64, migratetype: s32) -> u64:
    """Move the free blocks that start in [start_pfn, end_pfn] (inclusive) to another mobility's lists.

    :returns: pages moved
    :raises CorruptionError: a free block's order is impossible
    """
    z: u64 = mmzone.zone_off(mm, zone)
    head: u64
    pfn: u64 = start_pfn
    moved: u64 = 0
    pg: u64
    at: u64
    order: u64
    debug_vm: bool = mm.debug_vm
    if debug_vm:
        mm.checker.move_freepages(mm, start_pfn, end_pfn)
    while pfn <= end_pfn:
        pg = address.pfn_to_page(mm, pfn)
        at = address.page_off(mm, pg)
        if debug_vm:
            mm.checker.nid(mm, pg, zone)
        if not page.buddy(mm, at):
            pfn += 1
            continue
        order = page.order(mm, at)
        if order >= abi.MAX_ORDER:
            mm.bad_order(pg, order)
        head = mmzone.free_list(mm, order, migratetype)
        list_head.list_move(mm, pg + abi.PAGE_LRU, at + abi.PAGE_LRU, zone + head, z + head)
        page.set_freepage_migratetype(mm, at, migratetype)
        pfn += word.bit(order)
        moved += word.bit(order)
    return moved


def move_freepages_block(mm: Mm, zone: u64, pfn: u64, migratetype: s32) -> u64:
    """:func:`move_freepages` for the pageblock of ``pfn``, as far as the zone spans it."""
    z: u64 = mmzone.zone_off(mm, zone)
    start: u64 = (pfn >> abi.PAGEBLOCK_ORDER) << abi.PAGEBLOCK_ORDER
    end: u64 = start + abi.PAGEBLOCK_NR_PAGES - 1
    if not mmzone.spans_pfn(mm, z, start):
        start = pfn
    if not mmzone.spans_pfn(mm, z, end):
        return 0
    return move_freepages(mm, zone, start, end, migratetype)


def try_to_steal_freepages(mm: Mm, zone: u64, pg: u64, start_type: s32) -> None:
    """Before a block of another mobility is broken up: take its pageblock over, if that is worth it.

    A block of a pageblock or more is taken whole.  Otherwise, for a large block or a caller whose
    pages will not move away, the pageblock's other free pages come along, and the pageblock
    changes its type if they are at least half of it.
    """
    pfn: u64 = address.page_to_pfn(mm, pg)
    order: u64 = page.order(mm, address.page_off(mm, pg))
    disabled: bool = mmzone.mobility_disabled(mm)
    moved: u64
    last: u64
    if order >= abi.MAX_ORDER:
        mm.bad_order(pg, order)
    if order >= abi.PAGEBLOCK_ORDER:
        last = pfn + word.bit(order)
        while pfn < last:
            mmzone.set_pageblock_migratetype(mm, pfn, start_type)
            pfn += abi.PAGEBLOCK_NR_PAGES
        return
    if (
        order >= abi.PAGEBLOCK_ORDER // 2
        or start_type == abi.MIGRATE_RECLAIMABLE
        or start_type == abi.MIGRATE_UNMOVABLE
        or disabled
    ):
        moved = move_freepages_block(mm, zone, pfn, start_type)
        if moved >= abi.PAGEBLOCK_NR_PAGES // 2 or disabled:
            mmzone.set_pageblock_migratetype(mm, pfn, start_type)


def __rmqueue_fallback(mm: Mm, zone: u64, order: u32, start_migratetype: s32) -> u64:
    """Take a block from another mobility, the largest first; ``struct page *`` or 0."""
    z: u64 = mmzone.zone_off(mm, zone)
    current: u32 = abi.MAX_ORDER
    i: s32
    migratetype: s32
    buddy_type: s32
    pg: u64
    at: u64
    while current > order:
        current -= 1
        i = 0
        while True:
            migratetype = fallback(mm, start_migratetype, i)
            i += 1
            if migratetype == abi.MIGRATE_RESERVE:
                break
            pg = buddy.first_free(mm, zone, z, current, migratetype)
            if pg == 0:
                continue
            at = address.page_off(mm, pg)
            if current == abi.MAX_ORDER - 1 and mm.deferred is not None:
                # The block leaves its list for the first time, perhaps.
                mm.deferred.write_out(at)
            mmzone.add_nr_free(mm, z, current, -1)
            buddy_type = start_migratetype
            if migratetype == mm.migrate_cma:
                buddy_type = migratetype
            else:
                try_to_steal_freepages(mm, zone, pg, start_migratetype)
            # The steal may have moved the block: unlink it from whichever list it is on now.
            list_head.list_del(mm, pg + abi.PAGE_LRU, at + abi.PAGE_LRU)
            if mm.debug_vm:
                mm.checker.clear_buddy(mm, at)
            page.rmv_order(mm, at)
            buddy.expand(mm, pg, at, zone, z, order, current, buddy_type)
            page.set_freepage_migratetype(mm, at, buddy_type)
            if mm.tracing:
                mm.tracer.mm_page_alloc_extfrag(mm, pg, order, current, start_migratetype, migratetype)
            return pg
    return 0


def __rmqueue(mm: Mm, zone: u64, z: u64, order: u32, migratetype: s32) -> u64:
    """A block of the mobility asked for, or of another, or of the reserve; ``struct page *`` or 0.

    :param z: physical address of ``zone``
    """
    pg: u64 = buddy.__rmqueue_smallest(mm, zone, z, order, migratetype)
    if pg == 0 and migratetype != abi.MIGRATE_RESERVE:
        pg = __rmqueue_fallback(mm, zone, order, migratetype)
        if pg == 0:
            migratetype = abi.MIGRATE_RESERVE
            pg = buddy.__rmqueue_smallest(mm, zone, z, order, migratetype)
    if mm.tracing:
        mm.tracer.mm_page_alloc_zone_locked(mm, pg, order, migratetype)
    return pg

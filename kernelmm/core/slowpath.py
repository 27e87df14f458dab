# SPDX-License-Identifier: GPL-2.0-only
# room: compiled
"""What the allocator does when the free lists say no (mm/page_alloc.c, mm/vmscan.c).

Wake kswapd, then try again with what the caller's gfp mask lets it have: lower watermarks for
the urgent, none for those who free memory.  A caller that may not wait gets NULL after that.
"""

from __future__ import annotations

from kernelmm import gfp
from kernelmm.core import alloc, mmzone, watermark
from kernelmm.core.mm import AllocContext, Mm
from physmem import abi, address, list_head, word
from physmem.ctype import s32, s64, u32, u64


def compaction_skipped(mm: Mm, z: u64, order: u32, classzone_idx: s32) -> bool:
    """``compaction_suitable() == COMPACT_SKIPPED``: not even enough free pages to move pages to."""
    low: s64 = watermark.wmark_pages(mm, z, watermark.WMARK_LOW)
    if watermark.zone_watermark_ok(mm, z, order, low, classzone_idx, 0):
        return False
    return not watermark.zone_watermark_ok(mm, z, 0, low + word.bit(order + 1), classzone_idx, 0)


def zone_balanced(mm: Mm, z: u64, order: u32, classzone_idx: s32) -> bool:
    """``zone_balanced``: kswapd has nothing to do here."""
    high: s64 = watermark.wmark_pages(mm, z, watermark.WMARK_HIGH)
    if not watermark.zone_watermark_ok_safe(mm, z, order, high, classzone_idx, 0):
        return False
    return not (mm.compaction and order != 0 and compaction_skipped(mm, z, order, classzone_idx))


def wakeup_kswapd(mm: Mm, zone: u64, order: u32, classzone_idx: u32) -> None:
    """``wakeup_kswapd``: leave word of what is wanted, and wake the node's kswapd if the zone is low.

    Waking takes the waiter off the wait queue; nothing runs until somebody lets kswapd run.
    """
    z: u64 = address.off(mm, zone)
    pgdat: u64 = address.off(mm, mm.as_u64[(z + mm.zone_pgdat) >> 3])
    head: u64 = mm.as_u64[(z + mm.zone_pgdat) >> 3] + mm.pgdat_kswapd_wait_task_list
    head_at: u64 = pgdat + mm.pgdat_kswapd_wait_task_list
    wanted: s32 = order
    if not mmzone.populated(mm, z):
        return
    if mm.as_s32[(pgdat + mm.pgdat_kswapd_max_order) >> 2] < wanted:
        mm.as_s32[(pgdat + mm.pgdat_kswapd_max_order) >> 2] = wanted
        if mm.as_u32[(pgdat + mm.pgdat_classzone_idx) >> 2] > classzone_idx:
            mm.as_u32[(pgdat + mm.pgdat_classzone_idx) >> 2] = classzone_idx
    if list_head.list_empty(mm, head, head_at) or zone_balanced(mm, z, order, 0):
        return
    if mm.smp:
        # The queue's lock, taken and released.
        word.add_u8(mm, pgdat + mm.pgdat_kswapd_wait_lock + 1, mm.ticket_lock_inc)
        word.add_u8(mm, pgdat + mm.pgdat_kswapd_wait_lock, mm.ticket_lock_inc)
    if list_head.first(mm, head_at) != list_head.last(mm, head_at):
        mm.unsupported("more than one task waiting on kswapd_wait")
    # The waiter lives on kswapd's stack, which an image need not have: empty the queue from its head.
    list_head.init_list_head(mm, head, head_at)


def wake_all_kswapds(mm: Mm, order: u32, ac: AllocContext) -> None:
    """``wake_all_kswapds``: of every zone the request could have used."""
    refs: u64 = alloc.zonerefs(mm, ac.zonelist)
    end: u64 = refs + mm.max_zonerefs * abi.SIZEOF_ZONEREF
    zref: u64 = alloc.next_zones_zonelist(mm, refs, end, ac.high_zoneidx, ac.nodemask)
    preferred: u64 = mmzone.zone_idx(mm, ac.preferred_zone, address.off(mm, ac.preferred_zone))
    while mm.as_u64[(zref + abi.ZONEREF_ZONE) >> 3] != 0:
        wakeup_kswapd(mm, mm.as_u64[(zref + abi.ZONEREF_ZONE) >> 3], order, preferred)
        zref = alloc.next_zones_zonelist(mm, zref + abi.SIZEOF_ZONEREF, end, ac.high_zoneidx, ac.nodemask)


def gfp_to_alloc_flags(mm: Mm, gfp_mask: u32) -> u32:
    """``gfp_to_alloc_flags``: how deep into the reserves the request may reach."""
    alloc_flags: u32 = watermark.ALLOC_WMARK_MIN | watermark.ALLOC_CPUSET
    # __GFP_HIGH and ALLOC_HIGH are the same bit.
    alloc_flags |= gfp_mask & gfp.__GFP_HIGH
    if gfp_mask & (gfp.__GFP_WAIT | gfp.__GFP_NO_KSWAPD) == 0:
        if not gfp_mask & gfp.__GFP_NOMEMALLOC:
            alloc_flags |= watermark.ALLOC_HARDER
        alloc_flags ^= watermark.ALLOC_CPUSET
    elif mm.rt_task and not mm.in_interrupt:
        alloc_flags |= watermark.ALLOC_HARDER
    if not gfp_mask & gfp.__GFP_NOMEMALLOC:
        if gfp_mask & gfp.__GFP_MEMALLOC or (not mm.in_interrupt and mm.task_flags & abi.PF_MEMALLOC):
            alloc_flags |= watermark.ALLOC_NO_WATERMARKS
    if mm.migrate_cma >= 0 and gfp.gfpflags_to_migratetype(gfp_mask, mm.mobility_disabled()) == abi.MIGRATE_MOVABLE:
        alloc_flags |= watermark.ALLOC_CMA
    return alloc_flags


def __alloc_pages_slowpath(mm: Mm, gfp_mask: u32, order: u32, ac: AllocContext) -> u64:
    """``__alloc_pages_slowpath``: ``struct page *``, or 0 if the request fails.

    :raises UnsupportedError: the request may wait, and nothing but reclaim can help it
    """
    alloc_flags: u32
    pg: u64
    if order >= abi.MAX_ORDER:
        return 0
    if mm.numa and gfp_mask & gfp.GFP_THISNODE == gfp.GFP_THISNODE:
        # The caller has a plan of its own for when its node is full.
        mm.warn_alloc_failed(gfp_mask, order)
        return 0
    if not gfp_mask & gfp.__GFP_NO_KSWAPD:
        wake_all_kswapds(mm, order, ac)
    alloc_flags = gfp_to_alloc_flags(mm, gfp_mask)
    if not alloc_flags & watermark.ALLOC_CPUSET and ac.nodemask == 0:
        # Cpusets do not bind this caller: start from the zonelist's true first zone.
        alloc.first_zones_zonelist(mm, ac, 0)
    pg = alloc.get_page_from_freelist(
        mm, gfp_mask, order, alloc_flags - (alloc_flags & watermark.ALLOC_NO_WATERMARKS), ac
    )
    if pg != 0:
        return pg
    if alloc_flags & watermark.ALLOC_NO_WATERMARKS:
        # Memory policies do not bind this caller: any page will do, the local node's first.
        ac.zonelist = mmzone.node_zonelist(mm, mm.numa_node_id(), gfp_mask & gfp.__GFP_THISNODE != 0)
        pg = alloc.get_page_from_freelist(mm, gfp_mask, order, watermark.ALLOC_NO_WATERMARKS, ac)
        if pg != 0:
            return pg
        if gfp_mask & gfp.__GFP_NOFAIL:
            mm.unsupported("__GFP_NOFAIL with no page left at all: the kernel waits for ever")
    if gfp_mask & gfp.__GFP_WAIT and not mm.task_flags & abi.PF_MEMALLOC:
        mm.unsupported("direct reclaim and compaction, which an allocation that may wait (__GFP_WAIT) needs now")
    mm.warn_alloc_failed(gfp_mask, order)
    return 0

# SPDX-License-Identifier: GPL-2.0-only
# room: compiled
"""Taking pages: from a zonelist to the page (mm/page_alloc.c, mm/mmzone.c).

``get_page_from_freelist`` goes through the zones that a request may use, in the order of its
zonelist, and takes the page from the first with enough free memory.  It is the fast path's
only step and the slow path's repeated one.  The entry points are in
:mod:`kernelmm.core.entry`, above the slow path they fall into.
"""

from __future__ import annotations

from kernelmm import gfp
from kernelmm.core import compound, cpuset, current, mmzone, mobility, page, pcp, vmstat, watermark, zoneref
from kernelmm.core.mm import AllocContext, Mm
from physmem import abi, address, list_head, word
from physmem.ctype import s32, s64, u32, u64

# -- the zonelist cache (NUMA): zones found full a short while ago ------------


def zlc(mm: Mm, zonelist: u64) -> u64:
    """Physical address of the ``struct zonelist_cache``, or 0: only a node's first zonelist has one."""
    cache: u64
    if not mm.numa:
        return 0
    cache = mm.as_u64[(address.off(mm, zonelist) + mm.zonelist_zlcache_ptr) >> 3]
    if cache == 0:
        return 0
    return address.struct_off(mm, cache, mm.sizeof_zlc)


def zlc_clear_zones_full(mm: Mm, zonelist: u64) -> None:
    """``zlc_clear_zones_full``: forget which zones were full."""
    cache: u64 = zlc(mm, zonelist)
    i: u64
    if cache != 0:
        for i in range(mm.max_zonerefs // 64):
            mm.as_u64[((cache + mm.zlc_fullzones) >> 3) + i] = 0


def zlc_setup(mm: Mm, zonelist: u64, alloc_flags: u32) -> u64:
    """``zlc_setup``: the nodes to try; once a second, forget which zones were full."""
    cache: u64 = zlc(mm, zonelist)
    jiffies: u64
    since: u64
    mask: u64 = 0xFFFFFFFFFFFFFFFF
    if cache == 0:
        # A NULL set of nodes, never looked at: without a cache every zone is worth trying.
        return 0
    jiffies = mm.as_u64[mm.var_jiffies >> 3]
    # time_after: the sign of the 64-bit difference
    since = (jiffies - mm.as_u64[(cache + mm.zlc_last_full_zap) >> 3] - mm.hz) & mask
    if since != 0 and since >> 63 == 0:
        zlc_clear_zones_full(mm, zonelist)
        mm.as_u64[(cache + mm.zlc_last_full_zap) >> 3] = jiffies
    if not mm.in_interrupt and alloc_flags & watermark.ALLOC_CPUSET:
        return current.mems_allowed(mm)
    return mm.as_u64[mm.var_node_states_memory >> 3]


def zlc_zone_worth_trying(mm: Mm, zonelist: u64, i: u64, allowednodes: u64) -> bool:
    """``zlc_zone_worth_trying``: zone ``i`` of the list is on an allowed node and was not full."""
    cache: u64 = zlc(mm, zonelist)
    node: u32
    if cache == 0:
        return True
    # z_to_n is an array of unsigned short.
    node = mm.as_u8[cache + mm.zlc_z_to_n + 2 * i] | mm.as_u8[cache + mm.zlc_z_to_n + 2 * i + 1] << 8
    if node > 63 or allowednodes & word.bit(node) == 0:
        return False
    return (mm.as_u64[((cache + mm.zlc_fullzones) >> 3) + (i >> 6)] >> (i & 63)) & 1 == 0


def zlc_mark_zone_full(mm: Mm, zonelist: u64, i: u64) -> None:
    """``zlc_mark_zone_full``: remember that zone ``i`` of the list had nothing to give."""
    cache: u64 = zlc(mm, zonelist)
    if cache != 0:
        word.set_bits(mm, cache + mm.zlc_fullzones + (i >> 6) * 8, word.bit(i & 63))


# -- fairness between zones ---------------------------------------------------


def reset_alloc_batches(mm: Mm, preferred_zone: u64) -> None:
    """``reset_alloc_batches``: a new round; each zone of the node up to the preferred one gets its batch again."""
    zone: u64 = mmzone.pgdat_of(mm, mmzone.zone_off(mm, preferred_zone)) + mm.pgdat_node_zones
    z: u64
    delta: s64
    while zone <= preferred_zone:
        z = mmzone.zone_off(mm, zone)
        delta = watermark.wmark_pages(mm, z, watermark.WMARK_HIGH) - watermark.wmark_pages(mm, z, watermark.WMARK_LOW)
        delta -= vmstat.zone_counter(mm, z, abi.NR_ALLOC_BATCH)
        vmstat.mod_zone_page_state(mm, z, mmzone.this_cpu_pageset(mm, z), abi.NR_ALLOC_BATCH, delta)
        word.clear_bits(mm, z + mm.zone_flags, word.bit(abi.ZONE_FAIR_DEPLETED))
        zone += mm.sizeof_zone


# -- one zone -----------------------------------------------------------------


def buffered_rmqueue(mm: Mm, preferred_z: u64, zone: u64, z: u64, order: u32, gfp_flags: u32, migratetype: s32) -> u64:
    """Take a page from one zone: a single one from the CPU's list, a block from the buddy lists; 0 if there is none.

    :param preferred_z: physical address of the zone that the caller would have liked
    :param z: physical address of ``zone``
    """
    taken: s64 = word.bit(order)
    cold: bool = gfp_flags & gfp.__GFP_COLD != 0
    pset: u64 = mmzone.this_cpu_pageset_va(mm, z)
    pageset: u64 = mmzone.pageset_off(mm, pset)
    lists: u64
    refilled: s32
    pg: u64
    if order == 0:
        lists = abi.PCP_LISTS + abi.SIZEOF_LIST_HEAD * migratetype
        if list_head.list_empty(mm, pset + lists, pageset + lists):
            refilled = pcp.rmqueue_bulk(
                mm,
                zone,
                z,
                pageset,
                mmzone.pcp_batch(mm, pageset),
                pset + lists,
                pageset + lists,
                migratetype,
                cold,
            )
            word.add_s32(mm, pageset + abi.PCP_COUNT, refilled)
            if list_head.list_empty(mm, pset + lists, pageset + lists):
                return 0
        if cold:
            pg = list_head.last(mm, pageset + lists) - abi.PAGE_LRU
        else:
            pg = list_head.first(mm, pageset + lists) - abi.PAGE_LRU
        list_head.list_del(mm, pg + abi.PAGE_LRU, address.page_off(mm, pg) + abi.PAGE_LRU)
        word.add_s32(mm, pageset + abi.PCP_COUNT, -1)
    else:
        mmzone.spin_lock(mm, z)
        pg = mobility.__rmqueue(mm, zone, z, order, migratetype)
        mmzone.spin_unlock(mm, z)
        if pg == 0:
            return 0
        vmstat.mod_zone_freepage_state(mm, z, pageset, -taken, page.freepage_migratetype(mm, address.page_off(mm, pg)))
    vmstat.mod_zone_page_state(mm, z, pageset, abi.NR_ALLOC_BATCH, -taken)
    if vmstat.zone_counter(mm, z, abi.NR_ALLOC_BATCH) <= 0:
        word.set_bits(mm, z + mm.zone_flags, word.bit(abi.ZONE_FAIR_DEPLETED))
    vmstat.count_vm_events(mm, mm.pgalloc + mmzone.zone_idx(mm, zone, z), taken)
    vmstat.zone_statistics(mm, preferred_z, z, pageset, gfp_flags & gfp.__GFP_OTHER_NODE != 0)
    if mm.debug_vm:
        mm.checker.range(mm, pg, zone, 1710)
    return pg


def prep_new_page(mm: Mm, pg: u64, order: u32, gfp_flags: u32, alloc_flags: u32) -> bool:
    """Make a block ready for its new owner; True if it is bad and must be left alone for ever."""
    at: u64 = address.page_off(mm, pg)
    i: u64
    for i in range(word.bit(order)):
        if page.is_bad(mm, at + (i << abi.SIZEOF_PAGE_SHIFT), mm.check_at_prep):
            mm.bad_page_at_alloc(pg + (i << abi.SIZEOF_PAGE_SHIFT), at + (i << abi.SIZEOF_PAGE_SHIFT))
            return True
    page.set_private(mm, at, 0)
    page.set_count(mm, at, 1)
    if mm.debugging:
        mm.page_allocated(pg, order, gfp_flags)
    if gfp_flags & gfp.__GFP_ZERO:
        mm.clear_pages(pg, order)
    if order != 0 and gfp_flags & gfp.__GFP_COMP:
        compound.prep_compound_page(mm, pg, order)
    # Pages from below the watermarks are for those who will free memory with them.
    page.set_pfmemalloc(mm, at, alloc_flags & watermark.ALLOC_NO_WATERMARKS != 0)
    return False


def take_from_zone(mm: Mm, ac: AllocContext, zone: u64, z: u64, order: u32, gfp_mask: u32, alloc_flags: u32) -> u64:
    """:func:`buffered_rmqueue` until it gives a good page; 0 if it has none."""
    pg: u64
    while True:
        pg = buffered_rmqueue(mm, ac.preferred_z, zone, z, order, gfp_mask, ac.migratetype)
        if pg == 0 or not prep_new_page(mm, pg, order, gfp_mask, alloc_flags):
            return pg


# -- all zones ----------------------------------------------------------------


def get_page_from_freelist(mm: Mm, gfp_mask: u32, order: u32, alloc_flags: u32, ac: AllocContext) -> u64:
    """Try the zones of ``ac.zonelist`` in order; ``struct page *``, or 0 if none may give a page.

    The first round is fair (ALLOC_FAIR): zones of the preferred node take turns by their batch.
    If it finds nothing, the batches are reset and a second round takes what there is.  On NUMA
    the first failure switches the zonelist cache on for the rest of the round, and a last round
    ignores it.
    """
    zref: u64
    zone: u64
    z: u64
    pg: u64
    allowednodes: u64 = 0
    zlc_active: bool = False
    did_zlc_setup: bool = False
    fair_skipped: u32
    rescan: bool = True
    consider_zone_dirty: bool = alloc_flags & watermark.ALLOC_WMARK_LOW != 0 and gfp_mask & gfp.__GFP_WRITE != 0
    verdict: u32
    while rescan:
        rescan = False
        fair_skipped = 0
        zref = ac.zonerefs - abi.SIZEOF_ZONEREF
        while True:
            zref = zoneref.next_zones_zonelist(
                mm, zref + abi.SIZEOF_ZONEREF, ac.zonerefs_end, ac.high_zoneidx, ac.nodemask
            )
            zone = zoneref.zone_of(mm, zref)
            if zone == 0:
                break
            z = ac.preferred_z if zone == ac.preferred_zone else mmzone.zone_off(mm, zone)
            if zlc_active and not zlc_zone_worth_trying(mm, ac.zonelist, (zref - ac.zonerefs) >> 4, allowednodes):
                continue
            if mm.cpusets_enabled and alloc_flags & watermark.ALLOC_CPUSET:
                if not cpuset.node_allowed(mm, mmzone.zone_nid(mm, z), gfp_mask):
                    continue
            if alloc_flags & watermark.ALLOC_FAIR:
                if mmzone.zone_nid(mm, ac.preferred_z) != mmzone.zone_nid(mm, z):
                    break
                if mmzone.test_zone_flag(mm, z, abi.ZONE_FAIR_DEPLETED):
                    fair_skipped += 1
                    continue
            if consider_zone_dirty and not mm.zone_dirty_ok(z):
                continue
            verdict = watermark.ZONE_TAKE
            if not watermark.zone_has_enough(mm, z, order, alloc_flags, ac.classzone_idx):
                if not did_zlc_setup and mmzone.nr_online_nodes(mm) > 1:
                    allowednodes = zlc_setup(mm, ac.zonelist, alloc_flags)
                    zlc_active = True
                    did_zlc_setup = True
                verdict = watermark.ZONE_FULL
                if mm.numa and mm.as_s32[mm.var_zone_reclaim_mode >> 2] != 0:
                    if mm.zone_allows_reclaim(ac.preferred_zone, zone):
                        verdict = watermark.ZONE_SKIP
                        if not zlc_active or zlc_zone_worth_trying(
                            mm, ac.zonelist, (zref - ac.zonerefs) >> 4, allowednodes
                        ):
                            verdict = reclaim_verdict(mm, zone, z, order, gfp_mask, alloc_flags, ac)
            if verdict == watermark.ZONE_TAKE:
                pg = take_from_zone(mm, ac, zone, z, order, gfp_mask, alloc_flags)
                if pg != 0:
                    return pg
            if zlc_active and verdict != watermark.ZONE_SKIP:
                zlc_mark_zone_full(mm, ac.zonelist, (zref - ac.zonerefs) >> 4)
        if alloc_flags & watermark.ALLOC_FAIR:
            alloc_flags ^= watermark.ALLOC_FAIR
            if fair_skipped != 0:
                rescan = True
                reset_alloc_batches(mm, ac.preferred_zone)
            if mmzone.nr_online_nodes(mm) > 1:
                rescan = True
        if zlc_active:
            zlc_active = False
            rescan = True
    return 0


def reclaim_verdict(mm: Mm, zone: u64, z: u64, order: u32, gfp_mask: u32, alloc_flags: u32, ac: AllocContext) -> u32:
    """What to do with a zone that was too full, after :meth:`~kernelmm.core.mm.Mm.zone_reclaim` had a go at it.

    A zone that was reclaimed from in vain is called full only below the min mark, or if not even one request's
    worth of pages came of it.
    """
    outcome: s32 = mm.zone_reclaim(zone, gfp_mask, order)
    if outcome < 0:
        return watermark.ZONE_SKIP
    if watermark.zone_has_enough(mm, z, order, alloc_flags, ac.classzone_idx):
        return watermark.ZONE_TAKE
    if alloc_flags & watermark.ALLOC_WMARK_MASK == watermark.ALLOC_WMARK_MIN or outcome == 0:
        return watermark.ZONE_FULL
    return watermark.ZONE_SKIP

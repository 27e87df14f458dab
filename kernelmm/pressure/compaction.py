# SPDX-License-Identifier: GPL-2.0-only
"""Compaction: movable pages go to the end of their zone, so that free memory comes together (mm/compaction.c).

Two scanners work towards each other (:mod:`~kernelmm.pressure.scanners`).  When they meet, the zone is compacted.
A zone where it failed is deferred (:mod:`~kernelmm.pressure.deferral`).
"""

from __future__ import annotations

import errno

from kernelmm import gfp
from kernelmm.core import mmzone, pcp, watermark
from kernelmm.core.mm import AllocContext, Mm
from kernelmm.pressure import codes, deferral, lru, migrate, scanners, shrink, wakeup
from kernelmm.pressure.scanners import PAGEBLOCK, CompactControl
from kernelmm.pressure.zonelist import for_each_zone_zonelist
from physmem import abi, list_head

__all__ = ["compact_node", "compact_pgdat", "compact_zone", "try_to_compact_pages"]

# -- a zone ------------------------------------------------------------------------------------


def compact_finished(cc: CompactControl, migratetype: int) -> int:
    """``compact_finished``: COMPACT_COMPLETE when the scanners have met, COMPACT_PARTIAL when the block is there."""
    result = __compact_finished(cc, migratetype)
    if cc.mm.tracing:
        cc.mm.tracer.mm_compaction_finished(cc.mm, cc.z, cc.order, result)
    return codes.COMPACT_CONTINUE if result == codes.COMPACT_NO_SUITABLE_PAGE else result


def __compact_finished(cc: CompactControl, migratetype: int) -> int:
    """``__compact_finished``: of what :func:`compact_finished` goes on with, one kind has a name of its own."""
    mm = cc.mm
    if mm.fatal_signal:
        return codes.COMPACT_PARTIAL
    if cc.free_pfn <= cc.migrate_pfn:
        for sync in (False, True):
            mm.as_u64[scanners.cached_migrate_pfn(mm, cc.z, sync)] = cc.start_pfn
        mm.as_u64[(cc.z + mm.cold.zone_compact_cached_free_pfn) >> 3] = cc.end_pfn
        if not shrink.current_is_kswapd(mm):
            mm.as_u8[cc.z + mm.cold.zone_compact_blockskip_flush] = 1
        return codes.COMPACT_COMPLETE
    if cc.order == -1:
        return codes.COMPACT_CONTINUE
    low = watermark.wmark_pages(mm, cc.z, watermark.WMARK_LOW)
    if not watermark.zone_watermark_ok(mm, cc.z, cc.order, low, cc.classzone_idx, cc.alloc_flags):
        return codes.COMPACT_CONTINUE
    for order in range(cc.order, abi.MAX_ORDER):
        head = mmzone.free_list(mm, order, migratetype)
        if not list_head.list_empty(mm, cc.zone + head, cc.z + head):
            return codes.COMPACT_PARTIAL
        if order >= abi.PAGEBLOCK_ORDER and mmzone.nr_free(mm, cc.z, order):
            return codes.COMPACT_PARTIAL
    return codes.COMPACT_NO_SUITABLE_PAGE


def place_scanners(cc: CompactControl) -> None:
    """Where the scanners begin: where they were last, if that is inside the zone."""
    mm = cc.mm
    cached_free = (cc.z + mm.cold.zone_compact_cached_free_pfn) >> 3
    cc.migrate_pfn = mm.as_u64[scanners.cached_migrate_pfn(mm, cc.z, cc.mode != codes.MIGRATE_ASYNC)]
    cc.free_pfn = mm.as_u64[cached_free]
    if not cc.start_pfn <= cc.free_pfn <= cc.end_pfn:
        cc.free_pfn = mm.as_u64[cached_free] = cc.end_pfn // PAGEBLOCK * PAGEBLOCK
    if not cc.start_pfn <= cc.migrate_pfn <= cc.end_pfn:
        cc.migrate_pfn = cc.start_pfn
        for sync in (False, True):
            mm.as_u64[scanners.cached_migrate_pfn(mm, cc.z, sync)] = cc.start_pfn


def compact_zone(cc: CompactControl) -> int:
    """``compact_zone``: move pages until the wanted block is there or the scanners meet; COMPACT_*."""
    mm = cc.mm
    migratetype = gfp.gfpflags_to_migratetype(cc.gfp_mask, mmzone.mobility_disabled(mm))
    if cc.order != -1:
        suitable = wakeup.compaction_suitable(mm, cc.z, cc.order, cc.alloc_flags, cc.classzone_idx)
        if suitable != codes.COMPACT_CONTINUE:
            return suitable
        if deferral.compaction_restarting(mm, cc.z, cc.order) and not shrink.current_is_kswapd(mm):
            scanners.__reset_isolation_suitable(mm, cc.zone)
    elif mm.tracing:
        mm.tracer.mm_compaction_suitable(mm, cc.z, cc.order, codes.COMPACT_CONTINUE)
    place_scanners(cc)
    sync = cc.mode != codes.MIGRATE_ASYNC
    if mm.tracing:
        mm.tracer.mm_compaction_begin(mm, cc.span, sync)
    # migrate_prep_local
    lru.lru_add_drain(mm)
    last_migrated_pfn = 0
    while True:
        result = compact_finished(cc, migratetype)
        if result != codes.COMPACT_CONTINUE:
            break
        started_at = cc.migrate_pfn
        if not scanners.isolate_migratepages(cc):
            migrate.putback_movable_pages(mm, cc.migratepages)
            cc.nr_migratepages = 0
            result = codes.COMPACT_PARTIAL
            break
        if cc.nr_migratepages:
            failed = migrate.migrate_pages(
                mm,
                cc.migratepages,
                lambda: scanners.compaction_alloc(cc),
                lambda pg: scanners.compaction_free(cc, pg),
                cc.mode,
            )
            if mm.tracing:
                left = failed if failed >= 0 else sum(1 for _ in cc.migratepages)
                mm.tracer.mm_compaction_migratepages(mm, cc.nr_migratepages, left)
            cc.nr_migratepages = 0
            if failed:
                migrate.putback_movable_pages(mm, cc.migratepages)
                if failed == -errno.ENOMEM and cc.free_pfn > cc.migrate_pfn:
                    result = codes.COMPACT_PARTIAL
                    break
            last_migrated_pfn = last_migrated_pfn or started_at
        # The scanner has left an aligned block of the wanted size: let what was freed in it merge.
        if cc.order > 0 and last_migrated_pfn and last_migrated_pfn < cc.migrate_pfn >> cc.order << cc.order:
            lru.lru_add_drain(mm)
            pcp.drain_pages_zone(mm, mm.cpu, cc.zone)
            last_migrated_pfn = 0
    if cc.nr_freepages:
        cached_free = (cc.z + mm.cold.zone_compact_cached_free_pfn) >> 3
        highest = scanners.release_freepages(cc) // PAGEBLOCK * PAGEBLOCK
        mm.as_u64[cached_free] = max(mm.as_u64[cached_free], highest)
    if mm.tracing:
        mm.tracer.mm_compaction_end(mm, cc.span, sync, result)
    return result


def try_to_compact_pages(
    mm: Mm, gfp_mask: int, order: int, alloc_flags: int, ac: AllocContext, mode: int
) -> tuple[int, int]:
    """``try_to_compact_pages``: direct compaction for a request; COMPACT_* and COMPACT_CONTENDED_*.

    A caller that may not do I/O or call file systems does not compact.
    """
    if order == 0 or gfp_mask & gfp.GFP_IOFS != gfp.GFP_IOFS:
        return codes.COMPACT_SKIPPED, codes.COMPACT_CONTENDED_NONE
    if mm.tracing:
        mm.tracer.mm_compaction_try_to_compact_pages(mm, order, gfp_mask, mode)
    result = codes.COMPACT_DEFERRED
    for zone in for_each_zone_zonelist(mm, ac.zonelist, ac.high_zoneidx, ac.nodemask):
        z = mmzone.zone_off(mm, zone)
        if deferral.compaction_deferred(mm, z, order):
            continue
        cc = CompactControl(mm, zone, order, gfp_mask, mode, alloc_flags, ac.classzone_idx)
        status = compact_zone(cc)
        result = max(status, result)
        low = watermark.wmark_pages(mm, z, watermark.WMARK_LOW)
        if watermark.zone_watermark_ok(mm, z, order, low, ac.classzone_idx, alloc_flags):
            deferral.compaction_defer_reset(mm, z, order, False)
            break
        if mode != codes.MIGRATE_ASYNC and status == codes.COMPACT_COMPLETE:
            deferral.defer_compaction(mm, z, order)
        if mm.fatal_signal:
            return result, codes.COMPACT_CONTENDED_SCHED
    return result, codes.COMPACT_CONTENDED_NONE


def compact_pgdat(mm: Mm, pgdat: int, order: int) -> None:
    """``compact_pgdat``: kswapd's light compaction of its node, for a block of ``order``."""
    if order == 0:
        return
    for index in range(mm.max_nr_zones):
        zone = pgdat + mm.pgdat_node_zones + index * mm.sizeof_zone
        z = mmzone.zone_off(mm, zone)
        if not mmzone.populated(mm, z):
            continue
        if not deferral.compaction_deferred(mm, z, order):
            compact_zone(CompactControl(mm, zone, order, 0, codes.MIGRATE_ASYNC))
        low = watermark.wmark_pages(mm, z, watermark.WMARK_LOW)
        if watermark.zone_watermark_ok(mm, z, order, low, 0, 0):
            deferral.compaction_defer_reset(mm, z, order, False)


def compact_node(mm: Mm, nid: int) -> None:
    """``compact_node``: everything of a node, as writing to /proc/sys/vm/compact_memory asks for."""
    pgdat = mmzone.node_data(mm, nid)
    for index in range(mm.max_nr_zones):
        zone = pgdat + mm.pgdat_node_zones + index * mm.sizeof_zone
        if mmzone.populated(mm, mmzone.zone_off(mm, zone)):
            compact_zone(CompactControl(mm, zone, -1, 0, codes.MIGRATE_SYNC, ignore_skip_hint=True))

# SPDX-License-Identifier: GPL-2.0-only
"""Direct reclaim: a task that needs memory goes and gets it (mm/vmscan.c)."""

from __future__ import annotations

from kernelmm import gfp
from kernelmm.core import cpuset, mmzone, watermark
from kernelmm.core.mm import Mm
from kernelmm.pressure import codes, deferral, kswapd, pfmemalloc, reclaim, stat, waiting, wakeup, writeback
from kernelmm.pressure.shrink import ScanControl
from kernelmm.pressure.zonelist import for_each_zone_zonelist
from physmem import address, word

__all__ = ["shrink_zones", "try_to_free_pages"]

_HARDWALL = gfp.GFP_KERNEL | gfp.__GFP_HARDWALL


def compaction_ready(mm: Mm, z: int, order: int) -> bool:
    """``compaction_ready``: enough is free for compaction to work with."""
    mark = watermark.wmark_pages(mm, z, watermark.WMARK_HIGH) + kswapd.balance_gap(mm, z) + (2 << order)
    enough = watermark.zone_watermark_ok_safe(mm, z, 0, mark, 0, 0)
    if deferral.compaction_deferred(mm, z, order):
        return enough
    return wakeup.compaction_suitable(mm, z, order, 0, 0) != codes.COMPACT_SKIPPED and enough


def shrink_zones(mm: Mm, zonelist: int, sc: ScanControl) -> bool:
    """``shrink_zones``: every zone of the list once, at this priority; whether any of them has hope."""
    reclaimable = False
    for zone in for_each_zone_zonelist(mm, zonelist, gfp.gfp_zone(sc.gfp_mask), sc.nodemask):
        z = mmzone.zone_off(mm, zone)
        if not mmzone.populated(mm, z) or not cpuset.node_allowed(mm, mmzone.zone_nid(mm, z), _HARDWALL):
            continue
        if sc.priority != codes.DEF_PRIORITY and not reclaim.zone_reclaimable(mm, z):
            continue
        if mm.compaction and sc.order > codes.PAGE_ALLOC_COSTLY_ORDER and compaction_ready(mm, z, sc.order):
            sc.compaction_ready = True
            continue
        if reclaim.shrink_zone(mm, zone, sc) or reclaim.zone_reclaimable(mm, z):
            reclaimable = True
    return reclaimable


def do_try_to_free_pages(mm: Mm, zonelist: int, sc: ScanControl) -> int:
    """``do_try_to_free_pages``: down the priorities until there is enough; 0 if all hope is lost.

    1 means that nothing was reclaimed, but that trying again or compacting makes sense.
    """
    while True:
        total_scanned = 0
        stat.count(mm, mm.cold.ALLOCSTALL)
        while True:
            sc.nr_scanned = 0
            reclaimable = shrink_zones(mm, zonelist, sc)
            total_scanned += sc.nr_scanned
            if sc.nr_reclaimed >= sc.nr_to_reclaim or sc.compaction_ready:
                break
            if sc.priority < codes.DEF_PRIORITY - 2:
                sc.may_writepage = True
            if total_scanned > sc.nr_to_reclaim + sc.nr_to_reclaim // 2:
                writeback.wakeup_flusher_threads(mm, total_scanned)
                sc.may_writepage = True
            sc.priority -= 1
            if sc.priority < 0:
                break
        if sc.nr_reclaimed:
            return sc.nr_reclaimed
        if sc.compaction_ready:
            return 1
        if sc.may_thrash:
            return int(reclaimable)
        # Once more from the start: memory cgroups might have been spared, if there were any.
        sc.priority = codes.DEF_PRIORITY
        sc.may_thrash = True


def throttle_direct_reclaim(mm: Mm, gfp_mask: int, zonelist: int, nodemask: int) -> bool:
    """``throttle_direct_reclaim``: wait for kswapd while the reserves are nearly gone; True if killed meanwhile.

    :raises BudgetError: nothing is freed: in 4.0 the caller sleeps on, even if there is nothing that could be reclaimed
    """
    if mm.task_flags & codes.PF_KTHREAD or mm.fatal_signal:
        return False
    for zone in for_each_zone_zonelist(mm, zonelist, gfp.gfp_zone(gfp_mask), nodemask):
        z = mmzone.zone_off(mm, zone)
        if mmzone.zone_idx(mm, zone, z) > gfp.ZONE_NORMAL:
            continue
        pgdat = mm.as_u64[(z + mm.zone_pgdat) >> 3]
        if pfmemalloc.pfmemalloc_watermark_ok(mm, pgdat):
            return False
        stat.count(mm, mm.cold.PGSCAN_DIRECT_THROTTLE)
        wait_for_reserves(mm, gfp_mask, pgdat)
        return mm.fatal_signal
    return False


def wait_for_reserves(mm: Mm, gfp_mask: int, pgdat: int) -> None:
    """``wait_event_killable`` on the node's queue, or for a second if the caller may hold a file system's locks."""
    pfmemalloc.init_wait(mm)
    try:
        while True:
            pfmemalloc.prepare_to_wait(mm, pgdat)
            if pfmemalloc.pfmemalloc_watermark_ok(mm, pgdat) or mm.fatal_signal:
                return
            kswapd.let_others_run(mm)
            if not gfp_mask & gfp.__GFP_FS and not pfmemalloc.pfmemalloc_watermark_ok(mm, pgdat):
                word.add_u64(mm, mm.var_jiffies, mm.hz)
                return
            if not pfmemalloc.pfmemalloc_watermark_ok(mm, pgdat):
                reserve, free = pfmemalloc.pfmemalloc_reserve(mm, pgdat)
                nid = mm.as_s32[(address.off(mm, pgdat) + mm.pgdat_node_id) >> 2]
                waiting.charge(
                    mm,
                    f"throttle_direct_reclaim: node {nid} has {free} free pages, and until they are more than half "
                    f"of its {reserve} reserved ones, who may wait does, but nobody frees any",
                )
    finally:
        pfmemalloc.finish_wait(mm, pgdat)


def try_to_free_pages(mm: Mm, zonelist: int, order: int, gfp_mask: int, nodemask: int) -> int:
    """``try_to_free_pages``: reclaim for a request that could not be served; 0 if nothing could be done."""
    gfp_mask = reclaim.memalloc_noio_flags(mm, gfp_mask)
    sc = ScanControl(nr_to_reclaim=codes.SWAP_CLUSTER_MAX, gfp_mask=gfp_mask, order=order, nodemask=nodemask)
    if throttle_direct_reclaim(mm, gfp_mask, zonelist, nodemask):
        return 1
    if mm.tracing:
        mm.tracer.mm_vmscan_direct_reclaim_begin(mm, order, sc.may_writepage, gfp_mask)
    reclaimed = do_try_to_free_pages(mm, zonelist, sc)
    if mm.tracing:
        mm.tracer.mm_vmscan_direct_reclaim_end(mm, reclaimed)
    return reclaimed

# SPDX-License-Identifier: GPL-2.0-only
"""Reclaiming from one zone (mm/vmscan.c): how much of which list to look at, and when to stop.

A session begins at priority 12, where it looks at 1/4096 of each list, and doubles that again and
again down to priority 0.  There is no swap (as on the recorded machines), so only file pages are
scanned; there are no slab caches to shrink and no memory cgroups.
"""

from __future__ import annotations

from kernelmm import gfp
from kernelmm.core import mmzone
from kernelmm.core.mm import Mm
from kernelmm.pressure import codes, isolation, lru, shrink, stat, waiting, wakeup
from kernelmm.pressure.fields import Fields
from kernelmm.pressure.shrink import ScanControl
from physmem import address, word
from physmem.errors import AbsentError, CorruptionError

__all__ = ["memalloc_noio_flags", "shrink_zone", "zone_allows_reclaim", "zone_reclaim", "zone_reclaimable"]

GFP_IOFS = gfp.GFP_IOFS

# vm.zone_reclaim_mode
RECLAIM_ZONE = 1
RECLAIM_WRITE = 2
RECLAIM_SWAP = 4
ZONE_RECLAIM_PRIORITY = 4

# Node distances (include/linux/topology.h)
LOCAL_DISTANCE = 10
REMOTE_DISTANCE = 20
RECLAIM_DISTANCE = 30


def zone_reclaimable_pages(mm: Mm, z: int) -> int:
    """``zone_reclaimable_pages``: the file pages, as there is no swap."""
    fields: Fields = mm.cold
    return stat.zone_state(mm, z, fields.NR_ACTIVE_FILE) + stat.zone_state(mm, z, fields.NR_INACTIVE_FILE)


def zone_reclaimable(mm: Mm, z: int) -> bool:
    """``zone_reclaimable``: not yet scanned six times over without anything being freed."""
    return stat.zone_state(mm, z, mm.cold.NR_PAGES_SCANNED) < zone_reclaimable_pages(mm, z) * 6


def get_scan_count(mm: Mm, zone: int, sc: ScanControl) -> list[int]:
    """``get_scan_count``: pages to look at on each of the four evictable lists; of anonymous ones none.

    :raises CorruptionError: a list has more pages than the zone, by its counter, and would be scanned for ever
    """
    z = mmzone.zone_off(mm, zone)
    force_scan = shrink.current_is_kswapd(mm) and not zone_reclaimable(mm, z)
    sizes = [stat.zone_state(mm, z, mm.cold.NR_LRU_BASE + which) for which in (2, 3)]
    start, end = isolation.zone_span(mm, z)
    if max(sizes) > end - start:
        raise CorruptionError("lru_counts", f"{max(sizes)} pages on an LRU list of a zone that spans {end - start}")
    scan = [size >> sc.priority for size in sizes]
    if not any(scan) and force_scan:
        scan = [min(size, codes.SWAP_CLUSTER_MAX) for size in sizes]
    return [0, 0, *scan]


def inactive_file_is_low(mm: Mm, z: int) -> bool:
    """``inactive_file_is_low``: fewer file pages on probation than established ones."""
    fields: Fields = mm.cold
    return stat.zone_state(mm, z, fields.NR_ACTIVE_FILE) > stat.zone_state(mm, z, fields.NR_INACTIVE_FILE)


def shrink_list(mm: Mm, which: int, nr_to_scan: int, zone: int, sc: ScanControl) -> int:
    """``shrink_list``: pages reclaimed from a list; an active one only feeds its inactive one, if that is short."""
    if which & lru.LRU_ACTIVE:
        if inactive_file_is_low(mm, mmzone.zone_off(mm, zone)):
            shrink.shrink_active_list(mm, nr_to_scan, zone, sc, which)
        return 0
    return shrink.shrink_inactive_list(mm, nr_to_scan, zone, sc, which)


def shrink_lruvec(mm: Mm, zone: int, sc: ScanControl) -> None:
    """``shrink_lruvec``: the lists in turn, 32 pages each, until all was looked at or enough is reclaimed.

    A direct reclaimer at the first priority does not stop early: kswapd has not kept up.
    """
    todo = get_scan_count(mm, zone, sc)
    scan_adjusted = not shrink.current_is_kswapd(mm) and sc.priority == codes.DEF_PRIORITY
    reclaimed = 0
    while todo[lru.LRU_ACTIVE_FILE] or todo[lru.LRU_INACTIVE_FILE]:
        for which in (lru.LRU_INACTIVE_FILE, lru.LRU_ACTIVE_FILE):
            batch = min(todo[which], codes.SWAP_CLUSTER_MAX)
            if batch:
                todo[which] -= batch
                reclaimed += shrink_list(mm, which, batch, zone, sc)
        # Enough, and no anonymous pages are left to scan in proportion.
        if reclaimed >= sc.nr_to_reclaim and not scan_adjusted:
            break
    sc.nr_reclaimed += reclaimed
    waiting.throttle_vm_writeout(mm, sc.gfp_mask & GFP_IOFS == GFP_IOFS)


def in_reclaim_compaction(mm: Mm, sc: ScanControl) -> bool:
    """``in_reclaim_compaction``: pages are reclaimed so that compaction has room to work."""
    return (
        mm.compaction
        and sc.order > 0
        and (sc.order > codes.PAGE_ALLOC_COSTLY_ORDER or sc.priority < codes.DEF_PRIORITY - 2)
    )


def should_continue_reclaim(mm: Mm, z: int, nr_reclaimed: int, nr_scanned: int, sc: ScanControl) -> bool:
    """``should_continue_reclaim``: once more, for compaction's sake."""
    if not in_reclaim_compaction(mm, sc):
        return False
    if not nr_reclaimed and not (sc.gfp_mask & gfp.__GFP_REPEAT and nr_scanned):
        return False
    for_compaction = 2 << sc.order
    inactive = stat.zone_state(mm, z, mm.cold.NR_INACTIVE_FILE)
    if sc.nr_reclaimed < for_compaction and inactive > for_compaction:
        return True
    suitable = wakeup.compaction_suitable(mm, z, sc.order, 0, 0)
    return suitable not in (codes.COMPACT_PARTIAL, codes.COMPACT_CONTINUE)


def shrink_zone(mm: Mm, zone: int, sc: ScanControl) -> bool:
    """``shrink_zone``: whether something could be reclaimed."""
    reclaimable = False
    while True:
        scanned, reclaimed = sc.nr_scanned, sc.nr_reclaimed
        shrink_lruvec(mm, zone, sc)
        reclaimable |= sc.nr_reclaimed > reclaimed
        if not should_continue_reclaim(
            mm, mmzone.zone_off(mm, zone), sc.nr_reclaimed - reclaimed, sc.nr_scanned - scanned, sc
        ):
            return reclaimable
        if sc.nr_reclaimed == reclaimed:
            waiting.charge(mm, "reclaim for compaction")


# -- zone_reclaim: rather reclaim here than go to another node ---------------------------


def memalloc_noio_flags(mm: Mm, gfp_mask: int) -> int:
    """``memalloc_noio_flags``: in a task that must not start I/O, no allocation may."""
    if mm.task_flags & codes.PF_MEMALLOC_NOIO:
        return gfp_mask & ~GFP_IOFS
    return gfp_mask


def node_distance(mm: Mm, a: int, b: int) -> int:
    """``node_distance``: of the firmware's table, or 10 and 20.

    :raises AbsentError: the kernel has a table, but the image does not contain it
    """
    fields: Fields = mm.cold
    count = mm.as_s32[fields.var_numa_distance_cnt >> 2] if fields.var_numa_distance_cnt else 0
    if a >= count or b >= count:
        return LOCAL_DISTANCE if a == b else REMOTE_DISTANCE
    table = address.virt_to_phys(mm, mm.as_u64[fields.var_numa_distance >> 3])
    try:
        return mm.ram.u8(table + a * count + b)
    except AbsentError:
        raise AbsentError(table, count * count, "numa_distance, which zone_reclaim_mode needs") from None


def zone_allows_reclaim(mm: Mm, local: int, zone: int) -> bool:
    """``zone_allows_reclaim``: zones are near enough to reclaim in the one for the other's sake."""
    a, b = (mmzone.zone_nid(mm, mmzone.zone_off(mm, each)) for each in (local, zone))
    return node_distance(mm, a, b) < RECLAIM_DISTANCE


def zone_pagecache_reclaimable(mm: Mm, z: int, mode: int) -> int:
    """``zone_pagecache_reclaimable``: page cache pages that zone_reclaim_mode allows to take."""
    fields: Fields = mm.cold
    if mode & RECLAIM_SWAP:
        pages = stat.zone_state(mm, z, fields.NR_FILE_PAGES)
    else:
        on_lists = zone_reclaimable_pages(mm, z)
        pages = max(on_lists - stat.zone_state(mm, z, fields.NR_FILE_MAPPED), 0)
    dirty = 0 if mode & RECLAIM_WRITE else stat.zone_state(mm, z, fields.NR_FILE_DIRTY)
    return pages - min(dirty, pages)


def zone_reclaim(mm: Mm, zone: int, gfp_mask: int, order: int) -> int:
    """``zone_reclaim``: a light reclaim in one zone before the next node is tried; ZONE_RECLAIM_*."""
    fields: Fields = mm.cold
    z = mmzone.zone_off(mm, zone)
    mode = mm.as_s32[mm.var_zone_reclaim_mode >> 2]
    few_pages = zone_pagecache_reclaimable(mm, z, mode) <= mm.as_u64[(z + fields.zone_min_unmapped_pages) >> 3]
    slab = stat.zone_state(mm, z, fields.NR_SLAB_RECLAIMABLE)
    if few_pages and slab <= mm.as_u64[(z + fields.zone_min_slab_pages) >> 3]:
        return codes.ZONE_RECLAIM_FULL
    if not zone_reclaimable(mm, z):
        return codes.ZONE_RECLAIM_FULL
    if not gfp_mask & gfp.__GFP_WAIT or mm.task_flags & codes.PF_MEMALLOC:
        return codes.ZONE_RECLAIM_NOSCAN
    if mmzone.zone_nid(mm, z) != mm.numa_node_id() and node_has_cpu(mm, mmzone.zone_nid(mm, z)):
        return codes.ZONE_RECLAIM_NOSCAN
    locked = 1 << fields.ZONE_RECLAIM_LOCKED
    if mm.as_u64[(z + mm.zone_flags) >> 3] & locked:
        return codes.ZONE_RECLAIM_NOSCAN
    word.set_bits(mm, z + mm.zone_flags, locked)
    enough = __zone_reclaim(mm, zone, gfp_mask, order, mode, few_pages)
    word.clear_bits(mm, z + mm.zone_flags, locked)
    if not enough:
        stat.count(mm, fields.PGSCAN_ZONE_RECLAIM_FAILED)
    return codes.ZONE_RECLAIM_SUCCESS if enough else codes.ZONE_RECLAIM_SOME


def __zone_reclaim(mm: Mm, zone: int, gfp_mask: int, order: int, mode: int, few_pages: bool) -> bool:
    """``__zone_reclaim``: whether as many pages were reclaimed as are wanted."""
    sc = ScanControl(
        nr_to_reclaim=max(1 << order, codes.SWAP_CLUSTER_MAX),
        gfp_mask=memalloc_noio_flags(mm, gfp_mask),
        order=order,
        priority=ZONE_RECLAIM_PRIORITY,
        may_writepage=bool(mode & RECLAIM_WRITE),
        may_unmap=bool(mode & RECLAIM_SWAP),
    )
    if not few_pages:
        before = mm.task_flags
        mm.task_flags |= codes.PF_MEMALLOC | codes.PF_SWAPWRITE
        try:
            with waiting.reclaim_state(mm, gfp_mask):
                while sc.priority >= 0:
                    shrink_zone(mm, zone, sc)
                    if sc.nr_reclaimed >= 1 << order:
                        break
                    sc.priority -= 1
        finally:
            mm.task_flags = before
    return sc.nr_reclaimed >= 1 << order


def node_has_cpu(mm: Mm, nid: int) -> bool:
    """``node_state(nid, N_CPU)``: some online CPU is on the node."""
    return any(mmzone.cpu_online(mm, cpu) and node_of_cpu(mm, cpu) == nid for cpu in range(mm.nr_cpus))


def node_of_cpu(mm: Mm, cpu: int) -> int:
    """``cpu_to_node``: the CPU's per-cpu variable ``numa_node``."""
    at = mm.percpu_numa_node + mm.per_cpu_offset(cpu)
    return mm.as_s32[(address.off(mm, at - at % 8) + at % 8) >> 2]

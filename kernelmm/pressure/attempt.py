# SPDX-License-Identifier: GPL-2.0-only
# room: compiled
"""The part of the slow path that every failing request goes through (mm/page_alloc.c).

Wake kswapd, work out how deep into the reserves the request may reach, and look once more.  Requests that may
not wait fail here by the thousand, so this room is compiled; what comes after it is in
:mod:`kernelmm.pressure.slowpath`.
"""

from __future__ import annotations

from kernelmm import gfp
from kernelmm.core import alloc, current, mmzone, watermark, zoneref
from kernelmm.core.mm import AllocContext, Mm
from kernelmm.pressure import wakeup
from physmem import abi
from physmem.ctype import u32, u64


def wake_all_kswapds(mm: Mm, order: u32, ac: AllocContext) -> None:
    """``wake_all_kswapds``: of every zone the request could have used."""
    zref: u64 = zoneref.next_zones_zonelist(mm, ac.zonerefs, ac.zonerefs_end, ac.high_zoneidx, ac.nodemask)
    preferred: u64 = mmzone.zone_idx(mm, ac.preferred_zone, ac.preferred_z)
    while zoneref.zone_of(mm, zref) != 0:
        wakeup.wakeup_kswapd(mm, zoneref.zone_of(mm, zref), order, preferred)
        zref = zoneref.next_zones_zonelist(mm, zref + abi.SIZEOF_ZONEREF, ac.zonerefs_end, ac.high_zoneidx, ac.nodemask)


def gfp_to_alloc_flags(mm: Mm, gfp_mask: u32) -> u32:
    """``gfp_to_alloc_flags``: how deep into the reserves the request may reach."""
    alloc_flags: u32 = watermark.ALLOC_WMARK_MIN | watermark.ALLOC_CPUSET
    # __GFP_HIGH and ALLOC_HIGH are the same bit.
    alloc_flags |= gfp_mask & gfp.__GFP_HIGH
    if gfp_mask & (gfp.__GFP_WAIT | gfp.__GFP_NO_KSWAPD) == 0:
        if not gfp_mask & gfp.__GFP_NOMEMALLOC:
            alloc_flags |= watermark.ALLOC_HARDER
        alloc_flags ^= watermark.ALLOC_CPUSET
    elif current.rt_task(mm) and not mm.in_interrupt:
        alloc_flags |= watermark.ALLOC_HARDER
    if not gfp_mask & gfp.__GFP_NOMEMALLOC and (
        gfp_mask & gfp.__GFP_MEMALLOC
        or (mm.serving_softirq and current.flags(mm) & abi.PF_MEMALLOC)
        or (not mm.in_interrupt and (current.flags(mm) & abi.PF_MEMALLOC or current.memdie(mm)))
    ):
        alloc_flags |= watermark.ALLOC_NO_WATERMARKS
    if (
        mm.migrate_cma >= 0
        and gfp.gfpflags_to_migratetype(gfp_mask, mmzone.mobility_disabled(mm)) == abi.MIGRATE_MOVABLE
    ):
        alloc_flags |= watermark.ALLOC_CMA
    return alloc_flags


def without_reserves(mm: Mm, gfp_mask: u32, order: u32, alloc_flags: u32, ac: AllocContext) -> u64:
    """Look through the zones, above the watermarks whatever ``alloc_flags`` says; ``struct page *`` or 0."""
    return alloc.get_page_from_freelist(
        mm, gfp_mask, order, alloc_flags - (alloc_flags & watermark.ALLOC_NO_WATERMARKS), ac
    )


def high_priority(mm: Mm, gfp_mask: u32, order: u32, ac: AllocContext) -> u64:
    """One try of ``__alloc_pages_high_priority``: any page at all, the local node's first; ``struct page *`` or 0."""
    # Memory policies do not bind this caller.
    zoneref.set_zonelist(mm, ac, mmzone.node_zonelist(mm, mm.numa_node_id(), gfp_mask & gfp.__GFP_THISNODE != 0))
    return alloc.get_page_from_freelist(mm, gfp_mask, order, watermark.ALLOC_NO_WATERMARKS, ac)


def attempt(mm: Mm, gfp_mask: u32, order: u32, ac: AllocContext) -> u64:
    """One round of the slow path, as far as a caller who may not wait gets: ``struct page *`` or 0."""
    alloc_flags: u32
    pg: u64
    if not gfp_mask & gfp.__GFP_NO_KSWAPD:
        wake_all_kswapds(mm, order, ac)
    alloc_flags = gfp_to_alloc_flags(mm, gfp_mask)
    if not alloc_flags & watermark.ALLOC_CPUSET and ac.nodemask == 0:
        # Cpusets do not bind this caller: start from the zonelist's true first zone.
        zoneref.first_zones_zonelist(mm, ac, 0)
    pg = without_reserves(mm, gfp_mask, order, alloc_flags, ac)
    if pg == 0 and alloc_flags & watermark.ALLOC_NO_WATERMARKS:
        pg = high_priority(mm, gfp_mask, order, ac)
    return pg

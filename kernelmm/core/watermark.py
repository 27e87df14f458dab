# SPDX-License-Identifier: GPL-2.0-only
# room: inline
"""Whether a zone has enough free pages left to give some away (mm/page_alloc.c).

A zone keeps *min*, *low* and *high* marks of free pages.  An allocation must leave more than
its mark, plus the pages that the zone keeps from callers that could have used a higher zone
(``lowmem_reserve``); for a larger block, also half as many in blocks of each larger order.
"""

from __future__ import annotations

from kernelmm.core import mmzone, vmstat
from kernelmm.core.mm import Mm
from physmem import abi
from physmem.ctype import s32, s64, u32, u64

WMARK_MIN = 0
WMARK_LOW = 1
WMARK_HIGH = 2

# alloc_flags (mm/internal.h): the low bits choose the watermark
ALLOC_WMARK_MIN = WMARK_MIN
ALLOC_WMARK_LOW = WMARK_LOW
ALLOC_WMARK_HIGH = WMARK_HIGH
ALLOC_NO_WATERMARKS = 0x04
ALLOC_WMARK_MASK = ALLOC_NO_WATERMARKS - 1
ALLOC_HARDER = 0x10
ALLOC_HIGH = 0x20
ALLOC_CPUSET = 0x40
ALLOC_CMA = 0x80
ALLOC_FAIR = 0x100

# What get_page_from_freelist does with a zone: take from it, note that it is full, or leave it alone.
ZONE_TAKE = 0
ZONE_FULL = 1
ZONE_SKIP = 2


def wmark_pages(mm: Mm, z: u64, which: u32) -> s64:
    """``zone->watermark[which]``, pages; signed, for an unsigned mark would make every comparison with it unsigned."""
    return mm.as_s64[(z + mm.zone_watermark + 8 * which) >> 3]


def leaves_enough(mm: Mm, z: u64, order: u32, mark: s64, classzone_idx: s32, alloc_flags: u32, free_pages: s64) -> bool:
    """``__zone_watermark_ok``: enough stays if 2^order of ``free_pages`` are taken."""
    min_pages: s64 = mark
    taken: s64 = 1
    free_cma: s64 = 0
    reserve: s64
    o: u32
    free_pages -= (taken << order) - 1
    if alloc_flags & ALLOC_HIGH:
        min_pages -= min_pages >> 1
    if alloc_flags & ALLOC_HARDER:
        min_pages -= min_pages >> 2
    if mm.migrate_cma >= 0 and not alloc_flags & ALLOC_CMA:
        free_cma = vmstat.zone_page_state(mm, z, mm.nr_free_cma_pages)
    # There are four zones; an index that memory gave may be any.
    reserve = mm.as_s64[(z + mm.zone_lowmem_reserve + 8 * (classzone_idx & 3)) >> 3]
    if free_pages - free_cma <= min_pages + reserve:
        return False
    if order > abi.MAX_ORDER:
        # Nobody has such a block, and what is behind the last free_area would not say so.
        order = abi.MAX_ORDER
    for o in range(order):
        free_pages -= mmzone.nr_free(mm, z, o) << o
        min_pages >>= 1
        if free_pages <= min_pages:
            return False
    return True


def zone_watermark_ok(mm: Mm, z: u64, order: u32, mark: s64, classzone_idx: s32, alloc_flags: u32) -> bool:
    """``zone_watermark_ok``: by the zone's counter, which lags behind by the per-cpu differentials."""
    return leaves_enough(
        mm, z, order, mark, classzone_idx, alloc_flags, vmstat.zone_page_state(mm, z, abi.NR_FREE_PAGES)
    )


def zone_has_enough(mm: Mm, z: u64, order: u32, alloc_flags: u32, classzone_idx: s32) -> bool:
    """Whether a request may take from this zone: above the watermark, or no watermark applies to it."""
    which: u32 = alloc_flags & ALLOC_WMARK_MASK
    if zone_watermark_ok(mm, z, order, wmark_pages(mm, z, which), classzone_idx, alloc_flags):
        return True
    return alloc_flags & ALLOC_NO_WATERMARKS != 0


def zone_watermark_ok_safe(mm: Mm, z: u64, order: u32, mark: s64, classzone_idx: s32, alloc_flags: u32) -> bool:
    """``zone_watermark_ok_safe``: exact where the lag could hide that the zone is below its mark."""
    free_pages: s64 = vmstat.zone_page_state(mm, z, abi.NR_FREE_PAGES)
    drift_mark: u64 = mm.as_u64[(z + mm.zone_percpu_drift_mark) >> 3]
    known: u64 = free_pages
    if drift_mark != 0 and known < drift_mark:
        free_pages = vmstat.zone_page_state_snapshot(mm, z, abi.NR_FREE_PAGES)
    return leaves_enough(mm, z, order, mark, classzone_idx, alloc_flags, free_pages)

# SPDX-License-Identifier: GPL-2.0-only
"""Taking exactly the pages of a range, those in use included (mm/page_alloc.c, mm/page_isolation.c, mm/vmscan.c).

The pageblocks around the range are isolated, so that nobody allocates there; clean page cache in it is dropped,
other pages that can move do; then the range is free as a whole and is taken, and the rest is let go again.  A page
that does not move makes it fail, and everything is as it was before (but for those that have moved).

Errors are the kernel's: a negative errno.  Ranges are PFNs, half-open.
"""

from __future__ import annotations

import errno

from kernelmm import gfp
from kernelmm.core import entry, free, mmzone, page, pcp
from kernelmm.core.mm import Mm
from kernelmm.pressure import codes, lru, migrate, scanners, shrink, stat
from kernelmm.pressure.isolation import (
    at_of,
    isolate_freepages_range,
    start_isolate_page_range,
    test_pages_isolated,
    undo_isolate_page_range,
    zone_of,
)
from kernelmm.pressure.lru import PageList
from kernelmm.pressure.scanners import CompactControl
from kernelmm.pressure.shrink import ScanControl
from physmem import abi, address
from physmem.errors import BudgetError, PanicError, UsageError

__all__ = ["alloc_contig_range", "alloc_migrate_target", "free_contig_range", "reclaim_clean_pages_from_list"]

_free_pages = vars(free)["__free_pages"]
_MAX_ORDER_NR_PAGES = 1 << (abi.MAX_ORDER - 1)
#: How often pages that were isolated are tried to be moved before the range is given up.
_TRIES = 5
# Where on the stack the list heads of these functions are: kswapd, which may run meanwhile, has others.
_STACK_COMPACT_CONTROL = 26
_STACK_CLEAN = 28
_TARGET = gfp.GFP_USER | vars(gfp)["__GFP_MOVABLE"]


def alloc_migrate_target(mm: Mm) -> int:
    """``alloc_migrate_target``: a page to move to, from anywhere but isolated pageblocks; 0 if there is none."""
    return entry.alloc_pages(mm, _TARGET, 0)


def reclaim_clean_pages_from_list(mm: Mm, zone: int, pages: PageList) -> int:
    """``reclaim_clean_pages_from_list``: drop the clean page cache among isolated pages; pages freed.

    What is mlocked goes back to its list on the way, still counted as isolated: a flaw of 4.0.
    """
    clean = PageList.on_stack(mm, _STACK_CLEAN)
    for pg in pages:
        if lru.page_is_file_cache(mm, pg) and not lru.has(mm, pg, abi.PG_dirty):
            lru.clear_flag(mm, pg, abi.PG_active)
            clean.move(pg)
    sc = ScanControl(nr_to_reclaim=0, gfp_mask=gfp.GFP_KERNEL, order=0, may_writepage=False)
    freed, _ = shrink.shrink_page_list(mm, clean, zone, sc, force_reclaim=True)
    pages.splice(clean)
    stat.mod_zone_state(mm, mmzone.zone_off(mm, zone), mm.cold.NR_ISOLATED_FILE, -freed)
    return freed


def __alloc_contig_migrate_range(cc: CompactControl, start: int, end: int) -> int:
    """``__alloc_contig_migrate_range``: move what is in use in [start, end) elsewhere; 0 or a negative errno."""
    mm = cc.mm
    # migrate_prep
    lru.lru_add_drain_all(mm)
    pfn, tries, result = start, 0, 0
    while pfn < end or cc.migratepages:
        if mm.fatal_signal:
            result = -errno.EINTR
            break
        if not cc.migratepages:
            cc.nr_migratepages = 0
            pfn = scanners.isolate_migratepages_range(cc, pfn, end)
            if not pfn:
                result = -errno.EINTR
                break
            tries = 0
        else:
            tries += 1
            if tries == _TRIES:
                result = result if result < 0 else -errno.EBUSY
                break
        cc.nr_migratepages -= reclaim_clean_pages_from_list(mm, cc.zone, cc.migratepages)
        result = migrate.migrate_pages(mm, cc.migratepages, lambda: alloc_migrate_target(mm), None, cc.mode)
    if result < 0:
        migrate.putback_movable_pages(mm, cc.migratepages)
        return result
    return 0


def alloc_contig_range(mm: Mm, start: int, end: int, migratetype: int) -> int:
    """``alloc_contig_range``: take exactly the pages [start, end), a reference each; 0 or a negative errno.

    -EBUSY: there is a page that does not move; -ENOMEM: nowhere to move one to; -EINTR: the task is to die.

    :param migratetype: what the pageblocks are to be afterwards (MIGRATE_MOVABLE or MIGRATE_CMA)
    :raises UsageError: the range is empty or backwards
    """
    if start >= end:
        raise UsageError(f"pfns {start} to {end}: an empty range")
    mm.steps_left = mm.step_budget
    zone = zone_of(mm, start)
    outer_from = start // _MAX_ORDER_NR_PAGES * _MAX_ORDER_NR_PAGES
    outer_to = -(-end // _MAX_ORDER_NR_PAGES) * _MAX_ORDER_NR_PAGES
    result = start_isolate_page_range(mm, outer_from, outer_to, migratetype)
    if result:
        return result
    cc = CompactControl(mm, zone, -1, 0, codes.MIGRATE_SYNC, ignore_skip_hint=True, stack_slot=_STACK_COMPACT_CONTROL)
    try:
        result = __alloc_contig_migrate_range(cc, start, end) or _take_isolated(mm, zone, start, end)
    except (BudgetError, PanicError):
        # A kernel would wait on, or be no more; we give everything back.
        migrate.putback_movable_pages(mm, cc.migratepages)
        raise
    finally:
        undo_isolate_page_range(mm, outer_from, outer_to, migratetype)
    return result


def _take_isolated(mm: Mm, zone: int, start: int, end: int) -> int:
    """The middle of ``alloc_contig_range``: take the range out of isolated pageblocks; 0 or -EBUSY."""
    lru.lru_add_drain_all(mm)
    pcp.drain_all_pages(mm, zone)
    # The free block that holds the first page may begin before it.
    order = 0
    outer_start = start
    while not page.buddy(mm, at_of(mm, outer_start)):
        order += 1
        if order >= abi.MAX_ORDER:
            return -errno.EBUSY
        outer_start &= -1 << order
    if not test_pages_isolated(mm, outer_start, end, False):
        stat.printk(mm, f"alloc_contig_range: [{outer_start:x}, {end:x}) PFNs busy")
        return -errno.EBUSY
    outer_end = isolate_freepages_range(mm, zone, outer_start, end)
    if not outer_end:
        return -errno.EBUSY
    if start != outer_start:
        free_contig_range(mm, outer_start, start - outer_start)
    if end != outer_end:
        free_contig_range(mm, end, outer_end - end)
    return 0


def free_contig_range(mm: Mm, pfn: int, nr_pages: int) -> int:
    """``free_contig_range``: drop a reference of each page; how many are still in use."""
    in_use = 0
    for each in range(pfn, pfn + nr_pages):
        in_use += page.count(mm, at_of(mm, each)) != 1
        _free_pages(mm, address.pfn_to_page(mm, each), 0)
    return in_use

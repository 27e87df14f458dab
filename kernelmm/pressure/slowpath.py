# SPDX-License-Identifier: GPL-2.0-only
"""What the allocator does when the free lists say no (mm/page_alloc.c).

Wake kswapd, then try again with what the caller's gfp mask lets it have: lower watermarks for
the urgent, none for those who free memory.  A caller that may not wait gets NULL after that.  One
that may compacts, reclaims, has a task killed, and tries again, until it has its pages or trying
is pointless.  Where a kernel would try for ever, BudgetError ends it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kernelmm import gfp
from kernelmm.core import alloc, pcp, watermark
from kernelmm.core.mm import AllocContext, Mm
from kernelmm.pressure import attempt, codes, compaction, deferral, direct, kswapd, oom, stat, waiting
from kernelmm.pressure.suspend import pm_suspended_storage
from physmem import abi, word

__all__ = ["gfp_pfmemalloc_allowed", "should_alloc_retry"]


@dataclass
class Request:
    """One request on the slow path, and what its steps tell each other.

    :ivar alloc_flags: ALLOC_*
    :ivar migration_mode: how patient compaction may be
    :ivar did_some_progress: pages that the last reclaim freed, or 1 for hope
    """

    mm: Mm
    gfp_mask: int
    order: int
    ac: AllocContext
    alloc_flags: int = 0
    migration_mode: int = codes.MIGRATE_ASYNC
    contended_compaction: int = codes.COMPACT_CONTENDED_NONE
    deferred_compaction: bool = False
    did_some_progress: int = 0
    pages_reclaimed: int = 0

    def get_page(self) -> int:
        """``get_page_from_freelist`` with the request's flags, but not without watermarks."""
        return attempt.without_reserves(self.mm, self.gfp_mask, self.order, self.alloc_flags, self.ac)


@contextmanager
def pf_memalloc(mm: Mm) -> Iterator[None]:
    """Be a task that frees memory: with access to the reserves, and never reclaiming in turn."""
    mm.task_flags |= abi.PF_MEMALLOC
    # What reclaim allocates must not disturb the request that it is done for.
    outer = mm.ac
    mm.ac = AllocContext()
    try:
        yield
    finally:
        mm.ac = outer
        mm.task_flags &= ~abi.PF_MEMALLOC


def gfp_pfmemalloc_allowed(mm: Mm, gfp_mask: int) -> bool:
    """``gfp_pfmemalloc_allowed``: such a request may be served from the reserves."""
    return bool(attempt.gfp_to_alloc_flags(mm, gfp_mask) & watermark.ALLOC_NO_WATERMARKS)


def __alloc_pages_high_priority(mm: Mm, gfp_mask: int, order: int, ac: AllocContext) -> int:
    """``__alloc_pages_high_priority`` after its first try: with __GFP_NOFAIL, wait until there is any page at all."""
    pg = 0
    while not pg and gfp_mask & gfp.__GFP_NOFAIL:
        waiting.charge(mm, "__GFP_NOFAIL with no page left at all")
        kswapd.let_others_run(mm)
        pg = attempt.high_priority(mm, gfp_mask, order, ac)
    return pg


def __alloc_pages_direct_compact(rq: Request) -> int:
    """``__alloc_pages_direct_compact``: bring free memory together, and try again; 0 if that did not help."""
    mm = rq.mm
    if rq.order == 0 or not mm.compaction:
        return 0
    with pf_memalloc(mm):
        result, rq.contended_compaction = compaction.try_to_compact_pages(
            mm, rq.gfp_mask, rq.order, rq.alloc_flags, rq.ac, rq.migration_mode
        )
    if result == codes.COMPACT_DEFERRED:
        rq.deferred_compaction = True
    if result in (codes.COMPACT_DEFERRED, codes.COMPACT_SKIPPED):
        return 0
    stat.count(mm, mm.cold.COMPACTSTALL)
    pg = rq.get_page()
    if pg:
        z = stat.zone_of(mm, pg)
        mm.as_u8[z + mm.cold.zone_compact_blockskip_flush] = 0
        deferral.compaction_defer_reset(mm, z, rq.order, True)
        stat.count(mm, mm.cold.COMPACTSUCCESS)
    else:
        stat.count(mm, mm.cold.COMPACTFAIL)
    return pg


def __alloc_pages_direct_reclaim(rq: Request) -> int:
    """``__alloc_pages_direct_reclaim``: reclaim, and try again; if need be with the per-cpu lists drained."""
    mm = rq.mm
    with pf_memalloc(mm), waiting.reclaim_state(mm, rq.gfp_mask):
        rq.did_some_progress = direct.try_to_free_pages(mm, rq.ac.zonelist, rq.order, rq.gfp_mask, rq.ac.nodemask)
    if not rq.did_some_progress:
        return 0
    if mm.numa:
        alloc.zlc_clear_zones_full(mm, rq.ac.zonelist)
    pg = rq.get_page()
    if not pg:
        pcp.drain_all_pages(mm, 0)
        pg = rq.get_page()
    return pg


def should_alloc_retry(gfp_mask: int, order: int, pages_reclaimed: int) -> bool:
    """``should_alloc_retry``: small blocks are tried for until somebody is killed, large ones only on request."""
    if gfp_mask & gfp.__GFP_NORETRY:
        return False
    if gfp_mask & gfp.__GFP_NOFAIL or order <= codes.PAGE_ALLOC_COSTLY_ORDER:
        return True
    return bool(gfp_mask & gfp.__GFP_REPEAT) and pages_reclaimed < 1 << order


def __alloc_pages_may_oom(rq: Request) -> int:
    """``__alloc_pages_may_oom``: a last look, above the high mark; then the OOM killer, if it would help."""
    mm, gfp_mask = rq.mm, rq.gfp_mask
    nofail = gfp_mask & gfp.__GFP_NOFAIL
    rq.did_some_progress = 0
    if not oom.oom_zonelist_trylock(mm, rq.ac.zonelist, gfp_mask):
        # Somebody else is at it: schedule_timeout_uninterruptible(1).
        word.add_u64(mm, mm.var_jiffies, 1)
        rq.did_some_progress = 1
        return 0
    try:
        marks = watermark.ALLOC_WMARK_HIGH | watermark.ALLOC_CPUSET
        pg = alloc.get_page_from_freelist(mm, gfp_mask | gfp.__GFP_HARDWALL, rq.order, marks, rq.ac)
        if pg:
            return pg
        if not nofail:
            costly = rq.order > codes.PAGE_ALLOC_COSTLY_ORDER
            if mm.task_flags & codes.PF_DUMPCORE or costly or rq.ac.high_zoneidx < gfp.ZONE_NORMAL:
                return 0
            if not gfp_mask & gfp.__GFP_FS:
                # Others can do more about it than this caller, which goes on waiting for them.
                rq.did_some_progress = 1
                return 0
            if gfp_mask & gfp.__GFP_THISNODE:
                return 0
        if oom.out_of_memory(mm, gfp_mask, rq.order, rq.ac) or nofail:
            rq.did_some_progress = 1
        return 0
    finally:
        oom.oom_zonelist_unlock(mm, rq.ac.zonelist, gfp_mask)


def thp_gives_up(rq: Request) -> bool:
    """A transparent huge page is not worth much trouble: small pages do as well."""
    if rq.gfp_mask & gfp.GFP_TRANSHUGE != gfp.GFP_TRANSHUGE:
        return False
    if rq.deferred_compaction or rq.contended_compaction == codes.COMPACT_CONTENDED_LOCK:
        return True
    sched = rq.contended_compaction == codes.COMPACT_CONTENDED_SCHED
    return sched and not rq.mm.task_flags & codes.PF_KTHREAD


def round_of_slowpath(rq: Request) -> tuple[int, bool]:
    """What a round of ``__alloc_pages_slowpath`` does after its attempt failed: the page or 0, and whether to go
    round again.
    """
    mm, gfp_mask = rq.mm, rq.gfp_mask
    rq.alloc_flags = attempt.gfp_to_alloc_flags(mm, gfp_mask)
    if rq.alloc_flags & watermark.ALLOC_NO_WATERMARKS:
        pg = __alloc_pages_high_priority(mm, gfp_mask, rq.order, rq.ac)
        if pg:
            return pg, False
    if not gfp_mask & gfp.__GFP_WAIT or mm.task_flags & codes.PF_MEMALLOC:
        return 0, False
    if mm.memdie and not gfp_mask & gfp.__GFP_NOFAIL:
        return 0, False
    pg = __alloc_pages_direct_compact(rq)
    if pg or thp_gives_up(rq):
        return pg, False
    if gfp_mask & gfp.GFP_TRANSHUGE != gfp.GFP_TRANSHUGE or mm.task_flags & codes.PF_KTHREAD:
        rq.migration_mode = codes.MIGRATE_SYNC_LIGHT
    pg = __alloc_pages_direct_reclaim(rq)
    if pg:
        return pg, False
    rq.pages_reclaimed += rq.did_some_progress
    suspended = not rq.did_some_progress and not gfp_mask & gfp.__GFP_NOFAIL and pm_suspended_storage(mm)
    if suspended or not should_alloc_retry(gfp_mask, rq.order, rq.pages_reclaimed):
        # Reclaim for a large block makes sense only with compaction after it.
        return __alloc_pages_direct_compact(rq), False
    if not rq.did_some_progress:
        pg = __alloc_pages_may_oom(rq)
        if pg or not rq.did_some_progress:
            return pg, False
    if rq.did_some_progress <= 1:
        # As long as pages are reclaimed, there is an end: memory is finite.
        waiting.charge(mm, f"allocation of order {rq.order}, mode:{gfp_mask:#x}")
    # wait_iff_congested: nobody sleeps here for long.
    kswapd.let_others_run(mm)
    return 0, True


def wait_for_pages(mm: Mm, gfp_mask: int, order: int, ac: AllocContext) -> int:
    """``__alloc_pages_slowpath`` once the attempt of its first round has failed, until the request is decided.

    :returns: ``struct page *``, or 0 if the request fails
    :raises BudgetError: a real kernel would go on trying
    :raises PanicError: memory is out, and there is nobody to kill
    """
    rq = Request(mm, gfp_mask, order, ac)
    pg, again = round_of_slowpath(rq)
    while again:
        pg = attempt.attempt(mm, gfp_mask, order, ac)
        if pg:
            return pg
        pg, again = round_of_slowpath(rq)
    return pg

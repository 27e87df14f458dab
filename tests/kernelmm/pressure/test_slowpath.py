# SPDX-License-Identifier: GPL-2.0-only
"""The slow path's decisions (mm/page_alloc.c): who waits, who reclaims, who gives up."""

from __future__ import annotations

import pytest

from kernelmm import gfp
from kernelmm.core import mmzone
from kernelmm.core.mm import AllocContext
from kernelmm.pressure import codes, slowpath, suspend
from kernelmm.pressure.attempt import gfp_to_alloc_flags
from physmem import address
from physmem.errors import BudgetError

NORETRY = vars(gfp)["__GFP_NORETRY"]
NOFAIL = vars(gfp)["__GFP_NOFAIL"]
REPEAT = vars(gfp)["__GFP_REPEAT"]
MEMALLOC = vars(gfp)["__GFP_MEMALLOC"]
NOMEMALLOC = vars(gfp)["__GFP_NOMEMALLOC"]
NO_WATERMARKS = 4


def test_oversized_order_fails_at_once(lab):
    assert lab.alloc(gfp.GFP_KERNEL, 11) == 0
    assert lab.event("ALLOCSTALL") == 0
    assert lab.console.failures == []


def test_thisnode_caller_neither_wakes_kswapd_nor_reclaims(lab):
    lab.exhaust()
    pgdat = address.off(lab.mm, mmzone.node_data(lab.mm, 0))
    wanted = lab.mm.as_s32[(pgdat + lab.mm.pgdat_kswapd_max_order) >> 2]
    assert lab.alloc(gfp.GFP_KERNEL | gfp.GFP_THISNODE, 3) == 0
    assert lab.mm.as_s32[(pgdat + lab.mm.pgdat_kswapd_max_order) >> 2] == wanted
    assert lab.event("ALLOCSTALL") == 0


@pytest.mark.parametrize(
    ("mask", "order", "reclaimed", "retry"),
    [
        (NORETRY, 0, 100, False),
        (NORETRY | NOFAIL, 0, 100, False),
        (NOFAIL, 9, 0, True),
        (0, 3, 0, True),
        (0, 4, 1000, False),
        (REPEAT, 4, 15, True),
        (REPEAT, 4, 16, False),
    ],
)
def test_should_alloc_retry(mask, order, reclaimed, retry):
    assert slowpath.should_alloc_retry(mask, order, reclaimed) is retry


def test_direct_reclaim_in_vain_counts_two_stalls(lab):
    """Memory cgroups may have been spared, so it is done twice; then __GFP_NORETRY gives up."""
    lab.exhaust()
    assert lab.alloc(gfp.GFP_KERNEL | NORETRY) == 0
    assert lab.event("ALLOCSTALL") == 2
    assert lab.console.failures == [(gfp.GFP_KERNEL | NORETRY, 0)]


def test_caller_that_may_not_wait_never_reclaims(lab):
    lab.work.open().read(0, 500)
    lab.exhaust()
    before = lab.stat("NR_FILE_PAGES")
    assert lab.alloc(gfp.GFP_NOWAIT) == 0
    assert (lab.stat("NR_FILE_PAGES"), lab.event("ALLOCSTALL")) == (before, 0)


def test_pf_memalloc_uses_the_reserves_and_never_recurses(lab):
    lab.exhaust()
    lab.mm.task_flags = codes.PF_MEMALLOC
    page = lab.alloc(gfp.GFP_KERNEL)
    assert page
    assert lab.mm.as_u8[address.page_off(lab.mm, page) + 16] == 1  # page->pfmemalloc
    while lab.alloc(gfp.GFP_KERNEL):
        pass
    assert lab.stat("NR_FREE_PAGES") == 0
    assert lab.event("ALLOCSTALL") == 0


@pytest.mark.parametrize(
    ("setup", "mask", "allowed"),
    [
        ({}, gfp.GFP_KERNEL, False),
        ({}, MEMALLOC, True),
        ({}, MEMALLOC | NOMEMALLOC, False),
        ({"task_flags": codes.PF_MEMALLOC}, gfp.GFP_KERNEL, True),
        ({"task_flags": codes.PF_MEMALLOC, "in_interrupt": True}, gfp.GFP_ATOMIC, False),
        ({"task_flags": codes.PF_MEMALLOC, "in_interrupt": True, "serving_softirq": True}, gfp.GFP_ATOMIC, True),
        ({"memdie": True}, gfp.GFP_KERNEL, True),
        ({"memdie": True, "in_interrupt": True}, gfp.GFP_ATOMIC, False),
    ],
)
def test_gfp_pfmemalloc_allowed(lab, setup, mask, allowed):
    for name, value in setup.items():
        setattr(lab.mm, name, value)
    assert slowpath.gfp_pfmemalloc_allowed(lab.mm, mask) is allowed
    assert bool(gfp_to_alloc_flags(lab.mm, mask) & NO_WATERMARKS) is allowed


def test_oom_victim_gets_the_reserves_and_then_null(lab):
    lab.exhaust()
    lab.mm.memdie = True
    while lab.alloc(gfp.GFP_KERNEL):
        pass
    assert lab.stat("NR_FREE_PAGES") == 0
    assert lab.event("ALLOCSTALL") == 0


def test_memalloc_noio_task_allocates_without_io_and_fs(lab):
    lab.exhaust()
    lab.mm.task_flags = codes.PF_MEMALLOC_NOIO
    assert lab.alloc(gfp.GFP_KERNEL | NORETRY, 3) == 0
    assert lab.console.failures == [(gfp.GFP_NOIO | NORETRY, 3)]
    assert lab.event("COMPACTSTALL") == 0


def test_costly_order_gives_up_where_a_small_one_goes_on(lab):
    lab.exhaust()
    assert lab.alloc(gfp.GFP_KERNEL, codes.PAGE_ALLOC_COSTLY_ORDER + 1) == 0
    with pytest.raises(BudgetError):
        lab.alloc(gfp.GFP_NOFS, 0)


@pytest.mark.parametrize("mask", [gfp.GFP_KERNEL | NOFAIL, gfp.GFP_NOFS, gfp.GFP_NOIO])
def test_what_a_kernel_waits_for_for_ever_ends_in_budget_error(lab, mask):
    lab.exhaust()
    lab.mm.step_budget = 50
    with pytest.raises(BudgetError, match="no end after 50 steps"):
        lab.alloc(mask)
    assert lab.mm.steps_left == 0


def test_nofail_without_watermarks_waits_for_the_last_page(lab):
    lab.exhaust()
    lab.mm.step_budget = 20
    while lab.stat("NR_FREE_PAGES"):
        assert lab.alloc(MEMALLOC | NOFAIL | gfp.GFP_KERNEL)
    lab.drain()
    while lab.alloc(MEMALLOC):
        pass
    with pytest.raises(BudgetError, match="no page left at all"):
        lab.alloc(MEMALLOC | NOFAIL | gfp.GFP_KERNEL)
    assert lab.stat("NR_FREE_PAGES") == 0


def test_suspended_storage_fails_instead_of_killing(lab):
    """pm_restrict_gfp_mask: without I/O reclaim cannot help, and nobody is killed for that."""
    lab.work.fork("task").mmap_anon(1000)
    lab.exhaust()
    saved = suspend.pm_restrict_gfp_mask(lab.mm)
    assert lab.alloc(gfp.GFP_KERNEL) == 0
    assert len(lab.work.tasks) == 1
    suspend.pm_restore_gfp_mask(lab.mm, saved)
    assert lab.alloc(gfp.GFP_KERNEL)
    assert lab.work.tasks == []


def test_reclaim_does_not_disturb_the_request_it_is_done_for(lab):
    lab.work.open().read(0, 3000)
    lab.exhaust()
    context = lab.mm.ac
    assert lab.alloc(gfp.GFP_HIGHUSER_MOVABLE)
    assert lab.mm.ac is context
    assert context.migratetype == 2
    assert lab.mm.task_flags == 0


def test_without_known_tasks_there_is_no_oom_killer(lab):
    lab.exhaust()
    assert lab.alloc(gfp.GFP_KERNEL) == 0
    assert lab.console.lines == []


@pytest.mark.parametrize(
    ("mask", "found", "flags", "gives_up"),
    [
        (gfp.GFP_TRANSHUGE, {}, 0, False),
        (gfp.GFP_TRANSHUGE, {"deferred_compaction": True}, 0, True),
        (gfp.GFP_TRANSHUGE, {"contended_compaction": codes.COMPACT_CONTENDED_LOCK}, codes.PF_KTHREAD, True),
        (gfp.GFP_TRANSHUGE, {"contended_compaction": codes.COMPACT_CONTENDED_SCHED}, 0, True),
        (gfp.GFP_TRANSHUGE, {"contended_compaction": codes.COMPACT_CONTENDED_SCHED}, codes.PF_KTHREAD, False),
        (gfp.GFP_KERNEL, {"deferred_compaction": True}, 0, False),
    ],
)
def test_a_transparent_huge_page_is_not_worth_reclaim(lab, mask, found, flags, gives_up):
    """After the first compaction: deferred, or disturbed by others, but khugepaged has time."""
    lab.mm.task_flags = flags
    request = slowpath.Request(lab.mm, mask, 9, AllocContext(), **found)
    assert slowpath.thp_gives_up(request) is gives_up

# SPDX-License-Identifier: GPL-2.0-only
"""Reclaim (mm/vmscan.c): what is looked at, what is freed, what stays and where, and what is counted."""

from __future__ import annotations

import pytest

from kernelmm import gfp
from kernelmm.core import entry, mmzone
from kernelmm.pressure import codes, direct, kswapd, lru, reclaim, shrink, stat, waiting
from kernelmm.pressure.lru import PageList
from kernelmm.pressure.shrink import Fate, ScanControl, Tally
from physmem import abi, address
from physmem.errors import BudgetError, CorruptionError

NORETRY = vars(gfp)["__GFP_NORETRY"]
NOMEMALLOC = vars(gfp)["__GFP_NOMEMALLOC"]


def control(mask=gfp.GFP_KERNEL, **changes):
    return ScanControl(nr_to_reclaim=32, gfp_mask=mask, order=0, **changes)


def scanned_by_rule(lab, wanted=32):
    """How many pages a direct reclaim looks at, and at how many of which zone, if every page can be reclaimed."""
    sizes = {z: lab.stat("NR_INACTIVE_FILE", z) for z in reversed(lab.zones)}
    total = dict.fromkeys(sizes, 0)
    for priority in range(12, -1, -1):
        for z, size in sizes.items():
            scan = size >> priority
            sizes[z] -= scan
            total[z] += scan
        if sum(total.values()) >= wanted:
            break
    return total


def test_gfp_kernel_succeeds_by_direct_reclaim(lab):
    """A machine full of clean page cache: priorities from 12 down until 32 pages are reclaimed, then the page."""
    file = lab.work.open()
    file.read(0, 4096)
    lab.exhaust(gfp.GFP_NOWAIT | NOMEMALLOC)  # exactly down to the min mark
    expected = scanned_by_rule(lab)
    cached = lab.stat("NR_FILE_PAGES")
    page = lab.alloc(gfp.GFP_KERNEL | NORETRY)
    assert sum(expected.values()) >= 32
    assert lab.event("ALLOCSTALL") == 1
    assert lab.event("PGSCAN_DIRECT") == lab.event("PGSTEAL_DIRECT") == sum(expected.values())
    assert lab.stat("NR_FILE_PAGES") == cached - sum(expected.values())
    assert file.nrpages == 4096 - sum(expected.values())
    assert lab.stat("NR_ISOLATED_FILE") == 0
    assert lab.event("PGSCAN_KSWAPD") == 0
    assert page


def test_gfp_kernel_goes_on_until_it_has_its_page(lab):
    file = lab.work.open()
    file.read(0, 4096)
    lab.exhaust()
    assert lab.alloc(gfp.GFP_KERNEL)
    assert file.nrpages < 4096
    assert lab.console.failures == []
    assert lab.event("PGSTEAL_DIRECT") + lab.event("PGSTEAL_KSWAPD") == 4096 - file.nrpages


def test_reclaim_takes_from_the_tail_the_oldest_first(lab):
    file = lab.work.open()
    file.read(0, 2000)
    lab.exhaust()
    lab.alloc(gfp.GFP_KERNEL | NORETRY)
    gone = {i for i in range(2000) if file.page(i) is None}
    z = lab.zones[-1]
    kept = [i for i in range(2000) if i not in gone and lab.zone_of(file.page(i)) == z]
    assert gone
    # A page's place in memory tells the zone; within one, all that went are older than all that stayed.
    oldest_kept = min(kept)
    assert all(i < oldest_kept for i in gone if i not in range(oldest_kept, 2000))
    assert lab.list(file.page(oldest_kept), lru.LRU_INACTIVE_FILE)[-1] == file.page(oldest_kept)


# -- one page ----------------------------------------------------------------------------


def look_at(lab, page, sc=None, **context):
    """What becomes of one isolated page."""
    for name, value in context.items():
        setattr(lab.mm, name, value)
    assert lru.isolate_lru_page(lab.mm, page)
    assert lru.trylock_page(lab.mm, page)
    tally = Tally()
    z = lab.zone_of(page)
    return shrink.fate(lab.mm, page, z, sc or control(), tally, False), tally


@pytest.fixture
def file(lab):
    file = lab.work.open()
    file.read(0, 4)
    return file


def test_clean_page_is_freed_and_leaves_a_shadow(lab, file):
    page = file.page(1)
    assert look_at(lab, page)[0] is Fate.FREE
    assert file.page(1) is None
    assert (lru.page_count(lab.mm, page), lab.stat("NR_FILE_PAGES") - lab.stat("NR_SHMEM")) == (0, 3)


def test_pinned_page_is_kept(lab, file):
    file.pin(1)
    assert look_at(lab, file.page(1))[0] is Fate.KEEP_LOCKED
    assert file.page(1)


def test_referenced_page_is_reclaimed_if_clean_but_never_written(lab, file):
    file.touch(1)
    file.write(1)
    assert look_at(lab, file.page(1))[0] is Fate.KEEP_LOCKED
    file.touch(2)
    assert look_at(lab, file.page(2))[0] is Fate.FREE


def test_mlocked_page_is_culled(lab, file):
    task = lab.work.fork("t")
    task.mmap_file(file, 1, first=0, locked=True)
    page = file.page(0)
    assert lab.list(page, lru.LRU_UNEVICTABLE) == [page]
    lru.clear_flag(lab.mm, page, abi.PG_unevictable)
    lru.unlink(lab.mm, page)
    lru.clear_flag(lab.mm, page, abi.PG_lru)
    lru.trylock_page(lab.mm, page)
    assert shrink.fate(lab.mm, page, lab.zone_of(page), control(), Tally(), False) is Fate.CULL


def test_mapped_page_is_kept_for_its_first_use_and_unmapped_later(lab, file):
    """The reference of the first fault does not count as a use: the page gets one more trip around the list."""
    task = lab.work.fork("t")
    task.mmap_file(file, 1, first=0)
    page = file.page(0)
    lru.clear_flag(lab.mm, page, abi.PG_referenced)
    assert look_at(lab, page)[0] is Fate.KEEP_LOCKED
    assert lru.has(lab.mm, page, abi.PG_referenced)
    lru.unlock_page(lab.mm, page)
    lru.putback_lru_page(lab.mm, page)
    assert look_at(lab, page)[0] is Fate.FREE
    assert (task.pte(0), task.rss, lab.stat("NR_FILE_MAPPED")) == (0, 0, 416)


def test_executable_page_is_activated_after_its_first_use(lab, file):
    lab.work.fork("t").mmap_file(file, 1, first=0, executable=True)
    lru.clear_flag(lab.mm, file.page(0), abi.PG_referenced)
    assert look_at(lab, file.page(0))[0] is Fate.ACTIVATE


def test_anonymous_page_has_nowhere_to_go(lab):
    task = lab.work.fork("t")
    task.mmap_anon(2)
    task.workload.mm.as_u64[shrink.owners.slot(lab.mm, task.va, 0) >> 3] &= ~shrink.owners.PTE_ACCESSED
    task.workload.mm.as_u64[shrink.owners.slot(lab.mm, task.va, 1) >> 3] &= ~shrink.owners.PTE_ACCESSED
    assert look_at(lab, task.page(0))[0] is Fate.ACTIVATE
    assert look_at(lab, task.page(1), control(gfp.GFP_NOIO))[0] is Fate.KEEP_LOCKED


def test_dirty_file_page_is_the_flushers(lab, file):
    file.write(0)
    page = file.page(0)
    what, tally = look_at(lab, page)
    assert (what, tally.dirty, tally.unqueued_dirty) == (Fate.KEEP_LOCKED, 1, 1)
    assert lru.has(lab.mm, page, lab.mm.cold.PG_reclaim)
    assert (lab.stat("NR_VMSCAN_IMMEDIATE"), lab.stat("NR_VMSCAN_WRITE")) == (1, 0)


def test_kswapd_writes_once_the_zone_is_full_of_dirty_pages(lab, file):
    file.write(0)
    page = file.page(0)
    z = lab.zone_of(page)
    shrink.word.set_bits(lab.mm, z + lab.mm.zone_flags, 1 << lab.mm.cold.ZONE_DIRTY)
    what, _ = look_at(lab, page, task_flags=codes.PF_KSWAPD | codes.PF_SWAPWRITE)
    assert what is Fate.KEEP
    assert lru.has(lab.mm, page, lab.mm.cold.PG_writeback)
    assert not lru.has(lab.mm, page, abi.PG_locked)
    assert (lab.stat("NR_VMSCAN_WRITE"), lab.stat("NR_WRITEBACK"), lab.stat("NR_FILE_DIRTY")) == (1, 1, 0)


def test_pages_of_one_trip_are_put_back_where_they_belong(lab, file):
    """One page each: freed, pinned, dirty, used by hardware: the list afterwards and every count."""
    file.pin(1)
    file.write(2)
    pages = file.pages()
    zone = lru.zone_of(lab.mm, pages[0])
    z = address.off(lab.mm, zone)
    assert all(lru.zone_of(lab.mm, page) == zone for page in pages.values())
    assert shrink.shrink_inactive_list(lab.mm, 32, zone, control(), lru.LRU_INACTIVE_FILE) == 2
    assert set(file.pages()) == {1, 2}
    assert lab.list(pages[1], lru.LRU_INACTIVE_FILE) == [pages[2], pages[1]]
    assert (lab.stat("NR_INACTIVE_FILE", z), lab.stat("NR_ISOLATED_FILE", z)) == (2, 0)
    assert (lab.event("PGSCAN_DIRECT"), lab.event("PGSTEAL_DIRECT")) == (4, 2)
    assert lru.page_count(lab.mm, pages[1]) == 2
    # The two that were freed set the counter of vain scans back to nothing.
    assert lab.stat("NR_PAGES_SCANNED", z) in (0, 4)


# -- writing, and who may ---------------------------------------------------------------


@pytest.mark.parametrize("mask", [gfp.GFP_NOIO, gfp.GFP_NOFS, gfp.GFP_KERNEL])
def test_direct_reclaim_writes_no_file_pages(lab, mask):
    file = lab.work.open()
    file.write(0, 600)
    zonelist = mmzone.node_zonelist(lab.mm, 0, False)
    assert direct.try_to_free_pages(lab.mm, zonelist, 0, mask, 0) == 1  # the zones are still reclaimable
    assert (lab.stat("NR_VMSCAN_WRITE"), lab.stat("NR_WRITEBACK"), lab.stat("NR_WRITTEN")) == (0, 0, 0)
    assert (file.nrpages, lab.stat("NR_FILE_DIRTY")) == (600, 600)
    assert lab.stat("NR_VMSCAN_IMMEDIATE") == lab.event("PGSCAN_DIRECT") > 600
    # But it asks the flusher to.
    root = address.off(lab.mm, lab.work.root)
    assert lab.mm.as_u64[(root + shrink.owners.ROOT_NR_TO_WRITE) >> 3] > 0


def test_written_for_reclaim_then_reclaimed(lab):
    file = lab.work.open()
    file.write(0, 3000)
    lab.exhaust()
    assert lab.alloc(gfp.GFP_KERNEL)
    assert lab.stat("NR_WRITTEN") > 0
    assert lab.event("PGROTATED") > 0
    assert file.nrpages < 3000


def test_file_without_writepage_keeps_its_dirty_pages(lab):
    file = lab.work.open(writepage=False)
    file.write(0, 100)
    assert lab.work.sync() == 0
    assert lab.stat("NR_FILE_DIRTY") == 100


def test_congested_device_makes_reclaim_wait(lab):
    file = lab.work.open()
    file.write(0, 64)
    lab.work.set_congested(True)
    zone = lru.zone_of(lab.mm, file.page(0))
    z = address.off(lab.mm, zone)
    jiffies = lab.mm.as_u64[lab.mm.var_jiffies >> 3]
    shrink.shrink_inactive_list(lab.mm, 32, zone, control(), lru.LRU_INACTIVE_FILE)
    flags = lab.mm.as_u64[(z + lab.mm.zone_flags) >> 3]
    assert flags >> lab.mm.cold.ZONE_CONGESTED & 1
    assert flags >> lab.mm.cold.ZONE_DIRTY & 1
    assert lab.mm.as_u64[lab.mm.var_jiffies >> 3] == jiffies + lab.mm.hz // 10
    assert waiting.congested(lab.mm)


# -- lists ----------------------------------------------------------------------------------


def test_active_list_is_left_alone_while_it_is_the_shorter(lab):
    file = lab.work.open()
    file.read(0, 100)
    for index in range(40):
        file.touch(index)
        file.touch(index)
    zone = lru.zone_of(lab.mm, file.page(0))
    assert reclaim.shrink_list(lab.mm, lru.LRU_ACTIVE_FILE, 32, zone, control()) == 0
    assert lab.event("PGDEACTIVATE") == lab.event("PGREFILL") == 0


def test_active_pages_become_inactive_in_order(lab):
    file = lab.work.open()
    file.read(0, 100)
    for index in range(100):
        file.touch(index)
        file.touch(index)
    pages = file.pages()
    zone = lru.zone_of(lab.mm, pages[0])
    oldest = lab.list(pages[0], lru.LRU_ACTIVE_FILE)[-8:]
    shrink.shrink_active_list(lab.mm, 8, zone, control(), lru.LRU_ACTIVE_FILE)
    assert lab.list(pages[0], lru.LRU_INACTIVE_FILE) == oldest
    assert not any(lru.has(lab.mm, page, abi.PG_active) for page in oldest)
    assert lab.event("PGDEACTIVATE") == lab.event("PGREFILL") == 8


def test_pages_of_owners_the_image_does_not_contain_stay(lab):
    zone = mmzone.node_data(lab.mm, 0) + lab.mm.pgdat_node_zones + lab.mm.sizeof_zone
    source = lru.lru_list(lab.mm, zone, lru.LRU_INACTIVE_ANON)
    before = sorted(source)
    hold = PageList.on_stack(lab.mm, 30)
    taken, _ = shrink.isolate_lru_pages(lab.mm, len(before), zone, hold, control(), lru.LRU_INACTIVE_ANON)
    reclaimed, _ = shrink.shrink_page_list(lab.mm, hold, zone, control())
    assert before
    assert (taken, reclaimed) == (len(before), 0)
    assert sorted(hold) == before


# -- kswapd -----------------------------------------------------------------------------------


def test_kswapd_balances_to_the_high_mark_and_sleeps(lab):
    file = lab.work.open()
    file.read(0, 6000)
    lab.exhaust()
    pgdat = mmzone.node_data(lab.mm, 0)
    assert kswapd.kswapd_is_woken(lab.mm, pgdat)
    lab.work.run_kswapd()
    for z in lab.zones:
        assert lab.stat("NR_FREE_PAGES", z) > lab.watermark(z, 2)
    assert lab.event("PGSTEAL_KSWAPD") == lab.event("PGSCAN_KSWAPD") == 6000 - file.nrpages
    assert lab.event("PAGEOUTRUN") >= 1
    assert lab.event("PGSCAN_DIRECT") == 0
    assert not kswapd.kswapd_is_woken(lab.mm, pgdat)
    at = address.off(lab.mm, pgdat)
    assert lab.mm.as_s32[(at + lab.mm.pgdat_kswapd_max_order) >> 2] == 0
    assert (lab.mm.task_flags, lab.mm.comm) == (0, "swapper/0")


def test_kswapd_gives_up_on_a_zone_that_was_scanned_six_times_over(lab):
    file = lab.work.open()
    file.read(0, 300)
    for index in range(300):
        file.pin(index)
    lab.exhaust()
    lab.work.run_kswapd()
    assert file.nrpages == 300
    z = lab.zones[-1]
    assert lab.stat("NR_PAGES_SCANNED", z) >= 6 * lab.stat("NR_INACTIVE_FILE", z) > 0
    assert not reclaim.zone_reclaimable(lab.mm, z)


def test_kswapd_spins_where_it_finds_nothing_to_scan(lab):
    """4.0 looks at size >> priority pages, down to priority 1, unless the zone is beyond reclaim already: of one page
    at none.  It is never scanned six times over then, so kswapd neither balances the node nor sleeps; others go on.
    """
    file = lab.work.open()
    file.read(0, 1)
    z = lab.zone_of(file.page(0))
    file.pin(0)
    lab.exhaust()
    pgdat = mmzone.node_data(lab.mm, 0)
    scanned = lab.event("PGSCAN_KSWAPD")
    for turn in range(1, 4):
        assert not lab.work.run_kswapd()
        assert kswapd.kswapd_is_woken(lab.mm, pgdat)
        assert lab.event("KSWAPD_HIGH_WMARK_HIT_QUICKLY") == turn
    assert lab.event("PGSCAN_KSWAPD") == scanned
    # A direct reclaimer goes down to priority 0, and settles it: there is nobody to kill, so the request fails.
    assert not lab.alloc(gfp.GFP_KERNEL)
    assert not reclaim.zone_reclaimable(lab.mm, z)
    assert lab.work.run_kswapd()
    assert not kswapd.kswapd_is_woken(lab.mm, pgdat)


def test_throttled_reclaimer_sleeps_until_somebody_frees(lab):
    """throttle_direct_reclaim of 4.0 waits for ever if half of the reserves is gone and nothing can be reclaimed."""
    zones = lab.zones
    reserve = sum(lab.watermark(z, 0) for z in zones)
    lab.exhaust(gfp.GFP_ATOMIC | vars(gfp)["__GFP_MEMALLOC"])
    lab.drain()
    free = sum(lab.stat("NR_FREE_PAGES", z) for z in zones)
    assert free <= reserve // 2
    with pytest.raises(BudgetError, match=rf"throttle_direct_reclaim: node 0 has {free} free .* of its {reserve} "):
        lab.alloc(gfp.GFP_KERNEL)
    # Without __GFP_FS it is a second; with a fatal signal, or for a kernel thread, nothing.
    jiffies = lab.mm.as_u64[lab.mm.var_jiffies >> 3]
    zonelist = mmzone.node_zonelist(lab.mm, 0, False)
    assert not direct.throttle_direct_reclaim(lab.mm, gfp.GFP_NOFS, zonelist, 0)
    assert lab.mm.as_u64[lab.mm.var_jiffies >> 3] == jiffies + lab.mm.hz
    lab.mm.fatal_signal = True
    assert not direct.throttle_direct_reclaim(lab.mm, gfp.GFP_KERNEL, zonelist, 0)
    lab.mm.fatal_signal, lab.mm.task_flags = False, codes.PF_KTHREAD
    assert not direct.throttle_direct_reclaim(lab.mm, gfp.GFP_KERNEL, zonelist, 0)
    assert lab.event("PGSCAN_DIRECT_THROTTLE") == 2


def test_pages_of_another_node_go_back_after_three_seconds_of_idleness(two_nodes):
    """refresh_cpu_vm_stats: a pageset whose counters moved expires at the third refresh after, if it is remote."""
    lab = two_nodes
    page = vars(entry)["alloc_pages_node"](lab.mm, 1, gfp.GFP_KERNEL, 0)
    lab.free(page)
    z = lab.zone_of(page)
    pageset = mmzone.this_cpu_pageset(lab.mm, z)
    lab.mm.as_s8[pageset + lab.mm.pageset_vm_stat_diff] += 1
    count, batch = (lab.mm.as_s32[(pageset + at) >> 2] for at in (abi.PCP_COUNT, abi.PCP_BATCH))
    assert count > 0
    seen = []
    for _ in range(3):
        stat.refresh_cpu_vm_stats(lab.mm)
        seen.append((lab.mm.as_s8[pageset + lab.mm.cold.pageset_expire], lab.mm.as_s32[pageset >> 2]))
    assert seen == [(2, count), (1, count), (0, max(count - batch, 0))]


def test_freeing_a_page_gives_a_zone_hope_again(lab):
    file = lab.work.open()
    file.read(0, 300)
    for index in range(300):
        file.pin(index)
    blocks = lab.exhaust()
    lab.work.run_kswapd()
    page, order = next(block for block in blocks if block[1] > 0)
    z = lab.zone_of(page)
    lab.free(page, order)
    assert lab.stat("NR_PAGES_SCANNED", z) == 0


def test_refault_within_the_active_lists_length_is_activated(lab):
    file = lab.work.open()
    file.read(0, 50)
    for index in range(40):
        file.touch(index)
        file.touch(index)
    victim = file.page(45)
    assert lru.isolate_lru_page(lab.mm, victim)
    lru.trylock_page(lab.mm, victim)
    assert shrink.remove_mapping(lab.mm, victim)
    file.read(45)
    assert (lab.stat("WORKINGSET_REFAULT"), lab.stat("WORKINGSET_ACTIVATE")) == (1, 1)
    assert lru.has(lab.mm, file.page(45), abi.PG_active)


def test_pressure_threshold_only_where_counters_could_hide_the_min_mark(lab):
    """percpu_drift_mark is set if the CPUs' differentials can add up to more than low - min."""
    pgdat = mmzone.node_data(lab.mm, 0)
    z = lab.zones[-1]
    at = mmzone.this_cpu_pageset(lab.mm, z) + lab.mm.pageset_stat_threshold
    lab.mm.as_s8[at] = 7
    kswapd.set_pgdat_percpu_threshold(lab.mm, pgdat, kswapd.calculate_pressure_threshold)
    assert lab.mm.as_s8[at] == 7
    lab.mm.as_u64[(z + lab.mm.zone_percpu_drift_mark) >> 3] = lab.watermark(z, 2) + 125
    kswapd.set_pgdat_percpu_threshold(lab.mm, pgdat, kswapd.calculate_pressure_threshold)
    assert lab.mm.as_s8[at] == min(125, lab.watermark(z, 1) - lab.watermark(z, 0))
    kswapd.set_pgdat_percpu_threshold(lab.mm, pgdat, kswapd.calculate_normal_threshold)
    managed = lab.mm.as_u64[(z + lab.mm.zone_managed_pages) >> 3]
    assert lab.mm.as_s8[at] == 2 * 1 * (1 + (managed >> 15).bit_length())


def test_a_list_that_claims_more_pages_than_its_zone_is_not_scanned(lab):
    """Damaged memory: batch after batch would be taken from it, 2^50 of them."""
    lab.work.open().read(0, 100)
    zone = mmzone.node_data(lab.mm, 0) + lab.mm.pgdat_node_zones + lab.mm.sizeof_zone
    at = mmzone.zone_off(lab.mm, zone) + lab.mm.zone_vm_stat + 8 * lab.mm.cold.NR_ACTIVE_FILE
    lab.mm.as_u64[at >> 3] = 1 << 55
    with pytest.raises(CorruptionError, match="pages on an LRU list of a zone that spans"):
        reclaim.shrink_zone(lab.mm, zone, control())

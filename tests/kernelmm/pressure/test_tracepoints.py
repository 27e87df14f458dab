# SPDX-License-Identifier: GPL-2.0-only
"""mm_vmscan_* and mm_compaction_*: where the kernel has them, in its order, as its ftrace prints them."""

from __future__ import annotations

import re

import pytest

from kernelmm import Machine, gfp
from kernelmm.core import mmzone
from kernelmm.pressure import codes, compaction, deferral, kswapd, shrink, wakeup
from kernelmm.pressure.scanners import CompactControl
from kernelmm.pressure.shrink import ScanControl
from kernelmm.study.trace import Tracer
from physmem import address

NORETRY = vars(gfp)["__GFP_NORETRY"]
NOMEMALLOC = vars(gfp)["__GFP_NOMEMALLOC"]
PAGES = ("mm_page_",)


@pytest.fixture
def tracer(lab):
    lab.mm.tracer = Tracer()
    yield lab.mm.tracer
    lab.mm.tracing = False


def texts(tracer):
    """What is not about single pages."""
    return [event.text for event in tracer.events if not event.name.startswith(PAGES)]


def test_direct_reclaim(lab, tracer):
    """try_to_free_pages between begin and end: each batch is isolated, and worked off, down the priorities."""
    file = lab.work.open()
    file.read(0, 4096)
    lab.exhaust(gfp.GFP_NOWAIT | NOMEMALLOC)
    lab.mm.tracing = True
    assert lab.alloc(gfp.GFP_KERNEL | NORETRY)
    lines = texts(tracer)
    begin = next(i for i, line in enumerate(lines) if line.startswith("mm_vmscan_direct_reclaim_begin"))
    assert lines[begin] == "mm_vmscan_direct_reclaim_begin: order=0 may_writepage=1 gfp_flags=GFP_KERNEL|GFP_NORETRY"
    session = lines[begin + 1 :]
    end = next(i for i, line in enumerate(session) if line.startswith("mm_vmscan_direct_reclaim_end"))
    taken = 0
    for isolate, shrunk in zip(session[:end:2], session[1:end:2], strict=True):
        got = re.fullmatch(
            r"mm_vmscan_lru_isolate: isolate_mode=0 order=0 nr_requested=(\d+) nr_scanned=(\d+) nr_taken=\2 file=1",
            isolate,
        )
        done = re.fullmatch(
            r"mm_vmscan_lru_shrink_inactive: nid=0 zid=[01] nr_scanned=(\d+) nr_reclaimed=\1 priority=\d+ "
            r"flags=RECLAIM_WB_FILE\|RECLAIM_WB_ASYNC",
            shrunk,
        )
        assert got is not None
        assert done is not None
        assert got[2] == done[1]
        taken += int(got[2])
    assert session[end] == f"mm_vmscan_direct_reclaim_end: nr_reclaimed={taken}"
    assert taken == lab.event("PGSTEAL_DIRECT") >= 32


def test_kswapd_wakes_and_sleeps(lab, tracer):
    """wakeup_kswapd, then kswapd: wake before each balance_pgdat, sleep when the node is balanced."""
    lab.work.open().read(0, 8192)
    lab.exhaust()
    kswapd.let_others_run(lab.mm)
    lab.mm.tracing = True
    while not any(event.name == "mm_vmscan_wakeup_kswapd" for event in tracer.events):
        assert lab.alloc(gfp.GFP_NOWAIT)
    kswapd.let_others_run(lab.mm)
    events = [event for event in tracer.events if "kswapd" in event.name]
    assert [event.text for event in events if event.name != "mm_vmscan_wakeup_kswapd"] == [
        "mm_vmscan_kswapd_wake: nid=0 order=0",
        "mm_vmscan_kswapd_sleep: nid=0",
    ]
    assert [event.comm for event in events][-2:] == ["kswapd0", "kswapd0"]
    assert str(events[-1])[:33] == "         kswapd0-0     [000] ...."


def test_writepage(lab, tracer):
    """pageout: the page that is handed to its device."""
    file = lab.work.open()
    file.write(0)
    page = file.pages()[0]
    lab.mm.task_flags |= codes.PF_SWAPWRITE
    shrink.lru.trylock_page(lab.mm, page)
    shrink.lru.isolate_lru_page(lab.mm, page)
    lab.mm.tracing = True
    shrink.pageout(lab.mm, page)
    pfn = address.page_to_pfn(lab.mm, page)
    assert texts(tracer) == [f"mm_vmscan_writepage: page={page:016x} pfn={pfn} flags=RECLAIM_WB_FILE|RECLAIM_WB_ASYNC"]


def test_compacting_a_zone(lab, tracer):
    """compact_zone: suitable, begin, then rounds of finished, isolate and migrate, and end with the status."""
    file = lab.work.open()
    file.read(0, 24000)
    for index, page in file.pages().items():
        if index % 8:
            shrink.delete_from_page_cache(lab.mm, page, file.va, 0)
            shrink.lru.put_page(lab.mm, page)
    lab.drain()
    zone = mmzone.node_data(lab.mm, 0) + lab.mm.pgdat_node_zones + lab.mm.sizeof_zone
    cc = CompactControl(lab.mm, zone, -1, 0, codes.MIGRATE_SYNC, ignore_skip_hint=True)
    lab.mm.tracing = True
    assert compaction.compact_zone(cc) == codes.COMPACT_COMPLETE
    lines = texts(tracer)
    start, end = f"zone_start={cc.start_pfn:#x}", f"zone_end={cc.end_pfn:#x}"
    assert lines[0] == "mm_compaction_suitable: node=0 zone=DMA32    order=-1 ret=continue"
    assert re.fullmatch(
        rf"mm_compaction_begin: {start} migrate_pfn=0x[0-9a-f]+ free_pfn=0x[0-9a-f]+ {end}, mode=sync", lines[1]
    )
    assert lines[2] == "mm_compaction_finished: node=0 zone=DMA32    order=-1 ret=continue"
    isolated = r"range=\(0x[0-9a-f]+ ~ 0x[0-9a-f]+\) nr_scanned=\d+ nr_taken=(\d+)"
    assert re.fullmatch(f"mm_compaction_isolate_migratepages: {isolated}", lines[3])
    assert lines[-2] == "mm_compaction_finished: node=0 zone=DMA32    order=-1 ret=complete"
    scanners = f"{start} migrate_pfn={cc.migrate_pfn:#x} free_pfn={cc.free_pfn:#x} {end}"
    assert lines[-1] == f"mm_compaction_end: {scanners}, mode=sync status=complete"
    moved = [re.fullmatch(r"mm_compaction_migratepages: nr_migrated=(\d+) nr_failed=\d+", line) for line in lines]
    assert sum(int(match[1]) for match in moved if match) == lab.event("PGMIGRATE_SUCCESS") > 0
    taken = [re.fullmatch(f"mm_compaction_isolate_(migrate|free)pages: {isolated}", line) for line in lines]
    assert sum(int(match[2]) for match in taken if match) == lab.event("COMPACTISOLATED")


def test_two_results_have_a_name_in_traces_only(lab, tracer):
    """__compaction_suitable and __compact_finished: not_suitable_zone, no_suitable_page; callers see skip, continue."""
    mm, z = lab.mm, lab.zones[1]
    zone = mmzone.node_data(mm, 0) + mm.pgdat_node_zones + mm.sizeof_zone
    nr_free = {o: (z + mm.zone_free_area + o * mm.sizeof_free_area + mm.free_area_nr_free) >> 3 for o in range(11)}
    mm.as_u64[nr_free[9]] = mm.as_u64[nr_free[10]] = 0
    mm.tracing = True
    cc = CompactControl(mm, zone, 3, gfp.GFP_KERNEL, codes.MIGRATE_ASYNC)
    cc.migrate_pfn, cc.free_pfn = cc.start_pfn, cc.end_pfn
    assert compaction.compact_finished(cc, mm.migrate_isolate) == codes.COMPACT_CONTINUE
    # All that is free, in blocks of order 9: half an order 10 each.
    for order in range(11):
        mm.as_u64[nr_free[order]] = lab.stat("NR_FREE_PAGES", z) // 512 + 1 if order == 9 else 0
    assert 0 <= wakeup.fragmentation_index(mm, z, 10) <= 500
    assert wakeup.compaction_suitable(mm, z, 10, 0, 0) == codes.COMPACT_SKIPPED
    assert texts(tracer) == [
        "mm_compaction_finished: node=0 zone=DMA32    order=3 ret=no_suitable_page",
        "mm_compaction_suitable: node=0 zone=DMA32    order=10 ret=not_suitable_zone",
    ]


def test_deferral(lab, tracer):
    """The deferral as it is after the call: the limit is 1 << compact_defer_shift."""
    z = lab.zones[1]
    lab.mm.tracing = True
    for _ in range(2):
        deferral.defer_compaction(lab.mm, z, 4)
    assert deferral.compaction_deferred(lab.mm, z, 4)
    deferral.compaction_defer_reset(lab.mm, z, 4, True)
    assert not deferral.compaction_deferred(lab.mm, z, 4)
    assert texts(tracer) == [
        "mm_compaction_defer_compaction: node=0 zone=DMA32    order=4 order_failed=0 consider=0 limit=2",
        "mm_compaction_defer_compaction: node=0 zone=DMA32    order=4 order_failed=0 consider=0 limit=4",
        "mm_compaction_deferred: node=0 zone=DMA32    order=4 order_failed=0 consider=1 limit=4",
        "mm_compaction_defer_reset: node=0 zone=DMA32    order=4 order_failed=5 consider=0 limit=1",
    ]


def test_a_request_that_compacts(lab, tracer):
    """try_to_compact_pages names the request; a caller without I/O does not get that far."""
    lab.mm.tracing = True
    ac = lab.mm.ac
    lab.alloc(gfp.GFP_KERNEL)
    compaction.try_to_compact_pages(lab.mm, gfp.GFP_NOWAIT, 3, 0, ac, codes.MIGRATE_ASYNC)
    assert texts(tracer) == []
    compaction.try_to_compact_pages(lab.mm, gfp.GFP_KERNEL, 3, 0, ac, codes.MIGRATE_SYNC_LIGHT)
    lines = texts(tracer)
    assert lines[0] == "mm_compaction_try_to_compact_pages: order=3 gfp_mask=0xd0 mode=1"
    assert lines[1] == "mm_compaction_suitable: node=0 zone=DMA32    order=3 ret=partial"


def test_off_is_off(lab, tracer):
    shrink.shrink_inactive_list(
        lab.mm, 1, mmzone.node_data(lab.mm, 0) + lab.mm.pgdat_node_zones, ScanControl(1, gfp.GFP_KERNEL, 0), 2
    )
    assert tracer.events == []


def test_both_engines_trace_alike(lab):
    """A machine's own tracing has the pressure events among those of pages, in time."""
    with Machine.boot("32M") as machine, machine.trace() as tracer:
        while machine.alloc_page(gfp.GFP_ATOMIC):
            pass
        names = [event.name for event in tracer.events]
        assert names.count("mm_vmscan_wakeup_kswapd") == 1
        at = names.index("mm_vmscan_wakeup_kswapd")
        assert tracer.events[at].text == "mm_vmscan_wakeup_kswapd: nid=0 zid=1 order=0"

# SPDX-License-Identifier: GPL-2.0-only
"""Compaction and migration (mm/compaction.c, mm/migrate.c): pages move, with all that belongs to them."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from kernelmm import Machine, gfp
from kernelmm.core import compound, mmzone
from kernelmm.pressure import codes, deferral, hibernate, lru, migrate, owners, rmap, scanners, shrink, wakeup
from kernelmm.pressure.lru import PageList
from kernelmm.pressure.scanners import CompactControl
from kernelmm.pressure.workload import Workload
from physmem import abi, address
from physmem.errors import CorruptionError

NORETRY = vars(gfp)["__GFP_NORETRY"]
MEMALLOC = vars(gfp)["__GFP_MEMALLOC"]


def zone(lab, index=1):
    """Kernel address of a zone of node 0; 1 is ZONE_DMA32."""
    return mmzone.node_data(lab.mm, 0) + lab.mm.pgdat_node_zones + index * lab.mm.sizeof_zone


def scatter(lab, count=24000, keep_every=8):
    """Fill memory with page cache and drop all but every n-th page; the file that is left."""
    file = lab.work.open()
    file.read(0, count)
    for index, page in file.pages().items():
        if index % keep_every:
            shrink.delete_from_page_cache(lab.mm, page, file.va, 0)
            lru.put_page(lab.mm, page)
    lab.drain()
    return file


def content(lab, page):
    return lab.mm.ram.read(address.page_to_phys(lab.mm, page), 16)


def move(lab, page, mode=codes.MIGRATE_SYNC_LIGHT):
    """Migrate one page to a fresh one; what migrate_pages returned, and the fresh page."""
    assert lru.isolate_lru_page(lab.mm, page)
    pages = PageList.on_stack(lab.mm, 30)
    pages.add(page)
    z = lab.zone_of(page)
    item = migrate.isolated_item(lab.mm, page)
    scanners.stat.mod_zone_state(lab.mm, z, item, 1)
    fresh = lab.alloc(gfp.GFP_HIGHUSER_MOVABLE)
    unused = []
    result = migrate.migrate_pages(lab.mm, pages, lambda: fresh, unused.append, mode)
    migrate.putback_movable_pages(lab.mm, pages)
    for each in unused[:1]:
        lab.free(each)
    return result, fresh


def test_order_9_out_of_scattered_pages(lab):
    file = scatter(lab)
    for index in range(0, 24000, 80):
        file.write(index, data=b"page %5d" % index)
    lab.work.sync()
    before = file.pages()
    blocks = [mmzone.nr_free(lab.mm, z, 9) + 2 * mmzone.nr_free(lab.mm, z, 10) for z in lab.zones]
    got = []
    while page := lab.alloc(gfp.GFP_KERNEL | NORETRY, 9):
        got.append(page)
        if len(got) == 10:
            break
    assert sum(blocks) < len(got) == 10
    after = file.pages()
    moved = [index for index in before if after[index] != before[index]]
    assert before.keys() == after.keys()
    assert len(moved) == lab.event("PGMIGRATE_SUCCESS") > 0
    for index in range(0, 24000, 80):
        assert content(lab, after[index]).startswith(b"page %5d" % index)
    assert lab.event("COMPACTSUCCESS") > 0
    assert lab.event("COMPACTSTALL") == lab.event("COMPACTSUCCESS") + lab.event("COMPACTFAIL")
    assert lab.stat("NR_ISOLATED_ANON") == lab.stat("NR_ISOLATED_FILE") == 0
    assert lab.on_lists() == sum(
        lab.stat(name)
        for name in ("NR_INACTIVE_ANON", "NR_ACTIVE_ANON", "NR_INACTIVE_FILE", "NR_ACTIVE_FILE", "NR_UNEVICTABLE")
    )
    # Nobody else has got into the blocks: each page of them has the one reference of its block's head, or none.
    for page in got:
        counts = [lru.page_count(lab.mm, page + 64 * i) for i in range(512)]
        assert counts == [1] + [0] * 511


def test_compacting_a_node_brings_the_pages_to_the_ends_of_its_zones(lab):
    file = scatter(lab, 8000, 4)
    free = lab.free_pages()
    biggest = mmzone.nr_free(lab.mm, lab.zones[-1], 10)
    lab.work.compact()
    lab.drain()
    assert lab.free_pages() == free
    assert mmzone.nr_free(lab.mm, lab.zones[-1], 10) > biggest
    assert file.nrpages == 2000


@pytest.mark.parametrize("mask", [gfp.GFP_NOIO, gfp.GFP_NOFS])
def test_who_may_not_do_io_does_not_compact(lab, mask):
    scatter(lab)
    lab.alloc(mask | NORETRY, 9)
    assert lab.event("COMPACTSTALL") == lab.event("COMPACTMIGRATE_SCANNED") == 0


# -- one page ------------------------------------------------------------------------------------


def test_file_page_moves_with_its_place_in_the_file(lab):
    file = lab.work.open()
    file.write(7, data=b"contents")
    file.touch(7)
    old = file.page(7)
    result, new = move(lab, old)
    assert result == 0
    assert file.page(7) == new != old
    assert content(lab, new).startswith(b"contents")
    assert lru.has(lab.mm, new, abi.PG_dirty)
    assert lru.has(lab.mm, new, abi.PG_referenced)
    assert lru.has(lab.mm, new, abi.PG_uptodate)
    assert (lab.stat("NR_FILE_DIRTY"), lab.stat("NR_ISOLATED_FILE"), lru.page_count(lab.mm, new)) == (1, 0, 1)
    assert lab.list(new, lru.LRU_INACTIVE_FILE) == [new]
    assert (lru.page_count(lab.mm, old), lru.page_mapped(lab.mm, old)) == (0, False)
    assert lab.event("PGMIGRATE_SUCCESS") == 1


def test_anonymous_page_moves_with_its_page_table_entry(lab):
    task = lab.work.fork("t")
    task.mmap_anon(1, first=3, data=b"anonymous")
    old = task.page(3)
    result, new = move(lab, old)
    assert result == 0
    assert task.page(3) == new != old
    assert task.pte(3) & (owners.PTE_PRESENT | owners.PTE_RW | owners.PTE_USER) == 7
    assert content(lab, new).startswith(b"anonymous")
    assert lab.list(new, lru.LRU_ACTIVE_ANON)[0] == new
    assert (lab.stat("NR_ANON_PAGES"), task.rss) == (14 + 1, 1)
    assert lru.page_count(lab.mm, new) == 1


def test_page_mapped_by_two_tasks_moves_in_both(lab):
    file = lab.work.open()
    tasks = [lab.work.fork(name) for name in ("a", "b")]
    for shift, task in enumerate(tasks):
        task.mmap_file(file, 3, first=shift, pgoff=0)
    result, new = move(lab, file.page(2))
    assert result == 0
    assert [task.page(2 + shift) for shift, task in enumerate(tasks)] == [new, new]
    assert (lru.page_count(lab.mm, new), lru.page_mapped(lab.mm, new)) == (3, True)


def test_mlocked_page_that_moves_is_mlocked_no_longer(lab):
    """A flaw of Linux 3.7 to 4.3: unmapping clears PG_mlocked before mlock_migrate_page can hand it over."""
    task = lab.work.fork("t")
    task.mmap_anon(1, locked=True)
    assert lab.list(task.page(0), lru.LRU_UNEVICTABLE) == [task.page(0)]
    result, new = move(lab, task.page(0))
    assert (result, task.page(0)) == (0, new)
    assert lab.list(new, lru.LRU_INACTIVE_ANON)[0] == new
    assert (lab.stat("NR_MLOCK"), lab.stat("NR_UNEVICTABLE")) == (0, 0)
    assert (lab.event("UNEVICTABLE_PGSTRANDED"), lab.event("UNEVICTABLE_PGRESCUED")) == (1, 1)
    assert task.pte(0) & owners.PTE_LOCKED


def test_pinned_page_stays(lab):
    file = lab.work.open()
    file.read(0)
    file.pin(0)
    old = file.page(0)
    lab.work.fork("t").mmap_file(file, 1)
    result, _ = move(lab, old)
    assert (result, file.page(0)) == (1, old)
    # Ten passes found it busy; it is back on its list, mapped as before.
    assert lab.list(old, lru.LRU_INACTIVE_FILE) == [old]
    assert (lru.page_count(lab.mm, old), lru.page_mapped(lab.mm, old)) == (3, True)
    assert lab.event("PGMIGRATE_SUCCESS") == lab.event("PGMIGRATE_FAIL") == 0


def test_dirty_page_of_a_file_that_cannot_migrate_is_a_permanent_failure(lab):
    file = lab.work.open(migratepage=False)
    file.write(0)
    assert move(lab, file.page(0))[0] == 1
    assert lab.event("PGMIGRATE_FAIL") == 1


def test_page_under_writeback_is_busy(lab):
    file = lab.work.open()
    file.read(0)
    lru.set_flag(lab.mm, file.page(0), lab.mm.cold.PG_writeback)
    assert (
        migrate.__dict__["__unmap_and_move"](lab.mm, file.page(0), lab.alloc(gfp.GFP_KERNEL), False, 1) == -errno.EBUSY
    )


def test_unknown_contents_stay_unknown(lab):
    """A page that is absent from the image moves to a frame that is absent from then on."""
    file = lab.work.open()
    file.read(0, 100)
    frames = {page: address.page_to_phys(lab.mm, page) for page in file.pages().values()}
    old = next(page for page, phys in frames.items() if not lab.mm.ram.ranges.overlaps(phys, phys + 4096))
    _, new = move(lab, old)
    phys = address.page_to_phys(lab.mm, new)
    assert not lab.mm.ram.ranges.overlaps(phys, phys + 4096)


# -- suitability, scanners, deferral ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("free_blocks", "order", "index"),
    [
        ({}, 3, 0),  # nothing is free: lack of memory
        ({3: 1}, 3, -1000),  # there is such a block
        ({5: 1}, 3, -1000),
        ({0: 100}, 3, 1000 - (1000 + 100 * 1000 // 8) // 100),  # 100 single pages: fragmentation
        ({0: 1}, 3, 1000 - (1000 + 125) // 1),  # one single page: lack of memory
        ({0: 8, 2: 2}, 4, 1000 - (1000 + 16 * 1000 // 16) // 10),
    ],
)
def test_fragmentation_index(lab, free_blocks, order, index):
    z = lab.zones[-1]
    for each in range(abi.MAX_ORDER):
        at = z + lab.mm.zone_free_area + each * lab.mm.sizeof_free_area + lab.mm.free_area_nr_free
        lab.mm.as_u64[at >> 3] = free_blocks.get(each, 0)
    assert wakeup.fragmentation_index(lab.mm, z, order) == index


def test_compaction_is_skipped_without_room_to_move_pages_to(lab):
    lab.exhaust()
    z = lab.zones[-1]
    assert wakeup.compaction_suitable(lab.mm, z, 4, 0, 2) == codes.COMPACT_SKIPPED


def test_compaction_is_not_needed_where_the_block_is_free(lab):
    assert wakeup.compaction_suitable(lab.mm, lab.zones[-1], 4, 0, 2) == codes.COMPACT_PARTIAL


def test_pageblock_that_gave_nothing_is_skipped_next_time(lab):
    cc = CompactControl(lab.mm, zone(lab), -1, 0, codes.MIGRATE_SYNC_LIGHT)
    pfn = cc.start_pfn + 512
    cached = [lab.mm.as_u64[scanners.cached_migrate_pfn(lab.mm, cc.z, sync)] for sync in (False, True)]
    scanners.update_pageblock_skip(cc, pfn, 1, True)
    assert not scanners.get_pageblock_skip(lab.mm, pfn)
    scanners.update_pageblock_skip(cc, pfn, 0, True)
    assert scanners.get_pageblock_skip(lab.mm, pfn)
    assert [lab.mm.as_u64[scanners.cached_migrate_pfn(lab.mm, cc.z, sync)] for sync in (False, True)] == [
        max(pfn, each) for each in cached
    ]
    # The other three bits of the pageblock are its migratetype.
    assert mmzone.pageblock_migratetype(lab.mm, pfn) == mmzone.pageblock_migratetype(lab.mm, pfn + 1)


def test_async_scanner_only_remembers_for_itself(lab):
    cc = CompactControl(lab.mm, zone(lab), 9, 0, codes.MIGRATE_ASYNC)
    sync = scanners.cached_migrate_pfn(lab.mm, cc.z, True)
    before = lab.mm.as_u64[sync]
    scanners.update_pageblock_skip(cc, cc.end_pfn // 512 * 512 - 512, 0, True)
    assert lab.mm.as_u64[sync] == before
    assert lab.mm.as_u64[sync - 1] == cc.end_pfn // 512 * 512 - 512


def test_full_run_forgets_where_the_scanners_were_and_kswapd_the_skip_bits(lab):
    scatter(lab, 4000, 4)
    lab.work.compact()
    cc = CompactControl(lab.mm, zone(lab), -1, 0, codes.MIGRATE_SYNC)
    fields = lab.mm.cold
    assert lab.mm.as_u64[scanners.cached_migrate_pfn(lab.mm, cc.z, False)] == cc.start_pfn
    assert lab.mm.as_u64[(cc.z + fields.zone_compact_cached_free_pfn) >> 3] == cc.end_pfn
    assert lab.mm.as_u8[cc.z + fields.zone_compact_blockskip_flush] == 1
    pfn = cc.start_pfn + 1024
    scanners.update_pageblock_skip(CompactControl(lab.mm, zone(lab), 4, 0, 1), pfn, 0, True)
    scanners.reset_isolation_suitable(lab.mm, mmzone.node_data(lab.mm, 0))
    assert not scanners.get_pageblock_skip(lab.mm, pfn)
    assert lab.mm.as_u8[cc.z + fields.zone_compact_blockskip_flush] == 0


def deferral_fields(lab):
    z, fields = lab.zones[-1], lab.mm.cold
    return (
        lab.mm.as_u32[(z + fields.zone_compact_considered) >> 2],
        lab.mm.as_u32[(z + fields.zone_compact_defer_shift) >> 2],
        lab.mm.as_s32[(z + fields.zone_compact_order_failed) >> 2],
    )


def test_deferral_doubles_up_to_64_and_resets(lab):
    z = lab.zones[-1]
    lab.mm.as_s32[(z + lab.mm.cold.zone_compact_order_failed) >> 2] = 9
    for failures in range(1, 9):
        deferral.defer_compaction(lab.mm, z, 5)
        assert deferral_fields(lab) == (0, min(failures, 6), 5)
    turned_away = 0
    while deferral.compaction_deferred(lab.mm, z, 5):
        turned_away += 1
    assert turned_away == 63
    assert deferral.compaction_restarting(lab.mm, z, 5)
    assert not deferral.compaction_deferred(lab.mm, z, 4)
    deferral.compaction_defer_reset(lab.mm, z, 5, False)
    assert deferral_fields(lab) == (64, 6, 6)
    deferral.compaction_defer_reset(lab.mm, z, 7, True)
    assert deferral_fields(lab) == (0, 0, 8)


def test_synchronous_compaction_in_vain_defers_the_zone(lab):
    """Unmovable memory everywhere: the scanners meet, and the next request is turned away."""
    blocks = lab.exhaust(MEMALLOC)
    for page, order in blocks:
        if order > 0:
            # Give back every second page: plenty of free memory, all of it in single pages.
            vars(lru.free)["split_page"](lab.mm, page, order)
            for i in range(0, 1 << order, 2):
                lab.free(page + 64 * i)
    lab.drain()
    assert lab.alloc(gfp.GFP_KERNEL | NORETRY, 4) == 0
    # compact_order_failed is 0 since boot: no order has ever succeeded.
    assert deferral_fields(lab)[1:] == (1, 0)
    stalls, failed = lab.event("COMPACTSTALL"), lab.event("COMPACTFAIL")
    assert stalls == failed > 0
    assert lab.alloc(gfp.GFP_KERNEL | NORETRY, 4) == 0
    assert deferral_fields(lab)[1] >= 1


def test_migration_entry_keeps_frame_and_kind(lab):
    task = lab.work.fork("t")
    task.mmap_anon(1)
    page = task.page(0)
    compound.get_page(lab.mm, page)
    assert rmap.try_to_unmap(lab.mm, page, rmap.TTU_MIGRATION | rmap.TTU_IGNORE_ACCESS) is rmap.Swap.SUCCESS
    assert task.pte(0) & owners.SWP_TYPE_MASK == owners.SWP_MIGRATION_WRITE
    assert task.page(0) is None
    rmap.remove_migration_ptes(lab.mm, page, page)
    assert task.page(0) == page


@pytest.mark.parametrize("field", ["zone_start_pfn", "spanned_pages"])
def test_a_zone_that_claims_more_than_there_is_cannot_be_scanned(field):
    m = Machine.boot("64M")
    zone = m.kernel.zone(0, m.kernel.layout.enumerator("ZONE_DMA32")).at
    m.kernel.set(zone, f"zone.{field}", 1 << 52)
    with pytest.raises(CorruptionError, match=r"a zone from pfn .*; the page array has"):
        Workload(m.mm).compact(0)
    everything = np.ones(m.dump.max_pfn, bool)
    with pytest.raises(CorruptionError, match="a zone from pfn"):
        hibernate.mark_free_pages(m.mm, zone, everything, ~everything)

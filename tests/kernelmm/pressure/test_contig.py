# SPDX-License-Identifier: GPL-2.0-only
"""alloc_contig_range: what is in use in the range moves away or is dropped, with all that belongs to it."""

from __future__ import annotations

import errno

import pytest

from kernelmm import gfp
from kernelmm.core import compound, mmzone
from kernelmm.pressure import codes, contig, exit, isolation, lru, owners, rmap
from physmem import abi, address
from physmem.errors import BudgetError, PanicError, UsageError
from physmem.inspect.check import check

START = 24 * 1024  # pfn: in ZONE_DMA32 of the 128 MiB machine
MOVABLE = 2


def fill_range(lab):
    """Memory full of page cache, so that a pageblock in the middle is in use throughout; the file."""
    file = lab.work.open()
    lab.work.sync()
    file.read(0, 22000)
    lab.drain()
    return file


def pfns(lab, file):
    return {address.page_to_pfn(lab.mm, page): index for index, page in file.pages().items()}


def block_in_use(lab, file):
    """First PFN of an aligned pair of pageblocks of which every page is the file's."""
    known = pfns(lab, file)
    for start in range(1024, 32 * 1024, 1024):
        if all(pfn in known for pfn in range(start, start + 1024)):
            return start, known
    raise AssertionError("no pageblock is in use throughout")


def longest_run(lab, pages):
    """The longest run of adjacent frames among pages: first PFN, PFN behind the last."""
    best = run = (0, 0)
    for pfn in sorted(address.page_to_pfn(lab.mm, page) for page in pages):
        run = (run[0], pfn + 1) if pfn == run[1] else (pfn, pfn + 1)
        best = max(best, run, key=lambda each: each[1] - each[0])
    assert best[1] - best[0] >= 10
    return best


def counts(lab, first, count):
    return {lru.page_count(lab.mm, address.pfn_to_page(lab.mm, pfn)) for pfn in range(first, first + count)}


def isolated(lab):
    return lab.stat("NR_ISOLATED_FILE"), lab.stat("NR_ISOLATED_ANON")


def migratetypes(lab, start, end):
    return {mmzone.pageblock_migratetype(lab.mm, pfn) for pfn in range(start, end, abi.PAGEBLOCK_NR_PAGES)}


def test_clean_page_cache_is_dropped_not_moved(lab):
    """reclaim_clean_pages_from_list: reading it again is cheaper than a copy."""
    file = fill_range(lab)
    start, known = block_in_use(lab, file)
    cached = file.nrpages
    assert contig.alloc_contig_range(lab.mm, start + 100, start + 700, MOVABLE) == 0
    assert counts(lab, start + 100, 600) == {1}
    assert lab.event("PGMIGRATE_SUCCESS") == 0
    assert file.nrpages == cached - 600
    gone = {known[pfn] for pfn in range(start + 100, start + 700)}
    assert all(file.page(index) is None for index in gone)
    # Pages of the pageblocks outside the range stay.
    assert all(file.page(known[pfn]) for pfn in range(start, start + 100))
    assert isolated(lab) == (0, 0)
    assert migratetypes(lab, start, start + 1024) == {MOVABLE}
    assert contig.free_contig_range(lab.mm, start + 100, 600) == 0
    lab.drain()
    assert check(lab.dump.over(lab.mm.ram)).findings == []


def test_anonymous_pages_move_with_contents_page_table_and_list(lab):
    task = lab.work.fork("mover")
    for vpn in range(400):
        task.mmap_anon(1, vpn, data=b"page %4d" % vpn)
    lab.drain()
    start, end = longest_run(lab, [task.page(vpn) for vpn in range(400)])
    before = lab.stat("NR_ACTIVE_ANON"), lab.stat("NR_ANON_PAGES")
    assert contig.alloc_contig_range(lab.mm, start, end, MOVABLE) == 0
    assert lab.event("PGMIGRATE_SUCCESS") == end - start
    for vpn in range(400):
        page = task.page(vpn)
        pfn = address.page_to_pfn(lab.mm, page)
        assert not start <= pfn < end
        assert lab.mm.ram.read(pfn << 12, 9) == b"page %4d" % vpn
        assert (lru.page_count(lab.mm, page), lru.page_mapped(lab.mm, page)) == (1, True)
        assert task.pte(vpn) & owners.PTE_RW
    one_of_each_zone = {lab.zone_of(task.page(vpn)): task.page(vpn) for vpn in range(400)}.values()
    listed = {page for one in one_of_each_zone for page in lab.list(one, lru.LRU_ACTIVE_ANON)}
    assert listed >= {task.page(vpn) for vpn in range(400)}
    assert (lab.stat("NR_ACTIVE_ANON"), lab.stat("NR_ANON_PAGES")) == before
    assert isolated(lab) == (0, 0)
    assert task.rss == 400
    task.exit()
    contig.free_contig_range(lab.mm, start, end - start)
    lab.drain()
    assert check(lab.dump.over(lab.mm.ram)).findings == []


def test_dirty_page_of_a_file_that_cannot_migrate_is_written_waited_for_and_moved(lab):
    """MIGRATE_SYNC: fallback_migrate_page writes it, a later pass (force) waits for the device, then it is clean."""
    file = lab.work.open(migratepage=False)
    file.write(0, 40, b"data")
    lab.drain()
    start, end = longest_run(lab, file.pages().values())
    written = lab.stat("NR_WRITTEN")
    assert contig.alloc_contig_range(lab.mm, start, end, MOVABLE) == 0
    assert lab.stat("NR_WRITTEN") == written + end - start
    assert lab.stat("NR_FILE_DIRTY") == 40 - (end - start)
    assert file.nrpages == 40
    for page in file.pages().values():
        assert not start <= address.page_to_pfn(lab.mm, page) < end
        assert lab.mm.ram.read(address.page_to_phys(lab.mm, page), 4) == b"data"


def test_dirty_page_of_a_migrating_file_moves_dirty(lab):
    file = lab.work.open()
    file.write(0, 40)
    start, end = longest_run(lab, file.pages().values())
    lab.drain()
    assert contig.alloc_contig_range(lab.mm, start, end, MOVABLE) == 0
    assert lab.stat("NR_FILE_DIRTY") == 40
    assert all(lru.has(lab.mm, page, abi.PG_dirty) for page in file.pages().values())
    assert lab.event("PGMIGRATE_SUCCESS") == end - start


@pytest.mark.parametrize("kind", ["pinned", "kernel"])
def test_page_that_does_not_move_makes_it_busy_and_nothing_is_lost(lab, kind):
    file = fill_range(lab)
    start, known = block_in_use(lab, file)
    stuck = address.pfn_to_page(lab.mm, start + 300)
    if kind == "pinned":
        compound.get_page(lab.mm, stuck)
    else:
        # A page of the kernel's own, in a pageblock for movable pages.
        assert lru.isolate_lru_page(lab.mm, stuck)
    before = lab.free_pages()
    cached = file.nrpages
    assert contig.alloc_contig_range(lab.mm, start, start + 512, MOVABLE) == -errno.EBUSY
    # What was dropped on the way is free; the page is where it was; the pageblocks are given back.
    assert lab.free_pages() == before + cached - file.nrpages
    assert file.page(known[start + 300]) == stuck
    assert migratetypes(lab, start, start + 1024) == {MOVABLE}
    assert isolated(lab) == (0, 0)
    assert lru.has(lab.mm, stuck, abi.PG_lru) == (kind == "pinned")
    assert not lru.has(lab.mm, stuck, abi.PG_locked)
    if kind == "kernel":
        assert lab.console.lines == [f"alloc_contig_range: [{start:x}, {start + 512:x}) PFNs busy"]
    lab.drain()
    assert check(lab.dump.over(lab.mm.ram)).findings == []


def test_pinned_page_is_given_up_after_five_tries(lab, monkeypatch):
    """Each try is ten passes of migrate_pages; then -EBUSY."""
    task = lab.work.fork("t")
    file = lab.work.open()
    file.write(0)
    file.pin(0)
    task.mmap_file(file, 1)
    pfn = address.page_to_pfn(lab.mm, file.page(0))
    calls = []
    real = contig.migrate.migrate_pages
    monkeypatch.setattr(contig.migrate, "migrate_pages", lambda *args: calls.append(1) or real(*args))
    assert contig.alloc_contig_range(lab.mm, pfn, pfn + 1, MOVABLE) == -errno.EBUSY
    assert len(calls) == 5
    assert lab.list(file.page(0), lru.LRU_INACTIVE_FILE)[0] == file.page(0)


def test_fatal_signal_interrupts_it(lab):
    lab.mm.fatal_signal = True
    assert contig.alloc_contig_range(lab.mm, START, START + 512, MOVABLE) == -errno.EINTR
    assert migratetypes(lab, START, START + 1024) == {MOVABLE}


def test_nowhere_to_move_to(lab):
    task = lab.work.fork("t")
    task.mmap_anon(100)
    start = address.page_to_pfn(lab.mm, task.page(0)) // 1024 * 1024
    lab.exhaust()
    lab.mm.task_flags = codes.PF_MEMALLOC  # takes the last reserves, so that nothing at all is left
    while lab.alloc(gfp.GFP_KERNEL):
        pass
    lab.mm.task_flags = 0
    lab.drain()
    task.munmap(0, 1)  # the range's own free page: isolated, so nobody gets it
    with pytest.raises(BudgetError):
        contig.alloc_contig_range(lab.mm, start, start + 1024, MOVABLE)


def test_mlocked_page_moves(lab):
    """ISOLATE_UNEVICTABLE: of all isolations, only this kind takes unevictable pages."""
    task = lab.work.fork("t")
    task.mmap_anon(5, locked=True, data=b"locked")
    lab.drain()
    pfn = address.page_to_pfn(lab.mm, task.page(2))
    assert contig.alloc_contig_range(lab.mm, pfn, pfn + 1, MOVABLE) == 0
    assert address.page_to_pfn(lab.mm, task.page(2)) != pfn
    assert lab.mm.ram.read(address.page_to_phys(lab.mm, task.page(2)), 6) == b"locked"


def test_mlocked_clean_file_page_stays_counted_as_isolated(lab):
    """A flaw of 4.0: shrink_page_list puts it back itself, and reclaim_clean_pages_from_list does not know."""
    task = lab.work.fork("t")
    file = lab.work.open()
    task.mmap_file(file, 1, locked=True)
    lab.drain()
    page = file.page(0)
    pfn = address.page_to_pfn(lab.mm, page)
    assert contig.alloc_contig_range(lab.mm, pfn, pfn + 1, MOVABLE) == -errno.EBUSY
    assert lab.stat("NR_ISOLATED_FILE") == 1
    assert lab.list(page, lru.LRU_UNEVICTABLE)[0] == page


def test_empty_range_is_refused(lab):
    with pytest.raises(UsageError, match="empty range"):
        contig.alloc_contig_range(lab.mm, START, START, MOVABLE)


def test_unmovable_pageblock_with_a_page_in_use_is_busy_at_once(lab):
    page = lab.alloc(gfp.GFP_KERNEL)
    pfn = address.page_to_pfn(lab.mm, page)
    mmzone.set_pageblock_migratetype(lab.mm, pfn, abi.MIGRATE_UNMOVABLE)
    scanned = lab.event("COMPACTMIGRATE_SCANNED")
    assert contig.alloc_contig_range(lab.mm, pfn, pfn + 1, MOVABLE) == -errno.EBUSY
    assert lab.event("COMPACTMIGRATE_SCANNED") == scanned
    zone = isolation.zone_of(lab.mm, pfn)
    assert not mmzone.has_isolate_pageblock(lab.mm, address.off(lab.mm, zone))


def test_a_panic_in_the_middle_leaves_nothing_isolated(lab):
    """Moving pages needs new ones; if nobody may be killed for them, the machine panics: its pages are all there."""
    task = lab.work.fork("t", oom_score_adj=-1000)
    task.mmap_anon(300)
    lab.exhaust()
    pages = [task.page(i) for i in range(300)]
    start, end = longest_run(lab, pages)
    before = lab.on_lists()
    with pytest.raises(PanicError):
        contig.alloc_contig_range(lab.mm, start, end, MOVABLE)
    assert isolated(lab) == (0, 0)
    assert [task.page(i) for i in range(300)] == pages
    assert lab.on_lists() == before
    assert lab.mm.task_flags == 0
    assert migratetypes(lab, start // 1024 * 1024, end) == {MOVABLE}
    free = lab.free_pages()
    task.exit()
    assert lab.free_pages() == free + 300 + 1 + 1


def test_a_task_that_dies_while_its_page_moves(lab):
    """zap_pte_range: of a page on the move only the entry goes, and the counter; the mover has the last reference."""
    task = lab.work.fork("t")
    task.mmap_anon(2)
    page = task.page(0)
    assert lru.isolate_lru_page(lab.mm, page)
    rmap.try_to_unmap(lab.mm, page, rmap.TTU_UNMAP | rmap.TTU_MIGRATION | rmap.TTU_IGNORE_ACCESS)
    exit.zap_pte(lab.mm, task.va, owners.slot(lab.mm, task.va, 0))
    assert (task.pte(0), task.rss, lru.page_count(lab.mm, page)) == (0, 1, 1)
    free = lab.free_pages()
    lru.putback_lru_page(lab.mm, page)
    assert lab.free_pages() == free + 1

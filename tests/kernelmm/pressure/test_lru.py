# SPDX-License-Identifier: GPL-2.0-only
"""LRU lists (mm/swap.c): the order of pages, their marks, and the counters."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernelmm import Machine, VmBugOn
from kernelmm.gfp import GFP_KERNEL
from kernelmm.pressure import lru, rmap, shrink, stat
from physmem import abi
from physmem.errors import CorruptionError
from physmem.structs import linux_4_0

INACTIVE_FILE, ACTIVE_FILE, UNEVICTABLE = lru.LRU_INACTIVE_FILE, lru.LRU_ACTIVE_FILE, lru.LRU_UNEVICTABLE


@pytest.fixture
def file(lab):
    """Five clean pages in the page cache."""
    file = lab.work.open()
    file.read(0, 5)
    return file


def test_new_pages_enter_at_the_head(lab, file):
    pages = file.pages()
    assert lab.list(pages[0], INACTIVE_FILE) == [pages[i] for i in (4, 3, 2, 1, 0)]
    assert lab.stat("NR_INACTIVE_FILE") == lab.stat("NR_FILE_PAGES") - lab.stat("NR_SHMEM") == 5


def test_a_cached_page_has_the_caches_reference_only(lab, file):
    assert [lru.page_count(lab.mm, page) for page in file.pages().values()] == [1] * 5


def test_second_use_activates(lab, file):
    page = file.page(2)
    before = lab.event("PGACTIVATE")
    file.touch(2)
    assert lru.has(lab.mm, page, abi.PG_referenced)
    assert page in lab.list(page, INACTIVE_FILE)
    file.touch(2)
    assert lab.list(page, ACTIVE_FILE) == [page]
    assert not lru.has(lab.mm, page, abi.PG_referenced)
    assert (lab.stat("NR_ACTIVE_FILE"), lab.stat("NR_INACTIVE_FILE")) == (1, 4)
    assert lab.event("PGACTIVATE") == before + 1


def test_isolated_page_is_on_no_list_and_has_a_reference(lab, file):
    page = file.page(1)
    assert lru.isolate_lru_page(lab.mm, page)
    assert not lru.isolate_lru_page(lab.mm, page)
    assert page not in lab.list(page, INACTIVE_FILE)
    assert (lru.page_count(lab.mm, page), lab.stat("NR_INACTIVE_FILE")) == (2, 4)
    lru.putback_lru_page(lab.mm, page)
    assert lab.list(page, INACTIVE_FILE)[0] == page
    assert lru.page_count(lab.mm, page) == 1


def test_mlocked_page_is_culled_and_rescued(lab, file):
    page = file.page(3)
    rmap.mlock_page(lab.mm, page)
    assert lab.list(page, UNEVICTABLE) == [page]
    assert (lab.stat("NR_MLOCK"), lab.stat("NR_UNEVICTABLE")) == (1, 1)
    assert lab.event("UNEVICTABLE_PGCULLED") == lab.event("UNEVICTABLE_PGMLOCKED") == 1
    rmap.clear_page_mlock(lab.mm, page)
    assert page in lab.list(page, INACTIVE_FILE)
    assert lab.event("UNEVICTABLE_PGRESCUED") == lab.event("UNEVICTABLE_PGCLEARED") == 1
    assert (lab.stat("NR_MLOCK"), lab.stat("NR_UNEVICTABLE")) == (0, 0)


def test_last_reference_takes_the_page_off_its_list(lab, file):
    page = file.page(0)
    free = lab.free_pages()
    shrink.delete_from_page_cache(lab.mm, page, file.va, 0)
    lru.put_page(lab.mm, page)
    assert not lru.has(lab.mm, page, abi.PG_lru)
    assert lab.stat("NR_INACTIVE_FILE") == 4
    assert lab.free_pages() == free + 1


def test_written_page_that_reclaim_waits_for_goes_to_the_tail(lab, file):
    page = file.page(4)
    lru.rotate_reclaimable_page(lab.mm, page)
    assert lab.list(page, INACTIVE_FILE)[-1] == page
    assert lab.event("PGROTATED") == 1


def test_every_addition_takes_lru_lock_once_and_is_counted_as_scanned(lab):
    z = lab.zones[-1]
    lock = z + lab.mm.cold.zone_lru_lock
    scanned = (z + lab.mm.cold.recent_scanned + 8) >> 3
    before, seen = bytes(lab.mm.as_u8[lock : lock + 2]), lab.mm.as_u64[scanned]
    file = lab.work.open()
    file.read(0, 3)
    in_zone = sum(lab.zone_of(page) == z for page in file.pages().values())
    assert bytes(lab.mm.as_u8[lock : lock + 2]) == bytes((each + in_zone) & 0xFF for each in before)
    assert lab.mm.as_u64[scanned] == seen + in_zone


def test_a_list_that_does_not_end_is_corruption(lab, file):
    page = file.page(0)
    pages = lru.lru_list(lab.mm, lru.zone_of(lab.mm, page), INACTIVE_FILE)
    at = lru.address.page_off(lab.mm, page) + abi.PAGE_LRU  # its next leads to itself
    lab.mm.as_u64[at >> 3] = page + abi.PAGE_LRU
    with pytest.raises(CorruptionError, match="does not end"):
        for _ in pages:
            pass


def test_two_lists_in_one_ring_are_not_spliced_for_ever(lab, file):
    """What only damage makes: what is moved to the front of one list is at the end of the other."""
    into, other = lru.PageList.on_stack(lab.mm, 0), lru.PageList.on_stack(lab.mm, 2)
    page = file.page(0)
    assert lru.isolate_lru_page(lab.mm, page)
    ring = [into.head, page + abi.PAGE_LRU, other.head]
    places = [into.head_at, lru.address.page_off(lab.mm, page) + abi.PAGE_LRU, other.head_at]
    for i, at in enumerate(places):
        lab.mm.as_u64[at >> 3], lab.mm.as_u64[(at >> 3) + 1] = ring[(i + 1) % 3], ring[i - 1]
    with pytest.raises(CorruptionError, match="does not end"):
        into.splice(other)


def test_folding_differentials_keeps_every_sum(lab):
    names = ("NR_FREE_PAGES", "NR_FILE_PAGES", "NR_INACTIVE_FILE", "NR_ALLOC_BATCH")
    for z in lab.zones:
        lab.mm.as_s8[lru.mmzone.this_cpu_pageset(lab.mm, z) + lab.mm.pageset_stat_threshold] = 100
    lab.work.open().read(0, 40)
    before = [lab.stat(name, z) for name in names for z in lab.zones]
    stat.refresh_cpu_vm_stats(lab.mm)
    assert [lab.stat(name, z) for name in names for z in lab.zones] == before
    raw = [
        lab.mm.as_s64[(z + lab.mm.zone_vm_stat + 8 * lab.dump.layout.enumerator(name)) >> 3]
        for name in names
        for z in lab.zones
    ]
    assert raw == before


@pytest.fixture
def recorded(tmp_path):
    """A 4.0.4 whose image has its pagevecs, which are empty; and twenty pages."""
    case = Path(__file__).parents[2] / "data" / "oracle404" / "wait"
    layout = tmp_path / "layout.json"
    layout.write_text(linux_4_0.layout(linux_4_0.NUMA).to_json())
    with Machine.attach(case / "A.vmcore.xz", layout=layout, symbols=case / "symbols.json") as machine:
        yield machine, [machine.alloc_page(GFP_KERNEL) for _ in range(20)]


def test_pages_wait_in_the_pagevec_until_it_is_full(recorded):
    """__lru_cache_add: the fifteenth page makes the fourteen before it come onto their list, in their order."""
    machine, pages = recorded
    mm = machine.mm
    for count, page in enumerate(pages[:15], 1):
        lru.lru_cache_add(mm, page)
        assert lru.page_count(mm, page) == 2
        assert sum(lru.has(mm, each, abi.PG_lru) for each in pages) == (14 if count == 15 else 0)
    assert [lru.page_count(mm, page) for page in pages[:15]] == [1] * 14 + [2]
    for zone in {lru.zone_of(mm, page) for page in pages[:14]}:
        there = [page for page in pages[:14] if lru.zone_of(mm, page) == zone]
        assert list(lru.lru_list(mm, zone, INACTIVE_FILE)) == there[::-1]
    lru.lru_add_drain_all(mm)
    assert lru.has(mm, pages[14], abi.PG_lru)


def test_a_page_that_only_the_pagevec_has_is_freed_with_it(recorded):
    machine, pages = recorded
    lru.lru_cache_add(machine.mm, pages[0])
    lru.put_page(machine.mm, pages[0])
    assert lru.page_count(machine.mm, pages[0]) == 1
    lru.lru_add_drain(machine.mm)
    assert lru.page_count(machine.mm, pages[0]) == 0
    assert not lru.has(machine.mm, pages[0], abi.PG_lru)


def test_a_page_that_is_added_twice_is_noticed_on_its_way_to_the_list(recorded):
    """__pagevec_lru_add_fn: nothing tells lru_cache_add that the page is in the pagevec."""
    machine, pages = recorded
    machine.debug_vm = True
    lru.lru_cache_add(machine.mm, pages[0])
    lru.lru_cache_add(machine.mm, pages[0])
    with pytest.raises(VmBugOn, match="PageLRU"):
        lru.lru_add_drain(machine.mm)
    assert any("kernel BUG at mm/swap.c:1030!" in line for line in machine.console.lines)


def test_a_pagevec_that_cannot_be_is_refused(recorded):
    machine, pages = recorded
    machine.mm.as_u64[lru.pagevec(machine.mm, 0) >> 3] = 15
    with pytest.raises(CorruptionError, match="15 of 14 pages"):
        lru.lru_cache_add(machine.mm, pages[0])

# SPDX-License-Identifier: GPL-2.0-only
# room: compiled
"""Per-cpu page lists: single pages kept at hand, refilled and returned in batches (mm/page_alloc.c).

Each CPU has, for each zone, three lists of order-0 pages, one a mobility.  The head of a list
is *hot* (its bytes are likely still in the CPU's cache), the tail *cold*.
"""

from __future__ import annotations

from kernelmm.core import buddy, mmzone, mobility, page, vmstat
from kernelmm.core.mm import Mm
from physmem import abi, address, list_head
from physmem.ctype import s32, s64, u32, u64


def reset_pages_scanned(mm: Mm, z: u64, pageset: u64) -> None:
    """Pages are being freed: what reclaim scanned in vain before says nothing any more."""
    scanned: s64 = vmstat.zone_page_state(mm, z, mm.nr_pages_scanned)
    if scanned != 0:
        vmstat.mod_zone_page_state(mm, z, pageset, mm.nr_pages_scanned, -scanned)


def rmqueue_bulk(
    mm: Mm, zone: u64, z: u64, pageset: u64, count: s32, head: u64, head_at: u64, migratetype: s32, cold: bool
) -> s32:
    """Take up to ``count`` single pages off the buddy lists and put them on a per-cpu list, in that order.

    :returns: pages taken
    """
    taken: s32 = 0
    pg: u64
    at: u64
    _: s32
    mmzone.spin_lock(mm, z)
    for _ in range(count):
        pg = mobility.__rmqueue(mm, zone, z, 0, migratetype)
        if pg == 0:
            break
        at = address.page_off(mm, pg)
        if cold:
            list_head.list_add_tail(mm, pg + abi.PAGE_LRU, at + abi.PAGE_LRU, head, head_at)
        else:
            list_head.list_add(mm, pg + abi.PAGE_LRU, at + abi.PAGE_LRU, head, head_at)
        # The insertion point moves along, so that the list keeps the order of allocation.
        head = pg + abi.PAGE_LRU
        head_at = at + abi.PAGE_LRU
        if page.freepage_migratetype(mm, at) == mm.migrate_cma:
            vmstat.mod_zone_page_state(mm, z, pageset, mm.nr_free_cma_pages, -1)
        taken += 1
    vmstat.mod_zone_page_state(mm, z, pageset, abi.NR_FREE_PAGES, -taken)
    mmzone.spin_unlock(mm, z)
    return taken


def free_pcppages_bulk(mm: Mm, zone: u64, count: s32, pcp: u64, pageset: u64) -> None:
    """Return ``count`` pages of a per-cpu pageset to the buddy lists, coldest first.

    The mobilities take turns; each time a list is found empty, the next one gives one page more
    a turn.  ``pcp->count`` is the caller's to update.

    :param pcp: kernel address of the pageset whose lists are emptied
    :param pageset: physical address of the same
    :raises CorruptionError: the lists hold fewer pages than ``pcp->count`` says
    """
    z: u64 = mmzone.zone_off(mm, zone)
    to_free: s32 = count
    batch_free: s32 = 0
    migratetype: s32 = 0
    empty: s32
    head: u64
    lists: u64
    pg: u64
    at: u64
    mt: s32
    isolating: bool
    claimed: u64
    # Also where a damaged list never ends, this does.
    if count < 0:
        mm.bad_pcp_count(zone, count, count)
    claimed = count
    if claimed > mm.size >> abi.PAGE_SHIFT:
        mm.bad_pcp_count(zone, count, count)
    mmzone.spin_lock(mm, z)
    reset_pages_scanned(mm, z, pageset)
    isolating = mmzone.has_isolate_pageblock(mm, z)
    while to_free != 0:
        empty = 0
        while True:
            batch_free += 1
            migratetype += 1
            if migratetype == abi.MIGRATE_PCPTYPES:
                migratetype = 0
            lists = abi.PCP_LISTS + abi.SIZEOF_LIST_HEAD * migratetype
            head = pcp + lists
            if not list_head.list_empty(mm, head, pageset + lists):
                break
            empty += 1
            if empty == abi.MIGRATE_PCPTYPES:
                mm.bad_pcp_count(zone, count, to_free)
        if batch_free == abi.MIGRATE_PCPTYPES:
            # Only one list has pages left: no need to take turns.
            batch_free = to_free
        while True:
            pg = list_head.last(mm, pageset + lists) - abi.PAGE_LRU
            at = address.page_off(mm, pg)
            list_head.list_del(mm, pg + abi.PAGE_LRU, at + abi.PAGE_LRU)
            mt = page.freepage_migratetype(mm, at)
            if isolating:
                mt = mmzone.pageblock_migratetype(mm, address.page_to_pfn(mm, pg))
            if mt < 0 or mt >= mm.migrate_types:
                mm.bad_migratetype(pg, mt)
            buddy.__free_one_page(mm, pg, address.page_to_pfn(mm, pg), zone, z, pageset, 0, mt)
            if mm.tracing:
                mm.tracer.mm_page_pcpu_drain(mm, pg, 0, mt)
            to_free -= 1
            if to_free == 0:
                break
            batch_free -= 1
            if batch_free == 0 or list_head.list_empty(mm, head, pageset + lists):
                break
    mmzone.spin_unlock(mm, z)


def drain_pages_zone(mm: Mm, cpu: u32, zone: u64) -> None:
    """Return every page of one CPU's lists of one zone."""
    z: u64 = mmzone.zone_off(mm, zone)
    pageset: u64 = mmzone.pageset_of(mm, z, cpu)
    count: s32 = mmzone.pcp_count(mm, pageset)
    if count != 0:
        free_pcppages_bulk(mm, zone, count, mmzone.pageset_va(mm, z, cpu), pageset)
        mm.as_s32[(pageset + abi.PCP_COUNT) >> 2] = 0


def drain_pages(mm: Mm, cpu: u32) -> None:
    """Return every page of one CPU's lists."""
    nid: s32
    index: s32
    zone: u64
    for nid in range(mm.nr_node_ids):
        for index in range(mm.max_nr_zones):
            zone = mmzone.populated_zone(mm, nid, index)
            if zone != 0:
                drain_pages_zone(mm, cpu, zone)


def drain_local_pages(mm: Mm) -> None:
    """``drain_local_pages(NULL)``: the running CPU's lists."""
    drain_pages(mm, mm.cpu)


def drain_all_pages(mm: Mm, only: u64) -> None:
    """Drain the lists of every CPU that has pages, each on its own CPU: the running one is the last (on_each_cpu_mask).

    :param only: one ``struct zone *``, or 0 for all zones
    """
    here: u32 = mm.cpu
    cpu: u32
    for cpu in range(mm.nr_cpus):
        if cpu != here and mmzone.cpu_online(mm, cpu) and has_pcps(mm, cpu, only):
            # Done on the CPU whose lists they are: statistics differentials are that CPU's as well.
            mm.set_cpu(cpu)
            drain_local_zones(mm, only)
    mm.set_cpu(here)
    if has_pcps(mm, here, only):
        drain_local_zones(mm, only)


def drain_local_zones(mm: Mm, only: u64) -> None:
    """``drain_local_pages(zone)``: the running CPU's lists of one zone, or of all if ``only`` is 0."""
    if only != 0:
        drain_pages_zone(mm, mm.cpu, only)
    else:
        drain_pages(mm, mm.cpu)


def has_pcps(mm: Mm, cpu: u32, only: u64) -> bool:
    """Whether a CPU has pages on its lists (of one zone, or of any if ``only`` is 0)."""
    nid: s32
    index: s32
    zone: u64
    if only != 0:
        return mmzone.pcp_count(mm, mmzone.pageset_of(mm, mmzone.zone_off(mm, only), cpu)) != 0
    for nid in range(mm.nr_node_ids):
        for index in range(mm.max_nr_zones):
            zone = mmzone.populated_zone(mm, nid, index)
            if zone != 0 and mmzone.pcp_count(mm, mmzone.pageset_of(mm, mmzone.zone_off(mm, zone), cpu)) != 0:
                return True
    return False

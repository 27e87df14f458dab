# SPDX-License-Identifier: GPL-2.0-only
"""Taking memory offline and back (mm/memory_hotplug.c, mm/page_alloc.c).

A block of memory (128 MiB on x86-64) is emptied: its pageblocks are isolated, what is in use moves elsewhere; if all
of it is free then, its pages leave the free lists for good, reserved, until the block is put online again.
Marks and reserves follow, and zonelists where a zone is empty or no longer is.  The pages' ``struct page`` stay.

Errors are the kernel's: a negative errno.
"""

from __future__ import annotations

import errno

from kernelmm.bringup import pagesets, watermarks, zonelists
from kernelmm.bringup.deferred import DeferredRam
from kernelmm.bringup.kernel import N_MEMORY, Kernel, Zone
from kernelmm.bringup.rounding import div_round_up
from kernelmm.core import free, mmzone, page, pcp, vmstat
from kernelmm.core.mm import Mm
from kernelmm.pressure import codes, contig, isolation, kswapd, lru, migrate, stat
from kernelmm.pressure.isolation import at_of
from kernelmm.pressure.lru import PageList
from physmem import abi, address, list_head, word
from physmem.errors import CorruptionError, UnsupportedError, UsageError
from physmem.ranges import Ranges

__all__ = ["is_mem_section_removable", "is_pageblock_removable_nolock", "offline_pages", "online_pages"]

_free_pages = vars(free)["__free_pages"]
_PAGE_SHIFT = 12
#: Pages that are moved at once.
NR_OFFLINE_AT_ONCE_PAGES = 256
#: How often moving may fail for good, and for how long it is tried at all.
_RETRIES = 5
_TIMEOUT_SECONDS = 120
_STACK_SOURCE = 29


def node_clear_state(kernel: Kernel, nid: int, state: int) -> None:
    """``node_clear_state``."""
    at = state * div_round_up(kernel.layout.constant("MAX_NUMNODES"), 64) + nid // 64
    kernel.set_var("node_states", kernel.var("node_states", at) & ~(1 << nid % 64), at)


def zone_at(kernel: Kernel, pfn: int) -> Zone:
    """The zone of a page."""
    at = at_of(kernel.mm, pfn)
    return kernel.zone(page.nid(kernel.mm, at), page.zonenum(kernel.mm, at))


def system_ram(kernel: Kernel, start: int, end: int) -> list[tuple[int, int]]:
    """``walk_system_ram_range``: the parts of [start, end) that are RAM, in PFNs."""
    whole = Ranges([(start << _PAGE_SHIFT, end << _PAGE_SHIFT)])
    # An image that has not all of its memory does not tell what is RAM; a machine of our own does.
    parts = kernel.ram.ranges & whole if isinstance(kernel.ram, DeferredRam) else whole
    return [(low >> _PAGE_SHIFT, high >> _PAGE_SHIFT) for low, high in parts]


def check_block(kernel: Kernel, start: int, nr_pages: int) -> None:
    """Refuse a range of pages that are not all there; raises UsageError."""
    if nr_pages <= 0 or start < 0:
        raise UsageError(f"{nr_pages} pages from pfn {start}: not a range of memory")
    for pfn in range(start, start + nr_pages, abi.PAGEBLOCK_NR_PAGES):
        if not address.pfn_has_page(kernel.mm, pfn):
            raise UsageError(f"{nr_pages} pages from pfn {start}: pfn {pfn} has no struct page")


# -- offline ---------------------------------------------------------------------


def same_zone(kernel: Kernel, start: int, end: int) -> bool:
    """``test_pages_in_a_zone``."""
    return len({zone_at(kernel, pfn) for pfn in range(start, end, abi.PAGEBLOCK_NR_PAGES)}) == 1


def can_offline_normal(kernel: Kernel, zone: Zone, nr_pages: int) -> bool:
    """``can_offline_normal``: a node keeps some memory for the kernel, unless it has no other either."""
    present = [kernel.get(kernel.zone(zone.nid, i).at, "zone.present_pages") for i in range(kernel.max_nr_zones)]
    normal = kernel.layout.enumerator("ZONE_NORMAL") + 1
    return sum(present[:normal]) > nr_pages or sum(present[normal:]) == 0


def scan_movable_pages(mm: Mm, start: int, end: int) -> int:
    """``scan_movable_pages``: the first PFN of a page on an LRU list; 0: there is none."""
    for pfn in range(start, end):
        if page.test_flag(mm, at_of(mm, pfn), abi.PG_lru):
            return pfn
    return 0


def do_migrate_range(mm: Mm, start: int, end: int) -> int:
    """``do_migrate_range``: move up to 256 pages; 0, how many stayed, or a negative errno."""
    source = PageList.on_stack(mm, _STACK_SOURCE)
    taken = result = 0
    for pfn in range(start, end):
        at, pg = at_of(mm, pfn), address.pfn_to_page(mm, pfn)
        if taken == NR_OFFLINE_AT_ONCE_PAGES:
            break
        if page.count(mm, at) == 0:
            continue
        if lru.isolate_lru_page(mm, pg):
            add_tail(mm, pg, source)
            taken += 1
            stat.inc_page_state(mm, pg, migrate.isolated_item(mm, pg))
        else:
            # Somebody's who does not let it go: what was taken goes back.
            migrate.putback_movable_pages(mm, source)
            return -errno.EBUSY
    if taken:
        result = migrate.migrate_pages(mm, source, lambda: contig.alloc_migrate_target(mm), None, codes.MIGRATE_SYNC)
        if result:
            migrate.putback_movable_pages(mm, source)
    return result


def add_tail(mm: Mm, pg: int, pages: PageList) -> None:
    """``list_add_tail(&page->lru, pages)``."""
    at = address.page_off(mm, pg) + abi.PAGE_LRU
    list_head.list_add_tail(mm, pg + abi.PAGE_LRU, at, pages.head, pages.head_at)


def empty_range(mm: Mm, zone: Zone, start: int, end: int) -> int:
    """Move everything out of [start, end), as long as it takes: 0 or a negative errno.

    A round in vain takes a second of the two minutes that there are: one that fails, and one after which the first
    page is still there, as one on an LRU list without a reference is, which nobody takes.
    """
    retries, seconds, before = _RETRIES, 0, -1
    while pfn := scan_movable_pages(mm, start, end):
        if seconds > _TIMEOUT_SECONDS:
            return -errno.EAGAIN
        if mm.fatal_signal:
            return -errno.EINTR
        result = do_migrate_range(mm, pfn, end)
        retries -= result < 0
        if not retries:
            return result
        if result or pfn == before:
            seconds += 1
            word.add_u64(mm, mm.var_jiffies, mm.hz)
        before = pfn
        lru.lru_add_drain_all(mm)
        pcp.drain_all_pages(mm, zone.at)
    return 0


def __offline_isolated_pages(kernel: Kernel, start: int, end: int) -> None:
    """``__offline_isolated_pages``: take the range's free blocks, which are all of it, off their lists for good.

    :raises CorruptionError: a page is not free
    """
    mm = kernel.mm
    z = kernel.phys(zone_at(kernel, start).at)
    mmzone.spin_lock(mm, z)
    pfn = start
    while pfn < end:
        at = at_of(mm, pfn)
        if not page.buddy(mm, at):
            if mm.hwpoisoned(at):
                page.set_flag(mm, at, abi.PG_reserved)
                pfn += 1
                continue
            raise CorruptionError("offline", "a page of an isolated range is not free", pfn)
        order = page.order(mm, at)
        list_head.list_del(mm, address.pfn_to_page(mm, pfn) + abi.PAGE_LRU, at + abi.PAGE_LRU)
        page.rmv_order(mm, at)
        mmzone.add_nr_free(mm, z, order, -1)
        for i in range(1 << order):
            page.set_flag(mm, at + i * abi.SIZEOF_PAGE, abi.PG_reserved)
        pfn += 1 << order
    mmzone.spin_unlock(mm, z)


def offline_pages(kernel: Kernel, start: int, nr_pages: int) -> int:
    """``offline_pages``: take memory offline; 0 or a negative errno.

    -EBUSY: a page in use does not move; -EAGAIN: it did not in two minutes; -EINVAL: not whole pageblocks of one
    zone, or the last memory of its node that the kernel can use itself; -EINTR: the task is to die.

    :raises UsageError: there is no such memory
    """
    mm, end = kernel.mm, start + nr_pages
    check_block(kernel, start, nr_pages)
    mm.steps_left = mm.step_budget
    if (start | end) % abi.PAGEBLOCK_NR_PAGES or not same_zone(kernel, start, end):
        return -errno.EINVAL
    zone = zone_at(kernel, start)
    if zone.idx <= kernel.layout.enumerator("ZONE_NORMAL") and not can_offline_normal(kernel, zone, nr_pages):
        return -errno.EINVAL
    result = isolation.start_isolate_page_range(mm, start, end, abi.MIGRATE_MOVABLE, True)
    if result:
        return result
    ram = system_ram(kernel, start, end)
    try:
        result = empty_range(mm, zone, start, end)
        lru.lru_add_drain_all(mm)
        pcp.drain_all_pages(mm, zone.at)
        if not result and not all(isolation.test_pages_isolated(mm, low, high, True) for low, high in ram):
            result = -errno.EBUSY
        if not result:
            for low, high in ram:
                __offline_isolated_pages(kernel, low, high)
    finally:
        isolation.undo_isolate_page_range(mm, start, end, abi.MIGRATE_MOVABLE)
    if result:
        where = f"[mem {start << _PAGE_SHIFT:#010x}-{(end << _PAGE_SHIFT) - 1:#010x}]"
        stat.printk(mm, f"memory offlining {where} failed")
        return result
    offlined = sum(high - low for low, high in ram)
    stat.printk(mm, f"Offlined Pages {offlined}")
    count_pages(kernel, zone, -offlined, present=True)
    watermarks.init_per_zone_wmark_min(kernel)
    if kernel.populated(zone):
        zone_pcp_update(kernel, zone)
    else:
        zone_pcp_reset(kernel, zone)
        rebuild_zonelists(kernel)
    if not any(kernel.populated(kernel.zone(zone.nid, i)) for i in range(kernel.max_nr_zones)):
        node_clear_state(kernel, zone.nid, N_MEMORY)
        kswapd.kswapd_stop(mm, zone.nid)
    kernel.set_var("vm_total_pages", zonelists.nr_free_pagecache_pages(kernel))
    return 0


def count_pages(kernel: Kernel, zone: Zone, pages: int, *, present: bool) -> None:
    """``adjust_managed_page_count``, and if the pages come or go as a whole, those present."""
    kernel.add(zone.at, "zone.managed_pages", pages)
    kernel.set_var("totalram_pages", kernel.var("totalram_pages") + pages)
    if present:
        kernel.add(zone.at, "zone.present_pages", pages)
        kernel.add(kernel.node_data(zone.nid), "pglist_data.node_present_pages", pages)


# -- pagesets and zonelists ----------------------------------------------------------


def zone_pcp_update(kernel: Kernel, zone: Zone) -> None:
    """``zone_pcp_update``: batches and limits by the zone's new size."""
    pointer = kernel.get(zone.at, "zone.pageset")
    for cpu in kernel.possible_cpus():
        pagesets.pageset_set_high_and_batch(kernel, zone, kernel.per_cpu_ptr(pointer, cpu))


def fold_diffs(mm: Mm, z: int, cpu: int) -> None:
    """``drain_zonestat``: a CPU's differentials of one zone reach the zone."""
    at = mmzone.pageset_of(mm, z, cpu) + mm.pageset_vm_stat_diff
    for item in range(mm.cold.nr_stat_items if mm.smp else 0):
        if mm.as_s8[at + item]:
            vmstat.zone_page_state_add(mm, z, item, mm.as_s8[at + item])
            mm.as_s8[at + item] = 0


def zone_pcp_reset(kernel: Kernel, zone: Zone) -> None:
    """``zone_pcp_reset``: an empty zone has the boot pagesets, as before it had memory."""
    for cpu in kernel.online_cpus():
        fold_diffs(kernel.mm, kernel.phys(zone.at), cpu)
    kernel.set(zone.at, "zone.pageset", kernel.symbols["boot_pageset"])


def setup_zone_pageset(kernel: Kernel, zone: Zone) -> None:
    """``setup_zone_pageset``: pagesets of its own, in the dynamic part of the per-CPU areas.

    :raises UnsupportedError: what of that part is free, this image does not tell
    """
    size = kernel.layout.sizeof("per_cpu_pageset")
    if not isinstance(kernel.ram, DeferredRam):
        raise UnsupportedError("not modelled: pagesets for an empty zone of an image (the per-CPU map is unknown)")
    start = kernel.symbols["__per_cpu_end"] if kernel.smp else kernel.var("pcpu_base_addr")
    used = {kernel.get(each.at, "zone.pageset") for each in kernel.zones()}
    pointer = next(at for at in range(start, start + pagesets.DYNAMIC_RESERVE, size) if at not in used)
    kernel.set(zone.at, "zone.pageset", pointer)
    for cpu in kernel.possible_cpus():
        pagesets.pageset_init(kernel, kernel.per_cpu_ptr(pointer, cpu))
        pagesets.pageset_set_high_and_batch(kernel, zone, kernel.per_cpu_ptr(pointer, cpu))


def rebuild_zonelists(kernel: Kernel) -> None:
    """``build_all_zonelists`` of a running system, with its message."""
    zonelists.build_all_zonelists(kernel)
    order = "Node" if kernel.numa and kernel.var("current_zonelist_order") == zonelists.ZONELIST_ORDER_NODE else "Zone"
    grouping = "off" if kernel.var("page_group_by_mobility_disabled") else "on"
    built = f"Built {len(kernel.nodes())} zonelists in {order} order, mobility grouping {grouping}"
    stat.printk(kernel.mm, f"{built}.  Total pages: {kernel.var('vm_total_pages')}")


# -- online ------------------------------------------------------------------------


def online_pages_range(kernel: Kernel, start: int, end: int) -> int:
    """``online_pages_range``: free the pages of a part that is offline, one by one; pages."""
    mm = kernel.mm
    if not page.test_flag(mm, at_of(mm, start), abi.PG_reserved):
        return 0
    for pfn in range(start, end):
        at = at_of(mm, pfn)
        page.clear_flag(mm, at, abi.PG_reserved)
        page.set_count(mm, at, 1)
        _free_pages(mm, address.pfn_to_page(mm, pfn), 0)
    return end - start


def pages_correctly_reserved(mm: Mm, ram: list[tuple[int, int]]) -> bool:
    """``pages_correctly_reserved``: all of it is offline."""
    return all(page.test_flag(mm, at_of(mm, pfn), abi.PG_reserved) for low, high in ram for pfn in range(low, high))


def online_pages(kernel: Kernel, start: int, nr_pages: int) -> int:
    """``online_pages``: give memory that was taken offline back to its zone; 0 or a negative errno.

    -EBUSY: some of it is online already.

    :raises UsageError: there is no such memory
    """
    mm = kernel.mm
    check_block(kernel, start, nr_pages)
    ram = system_ram(kernel, start, start + nr_pages)
    if not pages_correctly_reserved(mm, ram):
        return -errno.EBUSY
    mm.steps_left = mm.step_budget
    zone = zone_at(kernel, start)
    high = zone.idx > kernel.layout.enumerator("ZONE_NORMAL")
    if high and zone.nid not in kernel.nodes(N_MEMORY):
        return -errno.EINVAL
    rebuild = not kernel.populated(zone)
    if rebuild:
        setup_zone_pageset(kernel, zone)
        rebuild_zonelists(kernel)
    onlined = 0
    for low, end in ram:
        pages = online_pages_range(kernel, low, end)
        count_pages(kernel, zone, pages, present=False)
        onlined += pages
    kernel.add(zone.at, "zone.present_pages", onlined)
    kernel.add(kernel.node_data(zone.nid), "pglist_data.node_present_pages", onlined)
    kernel.node_set_state(zone.nid, N_MEMORY)
    if rebuild:
        rebuild_zonelists(kernel)
    else:
        zone_pcp_update(kernel, zone)
    watermarks.init_per_zone_wmark_min(kernel)
    kswapd.kswapd_run(mm, zone.nid)
    kernel.set_var("vm_total_pages", zonelists.nr_free_pagecache_pages(kernel))
    return 0


# -- asking first ----------------------------------------------------------------------


def is_pageblock_removable_nolock(kernel: Kernel, pfn: int) -> bool:
    """``is_pageblock_removable_nolock``: nothing in the pageblock is known not to move."""
    zone = zone_at(kernel, pfn)
    if zone.nid not in kernel.nodes() or not mmzone.spans_pfn(kernel.mm, kernel.phys(zone.at), pfn):
        return False
    return not isolation.has_unmovable_pages(kernel.mm, zone.at, pfn, True)


def is_mem_section_removable(kernel: Kernel, start: int, nr_pages: int) -> bool:
    """``is_mem_section_removable``: memory is likely to go offline if asked to."""
    check_block(kernel, start, nr_pages)
    if start % abi.PAGEBLOCK_NR_PAGES:
        raise UsageError(f"pfn {start}: not where a pageblock begins")
    mm, pfn = kernel.mm, start
    while pfn < start + nr_pages:
        if not is_pageblock_removable_nolock(kernel, pfn):
            return False
        at = at_of(mm, pfn)
        whole = page.buddy(mm, at) and abi.PAGEBLOCK_ORDER <= page.order(mm, at) < abi.MAX_ORDER
        pfn += 1 << page.order(mm, at) if whole else abi.PAGEBLOCK_NR_PAGES
    return True

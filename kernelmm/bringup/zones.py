# SPDX-License-Identifier: GPL-2.0-only
"""Nodes and zones: which pages each has, and the empty structures that will manage them (mm/page_alloc.c).

A zone is the part of a node that lies between two bounds: ZONE_DMA below 16 MiB, ZONE_DMA32 below 4 GiB,
ZONE_NORMAL above.  ``kernelcore=`` or ``movablecore=`` takes the upper end of each node away from the
highest of them, for ZONE_MOVABLE.  A zone *spans* pages from the first to the last; those of them that
are memory are *present*.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kernelmm.bringup.kernel import N_MEMORY, N_ONLINE, Kernel, Zone
from kernelmm.bringup.memblock import Memblock
from kernelmm.bringup.rounding import div_round_up, round_up
from physmem.errors import UsageError

__all__ = [
    "absent_pages_in_range",
    "estimate_managed",
    "find_dma_reserve",
    "find_zone_movable_pfns_for_nodes",
    "free_area_init_nodes",
    "zone_absent_pages_in_node",
    "zone_range_in_node",
    "zone_sizes_init",
]

PAGE_SIZE = 4096
MAX_DMA_PFN = (16 << 20) // PAGE_SIZE
MAX_DMA32_PFN = (4 << 30) // PAGE_SIZE
PAGES_PER_WAITQUEUE = 256

#: Called for each zone that spans pages, to set up its page array: (zone, start pfn, size).
InitMemmap = Callable[[Zone, int, int], None]


def zone_sizes_init(kernel: Kernel, memblock: Memblock, init_memmap: InitMemmap) -> None:
    """``zone_sizes_init``: the bounds of the zones of x86-64; then set them up."""
    max_low_pfn = kernel.var("max_low_pfn")
    bounds = {"ZONE_DMA": MAX_DMA_PFN, "ZONE_DMA32": MAX_DMA32_PFN, "ZONE_NORMAL": max_low_pfn}
    zones = kernel.layout.enum("zone_type")
    free_area_init_nodes(
        kernel, memblock, {zones[z]: min(pfn, max_low_pfn) for z, pfn in bounds.items() if z in zones}, init_memmap
    )


def find_dma_reserve(kernel: Kernel, memblock: Memblock) -> None:
    """``memblock_find_dma_reserve``: how much of the memory below 16 MiB is taken already."""
    pages = sum(min(end, MAX_DMA_PFN) - min(start, MAX_DMA_PFN) for start, end, _ in memblock.pfn_ranges())
    free = 0
    for start, end in memblock.free_ranges():
        free += max(0, min(end // PAGE_SIZE, MAX_DMA_PFN) - min(div_round_up(start, PAGE_SIZE), MAX_DMA_PFN))
    kernel.set_var("dma_reserve", pages - free)


def free_area_init_nodes(
    kernel: Kernel, memblock: Memblock, max_zone_pfn: dict[int, int], init_memmap: InitMemmap
) -> None:
    """``free_area_init_nodes``: every zone of every node.

    :param max_zone_pfn: the end of each zone but ZONE_MOVABLE, by its index
    """
    start = min(start_pfn for start_pfn, _, _ in memblock.pfn_ranges())
    for idx in sorted(max_zone_pfn):
        kernel.set_var("arch_zone_lowest_possible_pfn", start, idx)
        start = max(max_zone_pfn[idx], start) if idx else max_zone_pfn[idx]
        kernel.set_var("arch_zone_highest_possible_pfn", start, idx)
    find_zone_movable_pfns_for_nodes(kernel, memblock)
    if kernel.numa:
        kernel.set_var("nr_node_ids", max(kernel.nodes()) + 1)
    for nid in kernel.nodes(N_ONLINE):
        free_area_init_node(kernel, memblock, nid, init_memmap)
        if kernel.get(kernel.node_data(nid), "pglist_data.node_present_pages"):
            kernel.node_set_state(nid, N_MEMORY)


# -- how large they are -----------------------------------------------------------


def find_zone_movable_pfns_for_nodes(kernel: Kernel, memblock: Memblock) -> None:
    """``find_zone_movable_pfns_for_nodes``: where ZONE_MOVABLE begins on each node.

    The kernel's share (``kernelcore=``, or all but ``movablecore=``) is spread evenly over the nodes, as far
    as each of them has memory.
    """
    movable_zone = _highest_zone(kernel)
    kernel.set_var("movable_zone", movable_zone)
    max_order_nr_pages = kernel.layout.constant("MAX_ORDER_NR_PAGES")
    ranges = list(memblock.pfn_ranges())
    nodes = sorted({nid for _, _, nid in ranges})
    required = kernel.var("required_kernelcore")
    movablecore = kernel.var("required_movablecore")
    if movablecore:
        movablecore = round_up(movablecore, max_order_nr_pages)
        total = sum(end - start for start, end, _ in ranges)
        if movablecore > total:
            raise UsageError(f"movablecore={movablecore * PAGE_SIZE:#x}: the machine has {total * PAGE_SIZE:#x} bytes")
        required = max(required, total - movablecore)
    if not required:
        return
    usable_start = kernel.var("arch_zone_lowest_possible_pfn", movable_zone)
    begins = dict.fromkeys(nodes, 0)
    # A node that is too small leaves its share to the others: go round until all is placed.
    for usable_nodes in range(len(nodes), 0, -1):
        share = required // usable_nodes
        for nid in nodes:
            if required < share:
                share = required // usable_nodes
            remaining = share
            for start, end in ((start, end) for start, end, node in ranges if node == nid):
                start = max(start, begins[nid])
                if start >= end:
                    continue
                # Below the highest zone, everything is the kernel's.
                lower = min(end, max(usable_start, start)) - start
                remaining -= min(lower, remaining)
                required -= min(lower, required)
                if end <= usable_start:
                    begins[nid] = end
                    continue
                start += lower
                size = min(end - start, remaining)
                begins[nid] = start + size
                required -= min(required, size)
                remaining -= size
                if not remaining:
                    break
        if required <= usable_nodes - 1:
            break
    for nid, begin in begins.items():
        kernel.set_var("zone_movable_pfn", round_up(begin, max_order_nr_pages), nid)


def _highest_zone(kernel: Kernel) -> int:
    """``find_usable_zone_for_movable``: index of the highest zone that has a range, ZONE_MOVABLE aside."""
    for idx in range(kernel.max_nr_zones - 2, 0, -1):
        if kernel.var("arch_zone_highest_possible_pfn", idx) > kernel.var("arch_zone_lowest_possible_pfn", idx):
            return idx
    return 0


def zone_range_in_node(kernel: Kernel, zone: Zone, node_start: int, node_end: int) -> tuple[int, int]:
    """``zone_spanned_pages_in_node``: the PFNs that a zone spans on a node; (x, x) if none.

    :param node_start: first PFN of the node
    :param node_end: end PFN of the node
    """
    start, end = _adjusted(
        kernel,
        zone,
        kernel.var("arch_zone_lowest_possible_pfn", zone.idx),
        kernel.var("arch_zone_highest_possible_pfn", zone.idx),
        node_end,
    )
    if end < node_start or start > node_end:
        return node_start, node_start
    return max(start, node_start), max(min(end, node_end), max(start, node_start))


def _adjusted(kernel: Kernel, zone: Zone, start: int, end: int, node_end: int) -> tuple[int, int]:
    """``adjust_zone_range_for_zone_movable``: give the upper end to ZONE_MOVABLE, if the node has one."""
    movable = kernel.var("zone_movable_pfn", zone.nid)
    if not movable:
        return start, end
    if zone.idx == kernel.max_nr_zones - 1:
        highest = kernel.var("arch_zone_highest_possible_pfn", kernel.var("movable_zone"))
        return movable, min(node_end, highest)
    if start < movable < end:
        return start, movable
    if start >= movable:
        return end, end
    return start, end


def absent_pages_in_range(memblock: Memblock, nid: int, start_pfn: int, end_pfn: int) -> int:
    """``__absent_pages_in_range``: pages of [start_pfn, end_pfn) that are no memory of the node."""
    present = (min(end, end_pfn) - max(start, start_pfn) for start, end, _ in memblock.pfn_ranges(nid))
    return end_pfn - start_pfn - sum(pages for pages in present if pages > 0)


def zone_absent_pages_in_node(kernel: Kernel, memblock: Memblock, zone: Zone, node_start: int, node_end: int) -> int:
    """``zone_absent_pages_in_node``: pages that the zone spans and that are no memory."""
    low = kernel.var("arch_zone_lowest_possible_pfn", zone.idx)
    high = kernel.var("arch_zone_highest_possible_pfn", zone.idx)
    start, end = min(max(node_start, low), high), min(max(node_end, low), high)
    start, end = _adjusted(kernel, zone, start, end, node_end)
    return absent_pages_in_range(memblock, zone.nid, start, max(start, end))


# -- the structures ---------------------------------------------------------------


def free_area_init_node(kernel: Kernel, memblock: Memblock, nid: int, init_memmap: InitMemmap) -> None:
    """``free_area_init_node``: the node's ``struct pglist_data`` and its zones."""
    pgdat = kernel.node_data(nid)
    ranges = list(memblock.pfn_ranges(nid))
    start, end = min(r[0] for r in ranges), max(r[1] for r in ranges)
    kernel.set(pgdat, "pglist_data.node_id", nid)
    kernel.set(pgdat, "pglist_data.node_start_pfn", start)
    zones = [kernel.zone(nid, idx) for idx in range(kernel.max_nr_zones)]
    sizes = {}
    for zone in zones:
        first, last = zone_range_in_node(kernel, zone, start, end)
        sizes[zone] = last - first, last - first - zone_absent_pages_in_node(kernel, memblock, zone, start, end)
    kernel.set(pgdat, "pglist_data.node_spanned_pages", sum(spanned for spanned, _ in sizes.values()))
    kernel.set(pgdat, "pglist_data.node_present_pages", sum(present for _, present in sizes.values()))
    if kernel.has("pglist_data.numabalancing_migrate_next_window"):
        kernel.set(pgdat, "pglist_data.numabalancing_migrate_next_window", kernel.var("jiffies_64"))
    for queue in ("kswapd_wait", "pfmemalloc_wait"):
        kernel.init_list_head(kernel.at(pgdat, f"pglist_data.{queue}.task_list"))
    for zone, (spanned, present) in sizes.items():
        free_area_init_core(kernel, zone, spanned, present)
        if spanned:
            init_currently_empty_zone(kernel, memblock, zone, start, spanned)
            init_memmap(zone, start, spanned)
            start += spanned


def free_area_init_core(kernel: Kernel, zone: Zone, spanned: int, present: int) -> None:
    """``free_area_init_core``, of one zone.

    What the zone will manage is estimated.
    """
    at = zone.at
    free = estimate_managed(kernel, zone, spanned, present, kernel.var("dma_reserve"))
    kernel.set(at, "zone.spanned_pages", spanned)
    kernel.set(at, "zone.present_pages", present)
    kernel.set(at, "zone.managed_pages", free)
    if kernel.numa:
        kernel.set(at, "zone.node", zone.nid)
        kernel.set(at, "zone.min_unmapped_pages", free * kernel.var("sysctl_min_unmapped_ratio") // 100)
        kernel.set(at, "zone.min_slab_pages", free * kernel.var("sysctl_min_slab_ratio") // 100)
    kernel.set(at, "zone.name", int(kernel.words(kernel.phys(kernel.symbols["zone_names"]), zone.idx + 1)[zone.idx]))
    kernel.set(at, "zone.zone_pgdat", kernel.node_data(zone.nid))
    # zone_pcp_init: until there are pagesets, all zones share one that hands every page straight on.
    kernel.set(at, "zone.pageset", kernel.symbols["boot_pageset"])
    # Its threshold is 0, so that statistics are up to date at once.
    batch = kernel.layout.enumerator("NR_ALLOC_BATCH")
    kernel.add(at, "zone.vm_stat", free, batch)
    kernel.set_var("vm_stat", kernel.var("vm_stat", batch) + free, batch)
    for lru in range(kernel.layout.enumerator("NR_LRU_LISTS")):
        kernel.init_list_head(kernel.at(at, "zone.lruvec.lists", lru))


def estimate_managed(kernel: Kernel, zone: Zone, spanned: int, present: int, dma_reserve: int) -> int:
    """What a zone may have to give away: its pages, less those that describe them and, of the lowest, those taken."""
    free = present - calc_memmap_size(kernel, spanned, present)
    free = free if free >= 0 else present
    return free - dma_reserve if zone.idx == 0 and free > dma_reserve else free


def calc_memmap_size(kernel: Kernel, spanned: int, present: int) -> int:
    """``calc_memmap_size``: pages that the page array of a zone takes; holes count as far as they are small."""
    pages = present if spanned > present + (present >> 4) else spanned
    return div_round_up(pages * kernel.layout.sizeof("page"), PAGE_SIZE)


def init_currently_empty_zone(kernel: Kernel, memblock: Memblock, zone: Zone, start_pfn: int, size: int) -> None:
    """``init_currently_empty_zone``: empty free lists, and the queues of those who wait for a page."""
    zone_wait_table_init(kernel, memblock, zone, size)
    kernel.set(kernel.node_data(zone.nid), "pglist_data.nr_zones", zone.idx + 1)
    kernel.set(zone.at, "zone.zone_start_pfn", start_pfn)
    types = kernel.layout.enumerator("MIGRATE_TYPES")
    for order in range(kernel.layout.constant("MAX_ORDER")):
        area = kernel.at(zone.at, "zone.free_area", order)
        for migratetype in range(types):
            kernel.init_list_head(kernel.at(area, "free_area.free_list", migratetype))
        kernel.set(area, "free_area.nr_free", 0)


def zone_wait_table_init(kernel: Kernel, memblock: Memblock, zone: Zone, size: int) -> None:
    """``zone_wait_table_init``: a hash table of wait queues, one for every 256 pages, at least 4 and at most 4096."""
    entries = 1
    while entries < size // PAGES_PER_WAITQUEUE:
        entries *= 2
    entries = max(4, min(entries, 4096))
    sizeof_queue = kernel.layout.sizeof("__wait_queue_head")
    table = memblock.alloc(entries * sizeof_queue, nid=zone.nid, what="the wait table of a zone")
    kernel.set(zone.at, "zone.wait_table", kernel.va(table))
    kernel.set(zone.at, "zone.wait_table_hash_nr_entries", entries)
    kernel.set(zone.at, "zone.wait_table_bits", entries.bit_length() - 1)
    heads = kernel.words(table, entries * sizeof_queue // 8).reshape(entries, -1)
    offset = kernel.layout.offsetof("__wait_queue_head", "task_list")
    here = np.uint64(kernel.va(table) + offset) + np.arange(entries, dtype=np.uint64) * np.uint64(sizeof_queue)
    heads[:, offset // 8] = heads[:, offset // 8 + 1] = here

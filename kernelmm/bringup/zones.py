# SPDX-License-Identifier: GPL-2.0-only
"""Nodes and zones: which pages each has, and the empty structures that will manage them (mm/page_alloc.c).

A zone is the part of a node that lies between two bounds: ZONE_DMA below 16 MiB, ZONE_DMA32 below 4 GiB,
ZONE_NORMAL above; ZONE_MOVABLE is the upper end of the highest of them (:mod:`kernelmm.bringup.movable`).  A
zone *spans* pages from the first to the last; those of them that are memory are *present*.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kernelmm.bringup.kernel import N_ONLINE, Kernel, Zone
from kernelmm.bringup.memblock import Memblock
from kernelmm.bringup.movable import adjust_zone_range_for_zone_movable, find_zone_movable_pfns_for_nodes
from kernelmm.bringup.nodes import (
    check_for_memory,
    find_min_pfn_for_node,
    find_min_pfn_with_active_regions,
    get_pfn_range_for_nid,
    setup_nr_node_ids,
)
from kernelmm.bringup.pagesets import zone_batchsize
from kernelmm.bringup.printk import printk
from kernelmm.bringup.rounding import div_round_up, round_down, round_up
from physmem.memory_model import MemoryModel, usemap_size

__all__ = [
    "absent_pages_in_range",
    "calculate_node_totalpages",
    "estimate_managed",
    "free_area_init_nodes",
    "memblock_find_dma_reserve",
    "zone_absent_pages_in_node",
    "zone_sizes_init",
    "zone_spanned_pages_in_node",
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


def memblock_find_dma_reserve(kernel: Kernel, memblock: Memblock) -> None:
    """``memblock_find_dma_reserve``: how much of the memory below 16 MiB is taken already."""
    pages = sum(min(end, MAX_DMA_PFN) - min(start, MAX_DMA_PFN) for start, end, _ in memblock.pfn_ranges())
    free = 0
    for start, end in memblock.free_ranges():
        free += max(0, min(end // PAGE_SIZE, MAX_DMA_PFN) - min(div_round_up(start, PAGE_SIZE), MAX_DMA_PFN))
    set_dma_reserve(kernel, pages - free)


def set_dma_reserve(kernel: Kernel, pages: int) -> None:
    """``set_dma_reserve``: pages of the lowest zone that are not to be counted as its own, as they are taken."""
    kernel.set_var("dma_reserve", pages)


def free_area_init_nodes(
    kernel: Kernel, memblock: Memblock, max_zone_pfn: dict[int, int], init_memmap: InitMemmap
) -> None:
    """``free_area_init_nodes``: every zone of every node.

    :param max_zone_pfn: the end of each zone but ZONE_MOVABLE, by its index
    """
    start = find_min_pfn_with_active_regions(memblock)
    for idx in sorted(max_zone_pfn):
        kernel.set_var("arch_zone_lowest_possible_pfn", start, idx)
        start = max(max_zone_pfn[idx], start) if idx else max_zone_pfn[idx]
        kernel.set_var("arch_zone_highest_possible_pfn", start, idx)
    find_zone_movable_pfns_for_nodes(kernel, memblock)
    print_ranges(kernel, memblock, sorted(max_zone_pfn))
    setup_nr_node_ids(kernel)
    for nid in kernel.nodes(N_ONLINE):
        free_area_init_node(kernel, memblock, nid, find_min_pfn_for_node(kernel, memblock, nid), init_memmap)
        check_for_memory(kernel, nid)


def print_ranges(kernel: Kernel, memblock: Memblock, zones: list[int]) -> None:
    """What ``free_area_init_nodes`` tells the log: the bounds of the zones, and whose memory is where."""

    def mem(start_pfn: int, end_pfn: int) -> str:
        return f"[mem {start_pfn * PAGE_SIZE:#018x}-{end_pfn * PAGE_SIZE - 1:#018x}]"

    printk(kernel, "Zone ranges:")
    for idx in zones:
        low, high = (kernel.var(f"arch_zone_{end}_possible_pfn", idx) for end in ("lowest", "highest"))
        printk(kernel, f"  {zone_name(kernel, idx):8} {'empty' if low >= high else mem(low, high)}")
    printk(kernel, "Movable zone start for each node")
    for nid in kernel.nodes(N_ONLINE):
        if movable := kernel.var("zone_movable_pfn", nid):
            printk(kernel, f"  Node {nid}: {movable * PAGE_SIZE:#018x}")
    printk(kernel, "Early memory node ranges")
    for start, end, nid in memblock.pfn_ranges():
        printk(kernel, f"  node {nid:3}: {mem(start, end)}")


def zone_name(kernel: Kernel, idx: int) -> str:
    """``zone_names[idx]``."""
    return kernel.string(int(kernel.words(kernel.phys(kernel.symbols["zone_names"]), idx + 1)[idx]))


# -- how large they are -----------------------------------------------------------


def zone_spanned_pages_in_node(kernel: Kernel, zone: Zone, node_start: int, node_end: int) -> tuple[int, int]:
    """``zone_spanned_pages_in_node``: the PFNs that a zone spans on a node; (x, x) if none.

    :param node_start: first PFN of the node
    :param node_end: end PFN of the node
    """
    start, end = adjust_zone_range_for_zone_movable(
        kernel,
        zone,
        kernel.var("arch_zone_lowest_possible_pfn", zone.idx),
        kernel.var("arch_zone_highest_possible_pfn", zone.idx),
        node_end,
    )
    if end < node_start or start > node_end:
        return node_start, node_start
    return max(start, node_start), max(min(end, node_end), max(start, node_start))


def absent_pages_in_range(memblock: Memblock, nid: int, start_pfn: int, end_pfn: int) -> int:
    """``__absent_pages_in_range``: pages of [start_pfn, end_pfn) that are no memory of the node."""
    present = (min(end, end_pfn) - max(start, start_pfn) for start, end, _ in memblock.pfn_ranges(nid))
    return end_pfn - start_pfn - sum(pages for pages in present if pages > 0)


def zone_absent_pages_in_node(kernel: Kernel, memblock: Memblock, zone: Zone, node_start: int, node_end: int) -> int:
    """``zone_absent_pages_in_node``: pages that the zone spans and that are no memory."""
    low = kernel.var("arch_zone_lowest_possible_pfn", zone.idx)
    high = kernel.var("arch_zone_highest_possible_pfn", zone.idx)
    start, end = min(max(node_start, low), high), min(max(node_end, low), high)
    start, end = adjust_zone_range_for_zone_movable(kernel, zone, start, end, node_end)
    return absent_pages_in_range(memblock, zone.nid, start, max(start, end))


def calculate_node_totalpages(
    kernel: Kernel, memblock: Memblock, nid: int, node_start: int, node_end: int
) -> dict[Zone, tuple[int, int]]:
    """``calculate_node_totalpages``: pages that the node spans and has; of each zone too (spanned, present)."""
    sizes = {}
    for zone in (kernel.zone(nid, idx) for idx in range(kernel.max_nr_zones)):
        first, last = zone_spanned_pages_in_node(kernel, zone, node_start, node_end)
        absent = zone_absent_pages_in_node(kernel, memblock, zone, node_start, node_end)
        sizes[zone] = last - first, last - first - absent
    pgdat = kernel.node_data(nid)
    kernel.set(pgdat, "pglist_data.node_spanned_pages", sum(spanned for spanned, _ in sizes.values()))
    kernel.set(pgdat, "pglist_data.node_present_pages", sum(present for _, present in sizes.values()))
    printk(kernel, f"On node {nid} totalpages: {sum(present for _, present in sizes.values())}")
    return sizes


# -- the structures ---------------------------------------------------------------


def free_area_init_node(
    kernel: Kernel, memblock: Memblock, nid: int, node_start_pfn: int, init_memmap: InitMemmap
) -> None:
    """``free_area_init_node``: the node's ``struct pglist_data`` and its zones."""
    pgdat = kernel.node_data(nid)
    kernel.set(pgdat, "pglist_data.node_id", nid)
    kernel.set(pgdat, "pglist_data.node_start_pfn", node_start_pfn)
    start, end = get_pfn_range_for_nid(memblock, nid)
    last = end * PAGE_SIZE - 1 & (1 << 64) - 1
    printk(kernel, f"Initmem setup node {nid} [mem {start * PAGE_SIZE:#018x}-{last:#018x}]")
    sizes = calculate_node_totalpages(kernel, memblock, nid, start, end)
    alloc_node_mem_map(kernel, memblock, nid)
    free_area_init_core(kernel, memblock, nid, sizes, init_memmap)


def alloc_node_mem_map(kernel: Kernel, memblock: Memblock, nid: int) -> None:
    """``alloc_node_mem_map``: the page array of a flat memory map, for whole blocks of the largest order."""
    if kernel.model is not MemoryModel.FLATMEM:
        return
    pgdat = kernel.node_data(nid)
    begin = kernel.get(pgdat, "pglist_data.node_start_pfn")
    block = kernel.layout.constant("MAX_ORDER_NR_PAGES")
    start = round_down(begin, block)
    end = round_up(begin + kernel.get(pgdat, "pglist_data.node_spanned_pages"), block)
    sizeof_page = kernel.layout.sizeof("page")
    array = kernel.va(memblock.alloc((end - start) * sizeof_page, nid=nid, what="the page array"))
    kernel.set(pgdat, "pglist_data.node_mem_map", array + (begin - start) * sizeof_page)
    # mem_map is indexed by PFN, and the array need not begin with PFN 0.
    kernel.set_var("mem_map", array - start * sizeof_page)


def free_area_init_core(
    kernel: Kernel, memblock: Memblock, nid: int, sizes: dict[Zone, tuple[int, int]], init_memmap: InitMemmap
) -> None:
    """``free_area_init_core``: the node's queues and its zones; what a zone will manage is estimated.

    :param sizes: pages that each zone spans and has
    """
    pgdat = kernel.node_data(nid)
    start = kernel.get(pgdat, "pglist_data.node_start_pfn")
    if kernel.has("pglist_data.numabalancing_migrate_next_window"):
        kernel.set(pgdat, "pglist_data.numabalancing_migrate_next_window", kernel.var("jiffies_64"))
    for queue in ("kswapd_wait", "pfmemalloc_wait"):
        kernel.init_list_head(kernel.at(pgdat, f"pglist_data.{queue}.task_list"))
    for zone, (spanned, present) in sizes.items():
        init_zone(kernel, zone, spanned, present)
        if spanned:
            setup_usemap(kernel, memblock, zone, start, spanned)
            init_currently_empty_zone(kernel, memblock, zone, start, spanned)
            init_memmap(zone, start, spanned)
            start += spanned


def init_zone(kernel: Kernel, zone: Zone, spanned: int, present: int) -> None:
    """What ``free_area_init_core`` enters into every zone, also into one without pages."""
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
    zone_pcp_init(kernel, zone)
    # The threshold of the pageset that all zones share is 0, so that statistics are up to date at once.
    batch = kernel.layout.enumerator("NR_ALLOC_BATCH")
    kernel.add(at, "zone.vm_stat", free, batch)
    kernel.set_var("vm_stat", kernel.var("vm_stat", batch) + free, batch)
    for lru in range(kernel.layout.enumerator("NR_LRU_LISTS")):
        kernel.init_list_head(kernel.at(at, "zone.lruvec.lists", lru))


def zone_pcp_init(kernel: Kernel, zone: Zone) -> None:
    """``zone_pcp_init``: until there are pagesets, all zones share one that hands every page straight on."""
    kernel.set(zone.at, "zone.pageset", kernel.symbols["boot_pageset"])
    if kernel.populated(zone):
        pages, batch = kernel.get(zone.at, "zone.present_pages"), zone_batchsize(kernel, zone)
        printk(kernel, f"  {zone_name(kernel, zone.idx)} zone: {pages} pages, LIFO batch:{batch}")


def setup_usemap(kernel: Kernel, memblock: Memblock, zone: Zone, start_pfn: int, size: int) -> None:
    """``setup_usemap``: a zone has its pageblock flags itself in a flat memory map; else its sections have them."""
    if kernel.model is MemoryModel.FLATMEM:
        usemap = memblock.alloc(usemap_size(start_pfn, size), nid=zone.nid, what="pageblock flags")
        kernel.set(zone.at, "zone.pageblock_flags", kernel.va(usemap))


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
    zone_init_free_lists(kernel, zone)


def zone_init_free_lists(kernel: Kernel, zone: Zone) -> None:
    """``zone_init_free_lists``: no free blocks of any order."""
    types = kernel.layout.enumerator("MIGRATE_TYPES")
    for order in range(kernel.layout.constant("MAX_ORDER")):
        area = kernel.at(zone.at, "zone.free_area", order)
        for migratetype in range(types):
            kernel.init_list_head(kernel.at(area, "free_area.free_list", migratetype))
        kernel.set(area, "free_area.nr_free", 0)


def wait_table_hash_nr_entries(pages: int) -> int:
    """``wait_table_hash_nr_entries``: a queue for every 256 pages, as a power of two from 4 to 4096."""
    entries = 1
    while entries < pages // PAGES_PER_WAITQUEUE:
        entries *= 2
    return max(4, min(entries, 4096))


def wait_table_bits(entries: int) -> int:
    """``wait_table_bits``: log2 of the number of queues."""
    return entries.bit_length() - 1


def zone_wait_table_init(kernel: Kernel, memblock: Memblock, zone: Zone, size: int) -> None:
    """``zone_wait_table_init``: a hash table of the queues of those who wait for a page."""
    entries = wait_table_hash_nr_entries(size)
    sizeof_queue = kernel.layout.sizeof("__wait_queue_head")
    table = memblock.alloc(entries * sizeof_queue, nid=zone.nid, what="the wait table of a zone")
    kernel.set(zone.at, "zone.wait_table", kernel.va(table))
    kernel.set(zone.at, "zone.wait_table_hash_nr_entries", entries)
    kernel.set(zone.at, "zone.wait_table_bits", wait_table_bits(entries))
    heads = kernel.words(table, entries * sizeof_queue // 8).reshape(entries, -1)
    offset = kernel.layout.offsetof("__wait_queue_head", "task_list")
    here = np.uint64(kernel.va(table) + offset) + np.arange(entries, dtype=np.uint64) * np.uint64(sizeof_queue)
    heads[:, offset // 8] = heads[:, offset // 8 + 1] = here

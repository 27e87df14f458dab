# SPDX-License-Identifier: GPL-2.0-only
"""Which pages belong to which node, by memblock (mm/page_alloc.c)."""

from __future__ import annotations

from kernelmm.bringup.kernel import N_MEMORY, N_ONLINE, N_POSSIBLE, Kernel
from kernelmm.bringup.memblock import Memblock
from kernelmm.bringup.printk import printk
from physmem.ranges import Ranges

__all__ = [
    "check_for_memory",
    "early_calculate_totalpages",
    "early_pfn_in_nid",
    "early_pfn_to_nid",
    "find_min_pfn_for_node",
    "find_min_pfn_with_active_regions",
    "get_pfn_range_for_nid",
    "setup_nr_node_ids",
]


def get_pfn_range_for_nid(memblock: Memblock, nid: int) -> tuple[int, int]:
    """``get_pfn_range_for_nid``: first PFN and end PFN of a node's memory; (0, 0) if it has none."""
    ranges = list(memblock.pfn_ranges(nid))
    return min((r[0] for r in ranges), default=0), max((r[1] for r in ranges), default=0)


def find_min_pfn_for_node(kernel: Kernel, memblock: Memblock, nid: int) -> int:
    """``find_min_pfn_for_node``: the first PFN of a node's memory; 0, and a warning, if it has none."""
    start, end = get_pfn_range_for_nid(memblock, nid)
    if start == end:
        printk(kernel, f"Could not find start_pfn for node {nid}")
    return start


def find_min_pfn_with_active_regions(memblock: Memblock) -> int:
    """``find_min_pfn_with_active_regions``: the first PFN of all memory."""
    return min(start_pfn for start_pfn, _, _ in memblock.pfn_ranges())


def early_pfn_to_nid(memblock: Memblock, pfn: int) -> int:
    """``early_pfn_to_nid``: whose memory a page is; -1 if it is in a hole."""
    return next((nid for start, end, nid in memblock.pfn_ranges() if start <= pfn < end), -1)


def early_pfn_in_nid(memblock: Memblock, nid: int) -> Ranges:
    """``early_pfn_in_nid``: the pages that are not another node's memory, and so may be this one's; holes are."""
    everything = Ranges([(0, 1 << 52)])
    return everything - Ranges((start, end) for start, end, node in memblock.pfn_ranges() if node != nid)


def early_calculate_totalpages(kernel: Kernel, memblock: Memblock) -> int:
    """``early_calculate_totalpages``: pages of all memory; nodes that have some are marked."""
    total = 0
    for start, end, nid in memblock.pfn_ranges():
        total += end - start
        kernel.node_set_state(nid, N_MEMORY)
    return total


def setup_nr_node_ids(kernel: Kernel) -> None:
    """``setup_nr_node_ids``: one more than the highest possible node; without NUMA it is a constant."""
    if kernel.numa:
        kernel.set_var("nr_node_ids", max(kernel.nodes(N_POSSIBLE)) + 1)


def check_for_memory(kernel: Kernel, nid: int) -> None:
    """``check_for_memory``: a node with pages has memory; that is normal memory on 64 bits, where all of it is."""
    if nid in kernel.nodes(N_ONLINE) and kernel.get(kernel.node_data(nid), "pglist_data.node_present_pages"):
        kernel.node_set_state(nid, N_MEMORY)

# SPDX-License-Identifier: GPL-2.0-only
"""ZONE_MOVABLE: the upper end of each node, for pages that can be moved (mm/page_alloc.c).

``kernelcore=`` says how much of memory the kernel may use for what cannot be moved, ``movablecore=`` how much
is for the rest.  ZONE_MOVABLE takes its part away from the highest zone of each node.
"""

from __future__ import annotations

from collections.abc import Iterable

from kernelmm.bringup.kernel import Kernel, Zone
from kernelmm.bringup.memblock import Memblock
from kernelmm.bringup.nodes import early_calculate_totalpages
from kernelmm.bringup.rounding import round_up
from physmem.errors import UsageError

__all__ = [
    "adjust_zone_range_for_zone_movable",
    "find_usable_zone_for_movable",
    "find_zone_movable_pfns_for_nodes",
]

PAGE_SIZE = 4096

_PfnRange = tuple[int, int, int]


def find_usable_zone_for_movable(kernel: Kernel) -> None:
    """``find_usable_zone_for_movable``: ``movable_zone`` is the highest zone that has a range, ZONE_MOVABLE aside."""
    for idx in range(kernel.max_nr_zones - 2, -1, -1):
        if kernel.var("arch_zone_highest_possible_pfn", idx) > kernel.var("arch_zone_lowest_possible_pfn", idx):
            break
    kernel.set_var("movable_zone", idx)


def find_zone_movable_pfns_for_nodes(kernel: Kernel, memblock: Memblock) -> None:
    """``find_zone_movable_pfns_for_nodes``: where ZONE_MOVABLE begins on each node.

    The kernel's share (``kernelcore=``, or all but ``movablecore=``) is spread evenly over the nodes, as far
    as each of them has memory.

    :raises UsageError: ``movablecore=`` is more than there is
    """
    find_usable_zone_for_movable(kernel)
    ranges = list(memblock.pfn_ranges())
    nodes = sorted({nid for _, _, nid in ranges})
    max_order_nr_pages = kernel.layout.constant("MAX_ORDER_NR_PAGES")
    required = _required_kernelcore(kernel, early_calculate_totalpages(kernel, memblock))
    if not required:
        return
    begins = dict.fromkeys(nodes, 0)
    # A node that is too small leaves its share to the others: go round until all is placed.
    for usable_nodes in range(len(nodes), 0, -1):
        share = required // usable_nodes
        for nid in nodes:
            if required < share:
                share = required // usable_nodes
            required, begins[nid] = _spread(kernel, (r for r in ranges if r[2] == nid), begins[nid], required, share)
        if required <= usable_nodes - 1:
            break
    for nid, begin in begins.items():
        kernel.set_var("zone_movable_pfn", round_up(begin, max_order_nr_pages), nid)


def _required_kernelcore(kernel: Kernel, total: int) -> int:
    """What the kernel must have, pages; 0: all."""
    required, movablecore = kernel.var("required_kernelcore"), kernel.var("required_movablecore")
    if not movablecore:
        return required
    movablecore = round_up(movablecore, kernel.layout.constant("MAX_ORDER_NR_PAGES"))
    if movablecore > total:
        raise UsageError(f"movablecore={movablecore * PAGE_SIZE:#x}: the machine has {total * PAGE_SIZE:#x} bytes")
    return max(required, total - movablecore)


def _spread(kernel: Kernel, ranges: Iterable[_PfnRange], begin: int, required: int, share: int) -> tuple[int, int]:
    """Give the kernel up to ``share`` pages of a node from ``begin`` on; what is required then, and where they end."""
    usable_start = kernel.var("arch_zone_lowest_possible_pfn", kernel.var("movable_zone"))
    for start, end, _ in ranges:
        start = max(start, begin)
        if start >= end:
            continue
        # Below the highest zone, everything is the kernel's.
        lower = min(end, max(usable_start, start)) - start
        share -= min(lower, share)
        required -= min(lower, required)
        if end <= usable_start:
            begin = end
            continue
        start += lower
        size = min(end - start, share)
        begin = start + size
        required -= min(required, size)
        share -= size
        if not share:
            break
    return required, begin


def adjust_zone_range_for_zone_movable(
    kernel: Kernel, zone: Zone, start: int, end: int, node_end: int
) -> tuple[int, int]:
    """``adjust_zone_range_for_zone_movable``: a zone's range without what ZONE_MOVABLE takes, or ZONE_MOVABLE's own.

    :param start: first PFN of the zone's range
    :param end: end PFN of it
    :param node_end: end PFN of the node
    """
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

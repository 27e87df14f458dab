# SPDX-License-Identifier: GPL-2.0-only
"""Rules about free blocks: 2^order pages, aligned to their size, and merged where they can be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from physmem.inspect.check.report import Inapplicable, Report
from physmem.inspect.check.subject import Subject
from physmem.inspect.states import Blocks
from physmem.ranges import Ranges

__all__ = [
    "HOLE_RULES",
    "MERGE_RULES",
    "RAM_RULES",
    "RULES",
    "check_blocks",
    "check_holes",
    "check_merges",
    "check_ram",
]

RULES = {
    "block_order": "a free block says the order of its list (page->private)",
    "block_align": "a free block begins at a multiple of its size",
    "block_zone": "a free block ends in the zone it begins in",
    "block_overlap": "no page is in two free blocks",
}
HOLE_RULES = {
    "block_hole": "every page of a free block has a struct page",
}
RAM_RULES = {
    "block_ram": "a free block is in memory, by the kernel's own map (iomem_resource)",
}
MERGE_RULES = {
    "block_merge": "a free block whose buddy is free, and of the same zone, is merged with it",
}


def check_blocks(subject: Subject, report: Report) -> None:
    """The rules that need nothing but the blocks."""
    blocks = subject.blocks
    own = subject.lists.links.pages[subject.format.order][blocks.at]
    wrong = blocks.buddy & (own != blocks.order.astype(np.uint64))
    said = zip(own[wrong], blocks.owner[wrong], strict=True)
    report.add_pages("block_order", blocks.pfn[wrong], (f"private {n}, {subject.whereabouts(o)}" for n, o in said))

    tilted = (blocks.pfn & ((1 << blocks.order) - 1)) != 0
    report.add_pages("block_align", blocks.pfn[tilted], (f"order {order}" for order in blocks.order[tilted]))

    for zone in subject.zones:
        over = (blocks.pfn >= zone.start_pfn) & (blocks.pfn < zone.end_pfn) & (blocks.end > zone.end_pfn)
        end = f"{zone} ends at pfn {zone.end_pfn - 1}"
        report.add_pages("block_zone", blocks.pfn[over], (f"order {order}, {end}" for order in blocks.order[over]))
    if len(blocks.pfn):
        _check_overlap(blocks, report)


def _check_overlap(blocks: Blocks, report: Report) -> None:
    reach = np.maximum.accumulate(blocks.end)
    within = np.flatnonzero(blocks.pfn[1:] < reach[:-1]) + 1
    # Of the blocks so far, the one that reaches this far is the first after which nothing reached further.
    around = np.searchsorted(reach, reach[within - 1])
    outer = zip(blocks.order[around], blocks.pfn[around], strict=True)
    details = (f"inside the block of order {order} at pfn {pfn}" for order, pfn in outer)
    report.add_pages("block_overlap", blocks.pfn[within], details)


def check_merges(subject: Subject, report: Report) -> None:
    """Whether free buddies are merged."""
    blocks = subject.blocks
    layout = subject.dump.layout
    pageblock_order = layout.constant("pageblock_order")
    isolate = layout.enum("migratetype").get("MIGRATE_ISOLATE")
    zones = np.array([each.zone.node << 8 | each.zone.index for each in subject.lists.lists] or [0])
    for order in range(subject.format.max_order - 1):
        sound = blocks.buddy & (blocks.owner >= 0) & (blocks.order == order)
        pfns, zone = blocks.pfn[sound], zones[blocks.owner[sound]]
        first = (pfns[:-1] >> order & 1 == 0) & (np.diff(pfns) == 1 << order) & (np.diff(zone) == 0)
        lower = pfns[:-1][first]
        if isolate is not None and order >= pageblock_order and len(lower):
            # Pageblocks that are isolated are not merged with others.
            types = subject.pageblocks
            upper = lower + (1 << order)
            lower = lower[(types[lower >> pageblock_order] != isolate) & (types[upper >> pageblock_order] != isolate)]
        details = (f"order {order}, as its buddy at pfn {pfn + (1 << order)}" for pfn in lower)
        report.add_pages("block_merge", lower, details)


def check_holes(subject: Subject, report: Report) -> None:
    """Free blocks that reach into holes; behind the last node there are none to be known of."""
    blocks = subject.blocks
    blocks = blocks[blocks.end <= subject.dump.max_pfn]
    _add_outside(blocks, subject.lists.links.array.mapped, "block_hole", "there is no struct page", report)


def check_ram(subject: Subject, report: Report) -> None:
    """Free blocks where there is no memory, or where it is set apart."""
    if "iomem_resource" not in subject.dump.symbols:
        raise Inapplicable("it is not known where this kernel has iomem_resource")
    _add_outside(subject.blocks, subject.ram, "block_ram", "is no System RAM", report)


def _add_outside(blocks: Blocks, inside: Ranges, rule: str, what: str, report: Report) -> None:
    """Name the blocks that are not wholly inside."""
    starts, ends = np.array(list(inside), np.int64).reshape(-1, 2).T
    if not len(starts):
        return
    at = np.maximum(np.searchsorted(starts, blocks.pfn, "right") - 1, 0)
    wrong = (blocks.pfn < starts[at]) | (blocks.end > ends[at])
    details = (f"order {order}: from pfn {pfn} on {what}" for order, pfn in _where(blocks[wrong], starts, ends))
    report.add_pages(rule, blocks.pfn[wrong], details)


def _where(blocks: Blocks, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Order of each block, and its first page that is not inside."""
    at = np.maximum(np.searchsorted(starts, blocks.pfn, "right") - 1, 0)
    first = np.where(blocks.pfn < starts[at], blocks.pfn, np.maximum(blocks.pfn, ends[at]))
    yield from zip(blocks.order.tolist(), first.tolist(), strict=True)

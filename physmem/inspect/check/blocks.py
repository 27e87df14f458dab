# SPDX-License-Identifier: GPL-2.0-only
"""Rules about free blocks: 2^order pages, aligned to their size, and merged where they can be."""

from __future__ import annotations

import numpy as np

from physmem.inspect.check.report import Report
from physmem.inspect.check.subject import Subject
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.states import Blocks

__all__ = ["MERGE_RULES", "RULES", "check_blocks", "check_merges"]

RULES = {
    "block_order": "a free block says the order of its list (page->private)",
    "block_align": "a free block begins at a multiple of its size",
    "block_zone": "a free block ends in the zone it begins in",
    "block_overlap": "no page is in two free blocks",
}
MERGE_RULES = {
    "block_merge": "a free block whose buddy is free, and of the same zone, is merged with it",
}


def check_blocks(subject: Subject, report: Report) -> None:
    """The rules that need nothing but the blocks."""
    blocks = subject.blocks
    own = subject.lists.links.pages[PageFormat.ORDER][blocks.at]
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

# SPDX-License-Identifier: GPL-2.0-only
"""Rules about mobility: the migratetype of pageblocks, lists and single free pages.

Less is forbidden than one would think.  An allocation that falls back on another mobility moves
free blocks to lists of a type that their pageblock does not have; blocks that merge come from
pageblocks of two types; and ``page->index`` of a block that was split is whatever it was before.
What stays apart in a healthy 4.0 is CMA (no other allocation may get stuck there), pages that are
isolated, and which pages a per-cpu list may hold (mm/page_alloc.c: __rmqueue_fallback,
free_hot_cold_page, rmqueue_bulk).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from physmem.inspect.check.report import Inapplicable, Report
from physmem.inspect.check.subject import Subject

__all__ = [
    "CMA_RULES",
    "ISOLATE_RULES",
    "PCP_RULES",
    "TYPE_RULES",
    "check_cma_lists",
    "check_isolate_lists",
    "check_pageblock_types",
    "check_pcp_types",
]

_Types: TypeAlias = npt.NDArray[np.int16]

TYPE_RULES = {
    "pageblock_type": "a pageblock has a migratetype that the kernel knows",
}
CMA_RULES = {
    "cma_list": "a free block is on a CMA list if its pageblocks are CMA, and not if none of them is",
}
ISOLATE_RULES = {
    "isolate_list": "a free block on an isolated list is in an isolated pageblock",
}
PCP_RULES = {
    "pcp_migratetype": "a page on a per-cpu list has its migratetype (page->index), or one that may be there",
}


def check_pageblock_types(subject: Subject, report: Report) -> None:
    """Three bits can say more than there are migratetypes."""
    types = subject.pageblocks
    subject.skip_absent_pageblocks(report, TYPE_RULES)
    wrong = np.flatnonzero(types >= subject.migratetype("MIGRATE_TYPES"))
    order = subject.dump.layout.constant("pageblock_order")
    report.add_pages("pageblock_type", wrong << order, (f"migratetype {types[i]}" for i in wrong))


def check_cma_lists(subject: Subject, report: Report) -> None:
    """CMA lists and CMA pageblocks."""
    cma = subject.migratetype("MIGRATE_CMA")
    subject.skip_absent_pageblocks(report, CMA_RULES)
    first, last, listed = _types(subject)
    outside = (listed == cma) & (first != cma) & (last != cma)
    astray = (listed != cma) & (first == cma) & (last == cma)
    _add_blocks(subject, report, "cma_list", outside | astray)


def check_isolate_lists(subject: Subject, report: Report) -> None:
    """Isolated lists; a free block of an isolated pageblock on another list does happen in a healthy kernel."""
    isolate = subject.migratetype("MIGRATE_ISOLATE")
    subject.skip_absent_pageblocks(report, ISOLATE_RULES)
    first, last, listed = _types(subject)
    _add_blocks(subject, report, "isolate_list", (listed == isolate) & (first != isolate) & (last != isolate))


def check_pcp_types(subject: Subject, report: Report) -> None:
    """Pages of the reserve are kept with any others, CMA pages with movable ones, isolated ones never.

    Since 4.4 there is no reserve: whatever has no list of its own, as HighAtomic, is with the movable ones.
    """
    if subject.dump.release >= (6, 10) or not subject.format.index:
        raise Inapplicable("this kernel does not keep the migratetype in a free page")
    subject.need_pagesets()
    enum = subject.dump.layout.enum("migratetype")
    lists = subject.lists
    homeless = [enum[name] for name in ("MIGRATE_HIGHATOMIC", "MIGRATE_CMA") if name in enum]
    for number, each in enumerate(lists.lists):
        if each.cpu is None or each.migratetype is None:
            continue
        members = lists.members[number]
        index = lists.links.pages[subject.format.index][members]
        right = index == each.migratetype
        if "MIGRATE_RESERVE" in enum:
            right |= index == enum["MIGRATE_RESERVE"]
        if each.migratetype == enum["MIGRATE_MOVABLE"]:
            right |= np.isin(index, homeless)
        details = (f"index {i:#x}, on the list {each.name}" for i in index[~right].tolist())
        report.add_pages("pcp_migratetype", lists.pfns(number)[~right], details)


def _types(subject: Subject) -> tuple[_Types, _Types, _Types]:
    """Of every block on a free list: the migratetype of its first and last pageblock and that of the list.

    Where the pageblocks have no known type, and for pages that are on no free list, all three are -1.
    """
    blocks = subject.blocks
    order = subject.dump.layout.constant("pageblock_order")
    types = subject.pageblocks
    first = types[blocks.pfn >> order]
    last = types[np.minimum(blocks.end - 1 >> order, len(types) - 1)]
    lists = subject.lists.lists
    free = [each.migratetype if each.cpu is None and each.migratetype is not None else -1 for each in lists] or [-1]
    listed = np.where(blocks.owner >= 0, np.array(free, np.int16)[blocks.owner], np.int16(-1))
    known = (first >= 0) & (last >= 0) & (listed >= 0)
    return tuple(np.where(known, each, np.int16(-1)) for each in (first, last, listed))  # type: ignore[return-value]


def _add_blocks(subject: Subject, report: Report, rule: str, wrong: npt.NDArray[np.bool_]) -> None:
    blocks = subject.blocks
    names = subject.format.migratetypes
    first = subject.pageblocks[blocks.pfn[wrong] >> subject.dump.layout.constant("pageblock_order")]
    where = zip(first, blocks.owner[wrong], strict=True)
    details = (f"pageblock is {names[kind]}, {subject.whereabouts(owner)}" for kind, owner in where)
    report.add_pages(rule, blocks.pfn[wrong], details)

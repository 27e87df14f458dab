# SPDX-License-Identifier: GPL-2.0-only
"""Rules about the lists of free pages: that they are lists, and what is on them."""

from __future__ import annotations

import numpy as np

from physmem.inspect.check.report import Report
from physmem.inspect.check.subject import Subject

__all__ = ["RULES", "check_lists"]

RULES = {
    "page_array": "no two parts of the page array are the same memory",
    "list_link": "a link of a list leads to a page of the page array, or to the list head",
    "list_broken": "the next entry of a list leads back to this one",
    "list_cycle": "a list ends at its head",
    "two_lists": "a page is on one list only",
    "list_zone": "a page on a list of a zone is spanned by the zone",
    "buddy_without_list": "a page marked as a free block (PageBuddy) is on a free list",
    "free_without_buddy": "a page on a free list is marked as a free block",
    "pcp_buddy": "a page on a per-cpu list is not marked as a free block",
}


def check_lists(subject: Subject, report: Report) -> None:
    """Every rule of this room."""
    lists = subject.lists
    for found in lists.breaks:
        if found.rule == "absent":
            report.skip(RULES, found.detail)
        else:
            report.add(found.rule, found.detail, found.pfn)
    for number, each in enumerate(lists.lists):
        pfns = lists.pfns(number)
        outside = pfns[(pfns < each.zone.start_pfn) | (pfns >= each.zone.end_pfn)]
        report.add_pages("list_zone", outside, (f"on the list {each.name}" for _ in outside))

    blocks = subject.blocks
    listed = blocks.owner >= 0
    is_pcp = listed & np.array([each.cpu is not None for each in lists.lists] or [False])[blocks.owner]
    lost = blocks.buddy & ~listed
    report.add_pages("buddy_without_list", blocks.pfn[lost], (f"order {order}" for order in blocks.order[lost]))
    for rule, where in (
        ("free_without_buddy", ~blocks.buddy & ~is_pcp),
        ("pcp_buddy", blocks.buddy & is_pcp),
    ):
        report.add_pages(rule, blocks.pfn[where], (subject.whereabouts(owner) for owner in blocks.owner[where]))

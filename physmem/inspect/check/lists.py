# SPDX-License-Identifier: GPL-2.0-only
"""Rules about the lists of free pages: that they are lists, and what is on them."""

from __future__ import annotations

import numpy as np

from physmem.inspect.check.report import Report
from physmem.inspect.check.subject import Subject

__all__ = [
    "LINK_RULES",
    "MARK_RULES",
    "PCP_RULES",
    "ZONE_RULES",
    "check_links",
    "check_marks",
    "check_page_zones",
    "check_pcp_lists",
]

LINK_RULES = {
    "list_link": "a link of a list leads to a page of the page array, or to the list head",
    "list_broken": "the next entry of a list leads back to this one",
    "list_cycle": "a list ends at its head",
    "two_lists": "a page is on one list only",
    "list_zone": "a page on a list of a zone is spanned by the zone",
}
ZONE_RULES = {
    "list_page_zone": "a page on a list of a zone names this zone itself (page->flags)",
}
MARK_RULES = {
    "buddy_without_list": "a page marked as a free block (PageBuddy) is on a free list",
    "free_without_buddy": "a page on a free list is marked as a free block",
}
PCP_RULES = {
    "pcp_buddy": "a page on a per-cpu list is not marked as a free block",
}


def check_links(subject: Subject, report: Report) -> None:
    """Whether lists are lists, and of pages of their zone."""
    lists = subject.lists
    for found in lists.breaks:
        if found.rule == "absent":
            report.skip({**LINK_RULES, **MARK_RULES, **PCP_RULES}, found.detail)
        else:
            report.add(found.rule, found.detail, found.pfn)
    for number, each in enumerate(lists.lists):
        pfns = lists.pfns(number)
        outside = pfns[(pfns < each.zone.start_pfn) | (pfns >= each.zone.end_pfn)]
        report.add_pages("list_zone", outside, (f"on the list {each.name}" for _ in outside))


def check_page_zones(subject: Subject, report: Report) -> None:
    """Lists that lead from one zone into another; zones of different nodes may span the same pages."""
    lists, form = subject.lists, subject.format
    members = np.flatnonzero(lists.owner >= 0)
    pfns, owners = lists.links.pfns[members], lists.owner[members]
    flags = lists.links.array.gather(["flags"], pfns)["flags"]
    ids = np.array([(each.zone.node, each.zone.index) for each in lists.lists] or [(0, 0)], np.uint64)
    nodes, zones = form.node(flags), form.zone(flags)
    wrong = np.flatnonzero((nodes != ids[owners, 0]) | (zones != ids[owners, 1]))
    details = (f"says node {nodes[i]} zone {zones[i]}, {subject.whereabouts(int(owners[i]))}" for i in wrong)
    report.add_pages("list_page_zone", pfns[wrong], details)


def check_marks(subject: Subject, report: Report) -> None:
    """Whether what is on free lists is marked as free, and the reverse."""
    blocks = subject.blocks
    lost = blocks[blocks.buddy & (blocks.owner < 0)]
    report.add_pages("buddy_without_list", lost.pfn, (f"order {order}" for order in lost.order))
    bare = blocks[~blocks.buddy & ~subject.is_pcp]
    report.add_pages("free_without_buddy", bare.pfn, (subject.whereabouts(owner) for owner in bare.owner))


def check_pcp_lists(subject: Subject, report: Report) -> None:
    """The per-cpu lists, which are checked with the others if their pagesets can be read."""
    subject.need_pagesets()
    wrong = subject.blocks[subject.blocks.buddy & subject.is_pcp]
    report.add_pages("pcp_buddy", wrong.pfn, (subject.whereabouts(owner) for owner in wrong.owner))

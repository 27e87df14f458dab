# SPDX-License-Identifier: GPL-2.0-only
"""Rules about every page: its zone and node, and what a free page must not have.

The page array is read once more, in pieces.  The kernel itself makes these checks of a free page
when it is freed and when it is next allocated (free_pages_check, check_new_page).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from physmem.errors import AbsentError, AddressError, CorruptionError, LayoutError, SymbolError
from physmem.inspect.check.report import Report
from physmem.inspect.check.subject import Subject

__all__ = ["RULES", "check_pages"]

RULES = {
    "page_zone": "a page's flags name the node and zone that span it",
    "free_count": "a free page has no reference",
    "free_mapcount": "a free page is not mapped",
    "free_mapping": "a free page belongs to no mapping",
    "free_flags": "a free page has none of the PG_* flags",
}


def check_pages(subject: Subject, report: Report) -> None:
    """Every rule of this room."""
    array = subject.lists.links.array
    absent = array.mapped.difference(array.present)
    if absent:
        report.skip(RULES, f"{absent.total()} struct pages, from pfn {next(iter(absent))[0]} on, are not in the image")
    _skip_unmapped(subject, report)
    for start, pages in array.scan(["flags", "mapping", subject.format.count, subject.format.mapcount]):
        _check_zones(subject, report, start, pages)
        _check_free(subject, report, start, pages)


def _skip_unmapped(subject: Subject, report: Report) -> None:
    """Name the memory that is claimed and has no page array: no healthy kernel has any."""
    mapped, top = subject.lists.links.array.mapped, subject.dump.max_pfn
    if mapped.end < top:
        report.skip(RULES, f"the nodes reach up to pfn {top:#x}, the page array to pfn {mapped.end:#x}")
    for zone in subject.zones:
        there = mapped.clip(zone.start_pfn, zone.end_pfn).total()
        if there < zone.present:
            report.skip(RULES, f"{zone} has {zone.present} pages present, {there} of them in the page array")


def _check_zones(subject: Subject, report: Report, start: int, pages: npt.NDArray[np.void]) -> None:
    nodes, zones = subject.format.node(pages["flags"]), subject.format.zone(pages["flags"])
    spanned = np.zeros(len(pages), bool)
    right = np.zeros(len(pages), bool)
    for zone in subject.zones:
        # Zones of different nodes may interleave: any that spans the page will do.
        here = slice(max(0, zone.start_pfn - start), max(0, zone.end_pfn - start))
        spanned[here] = True
        right[here] |= (nodes[here] == zone.node) & (zones[here] == zone.index)
    wrong = np.flatnonzero(spanned & ~right)
    wrong = wrong[~_unavailable(subject, wrong + start, pages["flags"][wrong], nodes[wrong], zones[wrong])]
    details = (f"flags {pages['flags'][i]:#x}: node {nodes[i]} zone {zones[i]}" for i in wrong)
    report.add_pages("page_zone", wrong + start, details)


def _unavailable(
    subject: Subject,
    pfns: npt.NDArray[np.int64],
    flags: npt.NDArray[np.uint64],
    nodes: npt.NDArray[np.uint64],
    zones: npt.NDArray[np.uint64],
) -> npt.NDArray[np.bool_]:
    """Which pages are as init_unavailable_range() leaves those of a hole: reserved, and of another zone by right.

    That is the zone of the memory behind the hole, or at the end of all memory, of that before (since 5.12); before
    that, the first zone of node 0.  Where it is not known what is memory, there are no holes.
    """
    found = np.zeros(len(pfns), bool)
    if not len(pfns):
        return found
    try:
        holes = subject.ram.complement()
    except (AbsentError, AddressError, CorruptionError, LayoutError, SymbolError):
        return found
    reserved = (flags & np.uint64(subject.format.mask("PG_reserved"))) != 0
    for start, end in holes:
        first, last = np.searchsorted(pfns, [start, end])
        if first == last:
            continue
        beside = end if end in subject.ram else start - 1
        here = slice(first, last)
        rightly = (nodes[here] == 0) & (zones[here] == 0)
        for zone in subject.zones:
            if zone.start_pfn <= beside < zone.end_pfn:
                rightly |= (nodes[here] == zone.node) & (zones[here] == zone.index)
        found[here] = rightly & reserved[here]
    return found


def _check_free(subject: Subject, report: Report, start: int, pages: npt.NDArray[np.void]) -> None:
    free = subject.blocks.cover(start, len(pages))
    count, mapcount = pages[subject.format.count], pages[subject.format.mapcount]
    flags = pages["flags"] & np.uint64(subject.format.checked_flags)
    # Whether a page is rightly marked as a free block is for other rules to say.
    mapped = (mapcount != -1) & ~subject.format.buddy(pages)
    for rule, what, wrong in (
        ("free_count", f"{subject.format.count} {{count}}", count != 0),
        ("free_mapcount", f"{subject.format.mapcount} {{mapcount}}", mapped),
        ("free_mapping", "mapping {mapping:#x}", pages["mapping"] != 0),
        ("free_flags", "flags {flags}", flags != 0),
    ):
        where = np.flatnonzero(free & wrong)
        details = (
            what.format(
                count=count[i],
                mapcount=mapcount[i],
                mapping=int(pages["mapping"][i]),
                flags="|".join(subject.format.flag_names(int(flags[i]))),
            )
            for i in where
        )
        report.add_pages(rule, where + start, details)

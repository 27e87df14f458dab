# SPDX-License-Identifier: GPL-2.0-only
"""Rules about what is counted: blocks, free pages, per-cpu pages, isolated pageblocks, statistics.

A zone's statistic is its ``vm_stat`` plus what each CPU has not folded in yet.  Free pages of
isolated pageblocks are on lists but do not count as free (mm/page_isolation.c).

Linux 4.0 itself miscounts both kinds of isolation when it isolates one half of a free block of
two pageblocks and the block is then merged, split or taken over: what is found then is true, and
no damage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from physmem.inspect.check.report import Report
from physmem.inspect.check.subject import Subject
from physmem.inspect.sections import ABSENT
from physmem.inspect.zoneformat import ZoneFormat
from physmem.inspect.zones import Zone

__all__ = [
    "BLOCK_RULES",
    "CMA_RULES",
    "GLOBAL_RULES",
    "ISOLATE_RULES",
    "PAGE_RULES",
    "check_cma",
    "check_free_blocks",
    "check_free_pages",
    "check_global",
    "check_isolated",
]

BLOCK_RULES = {
    "nr_free": "a zone counts as many free blocks of each order as are on its lists",
}
PAGE_RULES = {
    "nr_free_pages": "a zone counts as many free pages (NR_FREE_PAGES) as are on its lists and not isolated",
    "pcp_count": "a pageset counts as many pages as are on its lists",
}
CMA_RULES = {
    "nr_free_cma": "a zone counts as many free CMA pages (NR_FREE_CMA_PAGES) as are on its CMA lists",
}
ISOLATE_RULES = {
    "nr_isolate_pageblock": "a zone counts as many isolated pageblocks as it has",
}
GLOBAL_RULES = {
    "vm_stat": "each global statistic is the sum of the zones' (or nodes')",
}


def check_free_blocks(subject: Subject, report: Report) -> None:
    """``free_area[order].nr_free``."""
    for _, zone in _whole_zones(subject, report, BLOCK_RULES):
        for order, said in enumerate(zone.nr_free):
            found = int(subject.on_lists(zone)[order].sum())
            if said != found:
                report.add("nr_free", f"{zone} order {order}: nr_free {said}, {found} on the lists")


def check_free_pages(subject: Subject, report: Report) -> None:
    """What needs the per-cpu pagesets: NR_FREE_PAGES, and the pages on them."""
    isolate = subject.dump.layout.enum("migratetype").get("MIGRATE_ISOLATE")
    for number, zone in _whole_zones(subject, report, PAGE_RULES):
        pages = _pages(subject, zone)
        found = int(pages.sum() - (0 if isolate is None else pages[isolate]))
        # Memory that the machine has not accepted yet (since 6.5) is free, and on a list of its own.
        found += _stat(subject, number, "NR_UNACCEPTED") if "NR_UNACCEPTED" in zone.vm_stat else 0
        _compare_stat(subject, report, "nr_free_pages", number, "NR_FREE_PAGES", found)
        for pageset in subject.pagesets[number]:
            listed = subject.on_pcp_lists(zone, pageset.cpu)
            if pageset.count != listed:
                detail = f"{zone} CPU {pageset.cpu}: count {pageset.count}, {listed} on the lists"
                report.add("pcp_count", detail)


def check_cma(subject: Subject, report: Report) -> None:
    """NR_FREE_CMA_PAGES."""
    cma = subject.migratetype("MIGRATE_CMA")
    for number, zone in _whole_zones(subject, report, CMA_RULES):
        _compare_stat(subject, report, "nr_free_cma", number, "NR_FREE_CMA_PAGES", int(_pages(subject, zone)[cma]))


def check_isolated(subject: Subject, report: Report) -> None:
    """``nr_isolate_pageblock``."""
    isolate = subject.migratetype("MIGRATE_ISOLATE")
    subject.skip_absent_pageblocks(report, ISOLATE_RULES)
    for zone in subject.zones:
        types = subject.pageblocks_of(zone)
        found = int((types == isolate).sum())
        if zone.nr_isolate_pageblock != found and not (types == ABSENT).any():
            detail = f"{zone}: nr_isolate_pageblock {zone.nr_isolate_pageblock}, {found} isolated"
            report.add("nr_isolate_pageblock", detail)


def check_global(subject: Subject, report: Report) -> None:
    """The global statistics: whatever one of a zone or node is changed by, the global one is too."""
    zones = [zone for node in subject.nodes for zone in node.zones]
    form = ZoneFormat(subject.dump.layout)
    # Of one table before 4.8, of two until 4.13, three since.
    split = bool(form.node_stats())
    tables = [("vm_zone_stat" if split else "vm_stat", form.zone_stats(), [zone.vm_stat for zone in zones], "zones")]
    if split:
        tables.append(("vm_node_stat", form.node_stats(), [node.vm_stat for node in subject.nodes], "nodes"))
    if form.numa:
        tables.append((form.numa, form.numa_stats(), [zone.numa_stat for zone in zones], "zones"))
    for symbol, items, parts, where in tables:
        at = subject.dump.virt_to_phys(subject.dump.symbols[symbol])
        said = subject.dump.memory.array(at, np.int64, len(items)).tolist()
        for item, value in zip(items, said, strict=True):
            found = sum(part[item] for part in parts)
            if value != found:
                report.add("vm_stat", f"{item}: {value}, {found} in the {where}")


def _whole_zones(subject: Subject, report: Report, rules: Mapping[str, str]) -> Iterator[tuple[int, Zone]]:
    """The zones whose lists could all be followed; of the others the rules are not checked."""
    for number, zone in enumerate(subject.zones):
        absent = [found.detail for found in subject.lists.breaks if found.rule == "absent" and found.list.zone is zone]
        if absent:
            report.skip(rules, absent[0])
        else:
            yield number, zone


def _pages(subject: Subject, zone: Zone) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Pages on the zone's free lists, by migratetype."""
    blocks = subject.on_lists(zone)
    pages: np.ndarray[tuple[int], np.dtype[np.int64]] = (blocks << np.arange(len(blocks))[:, None]).sum(axis=0)
    return pages


def _stat(subject: Subject, number: int, item: str) -> int:
    pending = sum(pageset.vm_stat_diff.get(item, 0) for pageset in subject.pagesets[number])
    return subject.zones[number].vm_stat[item] + pending


def _compare_stat(subject: Subject, report: Report, rule: str, number: int, item: str, found: int) -> None:
    zone = subject.zones[number]
    pending = sum(pageset.vm_stat_diff.get(item, 0) for pageset in subject.pagesets[number])
    if zone.vm_stat[item] + pending != found:
        said = f"{zone.vm_stat[item]} and {pending} of CPUs" if pending else str(zone.vm_stat[item])
        report.add(rule, f"{zone}: {item} {said}, {found} on the lists")

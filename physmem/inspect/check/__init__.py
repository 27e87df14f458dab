# SPDX-License-Identifier: GPL-2.0-only
"""Is the allocator's state in this memory what it should be?

A rule is something that is true of every healthy kernel.  :func:`check` looks at all of them,
changes nothing, stops at nothing, and says what is wrong, page by page; a rule that it could not
look at, because what it needs is not in the image, it names as not checked.  The rules, each in
the room of its subject, are gathered in :data:`RULES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from physmem.dump import Dump
from physmem.errors import AbsentError, AddressError, CorruptionError, LayoutError, SymbolError, UnsupportedError
from physmem.inspect.check import blocks, counters, lists, mobility, pages, spans
from physmem.inspect.check.report import Finding, Inapplicable, Report
from physmem.inspect.check.subject import Subject

__all__ = ["RULES", "Finding", "Report", "check"]

#: Rules that any check may come across.
_GENERAL = {
    "pointer": "a pointer in a node, zone or section leads to memory",
    "cpu_online": "some CPU is online",
    "page_array": "no two parts of the page array are the same memory",
}

_CHECKS: tuple[tuple[Callable[[Subject, Report], None], Mapping[str, str]], ...] = (
    (spans.check_spans, spans.RULES),
    (lists.check_links, lists.LINK_RULES),
    (lists.check_page_zones, lists.ZONE_RULES),
    (lists.check_marks, lists.MARK_RULES),
    (lists.check_pcp_lists, {**lists.LINK_RULES, **lists.PCP_RULES}),
    (blocks.check_blocks, blocks.RULES),
    (blocks.check_merges, blocks.MERGE_RULES),
    (blocks.check_holes, blocks.HOLE_RULES),
    (blocks.check_ram, blocks.RAM_RULES),
    (pages.check_pages, pages.RULES),
    (counters.check_free_blocks, counters.BLOCK_RULES),
    (counters.check_free_pages, counters.PAGE_RULES),
    (counters.check_cma, counters.CMA_RULES),
    (counters.check_isolated, counters.ISOLATE_RULES),
    (counters.check_global, counters.GLOBAL_RULES),
    (mobility.check_pageblock_types, mobility.TYPE_RULES),
    (mobility.check_cma_lists, mobility.CMA_RULES),
    (mobility.check_isolate_lists, mobility.ISOLATE_RULES),
    (mobility.check_pcp_types, mobility.PCP_RULES),
)

#: Every rule, by name: what is true where it is kept.
RULES: Mapping[str, str] = MappingProxyType(
    _GENERAL | {name: meaning for _, rules in _CHECKS for name, meaning in rules.items()}
)


def check(dump: Dump) -> Report:
    """Look for everything that is wrong with the page array, the zones and the free lists."""
    subject = Subject(dump)
    report = Report()
    for examine, rules in _CHECKS:
        try:
            examine(subject, report)
        except Inapplicable as error:
            report.not_applicable |= dict.fromkeys(rules, str(error))
        except (AbsentError, SymbolError, LayoutError, UnsupportedError) as error:
            report.skip(rules, str(error))
        except AddressError as error:
            report.add_once("pointer", str(error))
            report.skip(rules, str(error))
        except CorruptionError as error:
            report.add_once(error.rule, error.detail)
            report.skip(rules, str(error))
    return report

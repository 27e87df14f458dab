# SPDX-License-Identifier: GPL-2.0-only
"""What the rules look at: the allocator's state, read from the dump when a rule first asks for it.

Whatever is absent raises where it is asked for, again and again: the rules that need it are not
checked, the others are.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np
import numpy.typing as npt

from physmem.dump import Dump
from physmem.inspect.check.report import Inapplicable, Report
from physmem.inspect.freelist import FreeLists, read_lists
from physmem.inspect.iomem import system_ram
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.sections import ABSENT, pageblock_types
from physmem.inspect.states import Blocks
from physmem.inspect.zones import Node, Pageset, Zone, nodes, pagesets
from physmem.ranges import Ranges

__all__ = ["Subject"]


class Subject:
    """A dump under check."""

    def __init__(self, dump: Dump) -> None:
        self.dump = dump
        self.format = PageFormat(dump.layout)

    @cached_property
    def nodes(self) -> list[Node]:
        """All nodes."""
        return nodes(self.dump)

    @cached_property
    def zones(self) -> list[Zone]:
        """The populated zones."""
        return [zone for node in self.nodes for zone in node.zones if zone.populated]

    @cached_property
    def pagesets(self) -> list[list[Pageset]]:
        """Of each populated zone, the online CPUs' pagesets."""
        return [pagesets(self.dump, zone) for zone in self.zones]

    def need_pagesets(self) -> None:
        """Raise what reading the pagesets raises: without them, the per-cpu lists are not among the lists."""
        _ = self.pagesets

    @cached_property
    def lists(self) -> FreeLists:
        """All free lists, and the per-cpu lists if they can be read."""
        return read_lists(self.dump, self.zones)

    @cached_property
    def blocks(self) -> Blocks:
        """All free memory that is on a list or marked as free."""
        return Blocks.of(self.lists)

    @cached_property
    def is_pcp(self) -> npt.NDArray[np.bool_]:
        """Which of the blocks are pages of a per-cpu list."""
        per_cpu = np.array([each.cpu is not None for each in self.lists.lists] or [False])
        found: npt.NDArray[np.bool_] = per_cpu[self.blocks.owner] & (self.blocks.owner >= 0)
        return found

    @cached_property
    def ram(self) -> Ranges:
        """The PFNs that are memory, by the kernel's own map; raises as :func:`system_ram` does."""
        # A page that is only in part memory is not given to the allocator.
        return Ranges((-(-start >> 12), end >> 12) for start, end in system_ram(self.dump) if end - start >= 1 << 13)

    @cached_property
    def pageblocks(self) -> npt.NDArray[np.int16]:
        """The migratetype of every pageblock."""
        return pageblock_types(self.dump, partial=True)

    def migratetype(self, name: str) -> int:
        """A migratetype that not every kernel has, as in ``MIGRATE_CMA``; raises Inapplicable."""
        types = self.dump.layout.enum("migratetype")
        if name not in types:
            raise Inapplicable(f"this kernel has no {name}")
        return types[name]

    def skip_absent_pageblocks(self, report: Report, rules: Iterable[str]) -> None:
        """Say that rules are not checked for the pageblocks whose flags are not in the image."""
        absent = int((self.pageblocks == ABSENT).sum())
        if absent:
            report.skip(rules, f"the flags of {absent} pageblocks are not in the image")

    def pageblocks_of(self, zone: Zone) -> npt.NDArray[np.int16]:
        """The migratetypes of the pageblocks that a zone spans, in whole or in part."""
        order = self.dump.layout.constant("pageblock_order")
        return self.pageblocks[zone.start_pfn >> order : (zone.end_pfn - 1 >> order) + 1]

    def on_lists(self, zone: Zone) -> npt.NDArray[np.int64]:
        """Blocks on the zone's free lists, by order and migratetype."""
        found = np.zeros((len(zone.free_lists), len(zone.free_lists[0])), np.int64)
        for each, members in zip(self.lists.lists, self.lists.members, strict=True):
            if each.zone is zone and each.cpu is None and each.migratetype is not None:
                found[each.order, each.migratetype] = len(members)
        return found

    def on_pcp_lists(self, zone: Zone, cpu: int) -> int:
        """Pages on a CPU's lists of the zone."""
        lists = zip(self.lists.lists, self.lists.members, strict=True)
        return sum(len(members) << each.order for each, members in lists if each.zone is zone and each.cpu == cpu)

    def whereabouts(self, owner: int) -> str:
        """Where a block is, in words, given the number of its list."""
        return "on no list" if owner < 0 else f"on the list {self.lists.lists[owner].name}"

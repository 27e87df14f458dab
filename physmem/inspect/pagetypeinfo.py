# SPDX-License-Identifier: GPL-2.0-only
"""``/proc/pagetypeinfo``: free blocks and pageblocks by migratetype (mm/vmstat.c: pagetypeinfo_show).

Free blocks are counted by walking the lists, pageblocks by their flags.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from physmem.dump import Dump
from physmem.inspect.freelist import Break, FreeLists, free_lists
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.sections import pageblock_types
from physmem.inspect.zones import Zone, populated_zones

__all__ = ["PageTypeInfo", "PageTypes", "pagetypeinfo"]


@dataclass(frozen=True)
class PageTypes:
    """A zone's free memory by migratetype.

    :ivar free: blocks on the free lists, by migratetype and order
    :ivar pageblocks: pageblocks, by migratetype
    """

    zone: Zone
    free: npt.NDArray[np.int64]
    pageblocks: npt.NDArray[np.int64]


@dataclass(frozen=True)
class PageTypeInfo:
    """What the file says.

    :ivar migratetypes: names of the migratetypes
    :ivar breaks: where a list could not be followed, so that its count may be too low
    """

    migratetypes: tuple[str, ...]
    pageblock_order: int
    zones: tuple[PageTypes, ...]
    breaks: tuple[Break, ...]

    def text(self) -> str:
        """The text of the file, byte for byte."""
        nodes: dict[int, list[PageTypes]] = {}
        for each in self.zones:
            nodes.setdefault(each.zone.node, []).append(each)
        return "".join(map(self._node_text, nodes.values()))

    def _node_text(self, zones: list[PageTypes]) -> str:
        lines = [
            f"Page block order: {self.pageblock_order}",
            f"Pages per block:  {1 << self.pageblock_order}",
            "",
            f"{'Free pages count per migrate type at order':43} {_row(range(zones[0].free.shape[1]), 6)}",
        ]
        for each in zones:
            for name, blocks in zip(self.migratetypes, each.free.tolist(), strict=True):
                zone = each.zone
                lines.append(f"Node {zone.node:4}, zone {zone.name:>8}, type {name:>12} {_row(blocks, 6)}")
        lines += ["", f"{'Number of blocks type ':23}{_row(self.migratetypes, 12)}"]
        for each in zones:
            lines.append(f"Node {each.zone.node}, zone {each.zone.name:>8} {_row(each.pageblocks.tolist(), 12)}")
        return "\n".join(lines) + "\n"


def _row(values: Iterable[object], width: int) -> str:
    return "".join(f"{value:>{width}} " for value in values)


def pagetypeinfo(dump: Dump) -> PageTypeInfo:
    """Count free blocks and pageblocks by migratetype.

    :raises AbsentError: the flags of some pageblock are not in the image
    """
    page_format = PageFormat(dump.layout)
    names = page_format.migratetypes
    zones = list(populated_zones(dump))
    lists = FreeLists(dump, [each for zone in zones for each in free_lists(zone, names)])
    counts = iter([len(members) for members in lists.members])
    types = pageblock_types(dump)
    order = dump.layout.constant("pageblock_order")
    found = []
    for zone in zones:
        blocks = [[next(counts) for _ in heads] for heads in zone.free_lists]
        # The kernel looks at every pageblock_nr_pages-th page of the zone, from its first on.
        start, end = (min(pfn, dump.max_pfn) for pfn in (zone.start_pfn, zone.end_pfn))
        here = types[np.arange(start, end, 1 << order) >> order]
        known = here[(here >= 0) & (here < len(names))]
        found.append(PageTypes(zone, np.array(blocks).T, np.bincount(known, minlength=len(names))))
    return PageTypeInfo(names, order, tuple(found), tuple(lists.breaks))

# SPDX-License-Identifier: GPL-2.0-only
"""``/proc/pagetypeinfo``: free blocks and pageblocks by migratetype (mm/vmstat.c: pagetypeinfo_show).

Free blocks are counted by walking the lists, pageblocks by their flags.  Since 5.4 the kernel
stops counting a list at 100000, and writes ``>100000``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from physmem.dump import Dump
from physmem.inspect.freelist import Break, FreeLists, free_lists
from physmem.inspect.memmap import PageArray
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.sections import pageblock_types
from physmem.inspect.zones import Zone, populated_zones

__all__ = ["PageTypeInfo", "PageTypes", "pagetypeinfo"]

#: Where the kernel stops counting the blocks of a list.
_MOST = 100_000


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
    :ivar capped: whether the kernel itself stops counting at 100000
    """

    migratetypes: tuple[str, ...]
    pageblock_order: int
    zones: tuple[PageTypes, ...]
    breaks: tuple[Break, ...]
    capped: bool = False

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
                lines.append(f"Node {zone.node:4}, zone {zone.name:>8}, type {name:>12} {self._blocks(blocks)}")
        lines += ["", f"{'Number of blocks type ':23}{_row(self.migratetypes, 12)}"]
        for each in zones:
            lines.append(f"Node {each.zone.node}, zone {each.zone.name:>8} {_row(each.pageblocks.tolist(), 12)}")
        return "\n".join(lines) + "\n"

    def _blocks(self, blocks: list[int]) -> str:
        if not self.capped:
            return _row(blocks, 6)
        return "".join(f"{count:6} " if count < _MOST else f">{_MOST:6} " for count in blocks)


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
    checks_zone = dump.release >= (4, 7)
    found = []
    for zone in zones:
        blocks = [[next(counts) for _ in heads] for heads in zone.free_lists]
        # The kernel looks at every pageblock_nr_pages-th page of the zone, from its first on.
        start, end = (min(pfn, dump.max_pfn) for pfn in (zone.start_pfn, zone.end_pfn))
        pfns = np.arange(start, end, 1 << order)
        here = types[pfns >> order]
        if checks_zone:
            here = here[_are_of(lists.links.array, page_format, zone, pfns)]
        known = here[(here >= 0) & (here < len(names))]
        found.append(PageTypes(zone, np.array(blocks).T, np.bincount(known, minlength=len(names))))
    return PageTypeInfo(names, order, tuple(found), tuple(lists.breaks), capped=dump.release >= (5, 4))


def _are_of(array: PageArray, form: PageFormat, zone: Zone, pfns: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which pages say that they are of the zone: where nodes interleave, a zone spans pages of others."""
    found = np.ones(len(pfns), bool)
    there = np.flatnonzero(array.slots(pfns) >= 0)
    flags = array.gather(["flags"], pfns[there])["flags"]
    found[there] = (form.node(flags) == zone.node) & (form.zone(flags) == zone.index)
    return found

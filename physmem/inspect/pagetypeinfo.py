# SPDX-License-Identifier: GPL-2.0-only
"""``/proc/pagetypeinfo``: free blocks and pageblocks by migratetype (mm/vmstat.c: pagetypeinfo_show).

Free blocks are counted by walking the lists, pageblocks by their flags.  Since 5.4 the kernel
stops counting a list at 100000, and writes ``>100000``.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from physmem import engine
from physmem.dump import Dump
from physmem.inspect.free_walk import FreeBlocks
from physmem.inspect.freelist import Break, FreeList, FreeLists, free_lists
from physmem.inspect.memmap import PageArray
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.rows import anonymous
from physmem.inspect.sections import block_types
from physmem.inspect.zones import Zone, populated_zones
from physmem.memory_model import Linear

if TYPE_CHECKING:
    import numpy as np
else:
    from physmem.later import np

__all__ = ["PageTypeInfo", "PageTypes", "pagetypeinfo"]

#: Where the kernel stops counting the blocks of a list.
_MOST = 100_000
#: Pages that are looked at at a time.
_BLOCK = 1 << 13


@dataclass(frozen=True)
class PageTypes:
    """A zone's free memory by migratetype.

    :ivar free: blocks on the free lists, by migratetype and order
    :ivar pageblocks: pageblocks, by migratetype
    """

    zone: Zone
    free: list[list[int]]
    pageblocks: list[int]


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
            f"{'Free pages count per migrate type at order':43} {_row(range(len(zones[0].free[0])), 6)}",
        ]
        for each in zones:
            for name, blocks in zip(self.migratetypes, each.free, strict=True):
                zone = each.zone
                lines.append(f"Node {zone.node:4}, zone {zone.name:>8}, type {name:>12} {self._blocks(blocks)}")
        lines += ["", f"{'Number of blocks type ':23}{_row(self.migratetypes, 12)}"]
        for each in zones:
            lines.append(f"Node {each.zone.node}, zone {each.zone.name:>8} {_row(each.pageblocks, 12)}")
        return "\n".join(lines) + "\n"

    def _blocks(self, blocks: Iterable[int]) -> str:
        if not self.capped:
            return _row(blocks, 6)
        return "".join(f"{count:6} " if count < _MOST else f">{_MOST:6} " for count in blocks)


def _row(values: Iterable[object], width: int) -> str:
    return "".join(f"{value:>{width}} " for value in values)


def pagetypeinfo(dump: Dump) -> PageTypeInfo:
    """Count free blocks and pageblocks by migratetype.

    :raises AbsentError: the flags of some pageblock are not in the image
    """
    form = PageFormat(dump.layout)
    names = form.migratetypes
    zones = list(populated_zones(dump))
    order = dump.layout.constant("pageblock_order")
    # The kernel looks at every pageblock_nr_pages-th page of the zone, from its first on.
    limit = dump.max_pfn
    firsts = [range(min(zone.start_pfn, limit), min(zone.end_pfn, limit), 1 << order) for zone in zones]
    lists = [each for zone in zones for each in free_lists(zone, names)]
    found = None if engine.current() == "interpreted" else _followed(dump, form, lists, firsts)
    counts, known, flags, breaks = found or _searched(dump, lists, firsts)
    length, types = iter(counts), block_types(dump)
    checks_zone = dump.release >= (4, 7)
    told = []
    for zone, pfns in zip(zones, firsts, strict=True):
        blocks = [[next(length) for _ in heads] for heads in zone.free_lists]
        of_type = [0] * len(names)
        for pfn in pfns:
            kind = types[pfn >> order]
            at = bisect_left(known, pfn)
            # Where nodes interleave, a zone spans pages of others, which say so.
            asked = checks_zone and at < len(known) and known[at] == pfn
            own = not asked or (form.node(flags[at]), form.zone(flags[at])) == (zone.node, zone.index)
            if own and 0 <= kind < len(names):
                of_type[kind] += 1
        told.append(PageTypes(zone, list(map(list, zip(*blocks, strict=True))), of_type))
    return PageTypeInfo(names, order, tuple(told), breaks, capped=dump.release >= (5, 4))


#: Entries of each list; pages that are present, ascending, and the flags of each; what is wrong with the lists.
_Lists = tuple[list[int], Sequence[int], Sequence[int], tuple[Break, ...]]


def _present(pages: PageArray, firsts: Sequence[range]) -> array[int]:
    """Those of these pages that are present, ascending, each once."""
    found = array("Q")
    for each in sorted(firsts, key=lambda each: each.start):
        found.extend(pfn for pfn in each if pfn in pages.present)
    if any(one >= other for one, other in pairwise(found)):
        found = array("Q", sorted(set(found)))
    return found


def _searched(dump: Dump, lists: Sequence[FreeList], firsts: Sequence[range]) -> _Lists:
    """By a table of all pages that look free, in which what is wrong shows."""
    found = FreeLists(dump, lists)
    pages = found.links.array
    known = _present(pages, firsts)
    flags = pages.gather(["flags"], np.array(known, np.int64))["flags"].tolist()
    return [len(members) for members in found.members], known, flags, tuple(found.breaks)


def _followed(dump: Dump, form: PageFormat, lists: Sequence[FreeList], firsts: Sequence[range]) -> _Lists | None:
    """The same if nothing is wrong, by following the lists; None if something is, or this layout needs more care."""
    places = _places(dump, form)
    if places is None or not isinstance(dump.page_map, Linear):
        return None
    walk = FreeBlocks()
    walk.flags_at, walk.next_at, walk.prev_at, mapcount = places
    walk.mapcount_at, walk.mapcount_shift = mapcount // 8, 8 * (mapcount % 8)
    walk.buddy_mask, walk.buddy_value = form.types["buddy"]
    walk.size = dump.sizeof_page
    walk.base = dump.mem_map + form.lru
    pages = PageArray(dump)
    total = pages.present.total()
    walk.pfns, walk.next, walk.prev = (anonymous(total, "Q") for _ in range(3))
    known = _present(pages, firsts)
    flags = array("Q", bytes(8 * len(known)))
    walk.wanted, walk.flags, walk.count, walk.noted = memoryview(known), memoryview(flags), 0, 0
    stride = walk.size // 8
    room = anonymous(_BLOCK * stride, "Q")
    for start, end in pages.present:
        for words in pages.words(start, end, room):
            walk.gather(words, start, len(words) // stride)
            start += len(words) // stride
    counts = [walk.length(each.head.address, each.head.next, each.head.prev) for each in lists]
    if min(counts, default=0) < 0:
        return None
    return counts, known, flags, ()


def _places(dump: Dump, form: PageFormat) -> tuple[int, int, int, int] | None:
    """Where flags and links are, in words, and the mapcount in bytes; None if they lie as no compiler puts them."""
    fields = [dump.layout.field("page", name) for name in ("flags", form.next, form.prev)]
    mapcount = dump.layout.field("page", form.mapcount)
    if dump.sizeof_page % 8 or mapcount.offset % 4 or mapcount.size != 4:
        return None
    if any(f.offset % 8 or f.size != 8 or f.offset + 8 > dump.sizeof_page for f in fields):
        return None
    flags_at, next_at, prev_at = (f.offset // 8 for f in fields)
    return flags_at, next_at, prev_at, mapcount.offset

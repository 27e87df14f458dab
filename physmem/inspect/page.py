# SPDX-License-Identifier: GPL-2.0-only
"""What is this page?  Everything that an image tells about one page frame.

Where the page is (zone, node, section, pageblock), what its ``struct page`` says, and the state
that follows from it: free in a block, free on a per-cpu list, part of a compound page, reserved,
in use - or without a ``struct page`` at all.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from physmem.dump import Dump
from physmem.errors import PhysmemError
from physmem.inspect.freelist import FreeList, free_lists, pcp_lists
from physmem.inspect.memmap import PageArray
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.sections import pageblock_types
from physmem.inspect.states import State
from physmem.inspect.what import Place
from physmem.inspect.zones import Zone, pagesets, populated_zones

__all__ = ["Page", "Verdict", "inspect_page"]

#: The fields of struct page that are shown.
_FIELDS = ["flags", "mapping", "index", "_mapcount", "_count", "lru.next", "lru.prev", "private"]

#: A list of free pages is followed no further than this.
_MAX_STEPS = 100_000

PAGE_MAPPING_ANON = 1


@dataclass(frozen=True)
class Verdict:
    """What a page is.

    :ivar summary: in words
    :ivar order: of the free block or compound page it belongs to, if it does
    :ivar head: PFN of the first page of that
    :ivar list: the list of free pages that it is on, if it is on one
    """

    state: State
    summary: str
    order: int | None = None
    head: int | None = None
    list: FreeList | None = None


@dataclass(frozen=True)
class Page:
    """What is known of a page.

    :ivar address: of its ``struct page``, where that is or would be
    :ivar present: whether the contents of the page itself are in the image
    :ivar section: number of its section of the sparse memory map, or None
    :ivar migratetype: of its pageblock, or None if that is not known
    :ivar zone: that its flags name, or None
    :ivar fields: of its ``struct page``; empty if that is not in the image
    """

    place: Place
    pfn: int
    phys: int
    address: int
    present: bool
    section: int | None
    pageblock: int
    migratetype: str | None
    zone: Zone | None
    fields: dict[str, int]
    flags: list[str]
    verdict: Verdict


def inspect_page(dump: Dump, place: Place) -> Page:
    """Say everything about a page.

    :raises PhysmemError: the zones or the page array cannot be read
    """
    layout = dump.layout
    pfn = place.pfn
    shift = layout.constant("PAGE_SHIFT")
    block = pfn >> layout.constant("pageblock_order")
    examiner = _Examiner(dump)
    fields = examiner.array.fields(_FIELDS, pfn)
    has_sections = "PFN_SECTION_SHIFT" in layout.constants and "mem_section" in dump.symbols
    return Page(
        place=place,
        pfn=pfn,
        phys=pfn << shift,
        address=dump.mem_map + pfn * dump.sizeof_page,
        present=dump.memory.ranges.covers(pfn << shift, (pfn + 1) << shift),
        section=pfn >> layout.constant("PFN_SECTION_SHIFT") if has_sections else None,
        pageblock=block,
        migratetype=_migratetype(dump, block),
        zone=examiner.zone(fields["flags"]) if fields else None,
        fields=fields,
        flags=examiner.format.flag_names(fields["flags"]) if fields else [],
        verdict=examiner.judge(pfn, fields),
    )


def _migratetype(dump: Dump, block: int) -> str | None:
    try:
        types = pageblock_types(dump, partial=True)
    except PhysmemError:
        return None
    names = PageFormat(dump.layout).migratetypes
    return names[types[block]] if block < len(types) and 0 <= types[block] < len(names) else None


class _Examiner:
    """Reads single pages, and what they are linked to."""

    def __init__(self, dump: Dump) -> None:
        self.dump = dump
        self.format = PageFormat(dump.layout)
        self.array = PageArray(dump)
        self.zones = list(populated_zones(dump))

    def zone(self, flags: int) -> Zone | None:
        """The zone that a page's flags name."""
        node, index = self.format.node(flags), self.format.zone(flags)
        return next((zone for zone in self.zones if (zone.node, zone.index) == (node, index)), None)

    def judge(self, pfn: int, fields: dict[str, int]) -> Verdict:
        """The state of a page."""
        if not fields:
            if pfn in self.array.mapped:
                return Verdict(State.ABSENT, "unknown: its struct page is not in the image")
            return Verdict(State.HOLE, "no page: there is no struct page for this PFN")
        if not any(zone.start_pfn <= pfn < zone.end_pfn for zone in self.zones):
            return Verdict(State.HOLE, "no page: no zone spans this PFN")
        flags = fields["flags"]
        if fields[PageFormat.MAPCOUNT] == self.format.buddy_value:
            return self._free_block(pfn, fields)
        for order in range(1, self.format.max_order):
            head = pfn & -(1 << order)
            if head != pfn and self._is_block(head, order):
                return self._inside(head)
        if flags & self.format.bit("PG_tail"):
            return self._compound_tail(fields)
        if flags & self.format.bit("PG_head"):
            order_of = self._compound_order(pfn)
            size = "of unknown order" if order_of is None else f"of order {order_of} ({1 << order_of} pages)"
            return Verdict(State.COMPOUND, f"in use: head of a compound page {size}", order_of, pfn)
        if flags & self.format.bit("PG_reserved"):
            return Verdict(State.RESERVED, "reserved: never given to the page allocator")
        if flags & self.format.bit("PG_slab"):
            return Verdict(State.SLAB, "in use: slab")
        if fields[PageFormat.COUNT] == 0:
            return self._unreferenced(pfn, fields)
        return self._in_use(fields)

    def _is_block(self, pfn: int, order: int) -> bool:
        """Whether a free block of at least this order, and of one that can be, begins here."""
        head = self.array.fields([PageFormat.MAPCOUNT, PageFormat.ORDER], pfn)
        is_head = bool(head) and head[PageFormat.MAPCOUNT] == self.format.buddy_value
        return is_head and order <= head[PageFormat.ORDER] < self.format.max_order

    def _free_block(self, pfn: int, fields: dict[str, int]) -> Verdict:
        order = fields[PageFormat.ORDER]
        if order >= self.format.max_order:
            return Verdict(State.FREE, f"marked as a free block of impossible order {order:#x}", None, pfn)
        found, where = self._find_list(pfn, fields)
        size = f"order {order} ({1 << order} page{'s' if order else ''})"
        return Verdict(State.FREE, f"free: head of a block of {size}, {where}", order, pfn, found)

    def _inside(self, head: int) -> Verdict:
        order = self.array.fields([PageFormat.ORDER], head)[PageFormat.ORDER]
        return Verdict(State.FREE, f"free: inside the free block of order {order} headed at pfn {head}", order, head)

    def _compound_order(self, head: int) -> int | None:
        """``compound_order``, which is kept in the first tail; None if that is no tail."""
        tail = self.array.fields(["flags", "compound_order"], head + 1)
        if not tail or not tail["flags"] & self.format.bit("PG_tail"):
            return None
        return tail["compound_order"] if tail["compound_order"] < 64 else None

    def _compound_tail(self, fields: dict[str, int]) -> Verdict:
        head, rest = divmod(fields["private"] - self.dump.mem_map, self.dump.sizeof_page)
        if rest or not 0 <= head < self.dump.max_pfn:
            return Verdict(State.COMPOUND, f"in use: tail of a compound page without head ({fields['private']:#x})")
        order = self._compound_order(head)
        size = "" if order is None else f" of order {order}"
        return Verdict(State.COMPOUND, f"in use: tail of the compound page{size} headed at pfn {head}", order, head)

    def _unreferenced(self, pfn: int, fields: dict[str, int]) -> Verdict:
        found, where = self._find_list(pfn, fields)
        if found is None:
            return Verdict(
                State.UNREFERENCED, f"no reference, {where}: a page after the first of an allocation, or lost"
            )
        if found.cpu is None:
            return Verdict(State.UNREFERENCED, f"no reference, {where}, but not marked as free", list=found)
        return Verdict(State.PCP, f"free: {where}", 0, pfn, found)

    def _in_use(self, fields: dict[str, int]) -> Verdict:
        references = f"{fields[PageFormat.COUNT]} reference{'' if fields[PageFormat.COUNT] == 1 else 's'}"
        owner = "anonymous memory" if fields["mapping"] & PAGE_MAPPING_ANON else "page cache"
        what = f"{owner}, " if fields["mapping"] else ""
        if fields["flags"] & self.format.bit("PG_lru"):
            return Verdict(State.LRU, f"in use: {what}on an LRU list, {references}")
        return Verdict(State.IN_USE, f"in use: {what}{references}")

    def _find_list(self, pfn: int, fields: dict[str, int]) -> tuple[FreeList | None, str]:
        """The list a page is on, going back along it to its head; and that in words."""
        zone = self.zone(fields["flags"])
        heads = {each.head.address: each for each in self._lists(zone)} if zone else {}
        link = fields[PageFormat.PREV]
        for position in range(1, _MAX_STEPS):
            if link in heads:
                return heads[link], f"entry {position} of the list {heads[link].name}"
            before, rest = divmod(link - self.dump.mem_map - self.format.lru, self.dump.sizeof_page)
            previous = {} if rest or before == pfn or before < 0 else self.array.fields([PageFormat.PREV], before)
            if not previous:
                return None, "on no list"
            link = previous[PageFormat.PREV]
        return None, f"more than {_MAX_STEPS} entries from the head of a list"

    def _lists(self, zone: Zone) -> list[FreeList]:
        names = self.format.migratetypes
        lists = free_lists(zone, names)
        # Without the pagesets, a page of a per-cpu list is on no list that is known.
        with suppress(PhysmemError):
            lists += [each for pageset in pagesets(self.dump, zone) for each in pcp_lists(zone, pageset, names)]
        return lists

# SPDX-License-Identifier: GPL-2.0-only
"""What is this page?  Everything that an image tells about one page frame.

Where the page is (zone, node, section, pageblock), what its ``struct page`` says, and the state
that follows from it: free in a block, free on a per-cpu list, part of a compound page, reserved,
in use - or without a ``struct page`` at all.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from physmem.dump import Dump
from physmem.errors import PhysmemError
from physmem.inspect.classes import MAPPING_ANON, Classes
from physmem.inspect.freelist import FreeList, free_lists, pcp_lists
from physmem.inspect.hugetlb import HugetlbFormat
from physmem.inspect.memmap import PageArray
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.sections import pageblock_types
from physmem.inspect.states import State
from physmem.inspect.what import Place
from physmem.inspect.zones import Zone, pagesets, populated_zones

__all__ = ["Page", "Verdict", "inspect_page"]

#: The fields of struct page that are shown, as far as the kernel has them.
_FIELDS = (
    *("flags", "mapping", "index", "_mapcount", "_count", "_refcount", "lru.next", "lru.prev"),
    *("buddy_list.next", "buddy_list.prev", "private", "memcg_data"),
)

#: A list of free pages is followed no further than this.
_MAX_STEPS = 100_000


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
    fields = examiner.array.fields(examiner.fields, pfn)
    has_sections = "mem_section" in dump.symbols and "PFN_SECTION_SHIFT" in layout.constants
    return Page(
        place=place,
        pfn=pfn,
        phys=pfn << shift,
        address=dump.page_map.page(pfn),
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
        self._classes = Classes(dump, self.array, self.format)
        shown = [name for name in _FIELDS if dump.layout.has("page", name)]
        self.fields = [name for name in shown if "lru.next" not in shown or not name.startswith("buddy_list")]
        self._hugetlb = HugetlbFormat(dump, self.format)

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
        form = self.format
        if form.is_buddy(fields[form.mapcount]):
            return self._free_block(pfn, fields)
        for order in range(1, form.max_order):
            head = pfn & -(1 << order)
            if head != pfn and self._is_block(head, order):
                return self._inside(head, fields)
        page = self.array.gather(self._classes.fields, np.array([pfn]))
        state = list(State)[self._classes.codes(pfn, page)[0]]
        if form.tail(page)[0]:
            return self._compound_tail(state, pfn, page)
        if fields["flags"] & form.mask("PG_head"):
            order_of = self._compound_order(pfn)
            size = "of unknown order" if order_of is None else f"of order {order_of} ({1 << order_of} pages)"
            return Verdict(state, f"in use: head of a compound page {size}{self._kind(state, pfn)}", order_of, pfn)
        return self._single(state, pfn, fields)

    def _is_block(self, pfn: int, order: int) -> bool:
        """Whether a free block of at least this order, and of one that can be, begins here."""
        form = self.format
        head = self.array.fields([form.mapcount, form.order], pfn)
        is_head = bool(head) and form.is_buddy(head[form.mapcount])
        return is_head and order <= head[form.order] < form.max_order

    def _free_block(self, pfn: int, fields: dict[str, int]) -> Verdict:
        order = fields[self.format.order]
        if order >= self.format.max_order:
            return Verdict(State.FREE, f"marked as a free block of impossible order {order:#x}", None, pfn)
        found, where = self._find_list(pfn, fields)
        size = f"order {order} ({1 << order} page{'s' if order else ''})"
        wrong = self._contradiction(fields)
        state = State.FREE if found and not wrong else State.SUSPICIOUS
        return Verdict(state, f"free: head of a block of {size}, {where}{wrong}", order, pfn, found)

    def _inside(self, head: int, fields: dict[str, int]) -> Verdict:
        order = self.array.fields([self.format.order], head)[self.format.order]
        wrong = self._contradiction(fields)
        state = State.SUSPICIOUS if wrong else State.FREE
        return Verdict(state, f"free: inside the free block of order {order} headed at pfn {head}{wrong}", order, head)

    def _contradiction(self, fields: dict[str, int]) -> str:
        """What a free page must not be, and this one is; in words that follow others."""
        form = self.format
        wrong = []
        if fields[form.count]:
            wrong.append(f"{form.count} is {fields[form.count]}")
        if fields[form.mapcount] != -1 and not form.is_buddy(fields[form.mapcount]):
            wrong.append(f"{form.mapcount} is {fields[form.mapcount]}")
        if flags := fields["flags"] & form.checked_flags:
            wrong.append(f"flags are {'|'.join(form.flag_names(flags))}")
        return f"; but {', '.join(wrong)}" if wrong else ""

    def _kind(self, state: State, head: int) -> str:
        """What a compound page is used for, in words that follow others."""
        if state is State.HUGEPAGE:
            row = self._classes.folios.heads(np.array([head]))
            pages = row.rows.reshape(-1).view(self.dump.layout.dtype("page", [self.format.mapcount]))
            return ", hugetlb" if self._hugetlb.are(pages, row.second)[0] else ", transparent huge page"
        names = {State.SLAB: ", slab", State.ANON: ", anonymous memory", State.FILE: ", page cache"}
        return names.get(state, "")

    def _compound_order(self, head: int) -> int | None:
        """``compound_order``, which is kept in the first tail; None if that is no tail."""
        heads = self._classes.folios.heads(np.array([head]))
        second = self.array.gather(self._classes.fields, np.array([head + 1])) if heads.known[0] else None
        if second is None or not self.format.tail(second)[0]:
            return None
        order = int(self.format.compound_orders(heads.second)[0])
        return order if order < 64 else None

    def _compound_tail(self, state: State, pfn: int, page: npt.NDArray[np.void]) -> Verdict:
        head = int(self._classes.folios.tails(pfn, page).head[0])
        if not 0 <= head < self.dump.max_pfn:
            word = int(page[self.format.tail_field][0])
            return Verdict(State.COMPOUND, f"in use: tail of a compound page without head ({word:#x})")
        order = self._compound_order(head)
        size = "" if order is None else f" of order {order}"
        what = f"in use: tail of the compound page{size} headed at pfn {head}{self._kind(state, head)}"
        return Verdict(state, what, order, head)

    def _single(self, state: State, pfn: int, fields: dict[str, int]) -> Verdict:
        """A page that is no part of a compound page, and not marked as free."""
        plain = {
            State.RESERVED: "reserved: never given to the page allocator",
            State.SLAB: "in use: slab",
            State.PAGE_TABLE: "in use: page table",
            State.OFFLINE: "offline: taken out of use, as by a balloon",
        }
        if state in plain:
            return Verdict(state, plain[state])
        if fields[self.format.count] == 0:
            return self._unreferenced(pfn, fields)
        return self._in_use(state, fields)

    def _unreferenced(self, pfn: int, fields: dict[str, int]) -> Verdict:
        found, where = self._find_list(pfn, fields)
        wrong = self._contradiction(fields)
        if found is None:
            return self._inside_pcp(pfn) or Verdict(
                State.UNREFERENCED, f"no reference, {where}: a page after the first of an allocation, or lost"
            )
        if found.cpu is None:
            return Verdict(State.UNREFERENCED, f"no reference, {where}, but not marked as free", list=found)
        state = State.SUSPICIOUS if wrong else State.PCP
        return Verdict(state, f"free: {where}{wrong}", found.order, pfn, found)

    def _inside_pcp(self, pfn: int) -> Verdict | None:
        """A page after the first of a block on a per-cpu list, as there are since 5.14."""
        for order in range(1, self.format.max_order):
            head = pfn & -(1 << order)
            fields = self.array.fields(self.fields, head) if head != pfn else {}
            if not fields or fields[self.format.count]:
                continue
            found, where = self._find_list(head, fields)
            if found is not None and found.cpu is not None and found.order >= order:
                what = f"free: inside the block of order {found.order} headed at pfn {head}, {where}"
                return Verdict(State.PCP, what, found.order, head, found)
        return None

    def _in_use(self, state: State, fields: dict[str, int]) -> Verdict:
        count = fields[self.format.count]
        references = f"{count} reference{'' if count == 1 else 's'}"
        anon = fields["mapping"] & MAPPING_ANON
        what = "anonymous memory, " if anon else "page cache, " if state is State.FILE else ""
        if fields["flags"] & self.format.mask("PG_lru"):
            return Verdict(state, f"in use: {what}on an LRU list, {references}")
        return Verdict(state, f"in use: {what}{references}")

    def _find_list(self, pfn: int, fields: dict[str, int]) -> tuple[FreeList | None, str]:
        """The list a page is on, going back along it to its head; and that in words."""
        zone = self.zone(fields["flags"])
        heads = {each.head.address: each for each in self._lists(zone)} if zone else {}
        prev = self.format.prev
        link = fields[prev]
        for position in range(1, _MAX_STEPS):
            if link in heads:
                return heads[link], f"entry {position} of the list {heads[link].name}"
            before = self.dump.page_map.pfn(link - self.format.lru)
            previous = {} if before in (pfn, -1) else self.array.fields([prev], before)
            if not previous:
                return None, "on no list"
            link = previous[prev]
        return None, f"more than {_MAX_STEPS} entries from the head of a list"

    def _lists(self, zone: Zone) -> list[FreeList]:
        names = self.format.migratetypes
        lists = free_lists(zone, names)
        # Without the pagesets, a page of a per-cpu list is on no list that is known.
        with suppress(PhysmemError):
            lists += [each for pageset in pagesets(self.dump, zone) for each in pcp_lists(zone, pageset)]
        return lists

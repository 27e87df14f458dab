# SPDX-License-Identifier: GPL-2.0-only
"""A page and its neighbours, as the page array describes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from physmem.dump import Dump
from physmem.errors import PhysmemError, UnsupportedError
from physmem.inspect.freelist import FreeList, free_lists, pcp_lists
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.zones import Zone, pagesets, populated_zones
from physmem.space import UNMAPPED

__all__ = ["Kernel", "Window"]

#: A list is followed no further than this.
_MAX_STEPS = 1 << 14


class Kernel:
    """What stays the same while a kernel runs: how its pages are read, its zones, where its lists begin.

    :raises UnsupportedError: it marks compound pages in another way than Linux 4.0
    :raises PhysmemError: its zones cannot be read
    """

    def __init__(self, dump: Dump) -> None:
        if "PG_tail" not in dump.layout.enum("pageflags"):
            release = dump.info.get("OSRELEASE", "this kernel")
            raise UnsupportedError(
                f"a free is judged by Linux 4.0's free path, and {release} has another (see physmem page)"
            )
        self.dump = dump
        self.format = PageFormat(dump.layout)
        self.zones = list(populated_zones(dump))
        self.poison: int = dump.layout.constants.get("LIST_POISON2", 0)
        self.shift: int = dump.layout.constant("PAGE_SHIFT")
        names = self.format.migratetypes
        self.heads: dict[int, FreeList] = {}
        #: Zones whose per-cpu lists are too short to keep a page: it goes on to the free lists at once.
        self.unlisted: set[int] = set()
        for zone in self.zones:
            lists = free_lists(zone, names)
            with suppress(PhysmemError):
                sets = pagesets(dump, zone)
                lists += [each for pageset in sets for each in pcp_lists(zone, pageset)]
                if all(pageset.high <= 1 for pageset in sets):
                    self.unlisted.add(zone.address)
            self.heads |= {each.head.address: each for each in lists}

    def spanning(self, pfn: int) -> Zone | None:
        """The zone whose pages the PFN is among."""
        return next((zone for zone in self.zones if zone.start_pfn <= pfn < zone.end_pfn), None)

    def named(self, flags: int) -> Zone | None:
        """The zone that a flags word names, if it is one with pages."""
        node, index = self.format.node(flags), self.format.zone(flags)
        return next((zone for zone in self.zones if (zone.node, zone.index) == (node, index)), None)

    def has_struct_page(self, pfn: int) -> bool:
        """Whether the page array has an entry for a PFN."""
        chunks, shift = self.dump.memmap
        chunk = (pfn * self.dump.sizeof_page) >> shift
        return chunk < len(chunks) and int(chunks[chunk]) != UNMAPPED


class Window:
    """The entries of the page array from one PFN up to another, read once."""

    def __init__(self, kernel: Kernel, start: int, stop: int) -> None:
        form = kernel.format
        self.kernel = kernel
        self.start, self.stop = start, stop
        fields = ["flags", "mapping", form.count, form.mapcount, form.order, form.next, form.prev]
        self.pages, self.exists = kernel.dump.pages(start, stop, fields)

    def __contains__(self, pfn: int) -> bool:
        return self.start <= pfn < self.stop and bool(self.exists[pfn - self.start])

    def field(self, pfn: int, name: str) -> int:
        """A field of one entry."""
        return int(self.pages[name][pfn - self.start])

    def flags(self, pfn: int) -> int:
        """``page->flags``."""
        return self.field(pfn, "flags")

    def has(self, pfn: int, *names: str) -> bool:
        """Whether a page has one of these flags."""
        return bool(self.flags(pfn) & sum(self.kernel.format.bit(name) for name in names))

    def count(self, pfn: int) -> int:
        """``page->_count``."""
        return self.field(pfn, self.kernel.format.count)

    def is_head(self, pfn: int) -> bool:
        """Whether a page is marked as the first of a free block."""
        return pfn in self and self.field(pfn, self.kernel.format.mapcount) == self.kernel.format.buddy_value

    @cached_property
    def _free_heads(self) -> npt.NDArray[np.int64]:
        """For each page the first one of the free block that it is in, counted from the window's start; or -1."""
        form = self.kernel.format
        orders = self.pages[form.order]
        is_head = self.exists & form.buddy(self.pages) & (orders < form.max_order)
        heads = np.flatnonzero(is_head)
        found = np.full(len(self.pages), -1, np.int64)
        # Of blocks that overlap, the smallest is named.
        for head in heads[np.argsort(orders[heads], kind="stable")[::-1]].tolist():
            if (self.start + head) % (1 << int(orders[head])) == 0:
                found[head : head + (1 << int(orders[head]))] = head
            else:
                found[head] = head
        return found

    def free_block(self, pfn: int) -> tuple[int, int] | None:
        """The free block that a page is in: PFN of its first page, and its order."""
        head = int(self._free_heads[pfn - self.start]) if pfn in self else -1
        return None if head < 0 else (self.start + head, self.field(self.start + head, self.kernel.format.order))

    def compound(self, pfn: int) -> tuple[int, int | None] | None:
        """The compound page that a page is part of: PFN of its head, and its order (None if that cannot be told)."""
        if self.has(pfn, "PG_tail"):
            head, rest = divmod(self.field(pfn, "private") - self.kernel.dump.mem_map, self.kernel.dump.sizeof_page)
            if rest or head < 0:
                return None
        elif self.has(pfn, "PG_head"):
            head = pfn
        else:
            return None
        return head, self._compound_order(head)

    def _compound_order(self, head: int) -> int | None:
        pages, exists = self.kernel.dump.pages(head, head + 2, ["flags", "compound_order"])
        if not exists.all() or not int(pages["flags"][0]) & self.kernel.format.bit("PG_head"):
            return None
        order = int(pages["compound_order"][1])
        return order if order < 64 else None

    def drop_share(self, tail: int) -> None:
        """See a tail as it is once its share of the head's references is dropped: on paper only."""
        name = self.kernel.format.mapcount
        if self.field(tail, name) >= 0:
            self.pages[name][tail - self.start] -= 1

    # -- lists ---------------------------------------------------------------

    def linked(self, pfn: int) -> bool:
        """Whether a page is an entry of some list: what it says comes before it leads to it."""
        entry = self.kernel.dump.mem_map + pfn * self.kernel.dump.sizeof_page + self.kernel.format.lru
        before = self.field(pfn, self.kernel.format.prev)
        return before not in (entry, self.kernel.poison) and self._next(before) == entry

    def list_of(self, pfn: int) -> FreeList | None:
        """The list of free pages that a page is on."""
        if not self.linked(pfn):
            return None
        at = self.field(pfn, self.kernel.format.prev)
        for _ in range(_MAX_STEPS):
            if at in self.kernel.heads:
                return self.kernel.heads[at]
            before = self._links(at)
            if before is None or before[1] == at:
                return None
            at = before[1]
        return None

    def _next(self, link: int) -> int | None:
        """``next`` of the list entry or list head at a kernel address; None if there is none."""
        if link in self.kernel.heads:
            with suppress(PhysmemError):
                return self.kernel.dump.u64(link)
            return None
        links = self._links(link)
        return None if links is None else links[0]

    def _links(self, link: int) -> tuple[int, int] | None:
        """``next`` and ``prev`` of the page whose ``lru`` is at a kernel address."""
        dump, form = self.kernel.dump, self.kernel.format
        pfn, rest = divmod(link - dump.mem_map - form.lru, dump.sizeof_page)
        if rest or pfn < 0 or not self.kernel.has_struct_page(pfn):
            return None
        if pfn in self:
            return self.field(pfn, form.next), self.field(pfn, form.prev)
        pages, exists = dump.pages(pfn, pfn + 1, [form.next, form.prev])
        return (int(pages[form.next][0]), int(pages[form.prev][0])) if exists[0] else None

    # -- what follows a page -------------------------------------------------

    @cached_property
    def _unclaimed(self) -> npt.NDArray[np.bool_]:
        """Pages without a reference that are in no free block, compound page or slab, and not reserved."""
        form = self.kernel.format
        claimed = sum(form.bit(name) for name in ("PG_head", "PG_tail", "PG_reserved", "PG_slab"))
        is_idle = (self.pages[form.count] == 0) & (self.pages[form.mapcount] == -1)
        found: npt.NDArray[np.bool_] = (
            self.exists & is_idle & ((self.pages["flags"] & np.uint64(claimed)) == 0) & (self._free_heads < 0)
        )
        return found

    def ownerless(self, pfn: int) -> bool:
        """Whether a page has no reference and is not free: it comes after the first of an allocation, or is lost."""
        return pfn in self and bool(self._unclaimed[pfn - self.start]) and not self.linked(pfn)

    def block_order(self, pfn: int) -> int:
        """How large an allocation that begins at a page can be: as far as pages follow that are nobody else's."""
        order = 0
        while order + 1 < self.kernel.format.max_order and not pfn & ((1 << (order + 1)) - 1):
            first, end = pfn + (1 << order), pfn + (2 << order)
            if not self._unclaimed[first - self.start : end - self.start].all() or any(
                map(self.linked, range(first, end))
            ):
                break
            order += 1
        return order

    # -- what free_pages_check says ------------------------------------------

    def bad_pages(self, pfn: int, order: int) -> Iterator[tuple[int, str]]:
        """The pages of a block that ``free_pages_check`` would report once its last reference is gone, and why."""
        form = self.kernel.format
        for each in np.flatnonzero(self._suspicious(pfn, order)).tolist():
            reason = ""
            page = pfn + each
            if self.field(page, form.mapcount) != -1:
                reason = "nonzero mapcount"
            # The first page of an anonymous mapping is let off.
            if self.field(page, "mapping") and not (each == 0 and self.field(page, "mapping") & 1):
                reason = "non-NULL mapping"
            if each and self.count(page):
                reason = "nonzero _count"
            if self.flags(page) & form.layout.constant("PAGE_FLAGS_CHECK_AT_FREE"):
                reason = "PAGE_FLAGS_CHECK_AT_FREE flag(s) set"
            if reason:
                yield page, reason

    def _suspicious(self, pfn: int, order: int) -> Any:
        form = self.kernel.format
        pages = self.pages[pfn - self.start : pfn - self.start + (1 << min(order, 63))]
        checked = np.uint64(form.layout.constant("PAGE_FLAGS_CHECK_AT_FREE"))
        return (
            (pages[form.mapcount] != -1)
            | (pages["mapping"] != 0)
            | (pages[form.count] != 0)
            | ((pages["flags"] & checked) != 0)
        )

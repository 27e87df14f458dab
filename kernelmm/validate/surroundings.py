# SPDX-License-Identifier: GPL-2.0-only
"""A page and its neighbours, as the page array describes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from kernelmm.validate.checks import Check, checks_of
from kernelmm.validate.freepath import path_of
from kernelmm.validate.guards import is_marked
from physmem.dump import Dump
from physmem.errors import PhysmemError
from physmem.inspect.freelist import FreeList, free_lists, pcp_lists
from physmem.inspect.memmap import PageArray
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.zones import Zone, pagesets, populated_zones
from physmem.space import UNMAPPED

__all__ = ["Kernel", "Window"]

#: A list is followed no further than this.
_MAX_STEPS = 1 << 14

#: PAGE_FLAGS_CHECK_AT_FREE of the kernels whose layout is read from themselves (include/linux/page-flags.h).
_CHECKED_AT_FREE = tuple(
    f"PG_{name}"
    for name in (
        *("lru", "locked", "private", "private_2", "writeback", "reserved"),
        *("slab", "active", "unevictable", "mlocked"),
    )
)
#: The low bits of page->memcg_data, and what they are where the kernel itself is charged.
_MEMCG_DATA, _MEMCG_DATA_KMEM = 3, 2
#: page->pp_magic of a page pool's page, beside bits that number it (include/linux/poison.h, net/page_pool).
_PP_SIGNATURE = 0xDEAD000000000040
_PP_INDEX = 0xFFFFFFFF << 8 | 3


class Kernel:
    """What stays the same while a kernel runs: how its pages are read, its zones, where its lists begin.

    :ivar path: how it frees
    :ivar checks_pages: whether its switch ``check_pages_enabled`` is on; None if it has none, or it cannot be read
    :ivar checked: PAGE_FLAGS_CHECK_AT_FREE
    :ivar charged: the field of ``struct page`` that says who is charged for it; empty if there is none
    :raises PhysmemError: its zones cannot be read
    """

    def __init__(self, dump: Dump) -> None:
        self.dump = dump
        self.path = path_of(dump.release)
        self.format = PageFormat(dump.layout)
        self.zones = list(populated_zones(dump))
        self.poison: int = dump.layout.constants.get("LIST_POISON2", 0)
        self.shift: int = dump.layout.constant("PAGE_SHIFT")
        self.checks_pages = self._switch("check_pages_enabled")
        self.checked: int = dump.layout.constants.get("PAGE_FLAGS_CHECK_AT_FREE", self.format.mask(*_CHECKED_AT_FREE))
        self.charged = next((name for name in ("memcg_data", "mem_cgroup") if dump.layout.has("page", name)), "")
        self.pool = "pp_magic" if self.path.knows_pools and dump.layout.has("page", "pp_magic") else ""
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
        #: Orders of the blocks that are on per-cpu lists.
        self.pcp_orders = sorted({each.order for each in self.heads.values() if each.cpu is not None})

    def _switch(self, name: str) -> bool | None:
        """Whether a static key is on."""
        if name in self.dump.symbols:
            with suppress(PhysmemError):
                return self.dump.s32(self.dump.symbols[name]) > 0
        return None

    @cached_property
    def array(self) -> PageArray:
        """The page array, as far as the image has it."""
        return PageArray(self.dump)

    @property
    def asked(self) -> Mapping[str, Check]:
        """The questions about a free, and who asks them."""
        return checks_of(self.path, checks_pages=bool(self.checks_pages), slab_is_flag=not self.format.slab_type)

    @property
    def told(self) -> str:
        """Whose free path it is, in words; empty for Linux 4.0's."""
        if self.path.has_lines:
            return ""
        since, release = ".".join(map(str, self.path.since)), ".".join(map(str, self.dump.release))
        switch = "" if self.checks_pages is None else f"; check_pages_enabled is {'on' if self.checks_pages else 'off'}"
        same = "" if since == release else f" (as since {since})"
        return f"Linux {release}{same}, built without CONFIG_DEBUG_VM{switch}"

    def on_pcp(self, zone: Zone, order: int) -> bool:
        """Whether a block that is freed goes to its CPU's list."""
        return zone.address not in self.unlisted and (
            not order or (self.path.blocks_on_pcp and order in self.pcp_orders)
        )

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
        #: Entries that were met on the way to the head of a list, and which list it is: of a block's pages each asks.
        self._lists: dict[int, FreeList | None] = {}
        fields = ["flags", "mapping", form.count, form.mapcount, form.order, form.next, form.prev]
        if not form.compound:
            self.pages, self.exists = kernel.dump.pages(start, stop, fields)
            return
        fields += [name for name in (form.compound, kernel.charged, kernel.pool) if name]
        self.pages = np.zeros(stop - start, kernel.dump.layout.dtype("page", fields))
        self.exists = np.zeros(stop - start, bool)
        # A hugepage's tails may share memory: the array knows.
        for first, piece in kernel.array.scan(fields, start, stop):
            where = slice(first - start, first - start + len(piece))
            self.pages[where], self.exists[where] = piece, True

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
        return bool(self.flags(pfn) & self.kernel.format.mask(*names))

    def count(self, pfn: int) -> int:
        """``page->_count``."""
        return self.field(pfn, self.kernel.format.count)

    def is_head(self, pfn: int) -> bool:
        """Whether a page is marked as the first of a free block."""
        return pfn in self and self.kernel.format.is_buddy(self.field(pfn, self.kernel.format.mapcount))

    def type_of(self, pfn: int) -> str | None:
        """The type of a page that nobody can map, as kernels have them since 4.18; None if it has none."""
        return self.kernel.format.type_name(self.field(pfn, self.kernel.format.mapcount))

    def is_slab(self, pfn: int) -> bool:
        """PageSlab, of the page itself."""
        return self.type_of(pfn) == "slab" if self.kernel.format.slab_type else self.has(pfn, "PG_slab")

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

    def guard_order(self, pfn: int) -> int | None:
        """The order of the guard block that a page is in; None if it is in none."""
        for order in range(self.kernel.format.max_order):
            head = pfn & -(1 << order)
            if head in self and (self.type_of(head) == "guard" or is_marked(self.kernel.dump, head)):
                found = self.field(head, self.kernel.format.order)
                return found if order <= found < self.kernel.format.max_order else None
        return None

    def is_tail(self, pfn: int) -> bool:
        """PageTail."""
        at = pfn - self.start
        return bool(self.kernel.format.tail(self.pages[at : at + 1])[0])

    def compound(self, pfn: int) -> tuple[int, int | None] | None:
        """The compound page that a page is part of: PFN of its head, and its order (None if that cannot be told)."""
        kernel = self.kernel
        if self.is_tail(pfn):
            # In 4.0 first_page is in the place of private.
            word = self.field(pfn, kernel.format.compound or kernel.format.order)
            head = kernel.dump.page_map.pfn(kernel.format.head_address(kernel.dump.page_of(pfn), word))
            if not 0 <= head < pfn:
                return None
        elif self.has(pfn, "PG_head"):
            head = pfn
        else:
            return None
        return head, self._compound_order(head)

    def _compound_order(self, head: int) -> int | None:
        form, array = self.kernel.format, self.kernel.array
        if head not in array.present or head + 1 not in array.present:
            return None
        fields = ["flags", *([form.compound] if form.compound else [])]
        pair = array.gather(fields, np.array([head, head + 1]))
        if not int(pair["flags"][0]) & form.mask("PG_head") or not form.tail(pair)[1]:
            return None
        order = form.compound_order(array.rows(np.array([head + 1]))[0].tobytes())
        return order if order < 64 else None

    def _head_of(self, tail: int) -> int | None:
        compound = self.compound(tail) if self.is_tail(tail) else None
        return None if compound is None else compound[0]

    def drop_share(self, tail: int) -> None:
        """See a tail as it is once its share of the head's references is dropped: on paper only.

        Until 4.3 a tail counts its references in its ``_mapcount``; since then its head counts them all.
        """
        name = self.kernel.format.mapcount
        if not self.kernel.format.compound and self.field(tail, name) >= 0:
            self.pages[name][tail - self.start] -= 1

    # -- lists ---------------------------------------------------------------

    def linked(self, pfn: int) -> bool:
        """Whether a page is an entry of some list: what it says comes before it leads to it."""
        entry = self.kernel.dump.page_of(pfn) + self.kernel.format.lru
        before = self.field(pfn, self.kernel.format.prev)
        return before not in (entry, self.kernel.poison) and self._next(before) == entry

    def pcp_list(self, pfn: int) -> FreeList | None:
        """The per-cpu list of free pages that a page is on, or the block that it is part of."""
        for order in self.kernel.pcp_orders:
            head = pfn & -(1 << order)
            if head in self and self.count(head) == 0 and not self.free_block(head):
                found = self.list_of(head)
                if found is not None and found.cpu is not None and found.order >= order:
                    return found
        return None

    def list_of(self, pfn: int) -> FreeList | None:
        """The list of free pages that a page is on."""
        if not self.linked(pfn):
            return None
        at = self.field(pfn, self.kernel.format.prev)
        trail: list[int] = []
        found = None
        for _ in range(_MAX_STEPS):
            if at in self.kernel.heads:
                found = self.kernel.heads[at]
                break
            if at in self._lists:
                found = self._lists[at]
                break
            before = self._links(at)
            if before is None:
                break
            # A list that leads back to here has no head.
            self._lists[at] = None
            trail.append(at)
            at = before[1]
        self._lists.update(dict.fromkeys(trail, found))
        return found

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
        pfn = dump.page_map.pfn(link - form.lru)
        if pfn < 0 or not self.kernel.has_struct_page(pfn):
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
        claimed = form.mask("PG_head", "PG_reserved", "PG_slab")
        is_idle = (self.pages[form.count] == 0) & (self.pages[form.mapcount] == -1) & ~form.tail(self.pages)
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

    def bad_pages(self, pfn: int, order: int, *, put: bool = False) -> Iterator[tuple[int, str]]:
        """The pages of a block that ``free_pages_check`` would report once its last reference is gone, and why.

        :param put: freed by ``put_page``, which takes the page off its LRU list and gives back what was charged for it
        """
        for each in np.flatnonzero(self._suspicious(pfn, order)).tolist():
            reason = self._reason(pfn, pfn + each, put)
            if reason:
                yield pfn + each, reason

    def later_reason(self, first: int, *, put: bool) -> str:
        """Why the first page of a block is bad when its CPU's list is drained: its flags are wiped off by then."""
        return self._reason(first, first, put, flags=False)

    def _reason(self, first: int, page: int, put: bool, *, flags: bool = True) -> str:
        """Why a page is bad: of several reasons the last."""
        form, kernel, path = self.kernel.format, self.kernel, self.kernel.path
        is_first, mapping = page == first, self.field(page, "mapping")
        is_kmem = is_first and self._is_kmem(page)
        wiped = is_first and path.wipes_type and self.type_of(page) is not None
        # Until 4.3 a tail of this compound page was checked like any other page.
        is_own_tail = bool(form.compound) and not is_first and self._head_of(page) == first
        reason = ""
        if self.field(page, form.mapcount) != -1 and not wiped and not (is_kmem and self.type_of(page) == "kmemcg"):
            reason = "nonzero mapcount"
        if mapping and not (is_first and mapping & path.let_mapping) and not is_own_tail:
            reason = "non-NULL mapping"
        if not is_first and self.count(page):
            reason = f"nonzero {form.count}"
        if flags and self.checked_flags(first, page, put=put):
            reason = "PAGE_FLAGS_CHECK_AT_FREE flag(s) set"
        if kernel.charged and self.field(page, kernel.charged) and not is_kmem and not (is_first and put):
            reason = "page still charged to cgroup"
        return "page_pool leak" if self.in_pool(page) else reason

    def checked_flags(self, first: int, page: int, *, put: bool = False) -> int:
        """The flags of a page of a block that its checks would find fault with."""
        form, path = self.kernel.format, self.kernel.path
        flags = self.flags(page) & self.kernel.checked
        if page == first and path.lets_mlocked:
            flags &= ~form.mask("PG_mlocked")
        if page == first and put and flags & form.mask("PG_lru"):
            flags &= ~form.mask("PG_lru", *path.put_clears)
        if form.compound and page == first + 1 and self._head_of(page) == first:
            flags &= ~self._second_flags
        return flags

    def _is_kmem(self, page: int) -> bool:
        """Whether a page is charged as the kernel's: then freeing it gives that back."""
        charged = self.kernel.charged
        if charged == "mem_cgroup":
            return self.type_of(page) == "kmemcg"
        return bool(charged) and self.field(page, charged) & _MEMCG_DATA == _MEMCG_DATA_KMEM

    def is_charged(self, page: int) -> bool:
        """Whether a cgroup is charged for a page, and freeing it does not give that back."""
        charged = self.kernel.charged
        return bool(charged) and self.field(page, charged) != 0 and not self._is_kmem(page)

    def in_pool(self, page: int) -> bool:
        """Whether a page is a network driver's page pool's (page_pool_page_is_pp)."""
        pool = self.kernel.pool
        return bool(pool) and self.field(page, pool) & ~_PP_INDEX & ((1 << 64) - 1) == _PP_SIGNATURE

    @cached_property
    def _second_flags(self) -> int:
        """PAGE_FLAGS_SECOND: what is wiped off a compound page's second page; since 6.6 its low byte is the order."""
        names = ("PG_has_hwpoisoned", "PG_large_rmappable", "PG_partially_mapped", "PG_double_map")
        low = 0xFF if self.kernel.dump.layout.has("folio", "_flags_1") and self.kernel.dump.release >= (6, 6) else 0
        return low | self.kernel.format.mask(*names)

    def _suspicious(self, pfn: int, order: int) -> Any:
        form, kernel = self.kernel.format, self.kernel
        pages = self.pages[pfn - self.start : pfn - self.start + (1 << min(order, 63))]
        found = (
            (pages[form.mapcount] != -1)
            | (pages["mapping"] != 0)
            | (pages[form.count] != 0)
            | ((pages["flags"] & np.uint64(kernel.checked)) != 0)
        )
        for name in (kernel.charged, kernel.pool):
            if name:
                found |= pages[name] != 0
        return found

# SPDX-License-Identifier: GPL-2.0-only
"""What the fields of ``struct page`` say, for one page or an array of them.

How a kernel marks a free block, where it counts references, which bits of ``page->flags`` hold
the zone and node: the questions are the same for every kernel, the answers are taken from its
layout here, and nowhere else (include/linux/mm.h, page-flags.h).

What a page is that nobody can map, stands where others count mappings (``_mapcount``, ``page_type``):

=========  ===============================================================================
4.0        one value for each: -128 heads a free block
4.18       cleared bits of a number that begins with 0xf: the free block has 0xffffff7f
6.10       likewise, in an enum, of a number whose top bit is set
6.12       the top byte alone: the free block has 0xf0
=========  ===============================================================================
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from physmem.structs.layout import Layout

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    from physmem.later import np

__all__ = ["PageFormat", "PageType"]

_U32 = (1 << 32) - 1
_U64 = (1 << 64) - 1

#: Kernels from 4.18 on that have the types as macros: the bits that are cleared, which were renumbered in 5.11.
_TYPE_BITS = {
    True: {"offline": 0x100, "kmemcg": 0x200, "table": 0x400, "guard": 0x800},
    False: {"offline": 0x100, "table": 0x200, "guard": 0x400, "hugetlb": 0x800},
}


class PageType(NamedTuple):
    """A type of page: ``_mapcount`` has the bits ``value`` of ``mask``."""

    mask: int
    value: int


class PageFormat:
    """How a kernel's ``struct page`` is read; arrays are structured ones that have the fields in question.

    :ivar layout: the kernel's layout
    :ivar count: field that counts references
    :ivar mapcount: field that counts mappings, or has the type
    :ivar order: field with the order of a free block, in its head
    :ivar next: field with the link of lists of free pages
    :ivar prev: and with the one back
    :ivar index: field with the migratetype of a free page (until 6.9); empty if the kernel has no such field
    :ivar compound: field that leads to a compound page's head; empty in kernels that have flags for it (until 4.3)
    :ivar free_fields: what the allocator keeps in a free page besides its links
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.count = self._first("_count", "_refcount")
        self.mapcount = "_mapcount"
        self.order = "private"
        links = "lru" if layout.has("page", "lru.next") else "buddy_list"
        self.next, self.prev = f"{links}.next", f"{links}.prev"
        self.index = "index" if layout.has("page", "index") else ""
        self.compound = next((name for name in ("compound_head", "compound_info") if layout.has("page", name)), "")
        self.free_fields = (self.mapcount, self.count, self.order, *([self.index] if self.index else []))

    def _first(self, *names: str) -> str:
        """The first of these fields that a page has; the last, which is then missed, if it has none."""
        return next((name for name in names if self.layout.has("page", name)), names[-1])

    @cached_property
    def max_order(self) -> int:
        """MAX_ORDER: one more than the order of the largest free block."""
        return self.layout.constant("MAX_ORDER")

    @cached_property
    def checked_flags(self) -> int:
        """PAGE_FLAGS_CHECK_AT_PREP: the flags that a free page must not have."""
        return self.layout.constant("PAGE_FLAGS_CHECK_AT_PREP")

    @cached_property
    def lru(self) -> int:
        """Offset of the links of lists of free pages."""
        return self.layout.offsetof("page", self.next)

    @cached_property
    def buddy_value(self) -> int:
        """PAGE_BUDDY_MAPCOUNT_VALUE: what marks the head of a free block, in kernels until 4.17 the whole of it."""
        return self.layout.constant("PAGE_BUDDY_MAPCOUNT_VALUE", signed=True)

    # -- types -------------------------------------------------------------------------------------

    @cached_property
    def types(self) -> dict[str, PageType]:
        """The types that this kernel has, by name: ``buddy``, and as they came ``table``, ``hugetlb``..."""
        enum = self.layout.enums.get("pagetype", {})
        if "PGTY_buddy" in enum:
            return {
                name.removeprefix("PGTY_"): PageType(0xFF << 24, value << 24)
                for name, value in enum.items()
                if name != "PGTY_mapcount_underflow"
            }
        buddy = self.buddy_value & _U32
        cleared = ~buddy & _U32
        if cleared & cleared - 1:
            exact = {"balloon": "PAGE_BALLOON_MAPCOUNT_VALUE", "kmemcg": "PAGE_KMEMCG_MAPCOUNT_VALUE"}
            found = {"buddy": PageType(_U32, buddy)}
            for name, macro in exact.items():
                if macro in self.layout.constants:
                    found[name] = PageType(_U32, self.layout.constant(macro) & _U32)
            return found
        # -129 is the free block's value since 4.18; the types in an enum have a base of a single bit.
        bits = {name.removeprefix("PG_"): bit for name, bit in enum.items()}
        base = 1 << 31 if bits else 0xF << 28
        bits = bits or _TYPE_BITS[self._has_kmemcg]
        return {name: PageType(base | bit, base) for name, bit in ({"buddy": cleared} | bits).items()}

    @cached_property
    def _has_kmemcg(self) -> bool:
        """Whether there is a type for pages that are charged, as before 5.11."""
        later = (("page", "memcg_data"), ("per_cpu_zonestat", "vm_stat_diff"), ("folio", "page"))
        return not any(self.layout.has(*what) for what in later)

    def is_type(self, pages: npt.NDArray[Any], name: str) -> npt.NDArray[np.bool_]:
        """Which pages have a type (field ``mapcount``); none if the kernel does not know it."""
        return self.of_type(pages[self.mapcount], name)

    def of_type(self, mapcounts: npt.NDArray[np.int32], name: str) -> npt.NDArray[np.bool_]:
        """The same, of the values of that field alone."""
        if name not in self.types:
            return np.zeros(len(mapcounts), bool)
        mask, value = self.types[name]
        found: npt.NDArray[np.bool_] = (mapcounts.view(np.uint32) & np.uint32(mask)) == np.uint32(value)
        return found

    def buddy(self, pages: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """PageBuddy: which pages are the head of a free block (field ``mapcount``)."""
        return self.is_type(pages, "buddy")

    def is_buddy(self, mapcount: int) -> bool:
        """PageBuddy, of one page."""
        mask, value = self.types["buddy"]
        return mapcount & mask == value

    def type_name(self, mapcount: int) -> str | None:
        """The type of one page; None if it has none."""
        return next((name for name, (mask, value) in self.types.items() if mapcount & mask == value), None)

    @cached_property
    def slab_type(self) -> bool:
        """Whether slab is a type, as since 6.10, and no flag."""
        return "slab" in self.types

    def slab(self, pages: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """PageSlab, of a page itself (fields ``mapcount`` and ``flags``)."""
        if self.slab_type:
            return self.is_type(pages, "slab")
        found: npt.NDArray[np.bool_] = (pages["flags"] & np.uint64(self.bit("PG_slab"))) != 0
        return found

    # -- compound pages ----------------------------------------------------------------------------

    def tail(self, pages: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """PageTail (field ``compound``, or ``flags``)."""
        word, bit = (pages[self.compound], 1) if self.compound else (pages["flags"], self.bit("PG_tail"))
        found: npt.NDArray[np.bool_] = (word & np.uint64(bit)) != 0
        return found

    def head_address(self, page: int, word: int) -> int:
        """compound_head of a tail: ``word`` is its field ``compound`` (before 4.4: ``first_page``).

        Since 6.19 the word may be a mask for the address of the page itself: an address it cannot be then, as no page
        array is in the last 4 GiB.
        """
        if not self.compound:
            return word
        return page & word if word >> 32 == _U32 else word - 1

    @cached_property
    def tail_field(self) -> str:
        """The field of a tail that leads to the head."""
        return self.compound or "first_page"

    def head_addresses(self, pages: npt.NDArray[np.uint64], words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """The same of many tails."""
        if not self.compound:
            return words
        return np.where(words >> np.uint64(32) == np.uint64(_U32), pages & words, words - np.uint64(1))

    @cached_property
    def _folio_order(self) -> tuple[int, int]:
        """Where the order of a compound page is: offset in its second page, bytes."""
        layout = self.layout
        if layout.has("page", "compound_order"):
            f = layout.field("page", "compound_order")
            return f.offset, min(f.size or 8, 8)
        size = layout.sizeof("page")
        if layout.has("folio", "_folio_order"):
            return layout.offsetof("folio", "_folio_order") - size, 1
        # Since 6.6 it is the low byte of the second page's flags.
        return layout.offsetof("folio", "_flags_1") - size, 1

    def compound_order(self, second: bytes) -> int:
        """compound_order, given the bytes of the compound page's second page."""
        offset, size = self._folio_order
        return int.from_bytes(second[offset : offset + size], "little")

    def compound_orders(self, seconds: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """The same of many, a row of bytes each; 64 for what cannot be an order."""
        offset, size = self._folio_order
        values = np.zeros(len(seconds), np.uint64)
        for i in range(size):
            values |= seconds[:, offset + i].astype(np.uint64) << np.uint64(8 * i)
        return np.minimum(values, np.uint64(64)).astype(np.int64)

    def unused(self, pages: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Which pages have no reference and are no part of something that has (``unused_fields``)."""
        free: npt.NDArray[np.bool_] = (pages[self.count] == 0) & ~self.tail(pages) & ~self.slab(pages)
        return free

    @cached_property
    def unused_fields(self) -> tuple[str, ...]:
        """The fields that :meth:`unused` looks at."""
        return (self.count, self.mapcount, "flags", *([self.compound] if self.compound else []))

    # -- what is packed into the flags -------------------------------------------------------------

    def node(self, flags: Any) -> Any:
        """page_to_nid: the node in ``page->flags``, of an int or an array."""
        return self._packed(flags, "NODES")

    def zone(self, flags: Any) -> Any:
        """page_zonenum: the zone index in ``page->flags``, of an int or an array."""
        return self._packed(flags, "ZONES")

    def _packed(self, flags: Any, what: str) -> Any:
        shift, mask = self.layout.constant(f"{what}_PGSHIFT"), self.layout.constant(f"{what}_MASK")
        if isinstance(flags, int):
            return flags >> shift & mask
        return (flags >> np.uint64(shift)) & np.uint64(mask)

    def bit(self, name: str) -> int:
        """The mask of a page flag, as in ``bit("PG_slab")``; raises LayoutError if the kernel has no such flag."""
        return 1 << self.layout.enumerator(name)

    def mask(self, *names: str) -> int:
        """The mask of several flags, as far as the kernel has them."""
        flags = self.layout.enum("pageflags")
        return sum({1 << flags[name] for name in names if name in flags})

    @cached_property
    def _flag_names(self) -> dict[int, str]:
        names: dict[int, str] = {}
        count = self.layout.constant("NR_PAGEFLAGS")
        for name, number in self.layout.enum("pageflags").items():
            if number < count:
                names.setdefault(number, name.removeprefix("PG_"))  # several bits have other names besides
        return dict(sorted(names.items()))

    def flag_names(self, flags: int) -> list[str]:
        """The flags that are set, lowest bit first, as dump_page names them."""
        return [name for number, name in self._flag_names.items() if flags >> number & 1]

    @cached_property
    def migratetypes(self) -> tuple[str, ...]:
        """The migratetypes by number, as /proc/pagetypeinfo names them."""
        enum = self.layout.enum("migratetype")
        marks = ("MIGRATE_PCPTYPES", "MIGRATE_TYPES", "__MIGRATE_TYPE_END")
        names = {value: name.removeprefix("MIGRATE_") for name, value in enum.items() if name not in marks}
        words = (names[i] for i in range(enum["MIGRATE_TYPES"]))
        return tuple(_MIGRATETYPES.get(word, word.capitalize()) for word in words)


#: What is not written as the enumerator is, but with another capital.
_MIGRATETYPES = {"CMA": "CMA", "HIGHATOMIC": "HighAtomic"}

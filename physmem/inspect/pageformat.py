# SPDX-License-Identifier: GPL-2.0-only
"""What the fields of ``struct page`` say, for one page or an array of them.

How a kernel marks a free block, where it counts references, which bits of ``page->flags`` hold
the zone and node: the questions are the same for every kernel, the answers are taken from its
layout here, and nowhere else (include/linux/mm.h, page-flags.h).
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from physmem.structs.layout import Layout

__all__ = ["PageFormat"]


class PageFormat:
    """How a kernel's ``struct page`` is read; arrays are structured ones that have the fields in question."""

    COUNT = "_count"
    MAPCOUNT = "_mapcount"
    #: Order of a free block, in its head.
    ORDER = "private"
    NEXT = "lru.next"
    PREV = "lru.prev"
    #: What the allocator keeps in a free page besides its links.
    FREE_FIELDS = (MAPCOUNT, COUNT, ORDER, "index")

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    @cached_property
    def max_order(self) -> int:
        """MAX_ORDER: one more than the order of the largest free block."""
        return self.layout.constant("MAX_ORDER")

    @cached_property
    def buddy_value(self) -> int:
        """PAGE_BUDDY_MAPCOUNT_VALUE: what marks the head of a free block."""
        return self.layout.constant("PAGE_BUDDY_MAPCOUNT_VALUE", signed=True)

    @cached_property
    def checked_flags(self) -> int:
        """PAGE_FLAGS_CHECK_AT_PREP: the flags that a free page must not have."""
        return self.layout.constant("PAGE_FLAGS_CHECK_AT_PREP")

    @cached_property
    def lru(self) -> int:
        """Offset of ``page->lru``."""
        return self.layout.offsetof("page", "lru")

    def buddy(self, pages: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """PageBuddy: which pages are the head of a free block (field MAPCOUNT)."""
        marked: npt.NDArray[np.bool_] = pages[self.MAPCOUNT] == self.buddy_value
        return marked

    def unused(self, pages: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Which pages have no reference and are no part of something that has (fields COUNT and ``flags``)."""
        elsewhere = np.uint64(self.bit("PG_tail") | self.bit("PG_slab"))
        free: npt.NDArray[np.bool_] = (pages[self.COUNT] == 0) & ((pages["flags"] & elsewhere) == 0)
        return free

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
        """The mask of a page flag, as in ``bit("PG_slab")``."""
        return 1 << self.layout.enumerator(name)

    @cached_property
    def _flag_names(self) -> dict[int, str]:
        names: dict[int, str] = {}
        for name, number in self.layout.enum("pageflags").items():
            if number < self.layout.constant("NR_PAGEFLAGS"):
                names.setdefault(number, name.removeprefix("PG_"))  # several bits have other names besides
        return dict(sorted(names.items()))

    def flag_names(self, flags: int) -> list[str]:
        """The flags that are set, lowest bit first, as dump_page names them."""
        return [name for number, name in self._flag_names.items() if flags >> number & 1]

    @cached_property
    def migratetypes(self) -> tuple[str, ...]:
        """The migratetypes by number, as /proc/pagetypeinfo names them."""
        enum = self.layout.enum("migratetype")
        names = {value: name.removeprefix("MIGRATE_") for name, value in enum.items() if name != "MIGRATE_PCPTYPES"}
        words = (names[i] for i in range(enum["MIGRATE_TYPES"]))
        return tuple(word if word == "CMA" else word.capitalize() for word in words)

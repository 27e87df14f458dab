# SPDX-License-Identifier: GPL-2.0-only
"""page_owner: who allocated a page (mm/page_owner.c)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kernelmm import gfp
from kernelmm.bringup.kernel import Kernel
from kernelmm.bringup.printk import printk
from kernelmm.core import mmzone, page, pcp
from kernelmm.core.mm import Mm
from kernelmm.debug.callers import Callers
from kernelmm.debug.page_ext import PageExt
from physmem import abi, address

__all__ = ["PageOwner"]

#: trace_entries[8]
_ENTRIES = 8

#: The letters of page flags in a record, in their order; C is any part of a compound page.
_LETTERS = (
    *(("locked", "K"), ("error", "E"), ("referenced", "R"), ("uptodate", "U"), ("dirty", "D"), ("lru", "L")),
    *(("active", "A"), ("slab", "S"), ("writeback", "W"), ("compound", "C"), ("swapcache", "B"), ("mappedtodisk", "M")),
)


class PageOwner:
    """The owners of one machine's pages."""

    def __init__(self, kernel: Kernel, ext: PageExt, callers: Callers) -> None:
        self.kernel = kernel
        self.ext = ext
        self.callers = callers
        offset = kernel.layout.offsetof
        self.order, self.gfp_mask, self.nr_entries, self.trace_entries = (
            offset("page_ext", name) for name in ("order", "gfp_mask", "nr_entries", "trace_entries")
        )
        flags = kernel.layout.enum("pageflags")
        self.letters = [
            (1 << abi.PG_head | 1 << abi.PG_tail if name == "compound" else 1 << flags[f"PG_{name}"], letter)
            for name, letter in _LETTERS
        ]

    def reset(self, mm: Mm, pg: int, order: int) -> None:
        """``__reset_page_owner``: the pages of a block are nobody's."""
        for i in range(1 << order):
            self.ext.mark(mm, pg + i * abi.SIZEOF_PAGE, self.ext.owner, False)

    def set(self, mm: Mm, pg: int, order: int, gfp_mask: int) -> None:
        """``__set_page_owner``: note the running task's stack for a block's first page."""
        at = self.ext.lookup(address.page_to_pfn(mm, pg))
        if at == 0:
            return
        entries = self.callers.save_stack_trace(_ENTRIES)
        for i, entry in enumerate(entries):
            mm.as_u64[(at + self.trace_entries >> 3) + i] = entry
        mm.as_u32[at + self.order >> 2] = order
        mm.as_u32[at + self.gfp_mask >> 2] = gfp_mask
        mm.as_u32[at + self.nr_entries >> 2] = len(entries)
        mm.as_u64[at >> 3] = mm.as_u64[at >> 3] | self.ext.owner

    def init_early_allocated_pages(self, mm: Mm) -> None:
        """``init_early_allocated_pages``: what was allocated before anybody noted it gets an owner all the same."""
        pcp.drain_all_pages(mm, 0)
        for zone in self.kernel.populated_zones():
            z = mmzone.zone_off(mm, zone.at)
            mmzone.spin_lock(mm, z)
            count = self._init_pages_in_zone(mm, z)
            mmzone.spin_unlock(mm, z)
            name = self.kernel.string(self.kernel.get(zone.at, "zone.name"))
            printk(self.kernel, f"Node {zone.nid}, zone {name:>8}: page owner found early allocated {count} pages")

    def _init_pages_in_zone(self, mm: Mm, z: int) -> int:
        """``init_pages_in_zone``: pages that neither are in a free block nor reserved."""
        pfn = mm.as_u64[(z + mm.zone_start_pfn) >> 3]
        end = pfn + mm.as_u64[(z + mm.zone_spanned_pages) >> 3]
        largest = 1 << abi.MAX_ORDER - 1
        count = 0
        while pfn < end:
            if not address.pfn_has_page(mm, pfn):
                pfn = pfn + largest & -largest
                continue
            pg = address.pfn_to_page(mm, pfn)
            at = address.page_off(mm, pg)
            if mm.deferred is not None and mm.deferred.heads_free_block(at):
                pfn += largest
                continue
            if not page.buddy(mm, at):
                if mm.deferred is not None:
                    mm.deferred.write_out(at)
                if not page.test_flag(mm, at, abi.PG_reserved) and not self.ext.test(mm, pg, self.ext.owner):
                    self.set(mm, pg, 0, 0)
                    count += 1
                pfn += 1
            else:
                pfn += 1 << page.order(mm, at)
        return count

    # -- text ----------------------------------------------------------------

    def read(self, mm: Mm) -> Iterator[str]:
        """``read_page_owner``: a record for each page that has an owner, once the per-cpu lists are drained."""
        pcp.drain_all_pages(mm, 0)
        for first, flags in self.ext.sections():
            for i in np.flatnonzero(flags & np.uint64(self.ext.owner)).tolist():
                yield from self.record(mm, address.pfn_to_page(mm, first + i))
                yield ""

    def record(self, mm: Mm, pg: int) -> Iterator[str]:
        """``print_page_owner``: how a page was allocated, where it is, and by whom."""
        pfn = address.page_to_pfn(mm, pg)
        at = self.ext.lookup(pfn)
        gfp_mask = mm.as_u32[at + self.gfp_mask >> 2]
        yield f"Page allocated via order {mm.as_u32[at + self.order >> 2]}, mask 0x{gfp_mask:x}"
        kind = mmzone.pageblock_migratetype(mm, pfn)
        fallback = (
            "Fallback" if kind != gfp.gfpflags_to_migratetype(gfp_mask, mmzone.mobility_disabled(mm)) else " " * 8
        )
        flags = mm.as_u64[(address.page_off(mm, pg) + abi.PAGE_FLAGS) >> 3]
        letters = "".join(letter if flags & mask else " " for mask, letter in self.letters)
        yield f"PFN {pfn} Block {pfn >> abi.PAGEBLOCK_ORDER} type {kind} {fallback} Flags {letters}"
        for i in range(min(mm.as_u32[at + self.nr_entries >> 2], _ENTRIES)):
            entry = mm.as_u64[(at + self.trace_entries >> 3) + i]
            yield f" [<{entry:016x}>] {self.callers.symbol(entry)}"

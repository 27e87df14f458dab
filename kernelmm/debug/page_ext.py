# SPDX-License-Identifier: GPL-2.0-only
"""``struct page_ext``: what debugging aids keep about each page, in memory of its own (mm/page_ext.c).

An array for each section, or, with a flat memory map, for the node.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from kernelmm import gfp
from kernelmm.bringup.kernel import N_MEMORY, Kernel
from kernelmm.bringup.memblock import Memblock
from kernelmm.bringup.sections import present_sections, section_ptr
from kernelmm.core import entry, mmzone, page
from kernelmm.core.mm import Mm
from physmem import abi, address, word
from physmem.errors import UsageError
from physmem.memory_model import MemoryModel

__all__ = ["PageExt", "alloc_node_page_ext", "alloc_sections"]

PAGE_SIZE = abi.PAGE_SIZE
#: The end of the memory that ISA devices reach: it is left to them if that can be.
MAX_DMA_ADDRESS = 1 << 24
#: MAX_ORDER_NR_PAGES
_LARGEST = 1 << abi.MAX_ORDER - 1
_U64 = (1 << 64) - 1
_GFP = gfp.GFP_KERNEL | vars(gfp)["__GFP_ZERO"] | vars(gfp)["__GFP_NOWARN"]


class PageExt:
    """Where a kernel keeps its page_ext entries."""

    def __init__(self, kernel: Kernel) -> None:
        layout = kernel.layout
        self.kernel = kernel
        self.size = layout.sizeof("page_ext")
        self.flat = kernel.model is MemoryModel.FLATMEM
        self.shift = 0 if self.flat else layout.constant("PFN_SECTION_SHIFT")
        flags = layout.enum("page_ext_flags")
        self.poison = 1 << flags["PAGE_EXT_DEBUG_POISON"]
        self.guard = 1 << flags["PAGE_EXT_DEBUG_GUARD"]
        self.owner = 1 << flags["PAGE_EXT_OWNER"]

    def lookup(self, pfn: int) -> int:
        """``lookup_page_ext``: physical address of the entry of ``pfn``; 0 while its section or node has none."""
        if self.flat:
            base = self.kernel.get(self.kernel.node_data(0), "pglist_data.node_page_ext")
            return self.kernel.phys(base + (pfn - self._first_pfn()) * self.size & _U64) if base else 0
        section = section_ptr(self.kernel, pfn >> self.shift)
        base = self.kernel.get(section, "mem_section.page_ext") if section else 0
        return self.kernel.phys(base + pfn * self.size & _U64) if base else 0

    def _first_pfn(self) -> int:
        """The PFN that the node's array begins with."""
        return int(self.kernel.get(self.kernel.node_data(0), "pglist_data.node_start_pfn")) & -_LARGEST

    def test(self, mm: Mm, pg: int, bit: int) -> bool:
        """``test_bit(bit, &page_ext->flags)`` of a page."""
        at = self.lookup(address.page_to_pfn(mm, pg))
        return at != 0 and bool(mm.as_u64[at >> 3] & bit)

    def mark(self, mm: Mm, pg: int, bit: int, on: bool) -> None:
        """``__set_bit`` or ``__clear_bit`` in the flags of a page."""
        at = self.lookup(address.page_to_pfn(mm, pg))
        if at and on:
            word.set_bits(mm, at, bit)
        elif at:
            word.clear_bits(mm, at, bit)

    def sections(self) -> Iterator[tuple[int, npt.NDArray[np.uint64]]]:
        """The flags of all entries: first pfn of a section or node, and the live words."""
        if self.flat:
            pfn, at = self._first_pfn(), self.lookup(self._first_pfn())
            if at:
                words = self.kernel.words(at, self.size // 8 * node_entries(self.kernel))
                yield pfn, words[:: self.size // 8]
            return
        for nr in present_sections(self.kernel):
            pfn = nr << self.shift
            at = self.lookup(pfn)
            if at:
                words = self.kernel.words(at, self.size // 8 << self.shift)
                yield pfn, words[:: self.size // 8]


def alloc_sections(kernel: Kernel) -> int:
    """The part of ``page_ext_init`` that allocates: an array for each section, on its node; bytes in all.

    :raises UsageError: there is no memory for it
    """
    mm = kernel.mm
    shift, size = kernel.layout.constant("PFN_SECTION_SHIFT"), kernel.layout.sizeof("page_ext")
    bytes_of = size << shift
    done = 0
    for nid in kernel.nodes(N_MEMORY):
        pgdat = kernel.node_data(nid)
        pfn = kernel.get(pgdat, "pglist_data.node_start_pfn")
        end = pfn + kernel.get(pgdat, "pglist_data.node_spanned_pages")
        while pfn < end:
            section = section_ptr(kernel, pfn >> shift)
            present = section and kernel.get(section, "mem_section.section_mem_map") & 1
            if present and not kernel.get(section, "mem_section.page_ext") and page_nid(mm, pfn) == nid:
                base = entry.alloc_pages_exact_nid(mm, nid, bytes_of, _GFP)
                if not base:
                    raise UsageError("too little memory to boot: page ext allocation failure")
                kernel.set(section, "mem_section.page_ext", base - ((pfn >> shift << shift) * size))
                done += bytes_of
            pfn = (pfn >> shift) + 1 << shift
    return done


def node_entries(kernel: Kernel) -> int:
    """How many entries the array of the only node has: for the blocks at its ends as well, if it cuts some."""
    pgdat = kernel.node_data(0)
    start, pages = (kernel.get(pgdat, f"pglist_data.node_{field}") for field in ("start_pfn", "spanned_pages"))
    return int(pages) + (_LARGEST if (start | start + pages) % _LARGEST else 0)


def alloc_node_page_ext(kernel: Kernel, memblock: Memblock) -> int:
    """``alloc_node_page_ext``: the array of a flat memory map, from memblock; its bytes.

    :raises UsageError: there is no memory for it
    """
    size = kernel.layout.sizeof("page_ext") * node_entries(kernel)
    at = memblock.alloc(size, PAGE_SIZE, 0, MAX_DMA_ADDRESS, what="page_ext")
    kernel.set(kernel.node_data(0), "pglist_data.node_page_ext", kernel.va(at))
    return size


def page_nid(mm: Mm, pfn: int) -> int:
    """``pfn_to_nid``."""
    at = address.page_off(mm, address.pfn_to_page(mm, pfn))
    if mm.deferred is not None:
        mm.deferred.write_out(at)
    return page.nid(mm, at) if mm.numa else 0


def zone_physical(mm: Mm, pg: int) -> int:
    """Physical address of the zone of a page."""
    return mmzone.zone_off(mm, mmzone.page_zone(mm, address.page_off(mm, pg)))

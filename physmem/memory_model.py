# SPDX-License-Identifier: GPL-2.0-only
"""Memory models: where the ``struct page`` of a page frame is (include/asm-generic/memory_model.h).

Linux has three ways to lay out the page array:

* *flatmem*: one array in the direct map, from ``mem_map`` on, holes included;
* *sparsemem*: an array in the direct map for each section of 128 MiB that has memory; which section a
  page is in is in the upper bits of ``page->flags``, and where its array is, in ``mem_section``;
* *sparsemem-vmemmap*: the same arrays, mapped so that they are one again, at VMEMMAP_START.

With the first and the last, PFN and ``struct page *`` are a linear function of each other; with the second,
a linear function for each section.  ``section_mem_map`` keeps that function's value at PFN 0.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

from physmem import abi
from physmem.memory import UNMAPPED, PhysicalMemory
from physmem.structs.layout import Layout

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    from physmem.later import np

__all__ = [
    "FLAT_SHIFT",
    "Linear",
    "MemoryModel",
    "PageMap",
    "Sectioned",
    "flat_chunks",
    "model_of",
    "section_chunks",
    "section_cover",
    "section_mem_maps",
    "usemap_size",
]

#: log2 of the bytes of the pieces that a flat page array is looked at in: the entries of a block of the largest order.
FLAT_SHIFT = 16


class MemoryModel(Enum):
    """The value is the name of the configuration switch, in small letters."""

    FLATMEM = "flatmem"
    SPARSEMEM = "sparsemem"
    SPARSEMEM_VMEMMAP = "sparsemem-vmemmap"


def model_of(layout: Layout, *, has_sections: bool) -> MemoryModel:
    """The memory model of a kernel.

    A kernel that keeps section numbers in page flags is a classic sparse one; a layout that does not say whether
    it does is taken for that of a kernel with a virtual memory map, as all of today are.

    :param has_sections: it has a variable ``mem_section``
    """
    if not has_sections:
        return MemoryModel.FLATMEM
    return MemoryModel.SPARSEMEM if layout.constants.get("SECTIONS_WIDTH") else MemoryModel.SPARSEMEM_VMEMMAP


class PageMap:
    """PFNs and the addresses of their ``struct page``, each into the other, many at a time."""

    def pages(self, pfns: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """``pfn_to_page``; 0 for a PFN whose section has no page array."""
        raise NotImplementedError

    def pfns(self, pages: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """``page_to_pfn``; -1 for what is no address of a ``struct page``."""
        raise NotImplementedError

    def page(self, pfn: int) -> int:
        """``pfn_to_page`` of one PFN; 0 if there is none."""
        return int(self.pages(np.array([pfn]))[0])

    def pfn(self, page: int) -> int:
        """``page_to_pfn`` of one address; -1 if it is none of a ``struct page``."""
        return int(self.pfns(np.array([page & (1 << 64) - 1], np.uint64))[0])


class Linear(PageMap):
    """One array, or what is mapped as one.

    :param base: kernel address of the ``struct page`` of PFN 0
    :param size: bytes of a ``struct page``
    :param end_pfn: one past the last PFN that has one
    :param start_pfn: the first PFN that has one
    """

    def __init__(self, base: int, size: int, end_pfn: int, start_pfn: int = 0) -> None:
        self._base, self._size = base & (1 << 64) - 1, size
        self._start, self._end = start_pfn, end_pfn

    def places(self) -> tuple[int, int, int, int]:
        """Kernel address of the ``struct page`` of PFN 0, bytes of one, one past the last PFN, and the first."""
        return self._base, self._size, self._end, self._start

    def pages(self, pfns: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        found: npt.NDArray[np.uint64] = pfns.astype(np.uint64) * np.uint64(self._size) + np.uint64(self._base)
        return found

    def pfns(self, pages: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        # Modulo 2^64, so that what lies below the page array is far above its end.
        offset = pages - np.uint64(self._base)
        pfns = offset // np.uint64(self._size)
        is_page = offset % np.uint64(self._size) == 0
        is_page &= (pfns >= np.uint64(self._start)) & (pfns < np.uint64(self._end))
        return np.where(is_page, pfns.astype(np.int64), -1)

    def page(self, pfn: int) -> int:
        return self._base + pfn * self._size & (1 << 64) - 1

    def pfn(self, page: int) -> int:
        pfn, rest = divmod(page - self._base & (1 << 64) - 1, self._size)
        return pfn if rest == 0 and self._start <= pfn < self._end else -1


class Sectioned(PageMap):
    """An array for each section.

    :param bases: of each section, the address that the ``struct page`` of PFN 0 would have; 0: it has no array
    :param shift: log2 of a section's pages
    :param size: bytes of a ``struct page``
    """

    def __init__(self, bases: npt.NDArray[np.uint64], shift: int, size: int) -> None:
        self.bases = bases
        self._shift = shift
        self._size = np.uint64(size)
        numbers = np.flatnonzero(bases)
        starts = bases[numbers] + (numbers << shift).astype(np.uint64) * self._size
        order = np.argsort(starts)
        self._numbers, self._starts = numbers[order], starts[order]

    def pages(self, pfns: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        section = pfns >> self._shift
        known = (section >= 0) & (section < len(self.bases))
        base = self.bases[np.where(known, section, 0)] if len(self.bases) else np.zeros(len(pfns), np.uint64)
        return np.where(known & (base != 0), base + pfns.astype(np.uint64) * self._size, np.uint64(0))

    def pfns(self, pages: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        if not len(self._starts):
            return np.full(len(pages), -1, np.int64)
        at = np.maximum(np.searchsorted(self._starts, pages, "right") - 1, 0)
        # What lies before the first array is, modulo 2^64, far behind its end.
        offset = pages - self._starts[at]
        is_page = (offset % self._size == 0) & (offset // self._size < np.uint64(1 << self._shift))
        first = self._numbers[at] << self._shift
        return np.where(is_page, first + (offset // self._size).astype(np.int64), -1)


def section_mem_maps(
    memory: PhysicalMemory, layout: Layout, phys: Callable[[int], int], mem_section: int, sections: int
) -> npt.NDArray[np.uint64]:
    """Of each section, ``section_mem_map`` without its flags: where the page array of PFN 0 would be; 0: it has none.

    :param phys: physical address behind a kernel address
    :param mem_section: address of the variable
    :param sections: how many to look at
    :raises AbsentError: the table of sections is not in the image
    :raises AddressError: a pointer in it leads nowhere
    """
    per_root = layout.constant("SECTIONS_PER_ROOT")
    dtype = layout.dtype("mem_section", ["section_mem_map"])
    roots = memory.array(
        phys(mem_section), np.uint64, min(-(-sections // per_root), layout.constant("NR_SECTION_ROOTS"))
    )
    found = np.zeros(sections, np.uint64)
    flags = np.uint64(layout.constant("SECTION_HAS_MEM_MAP"))
    for root in np.flatnonzero(roots).tolist():
        first = root * per_root
        here = min(per_root, sections - first)
        maps = memory.array(phys(int(roots[root])), dtype, here)["section_mem_map"]
        coded = maps & np.uint64(layout.constant("SECTION_MAP_MASK") & (1 << 64) - 1)
        found[first : first + here] = np.where(maps & flags != 0, coded, 0)
    return found


def section_chunks(bases: npt.NDArray[np.uint64], shift: int, size: int, page_offset: int) -> npt.NDArray[np.uint64]:
    """Physical address of each section's array in the direct map; UNMAPPED where there is none.

    :param bases: what :func:`section_mem_maps` gives; ``shift`` and ``size`` as for :class:`Sectioned`
    """
    starts = bases + (np.arange(len(bases), dtype=np.uint64) << np.uint64(shift)) * np.uint64(size)
    return np.where((bases != 0) & (starts >= np.uint64(page_offset)), starts - np.uint64(page_offset), UNMAPPED)


def section_cover(chunks: npt.NDArray[np.uint64], shift: int, size: int) -> npt.NDArray[np.uint32]:
    """Of each piece of 2^shift bytes of physical memory, and one more: which section's array covers its first byte.

    :param chunks: what :func:`section_chunks` gives, 2^shift bytes each
    :param size: bytes of physical memory
    :returns: the section's number plus one, 0 for none
    """
    cover = np.zeros((size >> shift) + 2, np.uint32)
    there = np.flatnonzero(chunks < np.uint64(size))
    # The first piece that begins in the array: it is no longer than a piece, so that there is no other.
    cover[(chunks[there] + np.uint64((1 << shift) - 1)) >> np.uint64(shift)] = there + 1
    return cover


def flat_chunks(mem_map: int, start_pfn: int, end_pfn: int, page_offset: int) -> npt.NDArray[np.uint64]:
    """Physical address of each 64 KiB of a flat page array, from PFN 0 on; UNMAPPED before the node begins.

    A flat array has entries for whole blocks of the largest order; 64 KiB is one's.

    :param mem_map: the kernel's variable
    """
    pages = 1 << FLAT_SHIFT - 6
    first, last = start_pfn // pages, -(-end_pfn // pages)
    found = np.full(last, UNMAPPED, np.uint64)
    here = np.arange(first, last, dtype=np.uint64) << np.uint64(FLAT_SHIFT)
    found[first:] = np.uint64(mem_map - page_offset & (1 << 64) - 1) + here
    return found


def usemap_size(zone_start_pfn: int, zone_pages: int) -> int:
    """``usemap_size``: bytes of a flat memory map's pageblock flags of a zone, four bits a pageblock, whole words."""
    pages = zone_pages + zone_start_pfn % abi.PAGEBLOCK_NR_PAGES
    return -(-(-(-pages // abi.PAGEBLOCK_NR_PAGES) * 4) // 64) * 8

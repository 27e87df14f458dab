# SPDX-License-Identifier: GPL-2.0-only
# room: compiled
"""The kernel's address space over one :class:`~physmem.ram.Ram`: regions and the vmemmap table.

This class holds the numbers; the arithmetic on them is in :mod:`physmem.address`.

x86-64 Linux maps physical memory three times over: the *direct map* (everything,
from ``PAGE_OFFSET``), the *kernel image* (from ``__START_KERNEL_map``, shifted by
``phys_base``) and the *vmemmap* (the array of ``struct page``, a virtually
contiguous array made of physical chunks that need not be contiguous).  The first
two are a subtraction.  For the third, the page tables are walked once, when the
space is built, and the physical address of each chunk is kept in ``memmap``: a
cache of the page tables, as a TLB is, and like a TLB no state of its own.

With the other memory models (:mod:`physmem.memory_model`) the page array is in the direct map.  A flat one is a
single piece of it, which ``memmap`` describes as well.  One in sections is *not* linear: ``sections`` has each
section's place, and ``mem_map`` is out of reach, so that the arithmetic for linear arrays never applies.
"""

from __future__ import annotations

from array import array

from physmem.ctype import s8_view, s32_view, s64_view, u8_view, u32, u32_view, u64, u64_view
from physmem.errors import AddressError, CorruptionError
from physmem.memory import UNMAPPED
from physmem.ram import Ram

__all__ = ["UNMAPPED", "AddressSpace"]


class AddressSpace:
    """Regions of a kernel's virtual address space, and typed views of the memory behind them.

    :param ram: the physical memory
    :param page_offset: PAGE_OFFSET, start of the direct map
    :param start_kernel_map: __START_KERNEL_map
    :param phys_base: physical address that __START_KERNEL_map would map
    :param kernel_image_size: bytes of __START_KERNEL_map that map the kernel image; modules begin above
    :param mem_map: kernel address of the ``struct page`` of PFN 0 (VMEMMAP_START, or mem_map)
    :param memmap: physical address of each chunk of the page array (``u64``), or UNMAPPED
    :param memmap_shift: log2 of the chunk's bytes (21, or 12 if the array is mapped by small pages, 16 if it is flat)
    :param vmemmap: from here on addresses are of the page array alone; default: from ``mem_map`` on
    :param sections: classic sparse memory: of each section, where the ``struct page`` of PFN 0 would be, or 0
    :param section_shift: log2 of a section's pages
    :param sections_pgshift: where ``page->flags`` has the number of the page's section
    :param section_cover: of each piece of physical memory as large as a section's array, which section's array covers
        its first byte: its number plus one, or 0
    """

    ram: Ram
    as_u8: u8_view
    as_s8: s8_view
    as_u32: u32_view
    as_s32: s32_view
    as_u64: u64_view
    as_s64: s64_view
    size: u64
    page_offset: u64
    start_kernel_map: u64
    phys_base: u64
    kernel_image_size: u64
    mem_map: u64
    vmemmap: u64
    memmap: u64_view
    memmap_chunks: u64
    memmap_shift: u32
    memmap_mask: u64
    #: A chunk of the page array that begins below is all in memory
    memmap_limit: u64
    sectioned: bool
    sections: u64_view
    nr_sections: u64
    section_cover: u32_view
    section_shift: u32
    section_bytes: u64
    sections_pgshift: u32
    list_poison1: u64
    list_poison2: u64

    def __init__(
        self,
        ram: Ram,
        *,
        page_offset: int,
        start_kernel_map: int,
        phys_base: int,
        kernel_image_size: int,
        mem_map: int,
        memmap: memoryview,
        memmap_shift: int,
        list_poison1: int,
        list_poison2: int,
        vmemmap: int | None = None,
        sections: memoryview | None = None,
        section_cover: memoryview | None = None,
        section_shift: int = 0,
        sections_pgshift: int = 0,
    ) -> None:
        self.ram = ram
        self.as_u8 = ram.as_u8
        self.as_s8 = ram.as_s8
        self.as_u32 = ram.as_u32
        self.as_s32 = ram.as_s32
        self.as_u64 = ram.as_u64
        self.as_s64 = ram.as_s64
        self.size = ram.size
        self.page_offset = page_offset
        self.start_kernel_map = start_kernel_map
        self.phys_base = phys_base
        self.kernel_image_size = kernel_image_size
        self.mem_map = mem_map
        self.vmemmap = mem_map if vmemmap is None else vmemmap
        self.memmap = memmap
        self.memmap_chunks = len(memmap)
        self.memmap_shift = memmap_shift
        self.memmap_mask = (1 << memmap_shift) - 1
        self.memmap_limit = max(ram.size - self.memmap_mask, 0)
        self.sectioned = sections is not None
        # A view that is never set is a wild pointer to the compiled engine.
        self.sections = memoryview(array("Q"))
        self.section_cover = memoryview(array("I"))
        if sections is not None and section_cover is not None:
            self.mem_map = UNMAPPED
            self.sections = sections
            self.section_cover = section_cover
        self.nr_sections = len(self.sections)
        self.section_shift = section_shift
        self.section_bytes = 64 << section_shift
        self.sections_pgshift = sections_pgshift
        self.list_poison1 = list_poison1
        self.list_poison2 = list_poison2

    def bad_address(self, va: u64) -> None:
        """Say what is wrong with ``va``: always raises AddressError."""
        mask: u64 = 0xFFFFFFFFFFFFFFFF
        # It may be a sum, which C has reduced to 64 bits and Python has not.
        va &= mask
        if va < self.page_offset:
            raise AddressError(va, "not a kernel address: below the direct map")
        if va & 7:
            raise AddressError(va, "not aligned to 8 bytes")
        if self.vmemmap <= va < self.start_kernel_map:
            raise AddressError(va, "no memory of the page array is mapped here")
        raise AddressError(va, f"no memory is mapped here (physical memory ends at {self.size:#x})")

    def bad_page_pointer(self, page: u64) -> None:
        """Say that ``page`` is no ``struct page *``: always raises CorruptionError."""
        mask: u64 = 0xFFFFFFFFFFFFFFFF
        page &= mask
        raise CorruptionError("page_pointer", f"{page:#x} is not an element of the page array at {self.mem_map:#x}")

    def bad_block(self, page: u64, order: u32) -> None:
        """Say that the page array has no block of this order here: always raises CorruptionError."""
        raise CorruptionError("page_pointer", f"no block of order {order} begins at {page:#x} of the page array")

    def section_page_off(self, page: u64) -> u64:
        """:func:`physmem.address.page_off`, where the page array is in sections."""
        phys: u64 = page - self.page_offset
        start: u64
        piece: u64
        nr: u64
        i: u32
        if page >= self.page_offset and phys < self.size and page & 63 == 0:
            # Arrays are as large as the pieces, so that no more than two of them have a part in one.
            piece = phys >> (self.section_shift + 6)
            for i in range(2):
                nr = self.section_cover[piece + i]
                if nr != 0:
                    nr -= 1
                    start = self.sections[nr] + nr * self.section_bytes
                    if start <= page and page - start < self.section_bytes:
                        return phys
        self.bad_page_pointer(page)
        return 0

    def section_pfn(self, page: u64) -> u64:
        """PFN of a ``struct page *`` where the page array is in sections, by its address alone."""
        at: u64 = self.section_page_off(page)
        piece: u64 = at >> (self.section_shift + 6)
        nr: u64 = self.section_cover[piece]
        start: u64 = 0
        if nr != 0:
            nr -= 1
            start = self.sections[nr] + nr * self.section_bytes
        if start == 0 or page < start or page - start >= self.section_bytes:
            nr = self.section_cover[piece + 1]
            nr -= 1
            start = self.sections[nr] + nr * self.section_bytes
        return (nr << self.section_shift) + ((page - start) >> 6)

    def section_page_to_pfn(self, page: u64) -> u64:
        """``page_to_pfn`` of CONFIG_SPARSEMEM, by the section in the flags; CorruptionError if that is another."""
        at: u64 = self.section_page_off(page)
        nr: u64 = self.as_u64[at >> 3] >> self.sections_pgshift
        start: u64 = 0
        if nr < self.nr_sections:
            start = self.sections[nr] + nr * self.section_bytes
        if start == 0 or page < start or page - start >= self.section_bytes:
            raise CorruptionError(
                "page_section", f"page {page:#x} has section {nr} in its flags", self.section_pfn(page)
            )
        return (nr << self.section_shift) + ((page - start) >> 6)

    def section_pfn_to_page(self, pfn: u64) -> u64:
        """``pfn_to_page`` of CONFIG_SPARSEMEM; AddressError if the section has no page array."""
        nr: u64 = pfn >> self.section_shift
        base: u64 = 0
        if nr < self.nr_sections:
            base = self.sections[nr]
        if base == 0:
            raise AddressError(pfn << 12, f"pfn {pfn} is in section {nr}, which has no page array")
        return base + (pfn << 6)

    def broken_list(self, entry: u64) -> None:
        """Report a list entry that contradicts its neighbours: always raises CorruptionError."""
        chunk: u64 = (entry - self.mem_map) >> self.memmap_shift if entry >= self.mem_map else self.memmap_chunks
        is_page: bool = chunk < self.memmap_chunks and self.memmap[chunk] < self.size
        pfn: object = (entry - self.mem_map) >> 6 if is_page else None
        detail: object = f"list_head {entry:#x}: the neighbours' links do not lead back to it"
        raise CorruptionError("list_links", detail, pfn)  # type: ignore[arg-type]

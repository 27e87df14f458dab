# SPDX-License-Identifier: GPL-2.0-only
# room: inline
"""Address arithmetic: kernel virtual, physical, PFN and ``struct page *``, each into the others.

The functions are the kernel's, under the kernel's names (arch/x86/include/asm/page.h,
include/asm-generic/memory_model.h); a ``struct page *`` is its kernel virtual address,
an ``int``.  A page frame number counts pages of 4096 bytes from physical 0.

Each is a line or two, so this room is inlined into the compiled ones (its ``.pxd`` holds
the same bodies, written by ``tools/pxd.py``).

Here is where an address is proved, once: what the accessors of the inline rooms are given is a
physical address from :func:`struct_off` or :func:`page_off` (or :func:`off`, for a single word) and
an offset within that struct, and the compiled engine does not ask again.  That the offsets are
within is checked when a kernel is attached (:mod:`kernelmm.core.bounds`).
"""

from __future__ import annotations

from physmem import abi
from physmem.ctype import u32, u64
from physmem.space import AddressSpace

__all__ = [
    "block_off",
    "buddies_off",
    "lookup",
    "off",
    "page_address",
    "page_off",
    "page_to_pfn",
    "page_to_phys",
    "pfn_has_page",
    "pfn_to_page",
    "phys_to_virt",
    "struct_off",
    "virt_addr_valid",
    "virt_to_page",
    "virt_to_phys",
]


def lookup(space: AddressSpace, va: u64) -> u64:
    """Physical address of the 8-byte aligned kernel address ``va``, or UNMAPPED (2^64 - 1)."""
    phys: u64
    chunk: u64
    if va < space.page_offset or va & 7:
        return 0xFFFFFFFFFFFFFFFF
    if va >= space.vmemmap:
        chunk = (va - space.vmemmap) >> space.memmap_shift
        if chunk < space.memmap_chunks:
            phys = space.memmap[chunk]
            if phys >= space.memmap_limit:
                return 0xFFFFFFFFFFFFFFFF
            return phys + ((va - space.vmemmap) & space.memmap_mask)
    phys = va - space.page_offset
    if phys < space.size:
        return phys
    if va >= space.start_kernel_map and va - space.start_kernel_map < space.kernel_image_size:
        phys = va - space.start_kernel_map + space.phys_base
        if phys < space.size:
            return phys
    return 0xFFFFFFFFFFFFFFFF


def off(space: AddressSpace, va: u64) -> u64:
    """Physical address behind the kernel address ``va``; AddressError if there is no memory."""
    phys: u64
    if va >= space.page_offset and va & 7 == 0:
        # Nearly always an address of the direct map.
        phys = va - space.page_offset
        if phys < space.size:
            return phys
    phys = lookup(space, va)
    if phys >= space.size:
        space.bad_address(va)
    return phys


def struct_off(space: AddressSpace, va: u64, size: u64) -> u64:
    """:func:`off` for a struct of ``size`` bytes, all of which is memory."""
    phys: u64
    if va >= space.page_offset and va & 7 == 0:
        phys = va - space.page_offset
        if phys <= space.size - size:
            return phys
    phys = lookup(space, va)
    if phys > space.size - size:
        space.bad_address(va)
    return phys


def page_off(space: AddressSpace, page: u64) -> u64:
    """Physical address of a ``struct page``; AddressError if ``page`` is not in the page array."""
    chunk: u64
    phys: u64
    if page < space.mem_map or page & (abi.SIZEOF_PAGE - 1):
        if space.sectioned:
            return space.section_page_off(page)
        space.bad_page_pointer(page)
    chunk = (page - space.mem_map) >> space.memmap_shift
    if chunk >= space.memmap_chunks:
        space.bad_page_pointer(page)
    phys = space.memmap[chunk]
    if phys >= space.memmap_limit:
        space.bad_page_pointer(page)
    return phys + ((page - space.mem_map) & space.memmap_mask)


def block_off(space: AddressSpace, page: u64, order: u32) -> u64:
    """:func:`page_off` for the 2^``order`` entries of a block, all of which are memory.

    :param order: whatever a caller says it is: he may be wrong
    """
    phys: u64 = page_off(space, page)
    size: u64 = abi.SIZEOF_PAGE
    if order != 0:
        if order > 31:
            space.bad_block(page, order)
        size <<= order
        if size > space.size or phys > space.size - size:
            space.bad_block(page, order)
        if order >= abi.MAX_ORDER:
            # More than the largest block, which is of one piece.
            page_off(space, page + size - abi.SIZEOF_PAGE)
    return phys


def buddies_off(space: AddressSpace, page: u64, pfn: u64) -> u64:
    """:func:`page_off` for a page whose neighbours, as far as the largest block around it goes, are memory as well.

    :param pfn: that of ``page``
    """
    phys: u64 = page_off(space, page)
    before: u64 = (pfn & ((1 << (abi.MAX_ORDER - 1)) - 1)) << abi.SIZEOF_PAGE_SHIFT
    largest: u64 = abi.SIZEOF_PAGE << (abi.MAX_ORDER - 1)
    if phys < before or phys - before > space.size - largest:
        space.bad_block(page, abi.MAX_ORDER - 1)
    return phys


def page_to_pfn(space: AddressSpace, page: u64) -> u64:
    """``page_to_pfn``: linear, but where the page array is in sections, by the section in the page's flags."""
    if space.sectioned:
        return space.section_page_to_pfn(page)
    return (page - space.mem_map) >> abi.SIZEOF_PAGE_SHIFT


def pfn_to_page(space: AddressSpace, pfn: u64) -> u64:
    """``pfn_to_page``: linear, but where the page array is in sections, for each section."""
    if space.sectioned:
        return space.section_pfn_to_page(pfn)
    return space.mem_map + (pfn << abi.SIZEOF_PAGE_SHIFT)


def pfn_has_page(space: AddressSpace, pfn: u64) -> bool:
    """``pfn_valid``: the page array has an entry for this PFN, so that its ``struct page`` can be read."""
    chunk: u64 = (pfn << abi.SIZEOF_PAGE_SHIFT) >> space.memmap_shift
    if chunk >= space.memmap_chunks:
        return False
    return space.memmap[chunk] < space.memmap_limit


def phys_to_virt(space: AddressSpace, phys: u64) -> u64:
    """Direct-map address of a physical address (``__va``)."""
    return space.page_offset + phys


def virt_to_phys(space: AddressSpace, va: u64) -> u64:
    """Physical address of a direct-map or kernel-image address (``__pa``)."""
    if va >= space.start_kernel_map:
        return va - space.start_kernel_map + space.phys_base
    return va - space.page_offset


def page_to_phys(space: AddressSpace, page: u64) -> u64:
    """Physical address of the page frame that ``page`` describes."""
    return page_to_pfn(space, page) << abi.PAGE_SHIFT


def page_address(space: AddressSpace, page: u64) -> u64:
    """Direct-map address of the page frame that ``page`` describes (lowmem_page_address)."""
    return space.page_offset + (page_to_pfn(space, page) << abi.PAGE_SHIFT)


def virt_to_page(space: AddressSpace, va: u64) -> u64:
    """``struct page *`` of the frame behind a direct-map or kernel-image address."""
    return pfn_to_page(space, virt_to_phys(space, va) >> abi.PAGE_SHIFT)


def virt_addr_valid(space: AddressSpace, va: u64) -> bool:
    """``__virt_addr_valid``: a direct-map or kernel-image address of a frame that has a ``struct page``.

    Above the image's room modules are mapped, each page to a frame of its own.
    """
    if va < space.page_offset:
        return False
    if va >= space.start_kernel_map and va - space.start_kernel_map >= space.kernel_image_size:
        return False
    return pfn_has_page(space, virt_to_phys(space, va) >> abi.PAGE_SHIFT)

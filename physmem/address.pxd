# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from address.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from physmem cimport abi
from physmem.space cimport AddressSpace

cdef inline uint64_t lookup(AddressSpace space, uint64_t va) noexcept:
    cdef uint64_t phys
    cdef uint64_t chunk
    with cython.boundscheck(False):
        if va < space.page_offset or va & 7:
            return 18446744073709551615
        if va >= space.vmemmap:
            chunk = va - space.vmemmap >> space.memmap_shift
            if chunk < space.memmap_chunks:
                phys = space.memmap[chunk]
                if phys >= space.memmap_limit:
                    return 18446744073709551615
                return phys + (va - space.vmemmap & space.memmap_mask)
        phys = va - space.page_offset
        if phys < space.size:
            return phys
        if va >= space.start_kernel_map and va - space.start_kernel_map < space.kernel_image_size:
            phys = va - space.start_kernel_map + space.phys_base
            if phys < space.size:
                return phys
        return 18446744073709551615

cdef inline uint64_t off(AddressSpace space, uint64_t va) except? 0xBAD0BAD0BAD0BAD0:
    cdef uint64_t phys
    with cython.boundscheck(False):
        if va >= space.page_offset and va & 7 == 0:
            phys = va - space.page_offset
            if phys < space.size:
                return phys
        phys = lookup(space, va)
        if phys >= space.size:
            space.bad_address(va)
        return phys

cdef inline uint64_t struct_off(AddressSpace space, uint64_t va, uint64_t size) except? 0xBAD0BAD0BAD0BAD0:
    cdef uint64_t phys
    with cython.boundscheck(False):
        if va >= space.page_offset and va & 7 == 0:
            phys = va - space.page_offset
            if phys <= space.size - size:
                return phys
        phys = lookup(space, va)
        if phys > space.size - size:
            space.bad_address(va)
        return phys

cdef inline uint64_t page_off(AddressSpace space, uint64_t page) except? 0xBAD0BAD0BAD0BAD0:
    cdef uint64_t chunk
    cdef uint64_t phys
    with cython.boundscheck(False):
        if page < space.mem_map or page & abi.SIZEOF_PAGE - 1:
            if space.sectioned:
                return space.section_page_off(page)
            space.bad_page_pointer(page)
        chunk = page - space.mem_map >> space.memmap_shift
        if chunk >= space.memmap_chunks:
            space.bad_page_pointer(page)
        phys = space.memmap[chunk]
        if phys >= space.memmap_limit:
            space.bad_page_pointer(page)
        return phys + (page - space.mem_map & space.memmap_mask)

cdef inline uint64_t block_off(AddressSpace space, uint64_t page, uint32_t order) except? 0xBAD0BAD0BAD0BAD0:
    cdef uint64_t phys
    cdef uint64_t size
    with cython.boundscheck(False):
        phys = page_off(space, page)
        size = abi.SIZEOF_PAGE
        if order != 0:
            if order > 31:
                space.bad_block(page, order)
            size <<= order
            if size > space.size or phys > space.size - size:
                space.bad_block(page, order)
            if order >= abi.MAX_ORDER:
                page_off(space, page + size - abi.SIZEOF_PAGE)
        return phys

cdef inline uint64_t buddies_off(AddressSpace space, uint64_t page, uint64_t pfn) except? 0xBAD0BAD0BAD0BAD0:
    cdef uint64_t phys
    cdef uint64_t before
    cdef uint64_t largest
    with cython.boundscheck(False):
        phys = page_off(space, page)
        before = (pfn & (1 << abi.MAX_ORDER - 1) - 1) << abi.SIZEOF_PAGE_SHIFT
        largest = abi.SIZEOF_PAGE << abi.MAX_ORDER - 1
        if phys < before or phys - before > space.size - largest:
            space.bad_block(page, abi.MAX_ORDER - 1)
        return phys

cdef inline uint64_t page_to_pfn(AddressSpace space, uint64_t page) except? 0xBAD0BAD0BAD0BAD0:
    with cython.boundscheck(False):
        if space.sectioned:
            return space.section_page_to_pfn(page)
        return page - space.mem_map >> abi.SIZEOF_PAGE_SHIFT

cdef inline uint64_t pfn_to_page(AddressSpace space, uint64_t pfn) except? 0xBAD0BAD0BAD0BAD0:
    with cython.boundscheck(False):
        if space.sectioned:
            return space.section_pfn_to_page(pfn)
        return space.mem_map + (pfn << abi.SIZEOF_PAGE_SHIFT)

cdef inline bint pfn_has_page(AddressSpace space, uint64_t pfn) noexcept:
    cdef uint64_t chunk
    with cython.boundscheck(False):
        chunk = pfn << abi.SIZEOF_PAGE_SHIFT >> space.memmap_shift
        if chunk >= space.memmap_chunks:
            return False
        return space.memmap[chunk] < space.memmap_limit

cdef inline uint64_t phys_to_virt(AddressSpace space, uint64_t phys) noexcept:
    with cython.boundscheck(False):
        return space.page_offset + phys

cdef inline uint64_t virt_to_phys(AddressSpace space, uint64_t va) noexcept:
    with cython.boundscheck(False):
        if va >= space.start_kernel_map:
            return va - space.start_kernel_map + space.phys_base
        return va - space.page_offset

cdef inline uint64_t page_to_phys(AddressSpace space, uint64_t page) except? 0xBAD0BAD0BAD0BAD0:
    with cython.boundscheck(False):
        return page_to_pfn(space, page) << abi.PAGE_SHIFT

cdef inline uint64_t page_address(AddressSpace space, uint64_t page) except? 0xBAD0BAD0BAD0BAD0:
    with cython.boundscheck(False):
        return space.page_offset + (page_to_pfn(space, page) << abi.PAGE_SHIFT)

cdef inline uint64_t virt_to_page(AddressSpace space, uint64_t va) except? 0xBAD0BAD0BAD0BAD0:
    with cython.boundscheck(False):
        return pfn_to_page(space, virt_to_phys(space, va) >> abi.PAGE_SHIFT)

cdef inline bint virt_addr_valid(AddressSpace space, uint64_t va) noexcept:
    with cython.boundscheck(False):
        if va < space.page_offset:
            return False
        if va >= space.start_kernel_map and va - space.start_kernel_map >= space.kernel_image_size:
            return False
        return pfn_has_page(space, virt_to_phys(space, va) >> abi.PAGE_SHIFT)

# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from space.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t

cdef class AddressSpace:
    cdef public object ram
    cdef public uint8_t[::1] as_u8
    cdef public int8_t[::1] as_s8
    cdef public uint32_t[::1] as_u32
    cdef public int32_t[::1] as_s32
    cdef public uint64_t[::1] as_u64
    cdef public int64_t[::1] as_s64
    cdef public uint64_t size
    cdef public uint64_t page_offset
    cdef public uint64_t start_kernel_map
    cdef public uint64_t phys_base
    cdef public uint64_t kernel_image_size
    cdef public uint64_t mem_map
    cdef public uint64_t vmemmap
    cdef public uint64_t[::1] memmap
    cdef public uint64_t memmap_chunks
    cdef public uint32_t memmap_shift
    cdef public uint64_t memmap_mask
    cdef public uint64_t memmap_limit
    cdef public bint sectioned
    cdef public uint64_t[::1] sections
    cdef public uint64_t nr_sections
    cdef public uint32_t[::1] section_cover
    cdef public uint32_t section_shift
    cdef public uint64_t section_bytes
    cdef public uint32_t sections_pgshift
    cdef public uint64_t list_poison1
    cdef public uint64_t list_poison2

    @cython.locals(mask=uint64_t)
    cpdef bad_address(self, uint64_t va)

    @cython.locals(mask=uint64_t)
    cpdef bad_page_pointer(self, uint64_t page)

    cpdef bad_block(self, uint64_t page, uint32_t order)

    @cython.locals(phys=uint64_t, start=uint64_t, piece=uint64_t, nr=uint64_t, i=uint32_t)
    cpdef uint64_t section_page_off(self, uint64_t page) except? 0xBAD0BAD0BAD0BAD0

    @cython.locals(at=uint64_t, piece=uint64_t, nr=uint64_t, start=uint64_t)
    cpdef uint64_t section_pfn(self, uint64_t page) except? 0xBAD0BAD0BAD0BAD0

    @cython.locals(at=uint64_t, nr=uint64_t, start=uint64_t)
    cpdef uint64_t section_page_to_pfn(self, uint64_t page) except? 0xBAD0BAD0BAD0BAD0

    @cython.locals(nr=uint64_t, base=uint64_t)
    cpdef uint64_t section_pfn_to_page(self, uint64_t pfn) except? 0xBAD0BAD0BAD0BAD0

    @cython.locals(chunk=uint64_t, is_page=bint)
    cpdef broken_list(self, uint64_t entry)

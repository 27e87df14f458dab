# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from free_walk.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t

cdef class FreeBlocks:
    cdef public uint64_t flags_at
    cdef public uint64_t mapcount_at
    cdef public uint32_t mapcount_shift
    cdef public uint64_t buddy_mask
    cdef public uint64_t buddy_value
    cdef public uint64_t next_at
    cdef public uint64_t prev_at
    cdef public uint64_t base
    cdef public uint64_t size
    cdef public uint64_t[::1] pfns
    cdef public uint64_t[::1] next
    cdef public uint64_t[::1] prev
    cdef public const uint64_t[::1] wanted
    cdef public uint64_t[::1] flags
    cdef public uint64_t count
    cdef public uint64_t noted

    @cython.locals(stride=uint64_t, mapcount_at=uint64_t, shift=uint32_t, mask=uint64_t, value=uint64_t, next_at=uint64_t, prev_at=uint64_t, at=uint64_t, n=uint64_t, i=uint64_t, noted=uint64_t, end=uint64_t, asked=uint64_t)
    cpdef gather(self, const uint64_t[::1] words, uint64_t start, uint64_t pages)

    @cython.locals(at=uint64_t, before=uint64_t, found=int64_t, low=uint64_t, high=uint64_t, middle=uint64_t, pfn=uint64_t, mask=uint64_t)
    cpdef int64_t length(self, uint64_t head, uint64_t first, uint64_t last) except? -0x5BAD5BAD5BAD5BAD

# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from alike.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t

cdef class Sorter:
    cdef public uint64_t stride
    cdef public uint64_t flags_at
    cdef public uint64_t mapping_at
    cdef public uint64_t mapcount_at
    cdef public uint32_t mapcount_shift
    cdef public uint64_t count_at
    cdef public uint32_t count_shift
    cdef public uint64_t order_at
    cdef public uint64_t tail_at
    cdef public uint64_t tail_mask
    cdef public uint64_t lead_at
    cdef public uint64_t head_mask
    cdef public uint64_t buddy_mask
    cdef public uint64_t buddy_value
    cdef public uint32_t[::1] kind
    cdef public uint64_t[::1] keys
    cdef public uint32_t[::1] slots
    cdef public uint64_t[::1] run_begin
    cdef public uint64_t[::1] run_word
    cdef public uint64_t[::1] run_length
    cdef public int32_t[::1] run_high
    cdef public uint64_t[::1] head_at
    cdef public uint64_t[::1] rows
    cdef public uint8_t[::1] seconds
    cdef public uint8_t[::1] orders
    cdef public uint64_t pages
    cdef public uint64_t kinds
    cdef public uint64_t runs
    cdef public uint64_t heads
    cdef public uint64_t blocks
    cdef public bint behind
    cdef public bint in_run

    cpdef begin(self)

    @cython.locals(stride=uint64_t, flags_at=uint64_t, mapping_at=uint64_t, mapcount_at=uint64_t, mapcount_shift=uint32_t, count_at=uint64_t, count_shift=uint32_t, tail_at=uint64_t, tail_mask=uint64_t, head_mask=uint64_t, buddy_mask=uint64_t, buddy_value=uint64_t, at=uint64_t, _i=uint64_t, j=uint64_t, flags=uint64_t, mapping=uint64_t, counted=uint64_t, referred=uint64_t, lead=uint64_t, last_flags=uint64_t, last_mapping=uint64_t, last_counted=uint64_t, last_referred=uint64_t, last_lead=uint64_t, last_kind=uint32_t, same=bint, plain=bint, tailing=bint, mapcount=uint64_t, key=uint64_t, last=uint64_t, kind=uint32_t, known=bint, free=uint32_t, word=uint64_t, n=uint64_t, high=int32_t, position=uint64_t, none=uint32_t, low=uint64_t, bits=uint64_t, of_tail=uint64_t)
    cpdef sort(self, const uint64_t[::1] words, uint64_t count)

    @cython.locals(mixed=uint64_t, mask=uint64_t, i=uint32_t, kind=uint32_t)
    cpdef uint32_t kind_of(self, uint64_t key) except? 0xBAD0BAD0

    @cython.locals(i=uint64_t, k=uint64_t, run=int64_t, head=uint64_t, block=uint64_t, upto=uint64_t, until=uint64_t, what=uint64_t, found=uint64_t, count=uint64_t, inside=bint, order=uint32_t, word=uint32_t, last=uint32_t, plain=bint, pfn=uint64_t, one=uint64_t, none=uint32_t, low=uint32_t)
    cpdef tell(self, uint64_t start, uint32_t largest, const uint64_t[::1] of_kind, const uint64_t[::1] of_run, const uint64_t[::1] of_head, uint64_t free, uint64_t[::1] flags, uint64_t[::1] counts)

@cython.locals(i=uint64_t, j=uint32_t, slot=uint64_t, mixed=uint64_t, value=uint64_t, last=uint64_t, known=bint, found=bint, mask=uint64_t, size=uint64_t)
cpdef uint64_t tally(const uint64_t[::1] values, uint64_t begin, uint64_t[::1] keys, uint64_t[::1] counts) except? 0xBAD0BAD0BAD0BAD0

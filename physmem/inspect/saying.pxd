# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from saying.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t

cdef class Saying:
    cdef public uint64_t stride
    cdef public bint direct
    cdef public uint64_t flags_at
    cdef public uint64_t mapping_at
    cdef public uint64_t mapcount_at
    cdef public uint32_t mapcount_shift
    cdef public uint32_t[::1] bits
    cdef public uint64_t[::1] copies
    cdef public uint64_t both_swap
    cdef public bint by_head
    cdef public bint all_ksm
    cdef public bint slab_type
    cdef public uint64_t slab_mask
    cdef public uint64_t slab_value
    cdef public uint64_t slab_flag
    cdef public uint64_t backed
    cdef public uint64_t cached
    cdef public bint cached_if_backed
    cdef public uint64_t idle
    cdef public uint64_t[::1] type_masks
    cdef public uint64_t[::1] type_values
    cdef public uint64_t[::1] type_flags
    cdef public uint64_t buddy_mask
    cdef public uint64_t buddy_value
    cdef public int64_t least
    cdef public uint64_t head_mask
    cdef public uint64_t drop
    cdef public uint64_t own
    cdef public uint64_t poison
    cdef public uint64_t lru
    cdef public uint64_t double_map
    cdef public uint64_t rmappable
    cdef public bint thp
    cdef public bint types_of_all
    cdef public bint one_owner
    cdef public bint idle_of_all
    cdef public bint swap_of_all
    cdef public bint whole_counts
    cdef public int64_t huge_zero
    cdef public bint huge_first
    cdef public uint64_t huge_word
    cdef public uint32_t huge_shift
    cdef public uint64_t huge_mask
    cdef public uint64_t huge_value
    cdef public bint has_entire
    cdef public uint64_t entire_word
    cdef public uint32_t entire_shift
    cdef public bint has_large
    cdef public uint64_t large_word
    cdef public uint32_t large_shift
    cdef public uint64_t kpf_slab
    cdef public uint64_t kpf_buddy
    cdef public uint64_t kpf_mmap
    cdef public uint64_t kpf_anon
    cdef public uint64_t kpf_swapcache
    cdef public uint64_t kpf_head
    cdef public uint64_t kpf_tail
    cdef public uint64_t kpf_huge
    cdef public uint64_t kpf_hwpoison
    cdef public uint64_t kpf_ksm
    cdef public uint64_t kpf_thp
    cdef public uint64_t kpf_zero
    cdef public uint64_t kpf_idle

    @cython.locals(found=uint64_t, i=uint64_t, count=uint64_t)
    cpdef uint64_t copied(self, uint64_t words) except? 0xBAD0BAD0BAD0BAD0

    cpdef uint64_t ksm(self, uint64_t mapping) except? 0xBAD0BAD0BAD0BAD0

    @cython.locals(found=uint64_t, i=uint64_t, count=uint64_t)
    cpdef uint64_t types(self, uint64_t mapcount) except? 0xBAD0BAD0BAD0BAD0

    @cython.locals(i=uint64_t, key=uint64_t, flags=uint64_t, words=uint64_t, mapping=uint64_t, mapcount=uint64_t, signed=int64_t, is_tail=bint, is_head=bint, shared=bint, none=bint, what=uint64_t, own=uint64_t, count=uint64_t, all_ones=uint64_t, top=uint64_t)
    cpdef kinds(self, const uint64_t[::1] keys, uint64_t[::1] table)

    @cython.locals(i=uint64_t, runs=uint64_t, heads=uint64_t, low=uint64_t, high=uint64_t, middle=uint64_t, wanted=uint64_t, elsewhere=uint64_t, nowhere=uint32_t, begin=int64_t)
    cpdef uint64_t heads_of(self, uint64_t start, int64_t[::1] lead, const uint64_t[::1] head_at, uint32_t[::1] numbers) except? 0xBAD0BAD0BAD0BAD0

    @cython.locals(i=uint64_t, runs=uint64_t, word=uint64_t, top=uint64_t)
    cpdef parts(self, int32_t[::1] high, uint32_t[::1] numbers, const uint64_t[::1] rows, uint64_t heads, uint8_t[::1] mapped)

    @cython.locals(i=uint64_t, n=uint64_t, count=uint64_t, words=uint64_t, mapping=uint64_t, mapcount=uint64_t, second=uint64_t, found=uint64_t, tails=uint64_t, word=uint64_t, entire=int64_t, large=int64_t, whole=int64_t, is_huge=bint, special=bint, all_ones=uint64_t, low=uint64_t, top=uint64_t)
    cpdef whole(self, const uint64_t[::1] rows, uint8_t[::1] known, int64_t[::1] pfns, uint8_t[::1] mapped, uint64_t first, uint64_t[::1] table)

    @cython.locals(i=uint64_t, n=uint64_t, count=uint64_t)
    cpdef spread(self, uint32_t[::1] numbers, const uint64_t[::1] table, uint64_t column, uint64_t[::1] told)

    @cython.locals(i=uint64_t, count=uint64_t, page=uint64_t, head=uint64_t, pfn=uint64_t, mask=uint64_t, upper=uint64_t)
    cpdef lead(self, uint64_t start, const uint64_t[::1] begin, const uint64_t[::1] words, uint64_t base, uint64_t size, uint64_t end, uint64_t first, int64_t[::1] lead)

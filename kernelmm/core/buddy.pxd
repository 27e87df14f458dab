# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from buddy.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from kernelmm.core cimport mmzone
from kernelmm.core cimport page
from kernelmm.core cimport vmstat
from kernelmm.core.mm cimport Mm
from physmem cimport abi
from physmem cimport address
from physmem cimport list_head
from physmem cimport word

@cython.locals(at=uint64_t, max_order=uint32_t, index=uint64_t, buddy_index=uint64_t, step=int64_t, head=uint64_t)
cpdef __free_one_page(Mm mm, uint64_t pg, uint64_t pfn, uint64_t zone, uint64_t z, uint64_t pageset, uint32_t order, int32_t migratetype)

@cython.locals(combined=uint64_t, higher_at=uint64_t, step=int64_t)
cpdef bint next_order_is_likely(Mm mm, uint64_t at, uint64_t index, uint64_t buddy_index, uint32_t order) except -1

@cython.locals(half=uint64_t, head=uint64_t)
cpdef expand(Mm mm, uint64_t pg, uint64_t at, uint64_t zone, uint64_t z, uint32_t low, uint32_t high, int32_t migratetype)

@cython.locals(head=uint64_t, entry=uint64_t)
cpdef uint64_t first_free(Mm mm, uint64_t zone, uint64_t z, uint32_t order, int32_t migratetype) except? 0xBAD0BAD0BAD0BAD0

@cython.locals(largest=uint32_t, current=uint32_t, pg=uint64_t, at=uint64_t)
cpdef uint64_t __rmqueue_smallest(Mm mm, uint64_t zone, uint64_t z, uint32_t order, int32_t migratetype) except? 0xBAD0BAD0BAD0BAD0

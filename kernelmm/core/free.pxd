# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from free.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from kernelmm.core cimport buddy
from kernelmm.core cimport compound
from kernelmm.core cimport mmzone
from kernelmm.core cimport page
from kernelmm.core cimport pcp
from kernelmm.core.mm cimport Mm
from physmem cimport abi
from physmem cimport address
from physmem cimport list_head
from physmem cimport word

@cython.locals(flags=uint64_t)
cpdef bint free_pages_check(Mm mm, uint64_t pg, uint64_t at) except -1

@cython.locals(i=uint64_t, bad=int32_t)
cpdef int32_t check_tails(Mm mm, uint64_t pg, uint64_t at, uint32_t order) except? -0x5BAD5BAD

@cython.locals(i=uint64_t, bad=int32_t, debugging=bint, tails=bint)
cpdef bint free_pages_prepare(Mm mm, uint64_t pg, uint64_t at, uint32_t order) except -1

@cython.locals(z=uint64_t, pageset=uint64_t)
cpdef free_one_page(Mm mm, uint64_t zone, uint64_t pg, uint64_t pfn, uint32_t order, int32_t migratetype)

@cython.locals(at=uint64_t, pfn=uint64_t, migratetype=int32_t)
cpdef __free_pages_ok(Mm mm, uint64_t pg, uint32_t order)

@cython.locals(at=uint64_t, pfn=uint64_t, zone=uint64_t, z=uint64_t, pset=uint64_t, pageset=uint64_t, lists=uint64_t, migratetype=int32_t, batch=int32_t)
cpdef free_hot_cold_page(Mm mm, uint64_t pg, bint cold)

cpdef __free_pages(Mm mm, uint64_t pg, uint32_t order)

cpdef free_pages(Mm mm, uint64_t addr, uint32_t order)

@cython.locals(order=uint64_t)
cpdef put_compound_or_single(Mm mm, uint64_t pg, uint64_t at)

@cython.locals(at=uint64_t, head=uint64_t, head_at=uint64_t)
cpdef put_page(Mm mm, uint64_t pg)

@cython.locals(i=uint64_t)
cpdef split_page(Mm mm, uint64_t pg, uint32_t order)

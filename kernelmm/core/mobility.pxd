# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from mobility.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from kernelmm.core cimport buddy
from kernelmm.core cimport mmzone
from kernelmm.core cimport page
from kernelmm.core.mm cimport Mm
from physmem cimport abi
from physmem cimport address
from physmem cimport list_head
from physmem cimport word

cpdef int32_t fallback(Mm mm, int32_t migratetype, int32_t i) except? -0x5BAD5BAD

@cython.locals(z=uint64_t, head=uint64_t, pfn=uint64_t, moved=uint64_t, pg=uint64_t, at=uint64_t, order=uint64_t, debug_vm=bint)
cpdef uint64_t move_freepages(Mm mm, uint64_t zone, uint64_t start_pfn, uint64_t end_pfn, int32_t migratetype) except? 0xBAD0BAD0BAD0BAD0

@cython.locals(z=uint64_t, start=uint64_t, end=uint64_t)
cpdef uint64_t move_freepages_block(Mm mm, uint64_t zone, uint64_t pfn, int32_t migratetype) except? 0xBAD0BAD0BAD0BAD0

@cython.locals(pfn=uint64_t, order=uint64_t, disabled=bint, moved=uint64_t, last=uint64_t)
cpdef try_to_steal_freepages(Mm mm, uint64_t zone, uint64_t pg, int32_t start_type)

@cython.locals(z=uint64_t, current=uint32_t, i=int32_t, migratetype=int32_t, buddy_type=int32_t, pg=uint64_t, at=uint64_t)
cpdef uint64_t __rmqueue_fallback(Mm mm, uint64_t zone, uint32_t order, int32_t start_migratetype) except? 0xBAD0BAD0BAD0BAD0

@cython.locals(pg=uint64_t)
cpdef uint64_t __rmqueue(Mm mm, uint64_t zone, uint64_t z, uint32_t order, int32_t migratetype) except? 0xBAD0BAD0BAD0BAD0

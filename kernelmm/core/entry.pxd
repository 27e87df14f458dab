# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from entry.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from kernelmm cimport gfp
from kernelmm.core cimport alloc
from kernelmm.core cimport current
from kernelmm.core cimport fault
from kernelmm.core cimport free
from kernelmm.core cimport mmzone
from kernelmm.core cimport watermark
from kernelmm.core cimport zoneref
from kernelmm.core.mm cimport AllocContext
from kernelmm.core.mm cimport Mm
from kernelmm.pressure cimport attempt
from physmem cimport abi
from physmem cimport address
from physmem cimport word

@cython.locals(pg=uint64_t)
cpdef uint64_t __alloc_pages_slowpath(Mm mm, uint32_t gfp_mask, uint32_t order, AllocContext ac) except? 0xBAD0BAD0BAD0BAD0

@cython.locals(ac=AllocContext, alloc_flags=uint32_t, alloc_mask=uint32_t, cookie=uint32_t, pg=uint64_t)
cpdef uint64_t __alloc_pages_nodemask(Mm mm, uint32_t gfp_mask, uint32_t order, uint64_t zonelist, uint64_t nodemask) except? 0xBAD0BAD0BAD0BAD0

cpdef uint64_t alloc_pages_node(Mm mm, int32_t nid, uint32_t gfp_mask, uint32_t order) except? 0xBAD0BAD0BAD0BAD0

cpdef uint64_t alloc_pages_exact_node(Mm mm, int32_t nid, uint32_t gfp_mask, uint32_t order) except? 0xBAD0BAD0BAD0BAD0

cpdef uint64_t alloc_pages(Mm mm, uint32_t gfp_mask, uint32_t order) except? 0xBAD0BAD0BAD0BAD0

@cython.locals(pg=uint64_t)
cpdef uint64_t __get_free_pages(Mm mm, uint32_t gfp_mask, uint32_t order) except? 0xBAD0BAD0BAD0BAD0

cpdef uint64_t get_zeroed_page(Mm mm, uint32_t gfp_mask) except? 0xBAD0BAD0BAD0BAD0

@cython.locals(pages=uint64_t, order=uint32_t)
cpdef uint32_t get_order(uint64_t size) except? 0xBAD0BAD0

@cython.locals(used=uint64_t, end=uint64_t)
cpdef uint64_t make_alloc_exact(Mm mm, uint64_t addr, uint32_t order, uint64_t size) except? 0xBAD0BAD0BAD0BAD0

@cython.locals(order=uint32_t)
cpdef uint64_t alloc_pages_exact(Mm mm, uint64_t size, uint32_t gfp_mask) except? 0xBAD0BAD0BAD0BAD0

@cython.locals(order=uint32_t, pg=uint64_t)
cpdef uint64_t alloc_pages_exact_nid(Mm mm, int32_t nid, uint64_t size, uint32_t gfp_mask) except? 0xBAD0BAD0BAD0BAD0

@cython.locals(end=uint64_t)
cpdef free_pages_exact(Mm mm, uint64_t addr, uint64_t size)

cpdef uint64_t alloc_kmem_pages(Mm mm, uint32_t gfp_mask, uint32_t order) except? 0xBAD0BAD0BAD0BAD0

cpdef uint64_t alloc_kmem_pages_node(Mm mm, int32_t nid, uint32_t gfp_mask, uint32_t order) except? 0xBAD0BAD0BAD0BAD0

cpdef __free_kmem_pages(Mm mm, uint64_t pg, uint32_t order)

cpdef free_kmem_pages(Mm mm, uint64_t addr, uint32_t order)

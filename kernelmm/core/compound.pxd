# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from compound.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from kernelmm.core cimport page
from kernelmm.core.mm cimport Mm
from physmem cimport abi
from physmem cimport address
from physmem cimport word

@cython.locals(at=uint64_t, tail=uint64_t, i=uint64_t)
cpdef prep_compound_page(Mm mm, uint64_t pg, uint32_t order)

cpdef uint64_t compound_order(Mm mm, uint64_t pg) except? 0xBAD0BAD0BAD0BAD0

@cython.locals(at=uint64_t)
cpdef uint64_t compound_head(Mm mm, uint64_t pg) except? 0xBAD0BAD0BAD0BAD0

cpdef bint compound_tail_refcounted(Mm mm, uint64_t head_at) except -1

cpdef bint get_page_unless_zero(Mm mm, uint64_t at) except -1

@cython.locals(at=uint64_t, head_at=uint64_t)
cpdef get_page(Mm mm, uint64_t pg)

# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from attempt.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from kernelmm cimport gfp
from kernelmm.core cimport alloc
from kernelmm.core cimport current
from kernelmm.core cimport mmzone
from kernelmm.core cimport watermark
from kernelmm.core cimport zoneref
from kernelmm.core.mm cimport AllocContext
from kernelmm.core.mm cimport Mm
from kernelmm.pressure cimport wakeup
from physmem cimport abi

@cython.locals(zref=uint64_t, preferred=uint64_t)
cpdef wake_all_kswapds(Mm mm, uint32_t order, AllocContext ac)

@cython.locals(alloc_flags=uint32_t)
cpdef uint32_t gfp_to_alloc_flags(Mm mm, uint32_t gfp_mask) except? 0xBAD0BAD0

cpdef uint64_t without_reserves(Mm mm, uint32_t gfp_mask, uint32_t order, uint32_t alloc_flags, AllocContext ac) except? 0xBAD0BAD0BAD0BAD0

cpdef uint64_t high_priority(Mm mm, uint32_t gfp_mask, uint32_t order, AllocContext ac) except? 0xBAD0BAD0BAD0BAD0

@cython.locals(alloc_flags=uint32_t, pg=uint64_t)
cpdef uint64_t attempt(Mm mm, uint32_t gfp_mask, uint32_t order, AllocContext ac) except? 0xBAD0BAD0BAD0BAD0

# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from slowpath.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from kernelmm cimport gfp
from kernelmm.core cimport alloc
from kernelmm.core cimport mmzone
from kernelmm.core cimport watermark
from kernelmm.core.mm cimport AllocContext
from kernelmm.core.mm cimport Mm
from physmem cimport abi
from physmem cimport address
from physmem cimport list_head
from physmem cimport word

@cython.locals(low=int64_t)
cpdef bint compaction_skipped(Mm mm, uint64_t z, uint32_t order, int32_t classzone_idx) except -1

@cython.locals(high=int64_t)
cpdef bint zone_balanced(Mm mm, uint64_t z, uint32_t order, int32_t classzone_idx) except -1

@cython.locals(z=uint64_t, pgdat=uint64_t, head=uint64_t, head_at=uint64_t, wanted=int32_t)
cpdef wakeup_kswapd(Mm mm, uint64_t zone, uint32_t order, uint32_t classzone_idx)

@cython.locals(refs=uint64_t, end=uint64_t, zref=uint64_t, preferred=uint64_t)
cpdef wake_all_kswapds(Mm mm, uint32_t order, AllocContext ac)

@cython.locals(alloc_flags=uint32_t)
cpdef uint32_t gfp_to_alloc_flags(Mm mm, uint32_t gfp_mask) except? 0xBAD0BAD0

@cython.locals(alloc_flags=uint32_t, pg=uint64_t)
cpdef uint64_t __alloc_pages_slowpath(Mm mm, uint32_t gfp_mask, uint32_t order, AllocContext ac) except? 0xBAD0BAD0BAD0BAD0

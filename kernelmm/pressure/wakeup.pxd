# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from wakeup.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from kernelmm cimport gfp
from kernelmm.core cimport cpuset
from kernelmm.core cimport mmzone
from kernelmm.core cimport watermark
from kernelmm.core.mm cimport Mm
from kernelmm.pressure cimport codes
from physmem cimport abi
from physmem cimport address
from physmem cimport list_head
from physmem cimport word

@cython.locals(free_pages=int64_t, blocks=int64_t, per_block=int64_t, o=uint32_t)
cpdef int32_t fragmentation_index(Mm mm, uint64_t z, uint32_t order) except? -0x5BAD5BAD

@cython.locals(low=int64_t, index=int32_t)
cpdef int32_t __compaction_suitable(Mm mm, uint64_t z, uint32_t order, uint32_t alloc_flags, int32_t classzone_idx) except? -0x5BAD5BAD

@cython.locals(suitable=int32_t)
cpdef int32_t compaction_suitable(Mm mm, uint64_t z, uint32_t order, uint32_t alloc_flags, int32_t classzone_idx) except? -0x5BAD5BAD

@cython.locals(high=int64_t)
cpdef bint zone_balanced(Mm mm, uint64_t z, uint32_t order, uint64_t balance_gap, int32_t classzone_idx) except -1

cpdef wait_lock(Mm mm, uint64_t pgdat)

@cython.locals(z=uint64_t, pgdat=uint64_t, head=uint64_t, head_at=uint64_t, wanted=int32_t)
cpdef wakeup_kswapd(Mm mm, uint64_t zone, uint32_t order, uint32_t classzone_idx)

# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from alloc.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from kernelmm cimport gfp
from kernelmm.core cimport compound
from kernelmm.core cimport cpuset
from kernelmm.core cimport current
from kernelmm.core cimport mmzone
from kernelmm.core cimport mobility
from kernelmm.core cimport page
from kernelmm.core cimport pcp
from kernelmm.core cimport vmstat
from kernelmm.core cimport watermark
from kernelmm.core cimport zoneref
from kernelmm.core.mm cimport AllocContext
from kernelmm.core.mm cimport Mm
from physmem cimport abi
from physmem cimport address
from physmem cimport list_head
from physmem cimport word

@cython.locals(cache=uint64_t)
cpdef uint64_t zlc(Mm mm, uint64_t zonelist) except? 0xBAD0BAD0BAD0BAD0

@cython.locals(cache=uint64_t, i=uint64_t)
cpdef zlc_clear_zones_full(Mm mm, uint64_t zonelist)

@cython.locals(cache=uint64_t, jiffies=uint64_t, since=uint64_t, mask=uint64_t)
cpdef uint64_t zlc_setup(Mm mm, uint64_t zonelist, uint32_t alloc_flags) except? 0xBAD0BAD0BAD0BAD0

@cython.locals(cache=uint64_t, node=uint32_t)
cpdef bint zlc_zone_worth_trying(Mm mm, uint64_t zonelist, uint64_t i, uint64_t allowednodes) except -1

@cython.locals(cache=uint64_t)
cpdef zlc_mark_zone_full(Mm mm, uint64_t zonelist, uint64_t i)

@cython.locals(zone=uint64_t, z=uint64_t, delta=int64_t)
cpdef reset_alloc_batches(Mm mm, uint64_t preferred_zone)

@cython.locals(taken=int64_t, cold=bint, pset=uint64_t, pageset=uint64_t, lists=uint64_t, refilled=int32_t, pg=uint64_t)
cpdef uint64_t buffered_rmqueue(Mm mm, uint64_t preferred_z, uint64_t zone, uint64_t z, uint32_t order, uint32_t gfp_flags, int32_t migratetype) except? 0xBAD0BAD0BAD0BAD0

@cython.locals(at=uint64_t, i=uint64_t)
cpdef bint prep_new_page(Mm mm, uint64_t pg, uint32_t order, uint32_t gfp_flags, uint32_t alloc_flags) except -1

@cython.locals(pg=uint64_t)
cpdef uint64_t take_from_zone(Mm mm, AllocContext ac, uint64_t zone, uint64_t z, uint32_t order, uint32_t gfp_mask, uint32_t alloc_flags) except? 0xBAD0BAD0BAD0BAD0

@cython.locals(zref=uint64_t, zone=uint64_t, z=uint64_t, pg=uint64_t, allowednodes=uint64_t, zlc_active=bint, did_zlc_setup=bint, fair_skipped=uint32_t, rescan=bint, consider_zone_dirty=bint, verdict=uint32_t)
cpdef uint64_t get_page_from_freelist(Mm mm, uint32_t gfp_mask, uint32_t order, uint32_t alloc_flags, AllocContext ac) except? 0xBAD0BAD0BAD0BAD0

@cython.locals(outcome=int32_t)
cpdef uint32_t reclaim_verdict(Mm mm, uint64_t zone, uint64_t z, uint32_t order, uint32_t gfp_mask, uint32_t alloc_flags, AllocContext ac) except? 0xBAD0BAD0

# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from pcp.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from kernelmm.core cimport buddy
from kernelmm.core cimport mmzone
from kernelmm.core cimport mobility
from kernelmm.core cimport page
from kernelmm.core cimport vmstat
from kernelmm.core.mm cimport Mm
from physmem cimport abi
from physmem cimport address
from physmem cimport list_head

@cython.locals(scanned=int64_t)
cpdef reset_pages_scanned(Mm mm, uint64_t z, uint64_t pageset)

@cython.locals(taken=int32_t, pg=uint64_t, at=uint64_t, _=int32_t)
cpdef int32_t rmqueue_bulk(Mm mm, uint64_t zone, uint64_t z, uint64_t pageset, int32_t count, uint64_t head, uint64_t head_at, int32_t migratetype, bint cold) except? -0x5BAD5BAD

@cython.locals(z=uint64_t, to_free=int32_t, batch_free=int32_t, migratetype=int32_t, empty=int32_t, head=uint64_t, lists=uint64_t, pg=uint64_t, at=uint64_t, mt=int32_t, isolating=bint, claimed=uint64_t)
cpdef free_pcppages_bulk(Mm mm, uint64_t zone, int32_t count, uint64_t pcp, uint64_t pageset)

@cython.locals(z=uint64_t, pageset=uint64_t, count=int32_t)
cpdef drain_pages_zone(Mm mm, uint32_t cpu, uint64_t zone)

@cython.locals(nid=int32_t, index=int32_t, zone=uint64_t)
cpdef drain_pages(Mm mm, uint32_t cpu)

cpdef drain_local_pages(Mm mm)

@cython.locals(here=uint32_t, cpu=uint32_t)
cpdef drain_all_pages(Mm mm, uint64_t only)

cpdef drain_local_zones(Mm mm, uint64_t only)

@cython.locals(nid=int32_t, index=int32_t, zone=uint64_t)
cpdef bint has_pcps(Mm mm, uint32_t cpu, uint64_t only) except -1

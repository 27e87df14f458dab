# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from replay.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from kernelmm.core cimport compound
from kernelmm.core cimport entry
from kernelmm.core cimport free
from kernelmm.core cimport mmzone
from kernelmm.core cimport opcode
from kernelmm.core cimport page
from kernelmm.core cimport pcp
from kernelmm.core cimport vmstat
from kernelmm.core.mm cimport Mm
from physmem cimport abi
from physmem cimport address
from physmem cimport word

@cython.locals(mask=uint64_t)
cpdef write_field(Mm mm, uint64_t at, int64_t field, int64_t value)

cpdef cold_free(Mm mm, uint64_t pg)

cpdef perform(Mm mm, int64_t code, uint64_t pg, int64_t a, int64_t b, int64_t c)

@cython.locals(zone=uint64_t, z=uint64_t)
cpdef int64_t drain_or_set(Mm mm, int64_t code, int64_t a, int64_t b) except? -0x5BAD5BAD5BAD5BAD

@cython.locals(i=uint64_t, k=int64_t, code=int64_t, ident=int64_t, a=int64_t, shown=int64_t, other=int64_t, pg=uint64_t, at=uint64_t, record=bint)
cpdef replay(Mm mm, int64_t[::1] ops, uint64_t[::1] pages, int64_t[::1] results, uint64_t start, uint64_t stop)

cpdef int32_t counted(Mm mm, int64_t code, uint64_t pg, uint64_t at) except? -0x5BAD5BAD

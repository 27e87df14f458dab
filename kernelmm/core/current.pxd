# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from current.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from kernelmm.core cimport task
from kernelmm.core.mm cimport Mm

cdef inline uint32_t flags(Mm mm) except? 0xBAD0BAD0:
    return mm.as_u32[mm.task + task.FLAGS >> 2]

cdef inline bint memdie(Mm mm) except -1:
    return mm.as_u32[mm.task + task.TIF >> 2] & task.TIF_MEMDIE != 0

cdef inline bint rt_task(Mm mm) except -1:
    return mm.as_u32[mm.task + task.RT_PRIORITY >> 2] != 0

cdef inline uint64_t mems_allowed(Mm mm) except? 0xBAD0BAD0BAD0BAD0:
    return mm.as_u64[mm.task + task.MEMS_ALLOWED >> 3]

cdef inline uint64_t hardwall_mems(Mm mm) except? 0xBAD0BAD0BAD0BAD0:
    return mm.as_u64[mm.task + task.HARDWALL_MEMS >> 3]

cdef inline uint32_t read_mems_allowed_begin(Mm mm) except? 0xBAD0BAD0:
    if mm.as_u32[mm.task + task.MEMS_ALLOWED_SEQ >> 2] & 1:
        mm.endless_change()
    return mm.as_u32[mm.task + task.MEMS_ALLOWED_SEQ >> 2]

cdef inline bint read_mems_allowed_retry(Mm mm, uint32_t cookie) except -1:
    return mm.as_u32[mm.task + task.MEMS_ALLOWED_SEQ >> 2] != cookie

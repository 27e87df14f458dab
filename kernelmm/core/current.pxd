# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from current.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from kernelmm.core cimport task
from kernelmm.core.mm cimport Mm

cdef inline uint32_t gfp_allowed_mask(Mm mm) noexcept:
    with cython.boundscheck(False):
        return (<uint32_t *>&mm.as_u8[mm.var_gfp_allowed_mask])[0]

cdef inline uint32_t flags(Mm mm) noexcept:
    with cython.boundscheck(False):
        return (<uint32_t *>&mm.as_u8[mm.task + task.FLAGS])[0]

cdef inline bint memdie(Mm mm) noexcept:
    with cython.boundscheck(False):
        return (<uint32_t *>&mm.as_u8[mm.task + task.TIF])[0] & task.TIF_MEMDIE != 0

cdef inline bint rt_task(Mm mm) noexcept:
    with cython.boundscheck(False):
        return (<uint32_t *>&mm.as_u8[mm.task + task.RT_PRIORITY])[0] != 0

cdef inline uint64_t mems_allowed(Mm mm) noexcept:
    with cython.boundscheck(False):
        return (<uint64_t *>&mm.as_u8[mm.task + task.MEMS_ALLOWED])[0]

cdef inline uint64_t hardwall_mems(Mm mm) noexcept:
    with cython.boundscheck(False):
        return (<uint64_t *>&mm.as_u8[mm.task + task.HARDWALL_MEMS])[0]

cdef inline uint32_t read_mems_allowed_begin(Mm mm) except? 0xBAD0BAD0:
    with cython.boundscheck(False):
        if (<uint32_t *>&mm.as_u8[mm.task + task.MEMS_ALLOWED_SEQ])[0] & 1:
            mm.endless_change()
        return (<uint32_t *>&mm.as_u8[mm.task + task.MEMS_ALLOWED_SEQ])[0]

cdef inline bint read_mems_allowed_retry(Mm mm, uint32_t cookie) noexcept:
    with cython.boundscheck(False):
        return (<uint32_t *>&mm.as_u8[mm.task + task.MEMS_ALLOWED_SEQ])[0] != cookie

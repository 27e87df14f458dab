# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from fault.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from kernelmm cimport gfp
from kernelmm.core.mm cimport Mm
from physmem cimport word
cdef enum:
    PROBABILITY = 0
cdef enum:
    INTERVAL = 8
cdef enum:
    TIMES = 16
cdef enum:
    SPACE = 20
cdef enum:
    VERBOSE = 24
cdef enum:
    TASK_FILTER = 32
cdef enum:
    STACKTRACE_DEPTH = 40
cdef enum:
    REQUIRE_START = 48
cdef enum:
    REQUIRE_END = 56
cdef enum:
    REJECT_START = 64
cdef enum:
    REJECT_END = 72
cdef enum:
    COUNT = 80
cdef enum:
    RATELIMIT = 88
cdef enum:
    DNAME = 120
cdef enum:
    IGNORE_GFP_HIGHMEM = 128
cdef enum:
    IGNORE_GFP_WAIT = 132
cdef enum:
    MIN_ORDER = 136
cdef enum:
    SIZE = 140

cdef inline bint should_fail(Mm mm, uint64_t attr, int32_t size) except -1:
    cdef uint64_t probability
    cdef uint64_t interval
    cdef int32_t times
    with cython.boundscheck(False):
        probability = (<uint64_t *>&mm.as_u8[attr + PROBABILITY])[0]
        interval = (<uint64_t *>&mm.as_u8[attr + INTERVAL])[0]
        times = (<int32_t *>&mm.as_u8[attr + TIMES])[0]
        if probability == 0:
            return False
        if (<uint32_t *>&mm.as_u8[attr + TASK_FILTER])[0] != 0 and (not mm.fail_task()):
            return False
        if times == 0:
            return False
        if (<int32_t *>&mm.as_u8[attr + SPACE])[0] > size:
            word.add_s32(mm, attr + SPACE, -size)
            return False
        if interval > 1:
            word.add_u64(mm, attr + COUNT, 1)
            if (<uint64_t *>&mm.as_u8[attr + COUNT])[0] % interval != 0:
                return False
        if (probability < 100 or mm.percpu_net_rand_state != 0) and probability <= mm.prandom_u32() % 100:
            return False
        mm.fail_dump(attr)
        if times != -1:
            word.add_s32(mm, attr + TIMES, -1)
        return True

cdef inline bint should_fail_alloc_page(Mm mm, uint32_t gfp_mask, uint32_t order) except -1:
    cdef uint64_t attr
    cdef int32_t pages
    cdef uint64_t tail
    with cython.boundscheck(False):
        attr = mm.var_fail_page_alloc
        pages = word.bit(order)
        if attr == 0 or (<uint64_t *>&mm.as_u8[attr + PROBABILITY])[0] == 0:
            return False
        tail = attr if mm.smp else attr - 8
        if order < (<uint32_t *>&mm.as_u8[tail + MIN_ORDER])[0] or gfp_mask & gfp.__GFP_NOFAIL:
            return False
        if gfp_mask & gfp.__GFP_HIGHMEM and (<uint32_t *>&mm.as_u8[tail + IGNORE_GFP_HIGHMEM])[0] != 0:
            return False
        if gfp_mask & gfp.__GFP_WAIT and (<uint32_t *>&mm.as_u8[tail + IGNORE_GFP_WAIT])[0] != 0:
            return False
        return should_fail(mm, attr, pages)

# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from watermark.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from kernelmm.core cimport mmzone
from kernelmm.core cimport vmstat
from kernelmm.core.mm cimport Mm
from physmem cimport abi
cdef enum:
    WMARK_MIN = 0
cdef enum:
    WMARK_LOW = 1
cdef enum:
    WMARK_HIGH = 2
cdef enum:
    ALLOC_WMARK_MIN = 0
cdef enum:
    ALLOC_WMARK_LOW = 1
cdef enum:
    ALLOC_WMARK_HIGH = 2
cdef enum:
    ALLOC_NO_WATERMARKS = 4
cdef enum:
    ALLOC_WMARK_MASK = 3
cdef enum:
    ALLOC_HARDER = 16
cdef enum:
    ALLOC_HIGH = 32
cdef enum:
    ALLOC_CPUSET = 64
cdef enum:
    ALLOC_CMA = 128
cdef enum:
    ALLOC_FAIR = 256
cdef enum:
    ZONE_TAKE = 0
cdef enum:
    ZONE_FULL = 1
cdef enum:
    ZONE_SKIP = 2

cdef inline int64_t wmark_pages(Mm mm, uint64_t z, uint32_t which) noexcept:
    with cython.boundscheck(False):
        return (<int64_t *>&mm.as_u8[z + mm.zone_watermark + 8 * which])[0]

cdef inline bint leaves_enough(Mm mm, uint64_t z, uint32_t order, int64_t mark, int32_t classzone_idx, uint32_t alloc_flags, int64_t free_pages) noexcept:
    cdef int64_t min_pages
    cdef int64_t taken
    cdef int64_t free_cma
    cdef int64_t reserve
    cdef uint32_t o
    with cython.boundscheck(False):
        min_pages = mark
        taken = 1
        free_cma = 0
        free_pages -= (taken << order) - 1
        if alloc_flags & ALLOC_HIGH:
            min_pages -= min_pages >> 1
        if alloc_flags & ALLOC_HARDER:
            min_pages -= min_pages >> 2
        if mm.migrate_cma >= 0 and (not alloc_flags & ALLOC_CMA):
            free_cma = vmstat.zone_page_state(mm, z, mm.nr_free_cma_pages)
        reserve = (<int64_t *>&mm.as_u8[z + mm.zone_lowmem_reserve + 8 * (classzone_idx & 3)])[0]
        if free_pages - free_cma <= min_pages + reserve:
            return False
        if order > abi.MAX_ORDER:
            order = abi.MAX_ORDER
        for o in range(order):
            free_pages -= mmzone.nr_free(mm, z, o) << o
            min_pages >>= 1
            if free_pages <= min_pages:
                return False
        return True

cdef inline bint zone_watermark_ok(Mm mm, uint64_t z, uint32_t order, int64_t mark, int32_t classzone_idx, uint32_t alloc_flags) noexcept:
    with cython.boundscheck(False):
        return leaves_enough(mm, z, order, mark, classzone_idx, alloc_flags, vmstat.zone_page_state(mm, z, abi.NR_FREE_PAGES))

cdef inline bint zone_has_enough(Mm mm, uint64_t z, uint32_t order, uint32_t alloc_flags, int32_t classzone_idx) noexcept:
    cdef uint32_t which
    with cython.boundscheck(False):
        which = alloc_flags & ALLOC_WMARK_MASK
        if zone_watermark_ok(mm, z, order, wmark_pages(mm, z, which), classzone_idx, alloc_flags):
            return True
        return alloc_flags & ALLOC_NO_WATERMARKS != 0

cdef inline bint zone_watermark_ok_safe(Mm mm, uint64_t z, uint32_t order, int64_t mark, int32_t classzone_idx, uint32_t alloc_flags) except -1:
    cdef int64_t free_pages
    cdef uint64_t drift_mark
    cdef uint64_t known
    with cython.boundscheck(False):
        free_pages = vmstat.zone_page_state(mm, z, abi.NR_FREE_PAGES)
        drift_mark = (<uint64_t *>&mm.as_u8[z + mm.zone_percpu_drift_mark])[0]
        known = free_pages
        if drift_mark != 0 and known < drift_mark:
            free_pages = vmstat.zone_page_state_snapshot(mm, z, abi.NR_FREE_PAGES)
        return leaves_enough(mm, z, order, mark, classzone_idx, alloc_flags, free_pages)

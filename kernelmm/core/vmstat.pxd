# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from vmstat.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from kernelmm.core cimport mmzone
from kernelmm.core.mm cimport Mm
from physmem cimport abi
from physmem cimport word

cdef inline int count_vm_events(Mm mm, int32_t item, int64_t delta) noexcept:
    with cython.boundscheck(False):
        word.add_u64(mm, mm.vm_events + 8 * item, delta)
    return 0

cdef inline int zone_page_state_add(Mm mm, uint64_t z, int32_t item, int64_t delta) noexcept:
    with cython.boundscheck(False):
        word.add_u64(mm, z + mm.zone_vm_stat + 8 * item, delta)
        word.add_u64(mm, mm.var_vm_stat + 8 * item, delta)
    return 0

cdef inline int64_t zone_counter(Mm mm, uint64_t z, int32_t item) noexcept:
    with cython.boundscheck(False):
        return (<int64_t *>&mm.as_u8[z + mm.zone_vm_stat + 8 * item])[0]

cdef inline int64_t zone_page_state(Mm mm, uint64_t z, int32_t item) noexcept:
    cdef int64_t value
    with cython.boundscheck(False):
        value = zone_counter(mm, z, item)
        if value < 0 and mm.smp:
            return 0
        return value

cdef inline int64_t zone_page_state_snapshot(Mm mm, uint64_t z, int32_t item) except? -0x5BAD5BAD5BAD5BAD:
    cdef int64_t value
    cdef uint32_t cpu
    with cython.boundscheck(False):
        value = zone_counter(mm, z, item)
        if mm.smp:
            for cpu in range(mm.nr_cpus):
                if mmzone.cpu_online(mm, cpu):
                    value += (<int8_t *>&mm.as_u8[mmzone.pageset_of(mm, z, cpu) + mm.pageset_vm_stat_diff + item << 0])[0]
            if value < 0:
                return 0
        return value

cdef inline int mod_zone_page_state(Mm mm, uint64_t z, uint64_t pageset, int32_t item, int64_t delta) noexcept:
    cdef int64_t x
    cdef int64_t t
    with cython.boundscheck(False):
        if not mm.smp:
            zone_page_state_add(mm, z, item, delta)
            return 0
        x = delta + (<int8_t *>&mm.as_u8[pageset + mm.pageset_vm_stat_diff + item << 0])[0]
        t = (<int8_t *>&mm.as_u8[pageset + mm.pageset_stat_threshold << 0])[0]
        if x > t or x < -t:
            zone_page_state_add(mm, z, item, x)
            x = 0
        (<int8_t *>&mm.as_u8[pageset + mm.pageset_vm_stat_diff + item << 0])[0] = x
    return 0

cdef inline int inc_zone_state(Mm mm, uint64_t z, uint64_t pageset, int32_t item) noexcept:
    cdef int64_t v
    cdef int64_t t
    with cython.boundscheck(False):
        if not mm.smp:
            zone_page_state_add(mm, z, item, 1)
            return 0
        v = (<int8_t *>&mm.as_u8[pageset + mm.pageset_vm_stat_diff + item << 0])[0] + 1
        if v > 127:
            v = -128
        t = (<int8_t *>&mm.as_u8[pageset + mm.pageset_stat_threshold << 0])[0]
        if v > t:
            zone_page_state_add(mm, z, item, v + (t >> 1))
            v = -(t >> 1)
        (<int8_t *>&mm.as_u8[pageset + mm.pageset_vm_stat_diff + item << 0])[0] = v
    return 0

cdef inline int mod_zone_freepage_state(Mm mm, uint64_t z, uint64_t pageset, int64_t nr_pages, int32_t migratetype) noexcept:
    with cython.boundscheck(False):
        mod_zone_page_state(mm, z, pageset, abi.NR_FREE_PAGES, nr_pages)
        if migratetype == mm.migrate_cma:
            mod_zone_page_state(mm, z, pageset, mm.nr_free_cma_pages, nr_pages)
    return 0

cdef inline int zone_statistics(Mm mm, uint64_t preferred_zone, uint64_t z, uint64_t pageset, bint other_node) except -1:
    cdef int32_t node
    with cython.boundscheck(False):
        if not mm.numa:
            return 0
        if mmzone.pgdat_of(mm, z) == mmzone.pgdat_of(mm, preferred_zone):
            inc_zone_state(mm, z, pageset, mm.numa_hit)
        else:
            inc_zone_state(mm, z, pageset, mm.numa_miss)
            inc_zone_state(mm, preferred_zone, mmzone.this_cpu_pageset(mm, preferred_zone), mm.numa_foreign)
        node = (<int32_t *>&mm.as_u8[mm.numa_node])[0]
        if other_node:
            node = mmzone.zone_nid(mm, preferred_zone)
        if mmzone.zone_nid(mm, z) == node:
            inc_zone_state(mm, z, pageset, mm.numa_local)
        else:
            inc_zone_state(mm, z, pageset, mm.numa_other)
    return 0

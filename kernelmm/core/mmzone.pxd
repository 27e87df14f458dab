# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from mmzone.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from kernelmm.core cimport page
from kernelmm.core.mm cimport Mm
from physmem cimport abi
from physmem cimport address
from physmem cimport word

cdef inline uint64_t node_data(Mm mm, int32_t nid) except? 0xBAD0BAD0BAD0BAD0:
    if mm.numa:
        return mm.as_u64[mm.var_node_data + 8 * nid >> 3]
    return mm.contig_page_data

cdef inline uint64_t node_zonelist(Mm mm, int32_t nid, bint thisnode) except? 0xBAD0BAD0BAD0BAD0:
    if thisnode and mm.numa:
        return node_data(mm, nid) + mm.pgdat_node_zonelists + mm.sizeof_zonelist
    return node_data(mm, nid) + mm.pgdat_node_zonelists

cdef inline uint64_t page_zone(Mm mm, uint64_t at) except? 0xBAD0BAD0BAD0BAD0:
    return node_data(mm, page.nid(mm, at)) + mm.pgdat_node_zones + page.zonenum(mm, at) * mm.sizeof_zone

cdef inline uint64_t zone_idx(Mm mm, uint64_t zone, uint64_t z) except? 0xBAD0BAD0BAD0BAD0:
    cdef uint64_t mask
    cdef uint64_t rest
    cdef uint64_t index
    mask = 18446744073709551615
    rest = zone - mm.as_u64[z + mm.zone_pgdat >> 3] - mm.pgdat_node_zones & mask
    index = 0
    while rest >= mm.sizeof_zone and index < 8:
        rest -= mm.sizeof_zone
        index += 1
    return index

cdef inline int32_t zone_nid(Mm mm, uint64_t z) except? -0x5BAD5BAD:
    if mm.numa:
        return mm.as_s32[z + mm.zone_node >> 2]
    return 0

cdef inline bint populated(Mm mm, uint64_t z) except -1:
    return mm.as_u64[z + mm.zone_present_pages >> 3] != 0

cdef inline bint spans_pfn(Mm mm, uint64_t z, uint64_t pfn) except -1:
    cdef uint64_t start
    start = mm.as_u64[z + mm.zone_start_pfn >> 3]
    return start <= pfn and pfn - start < mm.as_u64[z + mm.zone_spanned_pages >> 3]

cdef inline uint64_t populated_zone(Mm mm, int32_t nid, int32_t index) except? 0xBAD0BAD0BAD0BAD0:
    cdef uint64_t pgdat
    cdef uint64_t zone
    pgdat = node_data(mm, nid)
    if pgdat == 0:
        return 0
    zone = pgdat + mm.pgdat_node_zones + index * mm.sizeof_zone
    if populated(mm, address.off(mm, zone)):
        return zone
    return 0

cdef inline uint64_t free_list(Mm mm, uint32_t order, int32_t migratetype) noexcept:
    return mm.zone_free_area + order * mm.sizeof_free_area + abi.SIZEOF_LIST_HEAD * migratetype

cdef inline int add_nr_free(Mm mm, uint64_t z, uint32_t order, int32_t delta) except -1:
    word.add_u64(mm, z + mm.zone_free_area + order * mm.sizeof_free_area + mm.free_area_nr_free, delta)
    return 0

cdef inline int64_t nr_free(Mm mm, uint64_t z, uint32_t order) except? -0x5BAD5BAD5BAD5BAD:
    return mm.as_s64[z + mm.zone_free_area + order * mm.sizeof_free_area + mm.free_area_nr_free >> 3]

cdef inline int spin_lock(Mm mm, uint64_t z) except -1:
    if mm.smp:
        word.add_u8(mm, z + mm.zone_lock + 1, mm.ticket_lock_inc)
    return 0

cdef inline int spin_unlock(Mm mm, uint64_t z) except -1:
    if mm.smp:
        word.add_u8(mm, z + mm.zone_lock, mm.ticket_lock_inc)
    return 0

cdef inline uint64_t pageset_va(Mm mm, uint64_t z, uint32_t cpu) except? 0xBAD0BAD0BAD0BAD0:
    return mm.as_u64[z + mm.zone_pageset >> 3] + mm.per_cpu_offset(cpu)

cdef inline uint64_t this_cpu_pageset(Mm mm, uint64_t z) except? 0xBAD0BAD0BAD0BAD0:
    return address.off(mm, mm.as_u64[z + mm.zone_pageset >> 3] + mm.this_cpu_off)

cdef inline uint64_t pageset_of(Mm mm, uint64_t z, uint32_t cpu) except? 0xBAD0BAD0BAD0BAD0:
    return address.off(mm, pageset_va(mm, z, cpu))

cdef inline bint cpu_online(Mm mm, uint32_t cpu) except -1:
    if not mm.smp:
        return cpu == 0
    return mm.as_u64[(mm.var_cpu_online_bits >> 3) + (cpu >> 6)] >> (cpu & 63) & 1 != 0

cdef inline bint has_isolate_pageblock(Mm mm, uint64_t z) except -1:
    return mm.zone_nr_isolate_pageblock != 0 and mm.as_u64[z + mm.zone_nr_isolate_pageblock >> 3] != 0

cdef inline int add_nr_isolate_pageblock(Mm mm, uint64_t z, int32_t delta) except -1:
    word.add_u64(mm, z + mm.zone_nr_isolate_pageblock, delta)
    return 0

cdef inline uint64_t pageblock_nr(Mm mm, uint64_t pfn) except? 0xBAD0BAD0BAD0BAD0:
    if mm.flatmem:
        return (pfn >> abi.PAGEBLOCK_ORDER) - (mm.as_u64[mm.flat_zone(pfn) + mm.zone_start_pfn >> 3] >> abi.PAGEBLOCK_ORDER)
    return pfn >> abi.PAGEBLOCK_ORDER

cdef inline bint mobility_disabled(Mm mm) except -1:
    return mm.as_s32[mm.var_page_group_by_mobility_disabled >> 2] != 0

cdef inline uint64_t pageblock_word(Mm mm, uint64_t pfn) except? 0xBAD0BAD0BAD0BAD0:
    cdef uint64_t section
    cdef uint64_t root
    cdef uint64_t usemap
    section = pfn >> mm.pfn_section_shift
    root = section >> mm.root_section_shift
    if mm.flatmem:
        usemap = mm.as_u64[mm.flat_zone(pfn) + mm.zone_pageblock_flags >> 3]
        return address.off(mm, usemap + (pageblock_nr(mm, pfn) >> 4 << 3))
    if root >= mm.nr_section_roots:
        mm.bad_page_pointer(address.pfn_to_page(mm, pfn))
    root = mm.as_u64[mm.var_mem_section + 8 * root >> 3]
    section = root + (section & mm.root_section_mask) * mm.sizeof_mem_section
    usemap = mm.as_u64[address.off(mm, section + mm.section_pageblock_flags) >> 3]
    return address.off(mm, usemap + ((pfn & mm.pfn_section_mask) >> abi.PAGEBLOCK_ORDER + 4 << 3))

cdef inline int32_t pageblock_migratetype(Mm mm, uint64_t pfn) except? -0x5BAD5BAD:
    cdef uint32_t shift
    shift = 61 - (pageblock_nr(mm, pfn) * 4 & 63)
    return mm.as_u64[pageblock_word(mm, pfn) >> 3] >> shift & 7

cdef inline int set_pageblock_migratetype(Mm mm, uint64_t pfn, int32_t migratetype) except -1:
    cdef uint64_t at
    cdef uint32_t shift
    cdef uint64_t seven
    cdef uint64_t kind
    at = pageblock_word(mm, pfn)
    shift = 61 - (pageblock_nr(mm, pfn) * 4 & 63)
    seven = 7
    kind = migratetype
    if mm.debug_vm:
        mm.checker.pageblock(mm, address.pfn_to_page(mm, pfn), pfn)
    if migratetype < abi.MIGRATE_PCPTYPES and mobility_disabled(mm):
        kind = abi.MIGRATE_UNMOVABLE
    word.clear_bits(mm, at, seven << shift)
    word.set_bits(mm, at, kind << shift)
    return 0

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
    cdef uint64_t node
    with cython.boundscheck(False):
        node = nid
        if mm.numa:
            if node > mm.nodes_mask:
                mm.bad_node(nid)
            return (<uint64_t *>&mm.as_u8[mm.var_node_data + 8 * node])[0]
        return mm.contig_page_data

cdef inline uint64_t zone_off(Mm mm, uint64_t zone) except? 0xBAD0BAD0BAD0BAD0:
    with cython.boundscheck(False):
        return address.struct_off(mm, zone, mm.sizeof_zone)

cdef inline uint64_t node_zonelist(Mm mm, int32_t nid, bint thisnode) except? 0xBAD0BAD0BAD0BAD0:
    with cython.boundscheck(False):
        if thisnode and mm.numa:
            return node_data(mm, nid) + mm.pgdat_node_zonelists + mm.sizeof_zonelist
        return node_data(mm, nid) + mm.pgdat_node_zonelists

cdef inline uint64_t page_zone(Mm mm, uint64_t at) except? 0xBAD0BAD0BAD0BAD0:
    with cython.boundscheck(False):
        return node_data(mm, page.nid(mm, at)) + mm.pgdat_node_zones + page.zonenum(mm, at) * mm.sizeof_zone

cdef inline uint64_t zone_idx(Mm mm, uint64_t zone, uint64_t z) noexcept:
    cdef uint64_t mask
    cdef uint64_t rest
    cdef uint64_t index
    with cython.boundscheck(False):
        mask = 18446744073709551615
        rest = zone - pgdat_of(mm, z) - mm.pgdat_node_zones & mask
        index = 0
        while rest >= mm.sizeof_zone and index < 8:
            rest -= mm.sizeof_zone
            index += 1
        return index

cdef inline uint64_t pgdat_of(Mm mm, uint64_t z) noexcept:
    with cython.boundscheck(False):
        return (<uint64_t *>&mm.as_u8[z + mm.zone_pgdat])[0]

cdef inline bint test_zone_flag(Mm mm, uint64_t z, uint32_t nr) noexcept:
    with cython.boundscheck(False):
        return (<uint64_t *>&mm.as_u8[z + mm.zone_flags])[0] >> nr & 1 != 0

cdef inline int32_t nr_online_nodes(Mm mm) noexcept:
    with cython.boundscheck(False):
        if mm.numa:
            return (<int32_t *>&mm.as_u8[mm.var_nr_online_nodes])[0]
        return 1

cdef inline int32_t zone_nid(Mm mm, uint64_t z) noexcept:
    with cython.boundscheck(False):
        if mm.numa:
            return (<int32_t *>&mm.as_u8[z + mm.zone_node])[0]
        return 0

cdef inline bint populated(Mm mm, uint64_t z) noexcept:
    with cython.boundscheck(False):
        return (<uint64_t *>&mm.as_u8[z + mm.zone_present_pages])[0] != 0

cdef inline bint spans_pfn(Mm mm, uint64_t z, uint64_t pfn) noexcept:
    cdef uint64_t start
    with cython.boundscheck(False):
        start = (<uint64_t *>&mm.as_u8[z + mm.zone_start_pfn])[0]
        return start <= pfn and pfn - start < (<uint64_t *>&mm.as_u8[z + mm.zone_spanned_pages])[0]

cdef inline uint64_t populated_zone(Mm mm, int32_t nid, int32_t index) except? 0xBAD0BAD0BAD0BAD0:
    cdef uint64_t pgdat
    cdef uint64_t zone
    with cython.boundscheck(False):
        pgdat = node_data(mm, nid)
        if pgdat == 0:
            return 0
        zone = pgdat + mm.pgdat_node_zones + index * mm.sizeof_zone
        if populated(mm, zone_off(mm, zone)):
            return zone
        return 0

cdef inline uint64_t free_list(Mm mm, uint32_t order, int32_t migratetype) noexcept:
    with cython.boundscheck(False):
        return mm.zone_free_area + order * mm.sizeof_free_area + abi.SIZEOF_LIST_HEAD * migratetype

cdef inline int add_nr_free(Mm mm, uint64_t z, uint32_t order, int32_t delta) noexcept:
    with cython.boundscheck(False):
        word.add_u64(mm, z + mm.zone_free_area + order * mm.sizeof_free_area + mm.free_area_nr_free, delta)
    return 0

cdef inline int64_t nr_free(Mm mm, uint64_t z, uint32_t order) noexcept:
    with cython.boundscheck(False):
        return (<int64_t *>&mm.as_u8[z + mm.zone_free_area + order * mm.sizeof_free_area + mm.free_area_nr_free])[0]

cdef inline int spin_lock(Mm mm, uint64_t z) noexcept:
    with cython.boundscheck(False):
        if mm.smp:
            word.add_u8(mm, z + mm.zone_lock + 1, mm.ticket_lock_inc)
    return 0

cdef inline int spin_unlock(Mm mm, uint64_t z) noexcept:
    with cython.boundscheck(False):
        if mm.smp:
            word.add_u8(mm, z + mm.zone_lock, mm.ticket_lock_inc)
    return 0

cdef inline uint64_t pageset_va(Mm mm, uint64_t z, uint32_t cpu) except? 0xBAD0BAD0BAD0BAD0:
    with cython.boundscheck(False):
        return (<uint64_t *>&mm.as_u8[z + mm.zone_pageset])[0] + mm.per_cpu_offset(cpu)

cdef inline uint64_t this_cpu_pageset_va(Mm mm, uint64_t z) noexcept:
    with cython.boundscheck(False):
        return (<uint64_t *>&mm.as_u8[z + mm.zone_pageset])[0] + mm.this_cpu_off

cdef inline uint64_t pageset_off(Mm mm, uint64_t pageset) except? 0xBAD0BAD0BAD0BAD0:
    with cython.boundscheck(False):
        return address.struct_off(mm, pageset, mm.sizeof_pageset)

cdef inline uint64_t this_cpu_pageset(Mm mm, uint64_t z) except? 0xBAD0BAD0BAD0BAD0:
    with cython.boundscheck(False):
        return pageset_off(mm, this_cpu_pageset_va(mm, z))

cdef inline int32_t pcp_batch(Mm mm, uint64_t pageset) noexcept:
    with cython.boundscheck(False):
        return (<int32_t *>&mm.as_u8[pageset + abi.PCP_BATCH])[0]

cdef inline int32_t pcp_count(Mm mm, uint64_t pageset) noexcept:
    with cython.boundscheck(False):
        return (<int32_t *>&mm.as_u8[pageset + abi.PCP_COUNT])[0]

cdef inline int32_t pcp_high(Mm mm, uint64_t pageset) noexcept:
    with cython.boundscheck(False):
        return (<int32_t *>&mm.as_u8[pageset + abi.PCP_HIGH])[0]

cdef inline uint64_t pageset_of(Mm mm, uint64_t z, uint32_t cpu) except? 0xBAD0BAD0BAD0BAD0:
    with cython.boundscheck(False):
        return pageset_off(mm, pageset_va(mm, z, cpu))

cdef inline bint cpu_online(Mm mm, uint32_t cpu) noexcept:
    with cython.boundscheck(False):
        if not mm.smp:
            return cpu == 0
        return (<uint64_t *>&mm.as_u8[(mm.var_cpu_online_bits >> 3) + (cpu >> 6) << 3])[0] >> (cpu & 63) & 1 != 0

cdef inline bint has_isolate_pageblock(Mm mm, uint64_t z) noexcept:
    with cython.boundscheck(False):
        return mm.zone_nr_isolate_pageblock != 0 and (<uint64_t *>&mm.as_u8[z + mm.zone_nr_isolate_pageblock])[0] != 0

cdef inline int add_nr_isolate_pageblock(Mm mm, uint64_t z, int32_t delta) noexcept:
    with cython.boundscheck(False):
        word.add_u64(mm, z + mm.zone_nr_isolate_pageblock, delta)
    return 0

cdef inline uint64_t pageblock_nr(Mm mm, uint64_t pfn) except? 0xBAD0BAD0BAD0BAD0:
    with cython.boundscheck(False):
        if mm.flatmem:
            return (pfn >> abi.PAGEBLOCK_ORDER) - ((<uint64_t *>&mm.as_u8[mm.flat_zone(pfn) + mm.zone_start_pfn])[0] >> abi.PAGEBLOCK_ORDER)
        return pfn >> abi.PAGEBLOCK_ORDER

cdef inline bint mobility_disabled(Mm mm) noexcept:
    with cython.boundscheck(False):
        return (<int32_t *>&mm.as_u8[mm.var_page_group_by_mobility_disabled])[0] != 0

cdef inline uint64_t pageblock_word(Mm mm, uint64_t pfn) except? 0xBAD0BAD0BAD0BAD0:
    cdef uint64_t section
    cdef uint64_t root
    cdef uint64_t usemap
    with cython.boundscheck(False):
        section = pfn >> mm.pfn_section_shift
        root = section >> mm.root_section_shift
        if mm.flatmem:
            usemap = (<uint64_t *>&mm.as_u8[mm.flat_zone(pfn) + mm.zone_pageblock_flags])[0]
            return address.off(mm, usemap + (pageblock_nr(mm, pfn) >> 4 << 3))
        if root >= mm.nr_section_roots:
            mm.bad_page_pointer(address.pfn_to_page(mm, pfn))
        root = (<uint64_t *>&mm.as_u8[mm.var_mem_section + 8 * root])[0]
        section = root + (section & mm.root_section_mask) * mm.sizeof_mem_section
        usemap = (<uint64_t *>&mm.as_u8[address.off(mm, section + mm.section_pageblock_flags)])[0]
        return address.off(mm, usemap + ((pfn & mm.pfn_section_mask) >> abi.PAGEBLOCK_ORDER + 4 << 3))

cdef inline int32_t pageblock_migratetype(Mm mm, uint64_t pfn) except? -0x5BAD5BAD:
    cdef uint32_t shift
    with cython.boundscheck(False):
        shift = 61 - (pageblock_nr(mm, pfn) * 4 & 63)
        return (<uint64_t *>&mm.as_u8[pageblock_word(mm, pfn)])[0] >> shift & 7

cdef inline int set_pageblock_migratetype(Mm mm, uint64_t pfn, int32_t migratetype) except -1:
    cdef uint64_t at
    cdef uint32_t shift
    cdef uint64_t seven
    cdef uint64_t kind
    with cython.boundscheck(False):
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

# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from page.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from kernelmm.core.mm cimport Mm
from physmem cimport abi
from physmem cimport word

cdef inline bint test_flag(Mm mm, uint64_t at, uint32_t nr) noexcept:
    with cython.boundscheck(False):
        return (<uint64_t *>&mm.as_u8[at + abi.PAGE_FLAGS])[0] >> nr & 1 != 0

cdef inline int set_flag(Mm mm, uint64_t at, uint32_t nr) noexcept:
    with cython.boundscheck(False):
        word.set_bits(mm, at + abi.PAGE_FLAGS, word.bit(nr))
    return 0

cdef inline int clear_flag(Mm mm, uint64_t at, uint32_t nr) noexcept:
    with cython.boundscheck(False):
        word.clear_bits(mm, at + abi.PAGE_FLAGS, word.bit(nr))
    return 0

cdef inline bint compound(Mm mm, uint64_t at) noexcept:
    with cython.boundscheck(False):
        return (<uint64_t *>&mm.as_u8[at + abi.PAGE_FLAGS])[0] & (1 << abi.PG_head | 1 << abi.PG_tail) != 0

cdef inline int32_t count(Mm mm, uint64_t at) noexcept:
    with cython.boundscheck(False):
        return (<int32_t *>&mm.as_u8[at + abi.PAGE_COUNT])[0]

cdef inline int set_count(Mm mm, uint64_t at, int32_t value) noexcept:
    with cython.boundscheck(False):
        (<int32_t *>&mm.as_u8[at + abi.PAGE_COUNT])[0] = value
    return 0

cdef inline int32_t mapcount(Mm mm, uint64_t at) noexcept:
    with cython.boundscheck(False):
        return (<int32_t *>&mm.as_u8[at + abi.PAGE_MAPCOUNT])[0]

cdef inline bint buddy(Mm mm, uint64_t at) noexcept:
    with cython.boundscheck(False):
        return (<int32_t *>&mm.as_u8[at + abi.PAGE_MAPCOUNT])[0] == abi.PAGE_BUDDY_MAPCOUNT_VALUE

cdef inline uint64_t order(Mm mm, uint64_t at) noexcept:
    with cython.boundscheck(False):
        return (<uint64_t *>&mm.as_u8[at + abi.PAGE_PRIVATE])[0]

cdef inline int set_private(Mm mm, uint64_t at, uint64_t value) noexcept:
    with cython.boundscheck(False):
        (<uint64_t *>&mm.as_u8[at + abi.PAGE_PRIVATE])[0] = value
    return 0

cdef inline int set_order(Mm mm, uint64_t at, uint32_t value) noexcept:
    with cython.boundscheck(False):
        (<uint64_t *>&mm.as_u8[at + abi.PAGE_PRIVATE])[0] = value
        (<int32_t *>&mm.as_u8[at + abi.PAGE_MAPCOUNT])[0] = abi.PAGE_BUDDY_MAPCOUNT_VALUE
    return 0

cdef inline int rmv_order(Mm mm, uint64_t at) noexcept:
    with cython.boundscheck(False):
        (<int32_t *>&mm.as_u8[at + abi.PAGE_MAPCOUNT])[0] = -1
        (<uint64_t *>&mm.as_u8[at + abi.PAGE_PRIVATE])[0] = 0
    return 0

cdef inline int32_t freepage_migratetype(Mm mm, uint64_t at) noexcept:
    with cython.boundscheck(False):
        return (<int32_t *>&mm.as_u8[at + abi.PAGE_INDEX])[0]

cdef inline int set_freepage_migratetype(Mm mm, uint64_t at, int32_t migratetype) noexcept:
    with cython.boundscheck(False):
        (<uint64_t *>&mm.as_u8[at + abi.PAGE_INDEX])[0] = migratetype
    return 0

cdef inline int set_pfmemalloc(Mm mm, uint64_t at, bint value) noexcept:
    with cython.boundscheck(False):
        mm.as_u8[at + abi.PAGE_PFMEMALLOC] = 1 if value else 0
    return 0

cdef inline uint64_t flags(Mm mm, uint64_t at) noexcept:
    with cython.boundscheck(False):
        return (<uint64_t *>&mm.as_u8[at + abi.PAGE_FLAGS])[0]

cdef inline int set_flags(Mm mm, uint64_t at, uint64_t value) noexcept:
    with cython.boundscheck(False):
        (<uint64_t *>&mm.as_u8[at + abi.PAGE_FLAGS])[0] = value
    return 0

cdef inline uint64_t mapping(Mm mm, uint64_t at) noexcept:
    with cython.boundscheck(False):
        return (<uint64_t *>&mm.as_u8[at + abi.PAGE_MAPPING])[0]

cdef inline int set_mapping(Mm mm, uint64_t at, uint64_t value) noexcept:
    with cython.boundscheck(False):
        (<uint64_t *>&mm.as_u8[at + abi.PAGE_MAPPING])[0] = value
    return 0

cdef inline uint64_t first_page(Mm mm, uint64_t at) noexcept:
    with cython.boundscheck(False):
        return (<uint64_t *>&mm.as_u8[at + abi.PAGE_FIRST_PAGE])[0]

cdef inline bint is_buddy(Mm mm, uint64_t at, uint64_t buddy_at, uint32_t order) except -1:
    with cython.boundscheck(False):
        if (<int32_t *>&mm.as_u8[buddy_at + abi.PAGE_MAPCOUNT])[0] != abi.PAGE_BUDDY_MAPCOUNT_VALUE:
            return mm.guard_minorder != 0 and mm.aids.guard_is_buddy(mm, at, buddy_at, order)
        if (<uint64_t *>&mm.as_u8[buddy_at + abi.PAGE_PRIVATE])[0] != order:
            return False
        if zone_id(mm, at) != zone_id(mm, buddy_at):
            return False
        if mm.debug_vm:
            mm.check_buddy(buddy_at)
        return True

cdef inline bint is_bad(Mm mm, uint64_t at, uint64_t flags) noexcept:
    cdef uint64_t unmapped_uncounted
    with cython.boundscheck(False):
        unmapped_uncounted = 4294967295
        return (<uint64_t *>&mm.as_u8[at + abi.PAGE_MAPCOUNT])[0] != unmapped_uncounted or (<uint64_t *>&mm.as_u8[at + abi.PAGE_MAPPING])[0] != 0 or (<uint64_t *>&mm.as_u8[at + abi.PAGE_FLAGS])[0] & flags != 0

cdef inline bint put_testzero(Mm mm, uint64_t at) except -1:
    with cython.boundscheck(False):
        if mm.debug_vm:
            mm.check_put_page_testzero(at)
        word.add_s32(mm, at + abi.PAGE_COUNT, -1)
        return (<int32_t *>&mm.as_u8[at + abi.PAGE_COUNT])[0] == 0

cdef inline int32_t zonenum(Mm mm, uint64_t at) noexcept:
    with cython.boundscheck(False):
        return (<uint64_t *>&mm.as_u8[at + abi.PAGE_FLAGS])[0] >> mm.zones_pgshift & mm.zones_mask

cdef inline int32_t nid(Mm mm, uint64_t at) noexcept:
    with cython.boundscheck(False):
        return (<uint64_t *>&mm.as_u8[at + abi.PAGE_FLAGS])[0] >> mm.nodes_pgshift & mm.nodes_mask

cdef inline uint64_t zone_id(Mm mm, uint64_t at) noexcept:
    with cython.boundscheck(False):
        return (<uint64_t *>&mm.as_u8[at + abi.PAGE_FLAGS])[0] >> mm.zoneid_pgshift & mm.zoneid_mask

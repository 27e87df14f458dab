# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from page.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from kernelmm.core.mm cimport Mm
from physmem cimport abi
from physmem cimport word

cdef inline bint test_flag(Mm mm, uint64_t at, uint32_t nr) except -1:
    return mm.as_u64[at + abi.PAGE_FLAGS >> 3] >> nr & 1 != 0

cdef inline int set_flag(Mm mm, uint64_t at, uint32_t nr) except -1:
    word.set_bits(mm, at + abi.PAGE_FLAGS, word.bit(nr))
    return 0

cdef inline int clear_flag(Mm mm, uint64_t at, uint32_t nr) except -1:
    word.clear_bits(mm, at + abi.PAGE_FLAGS, word.bit(nr))
    return 0

cdef inline bint compound(Mm mm, uint64_t at) except -1:
    return mm.as_u64[at + abi.PAGE_FLAGS >> 3] & (1 << abi.PG_head | 1 << abi.PG_tail) != 0

cdef inline int32_t count(Mm mm, uint64_t at) except? -0x5BAD5BAD:
    return mm.as_s32[at + abi.PAGE_COUNT >> 2]

cdef inline int set_count(Mm mm, uint64_t at, int32_t value) except -1:
    mm.as_s32[at + abi.PAGE_COUNT >> 2] = value
    return 0

cdef inline int32_t mapcount(Mm mm, uint64_t at) except? -0x5BAD5BAD:
    return mm.as_s32[at + abi.PAGE_MAPCOUNT >> 2]

cdef inline bint buddy(Mm mm, uint64_t at) except -1:
    return mm.as_s32[at + abi.PAGE_MAPCOUNT >> 2] == abi.PAGE_BUDDY_MAPCOUNT_VALUE

cdef inline uint64_t order(Mm mm, uint64_t at) except? 0xBAD0BAD0BAD0BAD0:
    return mm.as_u64[at + abi.PAGE_PRIVATE >> 3]

cdef inline int set_private(Mm mm, uint64_t at, uint64_t value) except -1:
    mm.as_u64[at + abi.PAGE_PRIVATE >> 3] = value
    return 0

cdef inline int set_order(Mm mm, uint64_t at, uint32_t value) except -1:
    mm.as_u64[at + abi.PAGE_PRIVATE >> 3] = value
    mm.as_s32[at + abi.PAGE_MAPCOUNT >> 2] = abi.PAGE_BUDDY_MAPCOUNT_VALUE
    return 0

cdef inline int rmv_order(Mm mm, uint64_t at) except -1:
    mm.as_s32[at + abi.PAGE_MAPCOUNT >> 2] = -1
    mm.as_u64[at + abi.PAGE_PRIVATE >> 3] = 0
    return 0

cdef inline int32_t freepage_migratetype(Mm mm, uint64_t at) except? -0x5BAD5BAD:
    return mm.as_s32[at + abi.PAGE_INDEX >> 2]

cdef inline int set_freepage_migratetype(Mm mm, uint64_t at, int32_t migratetype) except -1:
    mm.as_u64[at + abi.PAGE_INDEX >> 3] = migratetype
    return 0

cdef inline bint is_buddy(Mm mm, uint64_t at, uint64_t buddy_at, uint32_t order) except -1:
    if mm.as_s32[buddy_at + abi.PAGE_MAPCOUNT >> 2] != abi.PAGE_BUDDY_MAPCOUNT_VALUE:
        return mm.guard_minorder != 0 and mm.aids.guard_is_buddy(mm, at, buddy_at, order)
    if mm.as_u64[buddy_at + abi.PAGE_PRIVATE >> 3] != order:
        return False
    if zone_id(mm, at) != zone_id(mm, buddy_at):
        return False
    if mm.debug_vm:
        mm.check_buddy(buddy_at)
    return True

cdef inline bint is_bad(Mm mm, uint64_t at, uint64_t flags) except -1:
    cdef uint64_t unmapped_uncounted
    unmapped_uncounted = 4294967295
    return mm.as_u64[at + abi.PAGE_MAPCOUNT >> 3] != unmapped_uncounted or mm.as_u64[at + abi.PAGE_MAPPING >> 3] != 0 or mm.as_u64[at + abi.PAGE_FLAGS >> 3] & flags != 0

cdef inline bint put_testzero(Mm mm, uint64_t at) except -1:
    if mm.debug_vm:
        mm.check_put_page_testzero(at)
    word.add_s32(mm, at + abi.PAGE_COUNT, -1)
    return mm.as_s32[at + abi.PAGE_COUNT >> 2] == 0

cdef inline int32_t zonenum(Mm mm, uint64_t at) except? -0x5BAD5BAD:
    return mm.as_u64[at + abi.PAGE_FLAGS >> 3] >> mm.zones_pgshift & mm.zones_mask

cdef inline int32_t nid(Mm mm, uint64_t at) except? -0x5BAD5BAD:
    return mm.as_u64[at + abi.PAGE_FLAGS >> 3] >> mm.nodes_pgshift & mm.nodes_mask

cdef inline uint64_t zone_id(Mm mm, uint64_t at) except? 0xBAD0BAD0BAD0BAD0:
    return mm.as_u64[at + abi.PAGE_FLAGS >> 3] >> mm.zoneid_pgshift & mm.zoneid_mask

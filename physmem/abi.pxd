# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from abi.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
cdef enum:
    PAGE_SHIFT = 12
cdef enum:
    PAGE_SIZE = 4096
cdef enum:
    PAGE_FLAGS = 0
cdef enum:
    PAGE_MAPPING = 8
cdef enum:
    PAGE_INDEX = 16
cdef enum:
    PAGE_PFMEMALLOC = 16
cdef enum:
    PAGE_MAPCOUNT = 24
cdef enum:
    PAGE_COUNT = 28
cdef enum:
    PAGE_LRU = 32
cdef enum:
    PAGE_LRU_PREV = 40
cdef enum:
    PAGE_COMPOUND_DTOR = 32
cdef enum:
    PAGE_COMPOUND_ORDER = 40
cdef enum:
    PAGE_PRIVATE = 48
cdef enum:
    PAGE_FIRST_PAGE = 48
cdef enum:
    SIZEOF_PAGE = 64
cdef enum:
    SIZEOF_PAGE_SHIFT = 6
cdef enum:
    LIST_NEXT = 0
cdef enum:
    LIST_PREV = 8
cdef enum:
    SIZEOF_LIST_HEAD = 16
cdef enum:
    PAGE_BUDDY_MAPCOUNT_VALUE = -128
cdef enum:
    PG_locked = 0
cdef enum:
    PG_error = 1
cdef enum:
    PG_referenced = 2
cdef enum:
    PG_uptodate = 3
cdef enum:
    PG_dirty = 4
cdef enum:
    PG_lru = 5
cdef enum:
    PG_active = 6
cdef enum:
    PG_slab = 7
cdef enum:
    PG_reserved = 10
cdef enum:
    PG_private = 11
cdef enum:
    PG_head = 14
cdef enum:
    PG_tail = 15
cdef enum:
    PG_unevictable = 20
cdef enum:
    MAX_ORDER = 11
cdef enum:
    PAGEBLOCK_ORDER = 9
cdef enum:
    PAGEBLOCK_NR_PAGES = 512
cdef enum:
    MIGRATE_UNMOVABLE = 0
cdef enum:
    MIGRATE_RECLAIMABLE = 1
cdef enum:
    MIGRATE_MOVABLE = 2
cdef enum:
    MIGRATE_PCPTYPES = 3
cdef enum:
    MIGRATE_RESERVE = 3
cdef enum:
    PCP_COUNT = 0
cdef enum:
    PCP_HIGH = 4
cdef enum:
    PCP_BATCH = 8
cdef enum:
    PCP_LISTS = 16
cdef enum:
    NR_FREE_PAGES = 0
cdef enum:
    NR_ALLOC_BATCH = 1
cdef enum:
    ZONE_FAIR_DEPLETED = 5
cdef enum:
    ZONEREF_ZONE = 0
cdef enum:
    ZONEREF_ZONE_IDX = 8
cdef enum:
    SIZEOF_ZONEREF = 16
cdef enum:
    PF_MEMALLOC = 2048
cdef enum:
    PF_EXITING = 4
cdef enum:
    PF_MEMALLOC_NOIO = 524288

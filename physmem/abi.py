# SPDX-License-Identifier: GPL-2.0-only
# room: inline
"""Numbers that every x86-64 Linux 4.0 shares, as compile-time constants of the hot rooms.

What depends on the kernel's configuration (struct zone, the widths inside
``page->flags``, statistics items) is *not* here: the engine takes it from the
image's layout when it attaches (:mod:`kernelmm.core.mm`), and refuses an image
whose ``struct page`` is not this one.  The values are proven against the
construct declarations in ``tests/physmem/test_abi.py``.
"""

from __future__ import annotations

PAGE_SHIFT = 12
PAGE_SIZE = 4096

# struct page
PAGE_FLAGS = 0
PAGE_MAPPING = 8
PAGE_INDEX = 16
PAGE_PFMEMALLOC = 16
PAGE_MAPCOUNT = 24
PAGE_COUNT = 28
PAGE_LRU = 32
PAGE_LRU_PREV = 40
PAGE_COMPOUND_DTOR = 32
PAGE_COMPOUND_ORDER = 40
PAGE_PRIVATE = 48
PAGE_FIRST_PAGE = 48
SIZEOF_PAGE = 64
SIZEOF_PAGE_SHIFT = 6

# struct list_head
LIST_NEXT = 0
LIST_PREV = 8
SIZEOF_LIST_HEAD = 16

# page->_mapcount of the head of a free block
PAGE_BUDDY_MAPCOUNT_VALUE = -128

# enum pageflags: the ones whose number no configuration moves
PG_locked = 0
PG_error = 1
PG_referenced = 2
PG_uptodate = 3
PG_dirty = 4
PG_lru = 5
PG_active = 6
PG_slab = 7
PG_reserved = 10
PG_private = 11
PG_head = 14
PG_tail = 15
PG_unevictable = 20

# the buddy system
MAX_ORDER = 11
PAGEBLOCK_ORDER = 9
PAGEBLOCK_NR_PAGES = 512

# enum migratetype; CMA and ISOLATE are configuration dependent
MIGRATE_UNMOVABLE = 0
MIGRATE_RECLAIMABLE = 1
MIGRATE_MOVABLE = 2
MIGRATE_PCPTYPES = 3
MIGRATE_RESERVE = 3

# struct per_cpu_pages, at the start of struct per_cpu_pageset
PCP_COUNT = 0
PCP_HIGH = 4
PCP_BATCH = 8
PCP_LISTS = 16

# enum zone_stat_item: the first two
NR_FREE_PAGES = 0
NR_ALLOC_BATCH = 1

# enum zone_flags, bit numbers
ZONE_FAIR_DEPLETED = 5

# struct zoneref
ZONEREF_ZONE = 0
ZONEREF_ZONE_IDX = 8
SIZEOF_ZONEREF = 16

# task_struct.flags: the task frees memory, and may use all of it to that end
PF_MEMALLOC = 0x800
# the task is on its way out
PF_EXITING = 0x4
# the task must not start I/O, and neither may what it allocates
PF_MEMALLOC_NOIO = 0x80000

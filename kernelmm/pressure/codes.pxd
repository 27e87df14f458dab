# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from codes.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
cdef enum:
    PF_EXITING = 4
cdef enum:
    PF_DUMPCORE = 512
cdef enum:
    PF_MEMALLOC = 2048
cdef enum:
    PF_KSWAPD = 262144
cdef enum:
    PF_MEMALLOC_NOIO = 524288
cdef enum:
    PF_LESS_THROTTLE = 1048576
cdef enum:
    PF_KTHREAD = 2097152
cdef enum:
    PF_SWAPWRITE = 8388608
cdef enum:
    COMPACT_DEFERRED = 0
cdef enum:
    COMPACT_SKIPPED = 1
cdef enum:
    COMPACT_CONTINUE = 2
cdef enum:
    COMPACT_PARTIAL = 3
cdef enum:
    COMPACT_COMPLETE = 4
cdef enum:
    COMPACT_NO_SUITABLE_PAGE = 5
cdef enum:
    COMPACT_NOT_SUITABLE_ZONE = 6
cdef enum:
    COMPACT_CONTENDED_NONE = 0
cdef enum:
    COMPACT_CONTENDED_SCHED = 1
cdef enum:
    COMPACT_CONTENDED_LOCK = 2
cdef enum:
    MIGRATE_ASYNC = 0
cdef enum:
    MIGRATE_SYNC_LIGHT = 1
cdef enum:
    MIGRATE_SYNC = 2
cdef enum:
    ZONE_RECLAIM_NOSCAN = -2
cdef enum:
    ZONE_RECLAIM_FULL = -1
cdef enum:
    ZONE_RECLAIM_SOME = 0
cdef enum:
    ZONE_RECLAIM_SUCCESS = 1
cdef enum:
    PAGE_ALLOC_COSTLY_ORDER = 3
cdef enum:
    SWAP_CLUSTER_MAX = 32
cdef enum:
    COMPACT_CLUSTER_MAX = 32
cdef enum:
    DEF_PRIORITY = 12
cdef enum:
    EXTFRAG_THRESHOLD = 500

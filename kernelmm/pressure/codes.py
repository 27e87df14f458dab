# SPDX-License-Identifier: GPL-2.0-only
# room: inline
"""Numbers that the rooms of memory pressure share: task flags, results, modes (of the kernel's headers)."""

from __future__ import annotations

# task_struct.flags (include/linux/sched.h)
PF_EXITING = 0x00000004
PF_DUMPCORE = 0x00000200
PF_MEMALLOC = 0x00000800
PF_KSWAPD = 0x00040000
PF_MEMALLOC_NOIO = 0x00080000
PF_LESS_THROTTLE = 0x00100000
PF_KTHREAD = 0x00200000
PF_SWAPWRITE = 0x00800000

# results of compaction (include/linux/compaction.h), the larger the more was done
COMPACT_DEFERRED = 0
COMPACT_SKIPPED = 1
COMPACT_CONTINUE = 2
COMPACT_PARTIAL = 3
COMPACT_COMPLETE = 4
# these two only in traces, for COMPACT_CONTINUE and COMPACT_SKIPPED
COMPACT_NO_SUITABLE_PAGE = 5
COMPACT_NOT_SUITABLE_ZONE = 6

# why an asynchronous compaction gave up
COMPACT_CONTENDED_NONE = 0
COMPACT_CONTENDED_SCHED = 1
COMPACT_CONTENDED_LOCK = 2

# enum migrate_mode
MIGRATE_ASYNC = 0
MIGRATE_SYNC_LIGHT = 1
MIGRATE_SYNC = 2

# what get_page_from_freelist learns from zone_reclaim (mm/internal.h)
ZONE_RECLAIM_NOSCAN = -2
ZONE_RECLAIM_FULL = -1
ZONE_RECLAIM_SOME = 0
ZONE_RECLAIM_SUCCESS = 1

PAGE_ALLOC_COSTLY_ORDER = 3
SWAP_CLUSTER_MAX = 32
COMPACT_CLUSTER_MAX = 32
DEF_PRIORITY = 12
#: vm.extfrag_threshold: its default.
EXTFRAG_THRESHOLD = 500

# SPDX-License-Identifier: GPL-2.0-only
"""``struct zone`` and what it is made of (include/linux/mmzone.h).

A zone is a range of page frames with free lists of its own: ``free_area[order]``
has a list of free blocks of 2^order pages for each migratetype.  In front of
them, each CPU has lists of single pages (``per_cpu_pageset``).  On SMP kernels
the fields that different CPUs write are kept in different cache lines.
"""

from __future__ import annotations

from functools import cache

from physmem.structs.cdecl import (
    Aggregate,
    bool_,
    char,
    int_,
    long,
    ptr,
    s8,
    struct,
    unsigned_int,
    unsigned_long,
    when,
)
from physmem.structs.linux_4_0.basic import atomic_long_t, list_head, seqlock_t, spinlock_t
from physmem.structs.linux_4_0.config import Config
from physmem.structs.linux_4_0.enums import lru_list, migratetype, zone_stat_item, zone_type, zone_watermarks

__all__ = ["free_area", "lruvec", "per_cpu_pages", "per_cpu_pageset", "zone", "zone_reclaim_stat"]


@cache
def free_area(c: Config) -> Aggregate:
    """``struct free_area``: the free blocks of one order."""
    return struct(
        "free_area",
        "free_list" / list_head[migratetype(c)["MIGRATE_TYPES"]] * "by migratetype, linked through page->lru",
        "nr_free" / unsigned_long * "blocks on all of them",
    )


@cache
def per_cpu_pages(c: Config) -> Aggregate:
    """``struct per_cpu_pages``: single free pages that one CPU keeps at hand."""
    return struct(
        "per_cpu_pages",
        "count" / int_ * "pages on the lists",
        "high" / int_ * "from this many on, a free gives some back",
        "batch" / int_ * "pages taken from or given to the buddy lists at once",
        "lists" / list_head[migratetype(c)["MIGRATE_PCPTYPES"]] * "by migratetype",
    )


@cache
def per_cpu_pageset(c: Config) -> Aggregate:
    """``struct per_cpu_pageset``: the part of a zone that each CPU has for itself."""
    return struct(
        "per_cpu_pageset",
        "pcp" / per_cpu_pages(c),
        *when(c.numa, "expire" / s8 * "ticks until a remote CPU's pages are drained"),
        *when(
            c.smp,
            "stat_threshold" / s8 * "a differential beyond it is folded into vm_stat",
            "vm_stat_diff" / s8[zone_stat_item(c)["NR_VM_ZONE_STAT_ITEMS"]] * "not yet in zone->vm_stat",
        ),
    )


zone_reclaim_stat = struct(
    "zone_reclaim_stat",
    "recent_rotated" / unsigned_long[2] * "anonymous pages, file pages",
    "recent_scanned" / unsigned_long[2],
)


@cache
def lruvec(c: Config) -> Aggregate:
    """``struct lruvec``: the pages that reclaim chooses from."""
    return struct(
        "lruvec",
        "lists" / list_head[lru_list(c)["NR_LRU_LISTS"]],
        "reclaim_stat" / zone_reclaim_stat,
        *when(c.memcg, "zone" / ptr("struct zone")),
    )


@cache
def zone(c: Config) -> Aggregate:
    """``struct zone``."""
    padding = struct("zone_padding", "x" / char[0], align=c.internode_cache_bytes)
    return struct(
        "zone",
        # read by everybody, hardly written
        "watermark" / unsigned_long[zone_watermarks(c)["NR_WMARK"]] * "pages: min, low, high",
        "lowmem_reserve" / long[zone_type(c)["__MAX_NR_ZONES"]] * "pages kept from requests for a higher zone",
        *when(c.numa, "node" / int_),
        "inactive_ratio" / unsigned_int,
        "zone_pgdat" / ptr("struct pglist_data"),
        "pageset" / ptr("struct per_cpu_pageset") * "per-cpu: add the CPU's offset",
        "dirty_balance_reserve" / unsigned_long * "pages not to be dirtied",
        *when(not c.sparsemem, "pageblock_flags" / ptr("unsigned long") * "4 bits a pageblock"),
        *when(
            c.numa,
            "min_unmapped_pages" / unsigned_long * "zone_reclaim: page cache to leave",
            "min_slab_pages" / unsigned_long * "zone_reclaim: slab pages to leave",
        ),
        "zone_start_pfn" / unsigned_long,
        "managed_pages" / unsigned_long * "given to the page allocator",
        "spanned_pages" / unsigned_long * "from the first to the last, holes included",
        "present_pages" / unsigned_long * "without the holes",
        "name" / ptr("const char"),
        "nr_migrate_reserve_block" / int_ * "pageblocks of MIGRATE_RESERVE",
        *when(c.memory_isolation, "nr_isolate_pageblock" / unsigned_long * "pageblocks of MIGRATE_ISOLATE"),
        *when(c.memory_hotplug, "span_seqlock" / seqlock_t(c)),
        "wait_table" / ptr("wait_queue_head_t") * "hash table of queues waiting for a page",
        "wait_table_hash_nr_entries" / unsigned_long,
        "wait_table_bits" / unsigned_long,
        # written by the page allocator
        *when(c.smp, "_pad1_" / padding),
        "free_area" / free_area(c)[c.max_order] * "by order",
        "flags" / unsigned_long * "ZONE_* bits",
        "lock" / spinlock_t(c) * "of the free areas",
        # written by reclaim
        *when(c.smp, "_pad2_" / padding),
        "lru_lock" / spinlock_t(c),
        "lruvec" / lruvec(c),
        "inactive_age" / atomic_long_t,
        "percpu_drift_mark" / unsigned_long * "below this many free pages, count them exactly",
        *when(
            c.compaction or c.cma,
            "compact_cached_free_pfn" / unsigned_long,
            "compact_cached_migrate_pfn" / unsigned_long[2],
        ),
        *when(
            c.compaction,
            "compact_considered" / unsigned_int,
            "compact_defer_shift" / unsigned_int,
            "compact_order_failed" / int_,
        ),
        *when(c.compaction or c.cma, "compact_blockskip_flush" / bool_),
        # statistics
        *when(c.smp, "_pad3_" / padding),
        "vm_stat" / atomic_long_t[zone_stat_item(c)["NR_VM_ZONE_STAT_ITEMS"]] * "by zone_stat_item",
        align=c.internode_cache_bytes,
    )

# SPDX-License-Identifier: GPL-2.0-only
"""``struct pglist_data``, a NUMA node, and the zonelists in it (include/linux/mmzone.h).

An allocation walks a zonelist: the zones it may use, best first, ended by an
entry without a zone.  On NUMA kernels a node has two, with and without the
other nodes' zones, and the first has a cache of which zones were full lately.
"""

from __future__ import annotations

from functools import cache

from physmem.structs.cdecl import Aggregate, enum, int_, ptr, struct, unsigned_long, unsigned_short, when
from physmem.structs.linux_4_0.basic import spinlock_t, wait_queue_head_t
from physmem.structs.linux_4_0.config import Config
from physmem.structs.linux_4_0.enums import zone_type
from physmem.structs.linux_4_0.zone import zone

__all__ = ["pglist_data", "zonelist", "zonelist_cache", "zoneref"]

zoneref = struct(
    "zoneref",
    "zone" / ptr("struct zone") * "NULL ends the list",
    "zone_idx" / int_ * "its zone_type",
)


def _zones_per_zonelist(c: Config) -> int:
    return c.max_numnodes * zone_type(c)["__MAX_NR_ZONES"]


@cache
def zonelist_cache(c: Config) -> Aggregate:
    """``struct zonelist_cache``, indexed by position in the zonelist; only NUMA kernels have it."""
    zones = _zones_per_zonelist(c)
    return struct(
        "zonelist_cache",
        "z_to_n" / unsigned_short[zones] * "node of each zone",
        "fullzones" / unsigned_long[-(-zones // 64)] * "bitmap of zones found short of free pages",
        "last_full_zap" / unsigned_long * "jiffies when fullzones was last cleared",
    )


@cache
def zonelist(c: Config) -> Aggregate:
    """``struct zonelist``."""
    return struct(
        "zonelist",
        "zlcache_ptr" / ptr("struct zonelist_cache") * "NULL, or of zlcache",
        "_zonerefs" / zoneref[_zones_per_zonelist(c) + 1],
        *when(c.numa, "zlcache" / zonelist_cache(c)),
    )


@cache
def pglist_data(c: Config) -> Aggregate:
    """``struct pglist_data``, alias ``pg_data_t``."""
    return struct(
        "pglist_data",
        "node_zones" / zone(c)[zone_type(c)["__MAX_NR_ZONES"]],
        "node_zonelists" / zonelist(c)[2 if c.numa else 1] * "with fallback to other nodes; without",
        "nr_zones" / int_ * "populated zones, counted to the highest",
        *when(not c.sparsemem, "node_mem_map" / ptr("struct page")),
        *when(not c.sparsemem and c.page_extension, "node_page_ext" / ptr("struct page_ext")),
        *when(c.memory_hotplug, "node_size_lock" / spinlock_t(c)),
        "node_start_pfn" / unsigned_long,
        "node_present_pages" / unsigned_long * "without holes",
        "node_spanned_pages" / unsigned_long * "from the first to the last, holes included",
        "node_id" / int_,
        "kswapd_wait" / wait_queue_head_t(c) * "where kswapd sleeps",
        "pfmemalloc_wait" / wait_queue_head_t(c) * "where tasks wait for the reserves to be refilled",
        "kswapd" / ptr("struct task_struct"),
        "kswapd_max_order" / int_ * "order kswapd was woken for",
        "classzone_idx" / enum("zone_type", zone_type(c)) * "zone kswapd was woken for",
        *when(
            c.numa_balancing,
            "numabalancing_migrate_lock" / spinlock_t(c),
            "numabalancing_migrate_next_window" / unsigned_long,
            "numabalancing_migrate_nr_pages" / unsigned_long,
        ),
    )

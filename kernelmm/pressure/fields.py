# SPDX-License-Identifier: GPL-2.0-only
"""Where a kernel keeps what only reclaim, compaction and the OOM killer need (include/linux/mmzone.h, vmstat.h).

The hot rooms have their numbers in :class:`~kernelmm.core.mm.Mm`; these are the cold rooms' ones,
from the same layout.  They hang on ``mm.cold``.
"""

from __future__ import annotations

from physmem.dump import Dump
from physmem.structs.layout import Layout

__all__ = ["Fields"]


class Fields:
    """Offsets in ``struct zone``, numbers of statistics items, events and page flags, addresses of variables.

    An enumerator that this kernel's configuration does not have is -1, a field or variable 0.

    :param dump: the kernel's layout and symbols
    """

    # enum zone_stat_item
    NR_LRU_BASE: int
    NR_INACTIVE_ANON: int
    NR_ACTIVE_ANON: int
    NR_INACTIVE_FILE: int
    NR_ACTIVE_FILE: int
    NR_MLOCK: int
    NR_ANON_PAGES: int
    NR_FILE_MAPPED: int
    NR_FILE_PAGES: int
    NR_FILE_DIRTY: int
    NR_WRITEBACK: int
    NR_SLAB_RECLAIMABLE: int
    NR_PAGETABLE: int
    NR_UNSTABLE_NFS: int
    NR_VMSCAN_WRITE: int
    NR_VMSCAN_IMMEDIATE: int
    NR_ISOLATED_ANON: int
    NR_ISOLATED_FILE: int
    NR_SHMEM: int
    NR_DIRTIED: int
    NR_WRITTEN: int
    NR_PAGES_SCANNED: int
    WORKINGSET_REFAULT: int
    WORKINGSET_ACTIVATE: int

    # enum vm_event_item
    PGACTIVATE: int
    PGDEACTIVATE: int
    PGROTATED: int
    PGREFILL_NORMAL: int
    PGSTEAL_KSWAPD_NORMAL: int
    PGSTEAL_DIRECT_NORMAL: int
    PGSCAN_KSWAPD_NORMAL: int
    PGSCAN_DIRECT_NORMAL: int
    PGSCAN_DIRECT_THROTTLE: int
    PGSCAN_ZONE_RECLAIM_FAILED: int
    KSWAPD_LOW_WMARK_HIT_QUICKLY: int
    KSWAPD_HIGH_WMARK_HIT_QUICKLY: int
    PAGEOUTRUN: int
    ALLOCSTALL: int
    PGMIGRATE_SUCCESS: int
    PGMIGRATE_FAIL: int
    COMPACTMIGRATE_SCANNED: int
    COMPACTFREE_SCANNED: int
    COMPACTISOLATED: int
    COMPACTSTALL: int
    COMPACTFAIL: int
    COMPACTSUCCESS: int
    UNEVICTABLE_PGCULLED: int
    UNEVICTABLE_PGRESCUED: int
    UNEVICTABLE_PGMLOCKED: int
    UNEVICTABLE_PGCLEARED: int
    UNEVICTABLE_PGSTRANDED: int

    # enum pageflags, enum zone_flags
    PG_private_2: int
    PG_writeback: int
    PG_swapcache: int
    PG_mappedtodisk: int
    PG_reclaim: int
    PG_swapbacked: int
    PG_mlocked: int
    ZONE_RECLAIM_LOCKED: int
    ZONE_OOM_LOCKED: int
    ZONE_CONGESTED: int
    ZONE_DIRTY: int
    ZONE_WRITEBACK: int

    # struct zone: fields of every configuration
    zone_dirty_balance_reserve: int
    zone_lru_lock: int
    zone_lruvec: int
    zone_inactive_age: int

    # struct zone: CONFIG_NUMA, CONFIG_COMPACTION
    zone_min_unmapped_pages: int
    zone_min_slab_pages: int
    zone_compact_cached_free_pfn: int
    zone_compact_cached_migrate_pfn: int
    zone_compact_considered: int
    zone_compact_defer_shift: int
    zone_compact_order_failed: int
    zone_compact_blockskip_flush: int

    # per-cpu variables: addresses before the CPU's offset
    percpu_lru_add_pvec: int

    # kernel variables: physical addresses
    var_totalram_pages: int
    var_dirty_balance_reserve: int
    var_cpusets_enabled_key: int
    var_numa_distance: int
    var_numa_distance_cnt: int
    var_sysctl_panic_on_oom: int
    var_sysctl_oom_kill_allocating_task: int
    var_sysctl_oom_dump_tasks: int

    def __init__(self, dump: Dump) -> None:
        layout = dump.layout
        for name in self.__class__.__annotations__:
            kind, _, field = name.partition("_")
            if kind == "zone":
                value = offset(layout, field)
            elif kind == "percpu":
                value = dump.symbols.find(field)
            elif kind == "var":
                value = dump.virt_to_phys(dump.symbols[field]) if field in dump.symbols else 0
            else:
                value = enumerator(layout, name)
            setattr(self, name, value)
        self.recent_rotated = layout.offsetof("zone", "lruvec.reclaim_stat.recent_rotated")
        self.recent_scanned = layout.offsetof("zone", "lruvec.reclaim_stat.recent_scanned")
        self.nr_stat_items = layout.constant("NR_VM_ZONE_STAT_ITEMS")
        expire = ("per_cpu_pageset", "expire")
        self.pageset_expire = layout.offsetof(*expire) if layout.has(*expire) else 0
        self.nodes_shift = layout.constant("NODES_SHIFT")
        self.pgdat_pfmemalloc_wait_lock = layout.offsetof("pglist_data", "pfmemalloc_wait.lock")
        self.pgdat_pfmemalloc_wait_task_list = layout.offsetof("pglist_data", "pfmemalloc_wait.task_list")
        self.pgdat_node_spanned_pages = layout.offsetof("pglist_data", "node_spanned_pages")


def offset(layout: Layout, field: str) -> int:
    """Offset of a field of ``struct zone``, or 0."""
    return layout.offsetof("zone", field) if layout.has("zone", field) else 0


def enumerator(layout: Layout, name: str) -> int:
    """Value of an enumerator, or -1."""
    for enum in ("zone_stat_item", "vm_event_item", "pageflags", "zone_flags"):
        found = layout.enum(enum).get(name)
        if found is not None:
            return found
    return -1

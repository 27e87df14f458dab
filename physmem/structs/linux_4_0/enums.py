# SPDX-License-Identifier: GPL-2.0-only
"""The enums of Linux 4.0 that the page allocator counts, indexes and tests with.

From include/linux/mmzone.h, page-flags.h, pageblock-flags.h, vm_event_item.h and
migrate_mode.h; what the configuration leaves out, the numbers close up over.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from physmem.structs.linux_4_0.config import Config

__all__ = [
    "ENUMS",
    "lru_list",
    "migratetype",
    "pageblock_bits",
    "pageflags",
    "vm_event_item",
    "zone_stat_item",
    "zone_type",
    "zone_watermarks",
]


def _enum(*texts: str) -> dict[str, int]:
    """Number enumerators as C does: each is one more than the one before, ``A=B`` is the same as B."""
    values: dict[str, int] = {}
    following = 0
    for word in " ".join(texts).split():
        name, _, same = word.partition("=")
        values[name] = values[same] if same else following
        following = values[name] + 1
    return values


def _when(condition: bool, text: str) -> str:
    return text if condition else ""


@cache
def zone_type(c: Config) -> dict[str, int]:
    """The zones of a node, lowest first."""
    return _enum(
        _when(c.zone_dma, "ZONE_DMA"),
        _when(c.zone_dma32, "ZONE_DMA32"),
        "ZONE_NORMAL ZONE_MOVABLE __MAX_NR_ZONES",
    )


@cache
def pageflags(c: Config) -> dict[str, int]:
    """Bit numbers in the low part of page->flags, and the other names that some of them have."""
    return _enum(
        """
        PG_locked PG_error PG_referenced PG_uptodate PG_dirty PG_lru PG_active PG_slab PG_owner_priv_1 PG_arch_1
        PG_reserved PG_private PG_private_2 PG_writeback PG_head PG_tail PG_swapcache PG_mappedtodisk PG_reclaim
        PG_swapbacked PG_unevictable PG_mlocked PG_uncached
        """,
        _when(c.memory_failure, "PG_hwpoison"),
        _when(c.transparent_hugepage, "PG_compound_lock"),
        """
        __NR_PAGEFLAGS
        PG_checked=PG_owner_priv_1 PG_fscache=PG_private_2 PG_pinned=PG_owner_priv_1 PG_savepinned=PG_dirty
        PG_foreign=PG_owner_priv_1 PG_slob_free=PG_private
        """,
    )


@cache
def zone_stat_item(c: Config) -> dict[str, int]:
    """Indices into zone->vm_stat, per_cpu_pageset->vm_stat_diff and the global vm_stat."""
    return _enum(
        """
        NR_FREE_PAGES NR_ALLOC_BATCH NR_LRU_BASE NR_INACTIVE_ANON=NR_LRU_BASE NR_ACTIVE_ANON NR_INACTIVE_FILE
        NR_ACTIVE_FILE NR_UNEVICTABLE NR_MLOCK NR_ANON_PAGES NR_FILE_MAPPED NR_FILE_PAGES NR_FILE_DIRTY NR_WRITEBACK
        NR_SLAB_RECLAIMABLE NR_SLAB_UNRECLAIMABLE NR_PAGETABLE NR_KERNEL_STACK NR_UNSTABLE_NFS NR_BOUNCE
        NR_VMSCAN_WRITE NR_VMSCAN_IMMEDIATE NR_WRITEBACK_TEMP NR_ISOLATED_ANON NR_ISOLATED_FILE NR_SHMEM NR_DIRTIED
        NR_WRITTEN NR_PAGES_SCANNED
        """,
        _when(c.numa, "NUMA_HIT NUMA_MISS NUMA_FOREIGN NUMA_INTERLEAVE_HIT NUMA_LOCAL NUMA_OTHER"),
        """
        WORKINGSET_REFAULT WORKINGSET_ACTIVATE WORKINGSET_NODERECLAIM NR_ANON_TRANSPARENT_HUGEPAGES NR_FREE_CMA_PAGES
        NR_VM_ZONE_STAT_ITEMS
        """,
    )


@cache
def vm_event_item(c: Config) -> dict[str, int]:
    """Indices into vm_event_state->event: the counters of /proc/vmstat that only grow."""
    zones = [name.removeprefix("ZONE_") for name in zone_type(c) if name != "__MAX_NR_ZONES"]

    def per_zone(*names: str) -> str:
        return " ".join(f"{name}_{zone}" for name in names for zone in zones)

    return _enum(
        "PGPGIN PGPGOUT PSWPIN PSWPOUT",
        per_zone("PGALLOC"),
        "PGFREE PGACTIVATE PGDEACTIVATE PGFAULT PGMAJFAULT",
        per_zone("PGREFILL", "PGSTEAL_KSWAPD", "PGSTEAL_DIRECT", "PGSCAN_KSWAPD", "PGSCAN_DIRECT"),
        "PGSCAN_DIRECT_THROTTLE",
        _when(c.numa, "PGSCAN_ZONE_RECLAIM_FAILED"),
        """
        PGINODESTEAL SLABS_SCANNED KSWAPD_INODESTEAL KSWAPD_LOW_WMARK_HIT_QUICKLY KSWAPD_HIGH_WMARK_HIT_QUICKLY
        PAGEOUTRUN ALLOCSTALL PGROTATED DROP_PAGECACHE DROP_SLAB
        """,
        _when(
            c.numa_balancing,
            "NUMA_PTE_UPDATES NUMA_HUGE_PTE_UPDATES NUMA_HINT_FAULTS NUMA_HINT_FAULTS_LOCAL NUMA_PAGE_MIGRATE",
        ),
        _when(c.migration, "PGMIGRATE_SUCCESS PGMIGRATE_FAIL"),
        _when(
            c.compaction,
            "COMPACTMIGRATE_SCANNED COMPACTFREE_SCANNED COMPACTISOLATED COMPACTSTALL COMPACTFAIL COMPACTSUCCESS",
        ),
        _when(c.hugetlb_page, "HTLB_BUDDY_PGALLOC HTLB_BUDDY_PGALLOC_FAIL"),
        """
        UNEVICTABLE_PGCULLED UNEVICTABLE_PGSCANNED UNEVICTABLE_PGRESCUED UNEVICTABLE_PGMLOCKED UNEVICTABLE_PGMUNLOCKED
        UNEVICTABLE_PGCLEARED UNEVICTABLE_PGSTRANDED
        """,
        _when(
            c.transparent_hugepage,
            """
            THP_FAULT_ALLOC THP_FAULT_FALLBACK THP_COLLAPSE_ALLOC THP_COLLAPSE_ALLOC_FAILED THP_SPLIT
            THP_ZERO_PAGE_ALLOC THP_ZERO_PAGE_ALLOC_FAILED
            """,
        ),
        "NR_VM_EVENT_ITEMS",
    )


@cache
def migratetype(c: Config) -> dict[str, int]:
    """What a pageblock's pages can be moved for; the enum has no name in C, ``migratetype`` is the variables'."""
    return _enum(
        "MIGRATE_UNMOVABLE MIGRATE_RECLAIMABLE MIGRATE_MOVABLE MIGRATE_PCPTYPES MIGRATE_RESERVE=MIGRATE_PCPTYPES",
        _when(c.cma, "MIGRATE_CMA"),
        _when(c.memory_isolation, "MIGRATE_ISOLATE"),
        "MIGRATE_TYPES",
    )


def zone_flags(_: Config) -> dict[str, int]:
    """Bit numbers in zone->flags."""
    return _enum(
        "ZONE_RECLAIM_LOCKED ZONE_OOM_LOCKED ZONE_CONGESTED ZONE_DIRTY ZONE_WRITEBACK ZONE_FAIR_DEPLETED",
    )


def lru_list(_: Config) -> dict[str, int]:
    """The lists of a lruvec: anonymous and file pages, inactive before active."""
    return _enum("LRU_INACTIVE_ANON LRU_ACTIVE_ANON LRU_INACTIVE_FILE LRU_ACTIVE_FILE LRU_UNEVICTABLE NR_LRU_LISTS")


def zone_watermarks(_: Config) -> dict[str, int]:
    """Indices into zone->watermark."""
    return _enum("WMARK_MIN WMARK_LOW WMARK_HIGH NR_WMARK")


def pageblock_bits(_: Config) -> dict[str, int]:
    """The bits a pageblock has in the pageblock flags: three for its migratetype, one for compaction."""
    return {"PB_migrate": 0, "PB_migrate_end": 2, "PB_migrate_skip": 3, "NR_PAGEBLOCK_BITS": 4}


def migrate_mode(_: Config) -> dict[str, int]:
    """How much migration may wait for."""
    return _enum("MIGRATE_ASYNC MIGRATE_SYNC_LIGHT MIGRATE_SYNC")


def page_ext_flags(c: Config) -> dict[str, int]:
    """Bit numbers in page_ext->flags, on a kernel that has it."""
    return _enum(_when(c.page_extension, "PAGE_EXT_DEBUG_POISON PAGE_EXT_DEBUG_GUARD PAGE_EXT_OWNER"))


ENUMS: dict[str, Callable[[Config], dict[str, int]]] = {
    "zone_type": zone_type,
    "pageflags": pageflags,
    "zone_stat_item": zone_stat_item,
    "vm_event_item": vm_event_item,
    "zone_flags": zone_flags,
    "lru_list": lru_list,
    "zone_watermarks": zone_watermarks,
    "pageblock_bits": pageblock_bits,
    "migrate_mode": migrate_mode,
    "migratetype": migratetype,
    "page_ext_flags": page_ext_flags,
}
"""Every enum of the layout, by name."""

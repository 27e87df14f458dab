# SPDX-License-Identifier: GPL-2.0-only
"""``/proc/vmstat``: what the kernel counts of the whole machine (mm/vmstat.c: vmstat_start)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from physmem.dump import Dump
from physmem.inspect.counters import events, numa_stats, page_stats, variable
from physmem.inspect.zoneinfo import shown, stat_name
from physmem.inspect.zones import nodes

__all__ = ["event_name", "vmstat"]

_U64 = (1 << 64) - 1
_PAGE_SIZE = 4096

#: Events that the file names otherwise than the enumerator in small letters: how the name changes.
_RENAMED = [
    (r"^PGSCAN_SKIP_", "PGSKIP_"),
    (r"^PGSCAN_ZONE_RECLAIM_", "ZONE_RECLAIM_"),
    (r"^NUMA_PAGE_MIGRATE$", "NUMA_PAGES_MIGRATED"),
    (r"^COMPACT(?!_)", "COMPACT_"),
    (r"^KCOMPACTD_", "COMPACT_DAEMON_"),
    (r"^HTLB_BUDDY_PGALLOC$", "HTLB_BUDDY_ALLOC_SUCCESS"),
    (r"^HTLB_BUDDY_PGALLOC_FAIL$", "HTLB_BUDDY_ALLOC_FAIL"),
    (r"^UNEVICTABLE_PG", "UNEVICTABLE_PGS_"),
    (r"^THP_SCAN_EXCEED_SHARED_PTE$", "THP_SCAN_EXCEED_SHARE_PTE"),
    (r"^(DIRECT_MAP_LEVEL\d_(?:SPLIT|COLLAPSE))$", r"\1S"),
]
#: Counted in sectors, shown in KiB.
_SECTORS = ("PGPGIN", "PGPGOUT")


def event_name(item: str) -> str:
    """The name that /proc/vmstat has for an enumerator of ``enum vm_event_item``."""
    for pattern, new in _RENAMED:
        item = re.sub(pattern, new, item)
    return item.lower()


def vmstat(dump: Dump) -> dict[str, int | None]:
    """The file's rows in its order; None is a value that the image does not tell.

    :raises PhysmemError: what :func:`~physmem.inspect.zones.nodes` raises
    """
    return dict(_rows(dump))


def _rows(dump: Dump) -> Iterator[tuple[str, int | None]]:
    found = nodes(dump)
    by_zone, by_node = page_stats(dump, found)
    for item, value in by_zone.items():
        yield stat_name(item), shown(dump, item, value)
    for item, value in numa_stats(dump, found).items():
        yield stat_name(item), value & _U64
    for item, value in by_node.items():
        yield stat_name(item), shown(dump, item, value)
    limit, background = _limits(dump, by_zone | by_node)
    yield from (("nr_dirty_threshold", limit), ("nr_dirty_background_threshold", background))
    if dump.release >= (6, 11):
        yield from ((name, variable(dump, name)) for name in ("nr_memmap_pages", "nr_memmap_boot_pages"))
    counted = events(dump)
    for item in counted or dump.layout.enums.get("vm_event_item", {}):
        if counted is not None:
            yield event_name(item), counted[item] // 2 if item in _SECTORS else counted[item]
        elif item != "NR_VM_EVENT_ITEMS":
            yield event_name(item), None
    if dump.release >= (5, 8):
        yield "nr_unstable", 0  # nothing is counted there any more


def _limits(dump: Dump, stats: dict[str, int]) -> tuple[int | None, int | None]:
    """``global_dirty_limits``: dirty pages from which writers wait, and from which writing begins."""
    old = dump.release < (4, 4)
    reserve = variable(dump, "dirty_balance_reserve" if old else "totalreserve_pages")
    sizes = [variable(dump, name) for name in ("vm_dirty_bytes", "dirty_background_bytes")]
    ratios = [variable(dump, name, 4) for name in ("vm_dirty_ratio", "dirty_background_ratio")]
    if reserve is None or None in (*sizes, *ratios) or (4, 4) <= dump.release < (4, 8):
        return None, None
    free = shown(dump, "NR_FREE_PAGES", stats["NR_FREE_PAGES"])
    file = sum(shown(dump, item, stats[item]) for item in ("NR_INACTIVE_FILE", "NR_ACTIVE_FILE"))
    dirtyable = free - min(free, reserve) + file + 1
    limits = []
    for size, ratio in zip(sizes, ratios, strict=True):
        assert size is not None
        assert ratio is not None
        if size:
            limits.append(-(-size // _PAGE_SIZE))
        else:  # today in parts of a page: 20 % are 819 / 4096
            whole = 100 if old else _PAGE_SIZE
            limits.append((ratio if old else ratio * _PAGE_SIZE // 100) * dirtyable // whole)
    limit, background = limits
    return limit, limit // 2 if background >= limit else background

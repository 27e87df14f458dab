# SPDX-License-Identifier: GPL-2.0-only
"""``/proc/zoneinfo``: everything a zone counts (mm/vmstat.c: zoneinfo_show_print)."""

from __future__ import annotations

from physmem.dump import Dump
from physmem.inspect.cpus import is_smp
from physmem.inspect.zones import Pageset, Zone, pagesets

__all__ = ["all_unreclaimable", "stat_name", "zoneinfo"]

_U64 = (1 << 64) - 1

#: Statistics that the file names otherwise than the enumerator.
_NAMES = {
    "NR_FILE_DIRTY": "nr_dirty",
    "NR_FILE_MAPPED": "nr_mapped",
    "NR_PAGETABLE": "nr_page_table_pages",
    "NR_UNSTABLE_NFS": "nr_unstable",
    "NR_VMSCAN_IMMEDIATE": "nr_vmscan_immediate_reclaim",
    "NUMA_INTERLEAVE_HIT": "numa_interleave",
    "NR_FREE_CMA_PAGES": "nr_free_cma",
}


def stat_name(item: str) -> str:
    """The name that /proc has for an enumerator of ``enum zone_stat_item``."""
    return _NAMES.get(item, item.lower())


def all_unreclaimable(dump: Dump, zone: Zone) -> bool | None:
    """``!zone_reclaimable``: reclaim has scanned six times what it could reclaim; None if the image does not tell.

    Anonymous pages can be reclaimed only if there is swap space left, and where that is counted
    (``nr_swap_pages``) may be unknown.
    """
    stat = {item: _page_state(dump, value) for item, value in zone.vm_stat.items()}
    file = stat["NR_ACTIVE_FILE"] + stat["NR_INACTIVE_FILE"]
    anon = stat["NR_ACTIVE_ANON"] + stat["NR_INACTIVE_ANON"]
    scanned = stat["NR_PAGES_SCANNED"]
    if "nr_swap_pages" in dump.symbols:
        has_swap = 0 < dump.u64(dump.symbols["nr_swap_pages"]) < 1 << 63
        return scanned >= 6 * (file + anon if has_swap else file)
    if scanned < 6 * file:
        return False
    return True if scanned >= 6 * (file + anon) else None


def zoneinfo(dump: Dump, zone: Zone) -> str:
    """The part of the file about a populated zone; a ``?`` is a value that the image does not tell.

    :raises PhysmemError: what :func:`~physmem.inspect.zones.pagesets` raises
    """
    stat = {item: _page_state(dump, value) for item, value in zone.vm_stat.items()}
    pages = {
        **dict(zip(("min", "low", "high"), zone.watermark, strict=False)),
        "scanned": stat["NR_PAGES_SCANNED"],
        "spanned": zone.spanned,
        "present": zone.present,
        "managed": zone.managed,
    }
    lines = [
        f"Node {zone.node}, zone {zone.name:>8}",
        f"  pages free     {stat['NR_FREE_PAGES']}",
        *(f"        {name:8} {value}" for name, value in pages.items()),
        *(f"    {stat_name(item):12} {value}" for item, value in stat.items()),
        f"        protection: ({', '.join(map(str, zone.lowmem_reserve))})",
        "  pagesets",
        *(line for pageset in pagesets(dump, zone) for line in _pageset_lines(pageset)),
    ]
    unreclaimable = all_unreclaimable(dump, zone)
    lines += [
        f"  all_unreclaimable: {'?' if unreclaimable is None else int(unreclaimable)}",
        f"  start_pfn:         {zone.start_pfn}",
        f"  inactive_ratio:    {zone.inactive_ratio}",
    ]
    return "\n".join(lines) + "\n"


def _pageset_lines(pageset: Pageset) -> list[str]:
    lines = [
        f"    cpu: {pageset.cpu}",
        f"              count: {pageset.count}",
        f"              high:  {pageset.high}",
        f"              batch: {pageset.batch}",
    ]
    if pageset.stat_threshold is not None:
        lines.append(f"  vm stats threshold: {pageset.stat_threshold}")
    return lines


def _page_state(dump: Dump, value: int) -> int:
    """``zone_page_state``: an SMP kernel takes a negative counter for 0, others do not expect one."""
    return max(value, 0) if is_smp(dump) else value & _U64

# SPDX-License-Identifier: GPL-2.0-only
"""``/proc/zoneinfo``: everything a zone counts (mm/vmstat.c: zoneinfo_show_print).

What the file has, has grown: :data:`_SINCE` says since when.  Until 4.11 it has the populated zones alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from physmem.dump import Dump
from physmem.inspect.cpus import is_smp
from physmem.inspect.zones import Node, Pageset, Zone, nodes, pagesets

__all__ = ["all_unreclaimable", "node_unreclaimable", "page_state", "shown", "stat_name", "zoneinfo", "zoneinfo_file"]

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
    "NR_ANON_MAPPED": "nr_anon_pages",
    "NR_ANON_THPS": "nr_anon_transparent_hugepages",
    "NR_SHMEM_THPS": "nr_shmem_hugepages",
    "NR_FILE_THPS": "nr_file_hugepages",
    "NR_SLAB_RECLAIMABLE_B": "nr_slab_reclaimable",
    "NR_SLAB_UNRECLAIMABLE_B": "nr_slab_unreclaimable",
    "NR_KERNEL_STACK_KB": "nr_kernel_stack",
    "NR_KERNEL_SCS_KB": "nr_shadow_call_stack",
    "NR_SECONDARY_PAGETABLE": "nr_sec_page_table_pages",
    "NR_SWAPCACHE": "nr_swapcached",
}
#: Statistics that count pages of huge pages, which the file counts as huge pages.
_IN_THP = {"NR_ANON_THPS", "NR_FILE_THPS", "NR_SHMEM_THPS", "NR_SHMEM_PMDMAPPED", "NR_FILE_PMDMAPPED"}

#: The release since which the file has something.
_SINCE = {
    "all zones": (4, 12),
    "counted as huge pages": (5, 11),
    "cma": (5, 12),
    "boost": (5, 16),
    "promo": (6, 9),
    "high_min": (6, 15),
    "highatomic": (6, 19),
}

#: MAX_RECLAIM_RETRIES: after so many failures in a row kswapd gives the node up.
_MAX_FAILURES = 16


def stat_name(item: str) -> str:
    """The name that /proc has for an enumerator of ``enum zone_stat_item``, or of another statistic."""
    return _NAMES.get(item, item.lower())


def shown(dump: Dump, item: str, value: int) -> int:
    """What /proc shows of a statistic: never less than 0, and huge pages as their number, whatever they are kept as."""
    pages = page_state(dump, value)
    if item in _IN_THP and dump.release >= _SINCE["counted as huge pages"]:
        pages //= 1 << min(9, dump.layout.constant("MAX_ORDER") - 1)
    return pages


def all_unreclaimable(dump: Dump, zone: Zone) -> bool | None:
    """``!zone_reclaimable``: reclaim has scanned six times what it could reclaim; None if the image does not tell.

    Anonymous pages can be reclaimed only if there is swap space left, and where that is counted
    (``nr_swap_pages``) may be unknown.
    """
    stat = {item: page_state(dump, value) for item, value in zone.vm_stat.items()}
    file = stat["NR_ACTIVE_FILE"] + stat["NR_INACTIVE_FILE"]
    anon = stat["NR_ACTIVE_ANON"] + stat["NR_INACTIVE_ANON"]
    scanned = stat["NR_PAGES_SCANNED"]
    if "nr_swap_pages" in dump.symbols:
        has_swap = 0 < dump.u64(dump.symbols["nr_swap_pages"]) < 1 << 63
        return scanned >= 6 * (file + anon if has_swap else file)
    if scanned < 6 * file:
        return False
    return True if scanned >= 6 * (file + anon) else None


def node_unreclaimable(node: Node) -> bool | None:
    """Whether kswapd has given the node up; None in kernels that do not count its failures."""
    return None if node.kswapd_failures is None else node.kswapd_failures >= _MAX_FAILURES


def zoneinfo_file(dump: Dump) -> str:
    """The whole file; raises what :func:`zoneinfo` does."""
    everything = dump.release >= _SINCE["all zones"]
    return "".join(
        zoneinfo(dump, zone, node)
        for node in nodes(dump)
        for zone in node.zones
        if zone.populated or everything  # whatever is printed of an empty zone
    )


def zoneinfo(dump: Dump, zone: Zone, node: Node | None = None) -> str:
    """The part of the file about a zone; a ``?`` is a value that the image does not tell.

    :param node: the zone's node, for what the first populated zone says of it
    :raises PhysmemError: what :func:`~physmem.inspect.zones.pagesets` raises
    """
    lines = [f"Node {zone.node}, zone {zone.name:>8}"]
    if node is not None and zone is next((each for each in node.zones if each.populated), None):
        lines += _node_lines(dump, node)
    stat = {item: page_state(dump, value) for item, value in zone.vm_stat.items()}
    lines.append(f"  pages free     {stat['NR_FREE_PAGES']}")
    lines += (f"        {name:8} {value}" for name, value in _pages(dump, zone, stat))
    protection = f"        protection: ({', '.join(map(str, zone.lowmem_reserve))})"
    if "NR_PAGES_SCANNED" in stat:
        # As old kernels have it: the protection comes after the statistics.
        lines += [f"    {stat_name(item):12} {value}" for item, value in stat.items()]
        lines.append(protection)
    else:
        lines.append(protection)
        if not zone.populated:
            return "\n".join(lines) + "\n"
        lines += [f"      {stat_name(item):12} {value}" for item, value in stat.items()]
    sets = pagesets(dump, zone)
    lines += [f"      {stat_name(item):12} {value}" for item, value in _numa(zone, sets)]
    lines.append("  pagesets")
    for pageset in sets:
        lines += _pageset_lines(dump, pageset)
    lines += _last_lines(dump, zone, node)
    return "\n".join(lines) + "\n"


def _node_lines(dump: Dump, node: Node) -> Iterator[str]:
    if node.vm_stat:
        yield "  per-node stats"
    for item, value in node.vm_stat.items():
        yield f"      {stat_name(item):12} {shown(dump, item, value)}"


def _pages(dump: Dump, zone: Zone, stat: dict[str, int]) -> Iterator[tuple[str, int]]:
    """What stands in a column of its own."""
    boost = zone.boost or 0
    if zone.boost is not None and dump.release >= _SINCE["boost"]:
        yield "boost", boost
    promo = dump.release >= _SINCE["promo"]
    for name, value in zip(("min", "low", "high", *(["promo"] if promo else [])), zone.watermark, strict=False):
        yield name, value + boost
    if "NR_PAGES_SCANNED" in stat:
        yield "scanned", stat["NR_PAGES_SCANNED"]
    yield "spanned", zone.spanned
    yield "present", zone.present
    yield "managed", zone.managed
    if dump.release >= _SINCE["cma"]:
        yield "cma", zone.cma or 0


def _numa(zone: Zone, sets: list[Pageset]) -> Iterator[tuple[str, int]]:
    """NUMA statistics, into which what CPUs have is folded when the file is read."""
    for item, value in zone.numa_stat.items():
        yield item, value + sum(pageset.numa_diff.get(item, 0) for pageset in sets)


def _pageset_lines(dump: Dump, pageset: Pageset) -> Iterator[str]:
    yield f"    cpu: {pageset.cpu}"
    values = {"count": pageset.count, "high": pageset.high, "batch": pageset.batch}
    width = 7
    if dump.release >= _SINCE["high_min"] and pageset.high_min is not None and pageset.high_max is not None:
        values |= {"high_min": pageset.high_min, "high_max": pageset.high_max}
        width = 10
    for name, value in values.items():
        yield f"              {name + ':':{width - 1}} {value}"
    if pageset.stat_threshold is not None:
        yield f"  vm stats threshold: {pageset.stat_threshold}"


def _last_lines(dump: Dump, zone: Zone, node: Node | None) -> Iterator[str]:
    given_up = None if node is None else node_unreclaimable(node)
    if zone.inactive_ratio is not None and "NR_PAGES_SCANNED" in zone.vm_stat:
        unreclaimable = all_unreclaimable(dump, zone)
        yield f"  all_unreclaimable: {'?' if unreclaimable is None else int(unreclaimable)}"
        yield f"  start_pfn:         {zone.start_pfn}"
        yield f"  inactive_ratio:    {zone.inactive_ratio}"
        return
    yield f"  node_unreclaimable:  {'?' if given_up is None else int(given_up)}"
    yield f"  start_pfn:           {zone.start_pfn}"
    if dump.release >= _SINCE["highatomic"] and zone.reserved_highatomic is not None:
        yield f"  reserved_highatomic: {zone.reserved_highatomic}"
        if zone.free_highatomic is not None:
            yield f"  free_highatomic:     {zone.free_highatomic}"


def page_state(dump: Dump, value: int) -> int:
    """``zone_page_state``: an SMP kernel takes a negative counter for 0, others do not expect one."""
    return max(value, 0) if is_smp(dump) else value & _U64

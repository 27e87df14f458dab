# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel counts of the whole machine (include/linux/vmstat.h): pages of each kind, and events.

Until 4.7 the pages are in one array, ``vm_stat``; since then in ``vm_zone_stat`` and ``vm_node_stat``, and NUMA's
statistics since 4.14 in a third.  Events are counted by each CPU, and added up when somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterable

from physmem.dump import Dump
from physmem.errors import AbsentError, AddressError, SymbolError
from physmem.inspect.cpus import is_smp, online_cpus, per_cpu
from physmem.inspect.zoneformat import stat_names
from physmem.inspect.zones import Node, nodes, pagesets
from physmem.structs.record import Record

__all__ = ["events", "exact", "numa_stats", "page_stats", "variable"]


def variable(dump: Dump, name: str, size: int = 8) -> int | None:
    """An unsigned variable of the kernel; None if it is not known where, or absent from the image."""
    if name not in dump.symbols:
        return None
    try:
        return int.from_bytes(dump.read(dump.symbols[name], size), "little")
    except (AbsentError, AddressError):
        return None


def page_stats(dump: Dump, found: list[Node]) -> tuple[dict[str, int], dict[str, int]]:
    """Statistics of all zones, and of all nodes (none before 4.8), without what CPUs have not folded in yet.

    Where the kernel's own sums are not in the image, those of the zones and nodes are added up, which is the same.
    """
    zones = [zone.vm_stat for node in found for zone in node.zones]
    by_zone = _sums(dump, ("vm_zone_stat", "vm_stat"), zones)
    by_node = _sums(dump, ("vm_node_stat",), [node.vm_stat for node in found])
    return by_zone, by_node


def numa_stats(dump: Dump, found: list[Node]) -> dict[str, int]:
    """NUMA statistics, if they are apart from the others (zone_numa_event_state).

    Since 5.14 what CPUs have not folded in yet is folded in when the file is read.
    """
    zones = [zone for node in found for zone in node.zones]
    sums = _sums(dump, ("vm_numa_event", "vm_numa_stat"), [zone.numa_stat for zone in zones])
    if sums and dump.release >= (5, 14):
        for zone in (zone for zone in zones if zone.populated):
            for pageset in pagesets(dump, zone):
                for item, value in pageset.numa_diff.items():
                    sums[item] += value
    return sums


def _sums(dump: Dump, names: Iterable[str], parts: list[dict[str, int]]) -> dict[str, int]:
    items = list(parts[0]) if parts else []
    for name in names:
        if items and name in dump.symbols:
            try:
                values = memoryview(dump.read(dump.symbols[name], 8 * len(items))).cast("q")
                return dict(zip(items, values, strict=True))
            except (AbsentError, AddressError):
                break
    return {item: sum(part[item] for part in parts) for item in items}


def exact(dump: Dump, item: str) -> int:
    """A statistic of pages with what CPUs have not folded in yet.

    :raises PhysmemError: what :func:`~physmem.inspect.zones.pagesets` raises
    """
    found = nodes(dump)
    if item not in found[0].vm_stat:
        zones = [zone for node in found for zone in node.zones if zone.populated]
        folded = sum(zone.vm_stat[item] for zone in zones)
        return folded + sum(each.vm_stat_diff.get(item, 0) for zone in zones for each in pagesets(dump, zone))
    total = sum(node.vm_stat[item] for node in found)
    if not is_smp(dump):
        return total
    index = list(found[0].vm_stat).index(item)
    size = dump.layout.sizeof("per_cpu_nodestat")
    for node in found:
        pointer = dump.field(node.address, "pglist_data", "per_cpu_nodestats")
        for cpu in online_cpus(dump):
            data = dump.read(per_cpu(dump, pointer, cpu), size)
            total += Record(dump.layout, "per_cpu_nodestat", data).values("vm_node_stat_diff")[index]
    return total


def events(dump: Dump) -> dict[str, int] | None:
    """Each event and how often it has happened (all_vm_events), modulo 2^64; None if the image does not tell.

    A CPU that has gone has left its counts with another.
    """
    layout = dump.layout
    if not layout.has("vm_event_state", "event") or "vm_event_item" not in layout.enums:
        return None
    names = stat_names(layout, "vm_event_item", layout.lengthof("vm_event_state", "event"))
    total = [0] * len(names)
    try:
        for cpu in online_cpus(dump):
            data = dump.read(per_cpu(dump, dump.symbols["vm_event_states"], cpu), 8 * len(names))
            total = [one + other & (1 << 64) - 1 for one, other in zip(total, memoryview(data).cast("Q"), strict=True)]
    except (AbsentError, AddressError, SymbolError):
        return None
    return dict(zip(names, total, strict=True))

# SPDX-License-Identifier: GPL-2.0-only
"""Zonelists: in which order an allocation on each node tries the zones (mm/page_alloc.c).

A node's own zones come first, the highest first, so that the scarce low memory is the last to go.  Then
come the other nodes', the nearest first; nodes that are equally far take turns in being the next.  In
*zone* order the type of the zone matters more than the node.  A second list, for __GFP_THISNODE, has the
node's own zones only.
"""

from __future__ import annotations

from kernelmm.bringup.kernel import N_MEMORY, Kernel, Zone
from kernelmm.bringup.pagesets import setup_boot_pagesets
from kernelmm.bringup.rounding import div_round_up

__all__ = [
    "ZONELIST_ORDER_DEFAULT",
    "ZONELIST_ORDER_NODE",
    "ZONELIST_ORDER_ZONE",
    "build_all_zonelists",
    "node_distance",
]

ZONELIST_ORDER_DEFAULT = 0
ZONELIST_ORDER_NODE = 1
ZONELIST_ORDER_ZONE = 2

WMARK_HIGH = 2
LOCAL_DISTANCE = 10
REMOTE_DISTANCE = 20
PENALTY_FOR_NODE_WITH_CPUS = 1


def build_all_zonelists(kernel: Kernel) -> None:
    """``build_all_zonelists``: of all nodes; and whether there is enough memory to group it by mobility."""
    _set_zonelist_order(kernel)
    if kernel.numa:
        for nid in range(kernel.layout.constant("MAX_NUMNODES")):
            kernel.set_var("node_load", 0, nid)
    for nid in kernel.nodes():
        _build_zonelists(kernel, nid)
        _build_zonelist_cache(kernel, nid)
    setup_boot_pagesets(kernel)
    total = nr_free_pagecache_pages(kernel)
    kernel.set_var("vm_total_pages", total)
    enough = kernel.layout.constant("pageblock_nr_pages") * kernel.layout.enumerator("MIGRATE_TYPES")
    kernel.set_var("page_group_by_mobility_disabled", int(total < enough))


def nr_free_zone_pages(kernel: Kernel, high_zoneidx: int, nid: int = 0) -> int:
    """``nr_free_zone_pages``: pages above the high watermarks of the zones, up to a type, that a node may use."""
    zones = [zone for zone, idx in zonelist(kernel, nid, 0) if idx <= high_zoneidx]
    free = (kernel.get(zone, "zone.managed_pages") - kernel.get(zone, "zone.watermark", WMARK_HIGH) for zone in zones)
    return sum(pages for pages in free if pages > 0)


def nr_free_pagecache_pages(kernel: Kernel) -> int:
    """``nr_free_pagecache_pages``: of all zones (GFP_HIGHUSER_MOVABLE)."""
    return nr_free_zone_pages(kernel, kernel.max_nr_zones - 1)


def nr_free_buffer_pages(kernel: Kernel) -> int:
    """``nr_free_buffer_pages``: of the zones for the kernel's own use (GFP_USER)."""
    return nr_free_zone_pages(kernel, kernel.layout.enumerator("ZONE_NORMAL"))


def zonelist(kernel: Kernel, nid: int, which: int) -> list[tuple[int, int]]:
    """The zones on a node's zonelist: (``struct zone *``, zone type)."""
    at = kernel.at(kernel.node_data(nid), "pglist_data.node_zonelists", which)
    found = []
    for i in range(kernel.layout.lengthof("zonelist", "_zonerefs")):
        zoneref = kernel.at(at, "zonelist._zonerefs", i)
        zone = kernel.get(zoneref, "zoneref.zone")
        if not zone:
            break
        found.append((zone, kernel.get(zoneref, "zoneref.zone_idx")))
    return found


def node_distance(kernel: Kernel, start: int, end: int) -> int:
    """``__node_distance``: as the firmware tells, or else near and far."""
    count = kernel.var("numa_distance_cnt")
    if start >= count or end >= count:
        return LOCAL_DISTANCE if start == end else REMOTE_DISTANCE
    return kernel.ram.u8(kernel.phys(kernel.var("numa_distance")) + start * count + end)


# -- one node ---------------------------------------------------------------------


def _set_zonelist_order(kernel: Kernel) -> None:
    """``set_zonelist_order``: what was asked for; by default node order (on 64 bits, with NUMA)."""
    asked = ZONELIST_ORDER_ZONE
    if kernel.numa:
        known = "user_zonelist_order" in kernel.symbols
        asked = (kernel.var("user_zonelist_order") if known else ZONELIST_ORDER_DEFAULT) or ZONELIST_ORDER_NODE
    if "current_zonelist_order" in kernel.symbols:
        kernel.set_var("current_zonelist_order", asked)


def _build_zonelists(kernel: Kernel, nid: int) -> None:
    """``build_zonelists``."""
    if not kernel.numa:
        _write_zonelist(kernel, nid, 0, _populated(kernel, nid))
        return
    order = kernel.var("current_zonelist_order")
    for i in range(kernel.layout.constant("MAX_NUMNODES")):
        kernel.set_var("node_order", 0, i)
    nodes = _nodes_by_distance(kernel, nid)
    if order == ZONELIST_ORDER_NODE:
        zones = [zone for node in nodes for zone in _populated(kernel, node)]
    else:
        for i, node in enumerate(nodes):
            kernel.set_var("node_order", node, i)
        # The sort is stable: within a type, the nodes stay in order.
        zones = sorted((zone for node in nodes for zone in _populated(kernel, node)), key=lambda zone: -zone.idx)
    _write_zonelist(kernel, nid, 0, zones)
    _write_zonelist(kernel, nid, 1, _populated(kernel, nid))


def _nodes_by_distance(kernel: Kernel, local: int) -> list[int]:
    """All nodes, from the nearest; the first of a group of equally far ones has to wait next time."""
    nodes: list[int] = []
    previous, load = local, kernel.var("nr_online_nodes")
    while (node := _find_next_best_node(kernel, local, nodes)) is not None:
        if node_distance(kernel, local, node) != node_distance(kernel, local, previous):
            kernel.set_var("node_load", load, node)
        previous = node
        load -= 1
        nodes.append(node)
    return nodes


def _find_next_best_node(kernel: Kernel, local: int, used: list[int]) -> int | None:
    """``find_next_best_node``: the nearest node that is not on the list; rather the next one, rather without CPUs."""
    if local not in used:
        return local
    candidates = [node for node in kernel.nodes(N_MEMORY) if node not in used]
    max_load = kernel.var("nr_online_nodes") * kernel.layout.constant("MAX_NUMNODES")
    words = div_round_up(kernel.layout.constant("NR_CPUS"), 64)

    def cost(node: int) -> int:
        value = node_distance(kernel, local, node) + (node < local)
        if any(kernel.var("node_to_cpumask_map", node * words + i) for i in range(words)):
            value += PENALTY_FOR_NODE_WITH_CPUS
        return value * max_load + kernel.var("node_load", node)

    return min(candidates, key=cost, default=None)


def _populated(kernel: Kernel, nid: int) -> list[Zone]:
    """``build_zonelists_node``: the zones of a node that have pages, the highest first."""
    zones = [kernel.zone(nid, idx) for idx in reversed(range(kernel.max_nr_zones))]
    return [zone for zone in zones if kernel.populated(zone)]


def _write_zonelist(kernel: Kernel, nid: int, which: int, zones: list[Zone]) -> None:
    """Enter zones into a zonelist, and end it; what is behind its end stays."""
    at = kernel.at(kernel.node_data(nid), "pglist_data.node_zonelists", which)
    for i, (zone, idx) in enumerate([*((zone.at, zone.idx) for zone in zones), (0, 0)]):
        zoneref = kernel.at(at, "zonelist._zonerefs", i)
        kernel.set(zoneref, "zoneref.zone", zone)
        kernel.set(zoneref, "zoneref.zone_idx", idx)


def _build_zonelist_cache(kernel: Kernel, nid: int) -> None:
    """``build_zonelist_cache``: the nodes of the zones on the first list, and no zone known to be full."""
    at = kernel.at(kernel.node_data(nid), "pglist_data.node_zonelists", 0)
    if not kernel.numa:
        kernel.set(at, "zonelist.zlcache_ptr", 0)
        return
    cache = kernel.at(at, "zonelist.zlcache")
    kernel.set(at, "zonelist.zlcache_ptr", cache)
    for i in range(kernel.layout.lengthof("zonelist_cache", "fullzones")):
        kernel.set(cache, "zonelist_cache.fullzones", 0, i)
    for i, (zone, _) in enumerate(zonelist(kernel, nid, 0)):
        kernel.set(cache, "zonelist_cache.z_to_n", kernel.get(zone, "zone.node"), i)

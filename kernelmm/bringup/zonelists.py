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

#: The two lists of a node; without NUMA it has the first only.
FALLBACK, THISNODE = 0, 1

WMARK_HIGH = 2
LOCAL_DISTANCE = 10
REMOTE_DISTANCE = 20
PENALTY_FOR_NODE_WITH_CPUS = 1


def build_all_zonelists(kernel: Kernel) -> None:
    """``build_all_zonelists``: of all nodes; and whether there is enough memory to group it by mobility."""
    set_zonelist_order(kernel)
    build_all_zonelists_init(kernel)
    total = nr_free_pagecache_pages(kernel)
    kernel.set_var("vm_total_pages", total)
    enough = kernel.layout.constant("pageblock_nr_pages") * kernel.layout.enumerator("MIGRATE_TYPES")
    kernel.set_var("page_group_by_mobility_disabled", int(total < enough))


def build_all_zonelists_init(kernel: Kernel) -> None:
    """``build_all_zonelists_init``, and the same later on: the lists, and every CPU's first pageset."""
    if kernel.numa:
        for nid in range(kernel.layout.constant("MAX_NUMNODES")):
            kernel.set_var("node_load", 0, nid)
    for nid in kernel.nodes():
        build_zonelists(kernel, nid)
        build_zonelist_cache(kernel, nid)
    setup_boot_pagesets(kernel)


def nr_free_zone_pages(kernel: Kernel, high_zoneidx: int) -> int:
    """``nr_free_zone_pages``: pages above the high watermarks of all zones up to a type, which are on any node's list.

    It is that of the first CPU's node: node 0 may be missing.
    """
    nid = kernel.var("numa_node", cpu=0) if kernel.numa else 0
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
    at = _zonelist(kernel, nid, which)
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


def default_zonelist_order() -> int:
    """``default_zonelist_order``: by node, as on every machine of 64 bits, whose low zones are no small part of it."""
    return ZONELIST_ORDER_NODE


def set_zonelist_order(kernel: Kernel) -> None:
    """``set_zonelist_order``: what was asked for, or the default; without NUMA there is one order only."""
    order = ZONELIST_ORDER_ZONE
    if kernel.numa:
        asked = kernel.var("user_zonelist_order") if "user_zonelist_order" in kernel.symbols else ZONELIST_ORDER_DEFAULT
        order = default_zonelist_order() if asked == ZONELIST_ORDER_DEFAULT else asked
    if "current_zonelist_order" in kernel.symbols:
        kernel.set_var("current_zonelist_order", order)


def build_zonelists(kernel: Kernel, nid: int) -> None:
    """``build_zonelists``: both lists of a node."""
    if not kernel.numa:
        end_zonelist(kernel, nid, FALLBACK, build_zonelists_node(kernel, nid, FALLBACK, nid, 0))
        return
    for i in range(kernel.layout.constant("MAX_NUMNODES")):
        kernel.set_var("node_order", 0, i)
    nodes = _nodes_by_distance(kernel, nid)
    if kernel.var("current_zonelist_order") == ZONELIST_ORDER_NODE:
        build_zonelists_in_node_order(kernel, nid, nodes)
    else:
        for i, node in enumerate(nodes):
            kernel.set_var("node_order", node, i)
        build_zonelists_in_zone_order(kernel, nid, nodes)
    build_thisnode_zonelists(kernel, nid)


def build_zonelists_in_node_order(kernel: Kernel, nid: int, nodes: list[int]) -> None:
    """``build_zonelists_in_node_order``: all zones of the nearest node, then all of the next."""
    nr_zones = 0
    for node in nodes:
        nr_zones = build_zonelists_node(kernel, nid, FALLBACK, node, nr_zones)
    end_zonelist(kernel, nid, FALLBACK, nr_zones)


def build_zonelists_in_zone_order(kernel: Kernel, nid: int, nodes: list[int]) -> None:
    """``build_zonelists_in_zone_order``: the highest zones of all nodes, the nearest first, then the next lower."""
    nr_zones = 0
    for idx in reversed(range(kernel.max_nr_zones)):
        for zone in (kernel.zone(node, idx) for node in nodes):
            if kernel.populated(zone):
                zoneref_set_zone(kernel, nid, FALLBACK, nr_zones, zone)
                nr_zones += 1
    end_zonelist(kernel, nid, FALLBACK, nr_zones)


def build_thisnode_zonelists(kernel: Kernel, nid: int) -> None:
    """``build_thisnode_zonelists``: the list for __GFP_THISNODE, of the node's own zones."""
    end_zonelist(kernel, nid, THISNODE, build_zonelists_node(kernel, nid, THISNODE, nid, 0))


def build_zonelists_node(kernel: Kernel, nid: int, which: int, node: int, nr_zones: int) -> int:
    """``build_zonelists_node``: add the zones of ``node`` that have pages to a list of ``nid``, the highest first.

    :param nr_zones: how many zones are on the list already
    :returns: how many are on it then
    """
    for zone in (kernel.zone(node, idx) for idx in reversed(range(kernel.max_nr_zones))):
        if kernel.populated(zone):
            zoneref_set_zone(kernel, nid, which, nr_zones, zone)
            nr_zones += 1
    return nr_zones


def zoneref_set_zone(kernel: Kernel, nid: int, which: int, index: int, zone: Zone) -> None:
    """``zoneref_set_zone``: entry ``index`` of a node's list is this zone."""
    zoneref = kernel.at(_zonelist(kernel, nid, which), "zonelist._zonerefs", index)
    kernel.set(zoneref, "zoneref.zone", zone.at)
    kernel.set(zoneref, "zoneref.zone_idx", zone.idx)


def end_zonelist(kernel: Kernel, nid: int, which: int, nr_zones: int) -> None:
    """An entry without a zone ends a list; what is behind it stays."""
    zoneref_set_zone(kernel, nid, which, nr_zones, Zone(nid, 0, 0))


def _zonelist(kernel: Kernel, nid: int, which: int) -> int:
    """``struct zonelist *`` of a node."""
    return kernel.at(kernel.node_data(nid), "pglist_data.node_zonelists", which)


def _nodes_by_distance(kernel: Kernel, local: int) -> list[int]:
    """All nodes, from the nearest; the first of a group of equally far ones has to wait next time."""
    nodes: list[int] = []
    previous, load = local, kernel.var("nr_online_nodes")
    while (node := find_next_best_node(kernel, local, nodes)) is not None:
        if node_distance(kernel, local, node) != node_distance(kernel, local, previous):
            kernel.set_var("node_load", load, node)
        previous = node
        load -= 1
        nodes.append(node)
    return nodes


def find_next_best_node(kernel: Kernel, local: int, used: list[int]) -> int | None:
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


def build_zonelist_cache(kernel: Kernel, nid: int) -> None:
    """``build_zonelist_cache``: the nodes of the zones on the first list, and no zone known to be full."""
    at = _zonelist(kernel, nid, FALLBACK)
    if not kernel.numa:
        kernel.set(at, "zonelist.zlcache_ptr", 0)
        return
    cache = kernel.at(at, "zonelist.zlcache")
    kernel.set(at, "zonelist.zlcache_ptr", cache)
    for i in range(kernel.layout.lengthof("zonelist_cache", "fullzones")):
        kernel.set(cache, "zonelist_cache.fullzones", 0, i)
    for i, (zone, _) in enumerate(zonelist(kernel, nid, 0)):
        kernel.set(cache, "zonelist_cache.z_to_n", kernel.get(zone, "zone.node"), i)

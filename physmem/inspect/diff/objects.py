# SPDX-License-Identifier: GPL-2.0-only
"""The memory manager's own data, besides the page array: what is compared, and what each byte of it is called.

Zones and zonelists whole, the per-cpu pagesets (and the ``boot_pageset`` that empty zones share),
the statistics, and of a node what the page allocator reads and writes: what belongs to other
parts of the kernel may change without a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from physmem.dump import Dump
from physmem.inspect.cpus import online_cpus, per_cpu
from physmem.inspect.diff.leaves import Labels, Leaf, field_leaves, struct_leaves
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.zoneformat import ZoneFormat
from physmem.inspect.zones import Node, nodes
from physmem.structs.layout import Layout

__all__ = ["Object", "labels", "objects"]

_NODE_FIELDS = (
    *("nr_zones", "node_start_pfn", "node_present_pages", "node_spanned_pages", "node_id"),
    *("kswapd_wait", "kswapd_max_order", "classzone_idx", "kswapd_order", "kswapd_highest_zoneidx", "kswapd_failures"),
    "vm_stat",
)


@dataclass(frozen=True)
class Object:
    """Some bytes of kernel memory, and how to name the parts of them.

    :ivar name: what it is; the same in both dumps
    :ivar address: kernel address
    :ivar size: in bytes
    :ivar leaves: gives the parts
    :ivar spans: offset and size of what of it is compared
    """

    name: str
    address: int
    size: int
    leaves: Callable[[], list[Leaf]]
    spans: tuple[tuple[int, int], ...]

    def read(self, dump: Dump) -> bytes:
        """Its bytes, zeros where they are not compared; raises AbsentError or AddressError."""
        image = bytearray(self.size)
        for offset, size in self.spans:
            image[offset : offset + size] = dump.read(self.address + offset, size)
        return bytes(image)


def labels(layout: Layout) -> Labels:
    """Names for the elements of arrays: of migratetypes, statistics and events rather than their numbers."""
    migratetypes = PageFormat(layout).migratetypes
    events = {value: name for name, value in layout.enum("vm_event_item").items()}
    form = ZoneFormat(layout)
    items = form.zone_stats()
    lists = [f"order {kind.order} {kind.name}" for kind in form.pcp_kinds(migratetypes, _list_count(layout, form))]
    return {
        ("zone", "vm_stat"): items,
        ("zone", form.watermark): ("min", "low", "high", "promo"),
        ("zone", form.numa): form.numa_stats(),
        ("pglist_data", "vm_stat"): form.node_stats(),
        ("free_area", "free_list"): migratetypes,
        ("per_cpu_pages", "lists"): migratetypes if form.pcp else lists,
        (form.counters_tag, "vm_stat_diff"): items,
        (form.counters_tag, form.numa_diff): form.numa_stats(),
        ("vm_event_state", "event"): [events.get(i, str(i)) for i in range(layout.lengthof("vm_event_state", "event"))],
    }


def _list_count(layout: Layout, form: ZoneFormat) -> int:
    return layout.lengthof(form.pageset_tag, f"{form.pcp}.lists" if form.pcp else "lists")


def objects(dump: Dump) -> Iterator[Object]:
    """Everything that is compared; what CPUs have for themselves comes last.

    :raises PhysmemError: the nodes, or then the table of per-cpu areas, cannot be read
    """
    names = labels(dump.layout)
    found = nodes(dump)
    for node in found:
        yield from _node(dump.layout, node, names)
    form = ZoneFormat(dump.layout)
    # One table before 4.8, then one for zones and one for nodes, and since 4.14 one for NUMA.
    split = bool(form.node_stats())
    yield _table(dump, "vm_zone_stat" if split else "vm_stat", form.zone_stats())
    if split:
        yield _table(dump, "vm_node_stat", form.node_stats())
    if form.numa:
        yield _table(dump, form.numa, form.numa_stats())
    yield from _pagesets(dump, found, names)
    for cpu in online_cpus(dump):
        address = per_cpu(dump, dump.symbols["vm_event_states"], cpu)
        yield _whole(dump.layout, f"events of CPU {cpu}", "vm_event_state", address, names)


def _table(dump: Dump, symbol: str, items: tuple[str, ...]) -> Object:
    """A variable that is an array of statistics."""
    leaves = [Leaf(item, 8 * i, 8, signed=True) for i, item in enumerate(items)]
    return Object(symbol, dump.symbols[symbol], 8 * len(items), lambda: leaves, ((0, 8 * len(items)),))


def _node(layout: Layout, node: Node, names: Labels) -> Iterator[Object]:
    fields = [layout.field("pglist_data", name) for name in _NODE_FIELDS if layout.has("pglist_data", name)]
    spans = tuple((field.offset, field.size or 0) for field in fields)
    leaves = [leaf for field in fields for leaf in field_leaves(layout, "pglist_data", field, names)]
    yield Object(f"node {node.id}", node.address, layout.sizeof("pglist_data"), lambda: leaves, spans)
    for zone in node.zones:
        yield _whole(layout, str(zone), "zone", zone.address, names)
    first = node.address + layout.offsetof("pglist_data", "node_zonelists")
    for i in range(layout.lengthof("pglist_data", "node_zonelists")):
        address = first + i * layout.sizeof("zonelist")
        yield _whole(layout, f"node {node.id} zonelist {i}", "zonelist", address, names)


def _pagesets(dump: Dump, found: list[Node], names: Labels) -> Iterator[Object]:
    seen = set()
    form = ZoneFormat(dump.layout)
    for cpu in online_cpus(dump):
        for zone in (zone for node in found for zone in node.zones):
            address = per_cpu(dump, zone.pageset, cpu)
            if address not in seen:
                seen.add(address)
                name = f"{zone} CPU {cpu}" if zone.populated else f"boot_pageset CPU {cpu}"
                yield _whole(dump.layout, name, form.pageset_tag, address, names)
                if form.counters != form.pageset:
                    counters = per_cpu(dump, zone.counters, cpu)
                    yield _whole(dump.layout, f"statistics of {name}", form.counters_tag, counters, names)


def _whole(layout: Layout, name: str, tag: str, address: int, names: Labels) -> Object:
    size = layout.sizeof(tag)
    return Object(name, address, size, partial(struct_leaves, layout, tag, names), ((0, size),))

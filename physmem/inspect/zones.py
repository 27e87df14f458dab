# SPDX-License-Identifier: GPL-2.0-only
"""Nodes, zones and their per-cpu pagesets, as values read from a dump (include/linux/mmzone.h).

What is read is a snapshot: plain numbers, nothing that refers to the memory any more.
Addresses are kernel addresses, sizes are pages, and statistics have the names of
their enumerators.  Where each kernel has them: :mod:`physmem.inspect.zoneformat`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from physmem.dump import Dump
from physmem.errors import AbsentError, AddressError
from physmem.inspect.cpus import is_smp, online_cpus, per_cpu
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.zoneformat import ListKind, ZoneFormat
from physmem.structs.layout import Layout
from physmem.structs.record import Record

__all__ = ["ListHead", "Node", "Pageset", "Zone", "nodes", "pagesets", "populated_zones", "stat_items"]

#: Bytes of a zone's name that are read; the kernel's own have at most 8.
_MAX_NAME = 16


class ListHead(NamedTuple):
    """A ``struct list_head`` that begins a list, and the addresses in it; it is empty if both are its own."""

    address: int
    next: int
    prev: int


@dataclass(frozen=True)
class Pageset:
    """A CPU's ``struct per_cpu_pageset`` (since 5.14: ``per_cpu_pages``) of a zone.

    :ivar count: pages on its lists
    :ivar lists: the list heads
    :ivar kinds: what is on each of them
    :ivar expire: ticks until a remote CPU's pages are drained; None if the kernel has no NUMA
    :ivar stat_threshold: None, as ``vm_stat_diff`` is empty, if the kernel has no SMP
    :ivar numa_diff: NUMA statistics that the CPU has not folded in
    :ivar high_min: least ``high`` to which it is tuned down, None before 6.7
    :ivar high_max: and the most
    """

    cpu: int
    address: int
    count: int
    high: int
    batch: int
    lists: tuple[ListHead, ...]
    expire: int | None
    stat_threshold: int | None
    vm_stat_diff: dict[str, int]
    kinds: tuple[ListKind, ...]
    numa_diff: dict[str, int] = field(default_factory=dict)
    high_min: int | None = None
    high_max: int | None = None


@dataclass(frozen=True)
class Zone:
    """A ``struct zone``.

    :ivar node: id of its node: where it stands, whatever its own field says
    :ivar index: which of the node's zones (``enum zone_type``)
    :ivar watermark: min, low, high (and promo), without the boost
    :ivar boost: what is added to each watermark for a while; None before 5.0
    :ivar nr_free: free blocks of each order, as the zone counts them
    :ivar free_lists: the list head of each order and migratetype
    :ivar vm_stat: the zone's statistics, without what CPUs have not folded in yet
    :ivar numa_stat: NUMA statistics, if they are apart from the others
    :ivar pageset: the per-cpu pointer
    :ivar counters: the per-cpu pointer to its statistics, the same before 5.14
    :ivar inactive_ratio: None since 4.8
    :ivar node_field: its own idea of its node; None if the kernel has no NUMA
    :ivar nr_isolate_pageblock: None if the kernel has no memory isolation
    :ivar cma: pages of CMA; None if the kernel does not count them
    :ivar reserved_highatomic: pages in HighAtomic pageblocks; None if the kernel does not count them
    :ivar free_highatomic: those of them that are free, likewise
    """

    node: int
    index: int
    name: str
    address: int
    pgdat: int
    start_pfn: int
    spanned: int
    present: int
    managed: int
    watermark: tuple[int, ...]
    lowmem_reserve: tuple[int, ...]
    nr_free: tuple[int, ...]
    free_lists: tuple[tuple[ListHead, ...], ...]
    vm_stat: dict[str, int]
    pageset: int
    flags: tuple[str, ...]
    inactive_ratio: int | None
    node_field: int | None
    nr_isolate_pageblock: int | None
    counters: int = 0
    boost: int | None = None
    cma: int | None = None
    reserved_highatomic: int | None = None
    free_highatomic: int | None = None
    numa_stat: dict[str, int] = field(default_factory=dict)

    @property
    def end_pfn(self) -> int:
        """One past the last PFN it spans."""
        return self.start_pfn + self.spanned

    @property
    def populated(self) -> bool:
        """``populated_zone``: whether it has any page."""
        return self.present != 0

    def __str__(self) -> str:
        return f"node {self.node} zone {self.name}"


@dataclass(frozen=True)
class Node:
    """A ``struct pglist_data``.

    :ivar zones: all of its zones, empty ones too
    :ivar vm_stat: the node's statistics, without what CPUs have not folded in yet; none before 4.8
    :ivar kswapd_failures: how often in a row kswapd has freed nothing; None before 4.12
    """

    id: int
    address: int
    id_field: int
    start_pfn: int
    spanned: int
    present: int
    zones: tuple[Zone, ...]
    vm_stat: dict[str, int] = field(default_factory=dict)
    kswapd_failures: int | None = None


def nodes(dump: Dump) -> list[Node]:
    """Every node, with its zones.

    :raises AbsentError: a node is not in the image
    :raises AddressError: a pointer to a node leads nowhere
    :raises CorruptionError: the array of nodes contradicts itself
    """
    return [_node(dump, nid, pgdat) for nid, pgdat in dump.pgdats.items()]


def populated_zones(dump: Dump) -> Iterator[Zone]:
    """The zones that have pages, in the order of /proc; raises what :func:`nodes` does."""
    for node in nodes(dump):
        yield from (zone for zone in node.zones if zone.populated)


def _node(dump: Dump, nid: int, pgdat: int) -> Node:
    layout, form = dump.layout, ZoneFormat(dump.layout)
    raw = _struct(dump, "pglist_data", pgdat)
    first = pgdat + layout.offsetof("pglist_data", "node_zones")
    size = layout.sizeof("zone")
    count = layout.lengthof("pglist_data", "node_zones")
    stats = form.node_stats()
    return Node(
        nid,
        pgdat,
        raw["node_id"],
        raw["node_start_pfn"],
        raw["node_spanned_pages"],
        raw["node_present_pages"],
        tuple(_zone(dump, form, nid, index, first + index * size) for index in range(count)),
        dict(zip(stats, raw.values("vm_stat"), strict=True)) if stats else {},
        raw["kswapd_failures"] if layout.has("pglist_data", "kswapd_failures") else None,
    )


#: Fields that depend on the kernel's release or configuration, and what a Zone calls them.
_OPTIONAL = {
    "node": "node_field",
    "nr_isolate_pageblock": "nr_isolate_pageblock",
    "inactive_ratio": "inactive_ratio",
    "watermark_boost": "boost",
    "cma_pages": "cma",
    "nr_reserved_highatomic": "reserved_highatomic",
    "nr_free_highatomic": "free_highatomic",
}


def _zone(dump: Dump, form: ZoneFormat, nid: int, index: int, address: int) -> Zone:
    layout = dump.layout
    raw = _struct(dump, "zone", address)
    areas = list(raw.records("free_area"))
    flags = raw["flags"]
    options: dict[str, Any] = dict.fromkeys(_OPTIONAL.values())
    return Zone(
        node=nid,
        index=index,
        name=_zone_name(dump, index, raw["name"]),
        address=address,
        pgdat=raw["zone_pgdat"],
        start_pfn=raw["zone_start_pfn"],
        spanned=raw["spanned_pages"],
        present=raw["present_pages"],
        managed=raw["managed_pages"],
        watermark=raw.values(form.watermark),
        lowmem_reserve=raw.values("lowmem_reserve"),
        nr_free=tuple(area["nr_free"] for area in areas),
        free_lists=_free_lists(layout, address, areas),
        vm_stat=dict(zip(form.zone_stats(), raw.values("vm_stat"), strict=True)),
        pageset=raw[form.pageset],
        counters=raw[form.counters],
        flags=tuple(name for name, bit in layout.enums.get("zone_flags", {}).items() if flags >> bit & 1),
        numa_stat=dict(zip(form.numa_stats(), raw.values(form.numa), strict=True)) if form.numa else {},
        **(options | {called: raw[name] for name, called in _OPTIONAL.items() if layout.has("zone", name)}),
    )


def _free_lists(layout: Layout, zone: int, areas: list[Record]) -> tuple[tuple[ListHead, ...], ...]:
    first = zone + layout.offsetof("zone", "free_area") + layout.offsetof("free_area", "free_list")
    size = layout.sizeof("free_area")
    return tuple(_list_heads(first + order * size, area, "free_list") for order, area in enumerate(areas))


def _list_heads(address: int, raw: Record, name: str) -> tuple[ListHead, ...]:
    """An array of list heads at an address, and what they hold."""
    return tuple(ListHead(address + 16 * i, *links) for i, links in enumerate(raw.pairs(name, "next", "prev")))


def pagesets(dump: Dump, zone: Zone) -> list[Pageset]:
    """The pageset of each online CPU.

    :raises AbsentError: one is not in the image
    :raises AddressError: the zone's pointer leads nowhere
    :raises SymbolError: it is not known which CPUs are online, or where their areas are
    """
    return [_pageset(dump, zone, cpu) for cpu in online_cpus(dump)]


def _pageset(dump: Dump, zone: Zone, cpu: int) -> Pageset:
    layout, form = dump.layout, ZoneFormat(dump.layout)
    address = per_cpu(dump, zone.pageset, cpu)
    raw = _struct(dump, form.pageset_tag, address)
    within = f"{form.pcp}." if form.pcp else ""
    lists = f"{within}lists"
    threshold, diff, numa = _counters(dump, form, per_cpu(dump, zone.counters, cpu)) if is_smp(dump) else (None, {}, {})
    heads = _list_heads(address + layout.offsetof(form.pageset_tag, lists), raw, lists)
    expire, high_min, high_max = (
        raw[name] if layout.has(form.pageset_tag, name) else None for name in ("expire", "high_min", "high_max")
    )
    return Pageset(
        cpu,
        address,
        raw[f"{within}count"],
        raw[f"{within}high"],
        raw[f"{within}batch"],
        heads,
        expire,
        threshold,
        diff,
        form.pcp_kinds(PageFormat(layout).migratetypes, len(heads)),
        numa,
        high_min,
        high_max,
    )


def _counters(dump: Dump, form: ZoneFormat, address: int) -> tuple[int, dict[str, int], dict[str, int]]:
    """A CPU's statistics of a zone: the threshold, what is not folded in, and that of the NUMA statistics."""
    raw = _struct(dump, form.counters_tag, address)
    diff = dict(zip(form.zone_stats(), raw.values("vm_stat_diff"), strict=True))
    numa = dict(zip(form.numa_stats(), raw.values(form.numa_diff), strict=True)) if form.numa_diff else {}
    return raw["stat_threshold"], diff, numa


def stat_items(layout: Layout) -> tuple[str, ...]:
    """The statistics of a zone in order: of ``enum zone_stat_item``, without the names that only mark a place."""
    return ZoneFormat(layout).zone_stats()


def _zone_name(dump: Dump, index: int, pointer: int) -> str:
    """The name that the image has, or if it is absent the one that every kernel gives to this zone type."""
    try:
        text = dump.text(pointer, _MAX_NAME, whole=True)
    except (AbsentError, AddressError):
        text = ""
    if text and all(" " < each <= "~" for each in text):
        return text
    kinds = {value: name.removeprefix("ZONE_") for name, value in dump.layout.enum("zone_type").items()}
    kind = kinds.get(index, f"zone{index}")
    return kind if kind.startswith("DMA") else kind.capitalize()


def _struct(dump: Dump, tag: str, address: int) -> Record:
    """One struct as it is in memory."""
    return Record(dump.layout, tag, dump.memory.read(dump.virt_to_phys(address), dump.layout.sizeof(tag)))

# SPDX-License-Identifier: GPL-2.0-only
"""Nodes, zones and their per-cpu pagesets, as values read from a dump (include/linux/mmzone.h).

What is read is a snapshot: plain numbers, nothing that refers to the memory any more.
Addresses are kernel addresses, sizes are pages, and statistics have the names of
``enum zone_stat_item``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from physmem.dump import Dump
from physmem.errors import AbsentError, AddressError
from physmem.inspect.cpus import online_cpus, per_cpu
from physmem.structs.layout import Layout

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
    """A CPU's ``struct per_cpu_pageset`` of a zone.

    :ivar count: pages on its lists
    :ivar lists: the list heads, by migratetype
    :ivar expire: ticks until a remote CPU's pages are drained; None if the kernel has no NUMA
    :ivar stat_threshold: None, as ``vm_stat_diff`` is empty, if the kernel has no SMP
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


@dataclass(frozen=True)
class Zone:
    """A ``struct zone``.

    :ivar node: id of its node: where it stands, whatever its own field says
    :ivar index: which of the node's zones (``enum zone_type``)
    :ivar watermark: min, low, high
    :ivar nr_free: free blocks of each order, as the zone counts them
    :ivar free_lists: the list head of each order and migratetype
    :ivar vm_stat: the zone's statistics, without what CPUs have not folded in yet
    :ivar pageset: the per-cpu pointer
    :ivar node_field: its own idea of its node; None if the kernel has no NUMA
    :ivar nr_isolate_pageblock: None if the kernel has no memory isolation
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
    inactive_ratio: int
    node_field: int | None
    nr_isolate_pageblock: int | None

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
    """A ``struct pglist_data``; ``zones`` are all of its zones, empty ones too."""

    id: int
    address: int
    id_field: int
    start_pfn: int
    spanned: int
    present: int
    zones: tuple[Zone, ...]


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
    fields = ["node_id", "node_start_pfn", "node_spanned_pages", "node_present_pages"]
    raw = _struct(dump, "pglist_data", pgdat, fields)
    first = pgdat + dump.layout.offsetof("pglist_data", "node_zones")
    size = dump.layout.sizeof("zone")
    count = dump.layout.lengthof("pglist_data", "node_zones")
    return Node(
        nid,
        pgdat,
        int(raw["node_id"]),
        int(raw["node_start_pfn"]),
        int(raw["node_spanned_pages"]),
        int(raw["node_present_pages"]),
        tuple(_zone(dump, nid, index, first + index * size) for index in range(count)),
    )


_FIELDS = (
    *("watermark", "lowmem_reserve", "zone_pgdat", "pageset", "zone_start_pfn", "managed_pages", "spanned_pages"),
    *("present_pages", "name", "free_area", "flags", "vm_stat", "inactive_ratio"),
)
#: Fields that depend on the kernel's configuration.
_OPTIONAL = ("node", "nr_isolate_pageblock")


def _zone(dump: Dump, nid: int, index: int, address: int) -> Zone:
    layout = dump.layout
    optional = [name for name in _OPTIONAL if layout.has("zone", name)]
    raw = _struct(dump, "zone", address, [*_FIELDS, *optional])
    flags = int(raw["flags"])
    return Zone(
        node=nid,
        index=index,
        name=_zone_name(dump, index, int(raw["name"])),
        address=address,
        pgdat=int(raw["zone_pgdat"]),
        start_pfn=int(raw["zone_start_pfn"]),
        spanned=int(raw["spanned_pages"]),
        present=int(raw["present_pages"]),
        managed=int(raw["managed_pages"]),
        watermark=tuple(raw["watermark"].tolist()),
        lowmem_reserve=tuple(raw["lowmem_reserve"].tolist()),
        nr_free=tuple(raw["free_area"]["nr_free"].tolist()),
        free_lists=_free_lists(layout, address, raw["free_area"]["free_list"]),
        vm_stat=dict(zip(stat_items(layout), raw["vm_stat"].tolist(), strict=True)),
        pageset=int(raw["pageset"]),
        flags=tuple(name for name, bit in layout.enum("zone_flags").items() if flags >> bit & 1),
        inactive_ratio=int(raw["inactive_ratio"]),
        node_field=int(raw["node"]) if "node" in optional else None,
        nr_isolate_pageblock=int(raw["nr_isolate_pageblock"]) if "nr_isolate_pageblock" in optional else None,
    )


def _free_lists(layout: Layout, zone: int, values: Any) -> tuple[tuple[ListHead, ...], ...]:
    first = zone + layout.offsetof("zone", "free_area") + layout.offsetof("free_area", "free_list")
    size = layout.sizeof("free_area")
    return tuple(_list_heads(layout, first + order * size, lists) for order, lists in enumerate(values))


def _list_heads(layout: Layout, address: int, values: Any) -> tuple[ListHead, ...]:
    """An array of list heads at an address, and what they hold (a structured array)."""
    size = layout.sizeof("list_head")
    links = zip(values["next"].tolist(), values["prev"].tolist(), strict=True)
    return tuple(ListHead(address + i * size, *link) for i, link in enumerate(links))


def pagesets(dump: Dump, zone: Zone) -> list[Pageset]:
    """The pageset of each online CPU.

    :raises AbsentError: one is not in the image
    :raises AddressError: the zone's pointer leads nowhere
    :raises SymbolError: it is not known which CPUs are online, or where their areas are
    """
    return [_pageset(dump, cpu, per_cpu(dump, zone.pageset, cpu)) for cpu in online_cpus(dump)]


def _pageset(dump: Dump, cpu: int, address: int) -> Pageset:
    layout = dump.layout
    optional = [n for n in ("expire", "stat_threshold", "vm_stat_diff") if layout.has("per_cpu_pageset", n)]
    raw = _struct(dump, "per_cpu_pageset", address, ["pcp", *optional])
    pcp = raw["pcp"]
    lists = address + layout.offsetof("per_cpu_pageset", "pcp.lists")
    diff = zip(stat_items(layout), raw["vm_stat_diff"].tolist(), strict=True) if "vm_stat_diff" in optional else ()
    return Pageset(
        cpu,
        address,
        int(pcp["count"]),
        int(pcp["high"]),
        int(pcp["batch"]),
        _list_heads(layout, lists, pcp["lists"]),
        int(raw["expire"]) if "expire" in optional else None,
        int(raw["stat_threshold"]) if "stat_threshold" in optional else None,
        dict(diff),
    )


def stat_items(layout: Layout) -> tuple[str, ...]:
    """The statistics of a zone in order: of ``enum zone_stat_item``, without the names that only mark a place."""
    return _stat_items(tuple(layout.enum("zone_stat_item").items()), layout.lengthof("zone", "vm_stat"))


@cache
def _stat_items(enumerators: tuple[tuple[str, int], ...], count: int) -> tuple[str, ...]:
    # NR_LRU_BASE is another name of the first list's counter, which comes after it.
    names = {value: name for name, value in enumerators}
    return tuple(names.get(i, f"zone_stat_item {i}") for i in range(count))


def _zone_name(dump: Dump, index: int, pointer: int) -> str:
    """The name that the image has, or if it is absent the one that every kernel gives to this zone type."""
    try:
        end = (pointer | 0xFFF) + 1  # the next page may be absent
        text = dump.read(pointer, min(_MAX_NAME, end - pointer)).partition(b"\0")[0]
    except (AbsentError, AddressError):
        text = b""
    if text and all(0x20 < byte < 0x7F for byte in text):
        return text.decode("ascii")
    kinds = {value: name.removeprefix("ZONE_") for name, value in dump.layout.enum("zone_type").items()}
    kind = kinds.get(index, f"zone{index}")
    return kind if kind.startswith("DMA") else kind.capitalize()


def _struct(dump: Dump, tag: str, address: int, fields: list[str]) -> Any:
    """One struct as a numpy record of these fields."""
    return dump.memory.array(dump.virt_to_phys(address), dump.layout.dtype(tag, fields), 1)[0]

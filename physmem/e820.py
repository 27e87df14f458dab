# SPDX-License-Identifier: GPL-2.0-only
"""The memory map that firmware hands to a kernel: what is RAM, what is not, and which node it belongs to.

A map is made from a size (the map of a PC: RAM up to the 640 KiB mark, from 1 MiB to the PCI hole below
4 GiB, and on above it), or from text, in which each line is one of::

    BIOS-e820: [mem 0x0000000000100000-0x0000000007fdffff] usable     as the kernel prints it
    0x100000-0x7fdffff usable                                         the same, by hand
    00100000-07fdffff : System RAM                                    as in /proc/iomem
    SRAT: Node 1 PXM 1 [mem 0x04000000-0x07ffffff]                    as the kernel prints it
    node 1: 0x4000000-0x7ffffff                                       the same, by hand
    distance 0 1 20                                                   from node, to node, how far

Ends are inclusive in text, as everywhere in Linux, and exclusive in Python.  Of /proc/iomem, the top
level counts; what is not memory there (buses, devices) is passed over.  Facts:
arch/x86/kernel/e820.c, arch/x86/mm/srat.c and mm/page_alloc.c of Linux 4.0; ACPI 6.5, 15 (INT 15h,
E820) and 5.2.17 (distances).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise

from physmem.errors import UsageError
from physmem.ranges import Ranges

__all__ = ["MAX_PHYSMEM", "Kind", "MemoryMap", "Region", "parse_size"]

#: One past the highest physical address that a kernel with 4-level page tables manages (MAX_PHYSMEM_BITS is 46).
MAX_PHYSMEM = 1 << 46

LOCAL_DISTANCE = 10
REMOTE_DISTANCE = 20

_MIB = 1 << 20
_GIB = 1 << 30
_PCI_HOLE = 3 * _GIB
_NODE_ALIGN = 4 * _MIB  # the largest block of the buddy system, which should not straddle nodes
_MAX_TEXT = 1 << 20
_MAX_REGIONS = 4096
_MAX_NODES = 1024

_SIZE = r"(?ai)(0x[0-9a-f]{1,16}|[0-9]{1,20})([kmgtpe]?)(i?b)?"
# Of these a text needs one or two: the module compiles none when it is imported.
_RANGE = r"(?:\[mem\s+)?0x(?P<start>[0-9a-fA-F]{1,16})-0x(?P<last>[0-9a-fA-F]{1,16})\]?"
_E820 = rf"(?a)(?:BIOS-e820:|e820:|user:)?\s*{_RANGE}\s+(?P<kind>.+)"
_IOMEM = r"(?a)(?P<indent>\s*)(?P<start>[0-9a-f]{8,16})-(?P<last>[0-9a-f]{8,16}) : (?P<kind>.+)"
_NODE = rf"(?ai)(?:SRAT:\s+)?node\s+(?P<node>[0-9]{{1,4}})(?:\s+PXM\s+[0-9]+|:)\s*{_RANGE}.*"
_DISTANCE = r"(?a)distance\s+([0-9]{1,4})\s+([0-9]{1,4})\s+([0-9]{1,4})"
_TIMESTAMP = r"\[\s*[0-9]+\.[0-9]+\]\s*"


class Kind(Enum):
    """What a region is; the value is how the kernel prints an e820 entry of that type."""

    RAM = "usable"
    RESERVED = "reserved"
    ACPI = "ACPI data"
    NVS = "ACPI NVS"
    UNUSABLE = "unusable"


_E820_KINDS = {kind.value.lower(): kind for kind in Kind}
_IOMEM_KINDS = {
    "system ram": Kind.RAM,
    "reserved": Kind.RESERVED,
    "acpi tables": Kind.ACPI,
    "acpi non-volatile storage": Kind.NVS,
    "unusable memory": Kind.UNUSABLE,
}


@dataclass(frozen=True, order=True)
class Region:
    """Physical addresses [start, end), in bytes, and what they are."""

    start: int
    end: int
    kind: Kind

    def __str__(self) -> str:
        return f"[mem {self.start:#018x}-{self.end - 1:#018x}] {self.kind.value}"


def parse_size(text: str) -> int:
    """Bytes of a size like ``256M`` (suffixes K, M, G, T, P, E: powers of 1024; none: bytes).

    :raises UsageError: it is not a size
    """
    match = re.fullmatch(_SIZE, text.strip())
    if match is None:
        raise UsageError(f"size {text[:40]!r}: not a number with one of the suffixes K, M, G, T, P, E")
    return int(match[1], 0 if match[1][:2].lower() == "0x" else 10) << 10 * " kmgtpe".index(match[2].lower() or " ")


@dataclass(frozen=True)
class MemoryMap:
    """A machine's physical address space as its firmware describes it.

    :ivar regions: sorted and disjoint; what no region covers is no memory
    :ivar nodes: the addresses near each NUMA node, by node id, holes included; together they hold all RAM, of which
        a node may have none
    :ivar distances: ``distances[i][j]`` is how far node j's memory is for node i; 10 is local
    :raises UsageError: the map contradicts itself, or no machine can be like that
    """

    regions: tuple[Region, ...]
    nodes: tuple[Ranges, ...]
    distances: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        _check_regions(self.regions)
        _check_nodes(self.usable, self.nodes)
        _check_distances(self.distances, len(self.nodes))

    # -- making one ----------------------------------------------------------

    @classmethod
    def of(
        cls,
        regions: Iterable[Region],
        nodes: Sequence[Ranges] | int = 1,
        distances: Sequence[Sequence[int]] | None = None,
    ) -> MemoryMap:
        """A map of these regions.

        :param nodes: the addresses near each node; or into how many nodes to split the RAM evenly
        :param distances: between the nodes; by default 10 to itself, 20 to any other
        """
        ordered = tuple(sorted(regions, key=lambda region: region.start))
        _check_regions(ordered)
        affinity = _split(_usable(ordered), nodes) if isinstance(nodes, int) else tuple(nodes)
        if distances is None:
            count = range(len(affinity))
            distances = [[LOCAL_DISTANCE if i == j else REMOTE_DISTANCE for j in count] for i in count]
        return cls(ordered, affinity, tuple(tuple(row) for row in distances))

    @classmethod
    def from_size(cls, size: int | str, nodes: int = 1) -> MemoryMap:
        """The map of a PC with ``size`` bytes of RAM, counted with what the firmware keeps below 1 MiB.

        What does not fit below the PCI hole, which begins at 3 GiB, lies above 4 GiB.
        """
        size = parse_size(size) if isinstance(size, str) else size
        if size <= _MIB or size % 4096:
            raise UsageError(f"memory of {size:#x} bytes: not a whole number of pages above 1 MiB")
        regions = [
            Region(0, 0x9FC00, Kind.RAM),
            Region(0x9FC00, 0xA0000, Kind.RESERVED),
            Region(0xF0000, _MIB, Kind.RESERVED),
            Region(_MIB, min(size, _PCI_HOLE), Kind.RAM),
            Region(4 * _GIB - (256 << 10), 4 * _GIB, Kind.RESERVED),
        ]
        if size > _PCI_HOLE:
            regions.append(Region(4 * _GIB, 4 * _GIB + size - _PCI_HOLE, Kind.RAM))
        return cls.of(regions, nodes)

    @classmethod
    def from_text(cls, text: str, source: str = "memory map", nodes: int | None = None) -> MemoryMap:
        """The map that a text describes, in the notations above.

        :param source: what to call the text in messages
        :param nodes: split the RAM evenly into so many nodes, if the text does not tell whose it is
        :raises UsageError: a line cannot be understood, or the map cannot be; names the line
        """
        regions: list[Region] = []
        affinity: dict[int, list[tuple[int, int]]] = {}
        distances: dict[tuple[int, int], int] = {}
        for number, line in enumerate(text.splitlines(), 1):
            where = f"{source}: line {number}"
            line = re.sub(_TIMESTAMP, "", line.split("#")[0].rstrip(), count=1)
            if not line.strip():
                continue
            if match := re.fullmatch(_NODE, line.strip()):
                affinity.setdefault(_below(int(match["node"]), _MAX_NODES, where), []).append(_interval(match, where))
            elif match := re.fullmatch(_DISTANCE, line.strip()):
                distances[int(match[1]), int(match[2])] = int(match[3])
            elif region := _region(line, where):
                regions.append(region)
            if len(regions) > _MAX_REGIONS:
                raise UsageError(f"{where}: more than {_MAX_REGIONS} regions")
        if affinity and nodes is not None:
            raise UsageError(f"{source}: it has nodes of its own, so it cannot be split into {nodes}")
        try:
            given = _affinity(affinity) if affinity else 1 if nodes is None else nodes
            result = cls.of(regions, given)
            return result.with_distances(distances) if distances else result
        except UsageError as error:
            raise UsageError(f"{source}: {error}") from None

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], nodes: int | None = None) -> MemoryMap:
        """The map that a file describes; see :meth:`from_text`."""
        name = os.fspath(path)
        try:
            with open(path, "rb") as file:
                data = file.read(_MAX_TEXT + 1)
        except OSError as error:
            raise UsageError(f"{name}: {error.strerror}") from None
        if len(data) > _MAX_TEXT:
            raise UsageError(f"{name}: more than {_MAX_TEXT} bytes, not a memory map")
        return cls.from_text(data.decode("utf-8", "replace"), name, nodes)

    # -- asking --------------------------------------------------------------

    @property
    def usable(self) -> Ranges:
        """The bytes that are RAM for anybody to use."""
        return _usable(self.regions)

    @property
    def end(self) -> int:
        """One past the highest byte of RAM."""
        return self.usable.end

    def limited(self, limit: int) -> MemoryMap:
        """As the kernel sees it with ``mem=limit``: without RAM at and above that physical address.

        Nodes keep their numbers, those too that have no memory left.
        """
        kept = [
            replace(region, end=min(region.end, limit)) if region.kind is Kind.RAM else region
            for region in self.regions
            if region.kind is not Kind.RAM or region.start < limit
        ]
        return MemoryMap(tuple(kept), self.nodes, self.distances)

    def marked(self, start: int, end: int, kind: Kind) -> MemoryMap:
        """The same map, in which physical [start, end) is of this kind, whatever it was (the kernel's ``memmap=``).

        RAM where there was none belongs to the last node that begins below it.

        :raises UsageError: there cannot be such a machine
        """
        if not 0 <= start < end:
            raise UsageError(f"a range of no bytes at {start:#x}")
        regions = [Region(start, end, kind)]
        for region in self.regions:
            around = Ranges([(region.start, region.end)]) - Ranges([(start, end)])
            regions += [Region(low, high, region.kind) for low, high in around]
        nodes = list(self.nodes)
        if kind is Kind.RAM:
            begins = [min(low for low, _ in node) for node in nodes]
            owner = max((nid for nid, at in enumerate(begins) if at <= start), key=begins.__getitem__, default=0)
            others = Ranges(part for nid, node in enumerate(nodes) if nid != owner for part in node)
            nodes[owner] |= Ranges([(start, end)]) - others
        return MemoryMap.of(regions, nodes, self.distances)

    def with_distances(self, told: Mapping[tuple[int, int], int]) -> MemoryMap:
        """The same map with some distances (from node, to node) changed.

        :raises UsageError: there is no such node, or it cannot be so far
        """
        return replace(self, distances=_with(self.distances, dict(told)))

    def text(self) -> str:
        """The map as text; :meth:`from_text` gives it back."""
        lines = [f"BIOS-e820: {region}" for region in self.regions]
        for nid, node in enumerate(self.nodes):
            lines += [f"node {nid}: {start:#x}-{end - 1:#x}" for start, end in node]
        for i, row in enumerate(self.distances):
            lines += [f"distance {i} {j} {value}" for j, value in enumerate(row)]
        return "\n".join(lines) + "\n"


def _usable(regions: Iterable[Region]) -> Ranges:
    return Ranges((region.start, region.end) for region in regions if region.kind is Kind.RAM)


# -- checks -----------------------------------------------------------------------


def _check_regions(regions: Sequence[Region]) -> None:
    for region in regions:
        if not 0 <= region.start < region.end:
            raise UsageError(f"region {region.start:#x}-{region.end:#x}: it ends before it begins")
        if region.kind is Kind.RAM and region.end > MAX_PHYSMEM:
            raise UsageError(f"{region}: Linux on x86-64 has no memory above {MAX_PHYSMEM:#x} (46 bits)")
    for low, high in pairwise(regions):
        if high.start < low.end:
            raise UsageError(f"{low} and {high} overlap")
    if not any(region.kind is Kind.RAM for region in regions):
        raise UsageError("no usable memory in the map")


def _check_nodes(usable: Ranges, nodes: Sequence[Ranges]) -> None:
    if not nodes:
        raise UsageError("0 nodes: a machine has at least one")
    seen = Ranges()
    for nid, node in enumerate(nodes):
        if both := seen & node:
            raise UsageError(f"node {nid} overlaps another node: {both}")
        seen |= node
    if lost := usable - seen:
        raise UsageError(f"usable memory that belongs to no node: {lost}")


def _check_distances(distances: Sequence[Sequence[int]], nodes: int) -> None:
    if len(distances) != nodes or any(len(row) != nodes for row in distances):
        raise UsageError(f"distances: not a table of {nodes} by {nodes} nodes")
    for i, row in enumerate(distances):
        for j, value in enumerate(row):
            if (value == LOCAL_DISTANCE) != (i == j) or not LOCAL_DISTANCE <= value <= 254:
                expected = "it must be 10" if i == j else "it must be from 11 to 254"
                raise UsageError(f"distance from node {i} to node {j} is {value}: {expected}")


# -- reading text -----------------------------------------------------------------


def _region(line: str, where: str) -> Region | None:
    """The region of an e820 or iomem line; None if it is not memory's."""
    if match := re.fullmatch(_IOMEM, line):
        kind = _IOMEM_KINDS.get(match["kind"].strip().lower())
        if match["indent"] or kind is None:
            return None
        start, end = _interval(match, where)
        if end == 1:
            raise UsageError(f"{where}: {line.strip()!r}: the kernel hides addresses from readers other than root")
        return Region(start, end, kind)
    match = re.fullmatch(_E820, line.strip())
    if match is None:
        raise UsageError(f"{where}: {line.strip()[:60]!r} is no line of a memory map")
    kind = _E820_KINDS.get(match["kind"].strip().lower())
    if kind is None:
        known = ", ".join(repr(k.value) for k in Kind)
        raise UsageError(f"{where}: unknown type {match['kind'].strip()[:40]!r}: there are {known}")
    return Region(*_interval(match, where), kind)


def _interval(match: re.Match[str], where: str) -> tuple[int, int]:
    start, last = int(match["start"], 16), int(match["last"], 16)
    if last < start:
        raise UsageError(f"{where}: {match['start']}-{match['last']} ends before it begins")
    return start, last + 1


def _below(value: int, limit: int, where: str) -> int:
    if value >= limit:
        raise UsageError(f"{where}: node {value}: there are at most {limit}")
    return value


def _affinity(told: dict[int, list[tuple[int, int]]]) -> list[Ranges]:
    if missing := [nid for nid in range(max(told) + 1) if nid not in told]:
        raise UsageError(f"node {missing[0]} is missing: nodes are numbered from 0 without gaps")
    return [Ranges(told[nid]) for nid in sorted(told)]


def _with(distances: tuple[tuple[int, ...], ...], told: dict[tuple[int, int], int]) -> tuple[tuple[int, ...], ...]:
    table = [list(row) for row in distances]
    for (i, j), value in told.items():
        if max(i, j) >= len(table):
            raise UsageError(f"distance from node {i} to node {j}: there are {len(table)} nodes")
        table[i][j] = value
    return tuple(tuple(row) for row in table)


# -- nodes ------------------------------------------------------------------------


def _split(usable: Ranges, count: int) -> tuple[Ranges, ...]:
    """Cut the address space where each of ``count`` nodes has its even share of the RAM, to a multiple of 4 MiB."""
    if not 1 <= count <= _MAX_NODES:
        raise UsageError(f"{count} nodes: a machine has from 1 to {_MAX_NODES}")
    cuts = [0]
    for nid in range(1, count):
        share = usable.total() * nid // count
        for start, end in usable:
            if share < end - start:
                cuts.append((start + share) // _NODE_ALIGN * _NODE_ALIGN)
                break
            share -= end - start
    cuts.append(usable.end)
    if any(low >= high for low, high in pairwise(cuts)):
        raise UsageError(f"{usable.total():#x} bytes of memory are too few for {count} nodes")
    return tuple(Ranges([interval]) for interval in pairwise(cuts))

# SPDX-License-Identifier: GPL-2.0-only
"""memblock: which memory there is and what of it is taken, before the page allocator runs (mm/memblock.c).

Two lists of regions: ``memory``, what the firmware calls usable, each region with its node; ``reserved``,
what is taken.  Memory that is in the first and not in the second is free.  Allocation is from the top
down, so that the low addresses, which some devices need, stay free longest.

While it is in use, memblock is only used by bring-up, so it is kept as Python lists; :meth:`Memblock.store`
leaves it in the kernel's variable ``memblock`` for whoever looks.  Addresses are physical, in bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from kernelmm.bringup.kernel import Kernel
from kernelmm.bringup.rounding import div_round_up, round_down
from physmem.errors import UsageError
from physmem.ranges import Ranges

__all__ = ["Memblock", "Region"]

PAGE_SIZE = 4096
CACHE_LINE = 64
#: The node of a reserved region, and of memory before nodes are known.
MAX_NUMNODES = 64
#: Regions that the kernel's own arrays have room for.
INIT_REGIONS = 128

#: struct memblock_region: base, size, flags, nid
_REGION = struct.Struct("<QQQi4x")


class Region(NamedTuple):
    """Memory [start, end) of a node."""

    start: int
    end: int
    nid: int


class Memblock:
    """The two lists.

    :ivar memory: sorted and disjoint
    :ivar reserved: addresses that are taken, whether there is memory or not
    :ivar current_limit: allocate below this address: as far as memory is mapped
    """

    def __init__(self) -> None:
        self.memory: list[Region] = []
        self.reserved = Ranges()
        self.current_limit = 1 << 64

    def add(self, start: int, end: int, nid: int = MAX_NUMNODES) -> None:
        """``memblock_add_node``: there is memory here; no region that is known already may overlap it."""
        self.memory.append(Region(start, end, nid))
        self.memory.sort()

    def set_node(self, start: int, end: int, nid: int) -> None:
        """``memblock_set_node``: the memory in [start, end) is near a node; splits regions that reach beyond."""
        regions: list[Region] = []
        for region in self.memory:
            low, high = max(region.start, start), min(region.end, end)
            if low >= high:
                regions.append(region)
                continue
            pieces = (region._replace(end=low), Region(low, high, nid), region._replace(start=high))
            regions += [piece for piece in pieces if piece.start < piece.end]
        self.memory = _merged(regions)

    def reserve(self, start: int, end: int) -> None:
        """``memblock_reserve``."""
        self.reserved |= Ranges([(start, end)])

    def free(self, start: int, end: int) -> None:
        """``memblock_free``: take back a reservation."""
        self.reserved -= Ranges([(start, end)])

    # -- asking --------------------------------------------------------------

    def is_memory(self, start: int, end: int) -> bool:
        """``memblock_is_region_memory``: there is memory everywhere in [start, end)."""
        return Ranges((region.start, region.end) for region in self.memory).covers(start, end)

    def pfn_ranges(self, nid: int | None = None) -> Iterator[tuple[int, int, int]]:
        """``for_each_mem_pfn_range``: (first PFN, end PFN, node) of the memory of a node, or of all, in whole pages."""
        for region in self.memory:
            start, end = div_round_up(region.start, PAGE_SIZE), region.end // PAGE_SIZE
            if start < end and nid in (None, region.nid):
                yield start, end, region.nid

    def free_ranges(self, nid: int | None = None) -> Iterator[tuple[int, int]]:
        """``for_each_free_mem_range``: memory (of a node, or of all) that is not reserved, ascending.

        Regions of memory are not joined: at a border of nodes, one range ends and another begins.
        """
        for region in self.memory:
            if nid in (None, region.nid):
                yield from Ranges([(region.start, region.end)]) - self.reserved

    @property
    def end(self) -> int:
        """``memblock_end_of_DRAM``."""
        return self.memory[-1].end if self.memory else 0

    # -- allocating ----------------------------------------------------------

    def find_in_range(self, start: int, end: int, size: int, align: int, nid: int | None = None) -> int | None:
        """``memblock_find_in_range_node``: the highest free area in [start, end); its address, or None."""
        start = max(start, PAGE_SIZE)
        for low, high in reversed(list(self.free_ranges(nid))):
            low, high = max(low, start), min(high, end)
            candidate = round_down(high - size, align)
            if low < high and candidate >= low:
                return candidate
        return None

    def try_alloc(self, size: int, align: int = CACHE_LINE, nid: int | None = None, min_addr: int = 0) -> int | None:
        """``memblock_virt_alloc_try_nid_nopanic``: reserve an area; its physical address, or None.

        Near a node and above an address if that can be; the node is given up first.  The memory of a
        machine that boots is zeros already.
        """
        for node, above in ((nid, min_addr), (None, min_addr), (nid, 0), (None, 0)):
            found = self.find_in_range(above, self.current_limit, size, align, node)
            if found is not None:
                self.reserve(found, found + size)
                return found
        return None

    def alloc(self, size: int, align: int = CACHE_LINE, nid: int | None = None, min_addr: int = 0, *, what: str) -> int:
        """``memblock_virt_alloc_try_nid``: :meth:`try_alloc` that must succeed.

        :param what: what it is for
        :raises UsageError: there is no room; the kernel panics
        """
        found = self.try_alloc(size, align, nid, min_addr)
        if found is None:
            raise UsageError(f"too little memory to boot: no {size:#x} bytes left for {what}")
        return found

    # -- in memory -----------------------------------------------------------

    def store(self, kernel: Kernel) -> None:
        """Leave both lists in ``struct memblock``.

        A list that is too long for the kernel's own array gets a larger one, which is one reservation more.
        """
        head = kernel.symbols["memblock"]
        arrays = {}
        for name, length in (("memory", len(self.memory)), ("reserved", len(self.reserved))):
            own = kernel.symbols[f"memblock_{name}_init_regions"]
            room = INIT_REGIONS
            while room < length + 2:
                room *= 2
            if room > INIT_REGIONS:
                own = kernel.va(self.alloc(room * _REGION.size, PAGE_SIZE, what="memblock"))
            arrays[name] = own
            kernel.set(head, f"memblock.{name}.max", room)
            kernel.set(head, f"memblock.{name}.regions", arrays[name])
        kernel.set(head, "memblock.current_limit", self.current_limit)
        lists = {"memory": self.memory, "reserved": [Region(*pair, MAX_NUMNODES) for pair in self.reserved]}
        for name, regions in lists.items():
            kernel.set(head, f"memblock.{name}.cnt", len(regions))
            kernel.set(head, f"memblock.{name}.total_size", sum(region.end - region.start for region in regions))
            data = b"".join(_REGION.pack(region.start, region.end - region.start, 0, region.nid) for region in regions)
            kernel.ram.write(kernel.phys(arrays[name]), data)


def _merged(regions: list[Region]) -> list[Region]:
    """``memblock_merge_regions``: neighbours of one node are one region."""
    merged: list[Region] = []
    for region in sorted(regions):
        if merged and merged[-1].end == region.start and merged[-1].nid == region.nid:
            merged[-1] = merged[-1]._replace(end=region.end)
        else:
            merged.append(region)
    return merged

# SPDX-License-Identifier: GPL-2.0-only
"""A kernel's structures in memory, by the names that C gives them.

Bring-up touches many fields once, where the core touches few of them often: here a field is named,
looked up in the layout and read or written with the width and sign that it has.  Nothing is kept: every
value is in the emulated memory.  ``struct`` pointers are kernel addresses, as in the core.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kernelmm.bringup.rounding import div_round_up
from kernelmm.bringup.variables import SCALARS, VARIABLES
from kernelmm.core.mm import Mm
from physmem.dump import Dump
from physmem.errors import LayoutError
from physmem.memory_model import FLAT_SHIFT, MemoryModel, flat_chunks, model_of, section_chunks, section_mem_maps
from physmem.paging import chunks
from physmem.ram import Ram
from physmem.space import UNMAPPED
from physmem.structs.layout import Layout
from physmem.symbols import Symbols

__all__ = ["N_CPU", "N_MEMORY", "N_ONLINE", "N_POSSIBLE", "Kernel", "Zone"]

# enum node_states; with memory at all, with normal memory: the same on 64 bits
N_POSSIBLE = 0
N_ONLINE = 1
N_MEMORY = 2
N_CPU = 3

_TYPES = {variable.name: SCALARS[variable.ctype] for variable in VARIABLES if variable.ctype in SCALARS}


class Zone(NamedTuple):
    """A zone and its place.

    :ivar nid: its node
    :ivar idx: its ``enum zone_type``
    :ivar at: ``struct zone *``
    """

    nid: int
    idx: int
    at: int


class Kernel:
    """Access to the structures of one kernel.

    :param ram: the memory
    :param layout: the kernel's structs, enums and constants
    :param symbols: its variables
    :param phys_base: physical address that __START_KERNEL_map would map
    :ivar model: its memory model
    """

    def __init__(self, ram: Ram, layout: Layout, symbols: Symbols, phys_base: int = 0) -> None:
        self.ram = ram
        self.layout = layout
        self.symbols = symbols
        self.phys_base = phys_base
        self.page_offset = layout.constant("PAGE_OFFSET")
        self.start_kernel_map = layout.constant("__START_KERNEL_map")
        self.smp = layout.has("per_cpu_pageset", "stat_threshold")
        self.numa = layout.has("zone", "node")
        self.model = model_of(layout, has_sections=layout.has("mem_section"))
        self.max_nr_zones = layout.constant("MAX_NR_ZONES")
        self._node_zones = layout.offsetof("pglist_data", "node_zones")
        self._sizeof_zone = layout.sizeof("zone")
        self._fields: dict[str, tuple[int, int, bool]] = {}
        self._mm: Mm | None = None

    @classmethod
    def attached(cls, mm: Mm, dump: Dump) -> Kernel:
        """The kernel that a machine attached to a dump runs on."""
        kernel = cls(mm.ram, dump.layout, dump.symbols, dump.phys_base)
        kernel.start(mm)
        return kernel

    # -- memory --------------------------------------------------------------

    def phys(self, va: int) -> int:
        """Physical address of an address in the direct map or the kernel image."""
        if va >= self.start_kernel_map:
            return va - self.start_kernel_map + self.phys_base
        return va - self.page_offset

    def va(self, phys: int) -> int:
        """``__va``: direct-map address of a physical one."""
        return self.page_offset + phys

    def words(self, phys: int, count: int) -> npt.NDArray[np.uint64]:
        """``count`` words of memory at ``phys``, to read and to write."""
        return np.frombuffer(self.ram.as_u8, np.uint64, count, phys)

    # -- fields of structs ---------------------------------------------------

    def _field(self, path: str) -> tuple[int, int, bool]:
        """Offset, size of an element and signedness of ``tag.field``."""
        if path not in self._fields:
            tag, _, name = path.partition(".")
            field = self.layout.field(tag, name)
            if field.element_size is None:
                raise LayoutError(f"{self.layout.source}: the size of struct {path} is unknown")
            self._fields[path] = field.offset, field.element_size, bool(field.signed)
        return self._fields[path]

    def has(self, path: str) -> bool:
        """Whether this kernel's struct has the field ``tag.field``."""
        tag, _, name = path.partition(".")
        return self.layout.has(tag, name)

    def at(self, struct: int, path: str, index: int = 0) -> int:
        """Address of a field (or of an element of it) of the struct at address ``struct``."""
        offset, size, _ = self._field(path)
        return struct + offset + size * index

    def get(self, struct: int, path: str, index: int = 0) -> int:
        """Value of the field ``path``, written ``tag.field``, of the struct at address ``struct``."""
        offset, size, signed = self._field(path)
        data = self.ram.read(self.phys(struct + offset + size * index), size)
        return int.from_bytes(data, "little", signed=signed)

    def set(self, struct: int, path: str, value: int, index: int = 0) -> None:
        """Store a field; the value is reduced to its width, as in C."""
        offset, size, _ = self._field(path)
        self._store(struct + offset + size * index, size, value)

    def add(self, struct: int, path: str, delta: int, index: int = 0) -> None:
        """Add to a field."""
        self.set(struct, path, self.get(struct, path, index) + delta, index)

    def _store(self, va: int, size: int, value: int) -> None:
        self.ram.write(self.phys(va), (value & (1 << 8 * size) - 1).to_bytes(size, "little"))

    def init_list_head(self, head: int) -> None:
        """``INIT_LIST_HEAD``: an empty list."""
        self.words(self.phys(head), 2)[:] = head

    def string(self, va: int, most: int = 64) -> str:
        """The C string at an address, as far as ``most`` bytes."""
        here = min(most, -va % 4096 or 4096)
        data = self.ram.read(self.phys(va), here)
        if b"\0" not in data and here < most:
            data += self.ram.read(self.phys(va + here), most - here)
        return data.split(b"\0", 1)[0].decode("latin-1")

    # -- variables -----------------------------------------------------------

    def var(self, name: str, index: int = 0, cpu: int | None = None) -> int:
        """Value of a variable, of an element of it, or of a CPU's instance of it."""
        size, signed = _TYPES[name]
        at = self.symbols[name] + size * index + (0 if cpu is None else self.per_cpu_offset(cpu))
        return int.from_bytes(self.ram.read(self.phys(at), size), "little", signed=signed)

    def set_var(self, name: str, value: int, index: int = 0, cpu: int | None = None) -> None:
        """Store a variable."""
        size, _ = _TYPES[name]
        self._store(self.symbols[name] + size * index + (0 if cpu is None else self.per_cpu_offset(cpu)), size, value)

    # -- CPUs ----------------------------------------------------------------

    def per_cpu_offset(self, cpu: int) -> int:
        """``__per_cpu_offset[cpu]``; 0 on a kernel without SMP."""
        return self.var("__per_cpu_offset", cpu) if self.smp else 0

    def per_cpu_ptr(self, pointer: int, cpu: int) -> int:
        """``per_cpu_ptr``: a CPU's instance of what a per-cpu pointer points to."""
        return pointer + self.per_cpu_offset(cpu)

    def possible_cpus(self) -> range:
        """``for_each_possible_cpu``, where CPUs are numbered without gaps."""
        return range(self.var("nr_cpu_ids") if self.smp else 1)

    def online_cpus(self) -> list[int]:
        """``for_each_online_cpu``."""
        if not self.smp:
            return [0]
        return [cpu for cpu in self.possible_cpus() if self.var("cpu_online_bits", cpu // 64) >> cpu % 64 & 1]

    # -- nodes and zones -----------------------------------------------------

    def nodes(self, state: int = N_ONLINE) -> list[int]:
        """``for_each_node_state``: the ids of the nodes in a state, ascending."""
        if not self.numa:
            return [0]
        words = div_round_up(self.layout.constant("MAX_NUMNODES"), 64)
        return [
            64 * i + bit
            for i in range(words)
            for bit in range(64)
            if self.var("node_states", state * words + i) >> bit & 1
        ]

    def node_set_state(self, nid: int, state: int) -> None:
        """``node_set_state``."""
        words = div_round_up(self.layout.constant("MAX_NUMNODES"), 64)
        at = state * words + nid // 64
        self.set_var("node_states", self.var("node_states", at) | 1 << nid % 64, at)

    def node_data(self, nid: int) -> int:
        """``NODE_DATA``: ``struct pglist_data *`` of a node."""
        return self.var("node_data", nid) if self.numa else self.symbols["contig_page_data"]

    def zone(self, nid: int, idx: int) -> Zone:
        """Zone ``idx`` of a node, populated or not."""
        return Zone(nid, idx, self.node_data(nid) + self._node_zones + self._sizeof_zone * idx)

    def zones(self) -> Iterator[Zone]:
        """``for_each_zone``: every zone of every online node."""
        for nid in self.nodes():
            for idx in range(self.max_nr_zones):
                yield self.zone(nid, idx)

    def populated_zones(self) -> Iterator[Zone]:
        """``for_each_populated_zone``."""
        return (zone for zone in self.zones() if self.populated(zone))

    def populated(self, zone: Zone) -> bool:
        """``populated_zone``: it has pages."""
        return self.get(zone.at, "zone.present_pages") != 0

    def wmark(self, zone: Zone, which: int) -> int:
        """``zone->watermark[which]``, pages."""
        return self.get(zone.at, "zone.watermark", which)

    # -- once it runs --------------------------------------------------------

    def start(self, mm: Mm) -> None:
        """The page allocator can run from now on: here is what its functions are given first."""
        self._mm = mm

    @property
    def mm(self) -> Mm:
        """What the functions of :mod:`kernelmm.core` are given first."""
        if self._mm is None:
            raise RuntimeError("the page allocator does not run yet")
        return self._mm

    def pfn_to_page(self, pfn: int) -> int:
        """``pfn_to_page``: ``struct page *``."""
        if self.model is MemoryModel.SPARSEMEM:
            nr = pfn >> self.layout.constant("PFN_SECTION_SHIFT")
            root, rest = divmod(nr, self.layout.constant("SECTIONS_PER_ROOT"))
            section = self.var("mem_section", root) + rest * self.layout.sizeof("mem_section")
            base = self.get(section, "mem_section.section_mem_map") & self.layout.constant("SECTION_MAP_MASK")
        else:
            flat = self.model is MemoryModel.FLATMEM
            base = self.var("mem_map") if flat else self.layout.constant("VMEMMAP_START")
        return base + pfn * self.layout.sizeof("page")

    def memmap(self, end_pfn: int) -> tuple[npt.NDArray[np.uint64], int]:
        """Physical address of each chunk of the page array up to ``end_pfn``, and log2 of a chunk's bytes."""
        size = self.layout.sizeof("page")
        if self.model is MemoryModel.FLATMEM:
            start = self.get(self.node_data(0), "pglist_data.node_start_pfn")
            start &= -self.layout.constant("MAX_ORDER_NR_PAGES")
            return flat_chunks(self.var("mem_map"), start, end_pfn, self.page_offset), FLAT_SHIFT
        if self.model is MemoryModel.SPARSEMEM:
            shift = self.layout.constant("PFN_SECTION_SHIFT")
            count = div_round_up(end_pfn, 1 << shift)
            bases = section_mem_maps(self.ram, self.layout, self.phys, self.symbols["mem_section"], count)
            return section_chunks(bases, shift, size, self.page_offset), shift + size.bit_length() - 1
        start = self.layout.constant("VMEMMAP_START")
        pgd = self.phys(self.symbols["init_level4_pgt"])
        return chunks(self.ram, pgd, start, start + end_pfn * size)

    def page_runs(self, start_pfn: int, end_pfn: int) -> Iterator[tuple[int, int, int]]:
        """Where the page array's entries of [start_pfn, end_pfn) are: (first pfn, end pfn, physical address).

        Entries of a run are contiguous; PFNs without an entry are in none.
        """
        if start_pfn >= end_pfn:
            return
        table, shift = self.memmap(end_pfn)
        sizeof_page = self.layout.sizeof("page")
        per_chunk = (1 << shift) // sizeof_page
        first = start_pfn // per_chunk
        table = table[first:]
        there = table != np.uint64(UNMAPPED)
        breaks = np.flatnonzero((np.diff(table) != np.uint64(1 << shift)) & (there[1:] | there[:-1])) + 1
        for i, j in pairwise([0, *breaks.tolist(), len(table)]):
            if there[i]:
                begin = (first + i) * per_chunk
                pfn = max(start_pfn, begin)
                yield pfn, min(end_pfn, (first + j) * per_chunk), int(table[i]) + (pfn - begin) * sizeof_page

# SPDX-License-Identifier: GPL-2.0-only
"""What of a kernel's memory describes memory: the page array, nodes and zones, lists and counters, page tables.

Structs are kept whole, variables with the size that they have in C; what a kernel does not have is passed over.
Facts: include/linux/mmzone.h, mm/sparse.c, kernel/resource.c, arch/x86/include/asm/e820/types.h.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy.typing as npt

from physmem.distill.kept import Kept
from physmem.dump import Dump
from physmem.errors import LayoutError, PhysmemError
from physmem.image import VmcoreInfo
from physmem.inspect.sections import usemaps
from physmem.kallsyms import KernelSymbols, Tables, anchors_of, read_kallsyms
from physmem.kallsyms_search import find_tables
from physmem.memory import UNMAPPED, PhysicalMemory
from physmem.memory_model import MemoryModel
from physmem.ranges import Ranges
from physmem.regions import KernelImage

__all__ = ["collect", "described"]

_MAX_CPUS = 8192
_MAX_RESOURCES = 1 << 16
_U64 = (1 << 64) - 1

#: Integers, pointers, and words of flags: 8 bytes at most.
_WORDS = """
    nr_cpu_ids nr_node_ids nr_online_nodes page_offset_base vmemmap_base vmalloc_base phys_base jiffies_64 jiffies
    high_memory max_pfn max_low_pfn _totalram_pages totalram_pages totalreserve_pages totalcma_pages vm_total_pages
    page_group_by_mobility_disabled min_free_kbytes user_min_free_kbytes nr_swap_pages zero_pfn huge_zero_page
    huge_zero_pfn huge_zero_folio movable_zone e820_table gfp_allowed_mask zone_reclaim_mode node_reclaim_mode
    percpu_pagelist_fraction current_zonelist_order cpu_online_mask cpu_possible_mask mem_map highest_memmap_pfn
    dirty_balance_reserve hugetlb_max_hstate default_hstate_idx transparent_hugepage_flags cma_area_count
    dma_contiguous_default_area cpusets_enabled_key pcpu_base_addr numa_distance_cnt node_online_map
    kexec_crash_image pageblock_order kmemcheck_enabled zero_page_pfn total_swap_pages nr_vmalloc_pages
    pcpu_nr_populated pcpu_nr_units sysctl_overcommit_kbytes sysctl_overcommit_ratio num_poisoned_pages
    nr_memmap_pages nr_memmap_boot_pages direct_gbpages vm_dirty_bytes dirty_background_bytes vm_dirty_ratio
    dirty_background_ratio
"""
#: Masks of CPUs.
_CPU_MASKS = "__cpu_online_mask __cpu_possible_mask cpu_online_bits cpu_possible_bits"
#: Counters, and the enumerator that says how many.
_COUNTERS = {
    "vm_stat": "NR_VM_ZONE_STAT_ITEMS",
    "vm_zone_stat": "NR_VM_ZONE_STAT_ITEMS",
    "vm_node_stat": "NR_VM_NODE_STAT_ITEMS",
    "vm_numa_stat": "NR_VM_NUMA_STAT_ITEMS",
    "vm_numa_event": "NR_VM_NUMA_EVENT_ITEMS",
}
#: Other arrays, and their bytes: 5 zones, 4 levels of page tables, 4 destructors.
_ARRAYS = {
    "sysctl_lowmem_reserve_ratio": 20,
    "direct_pages_count": 32,
    "compound_page_dtors": 32,
    "fail_page_alloc": 144,
    "printk_ratelimit_state": 32,
}
#: Words of each CPU.
_PER_CPU_WORDS = "numa_node kernel_stack"
#: Other variables of each CPU, and their bytes: struct pagevec.
_PER_CPU_ARRAYS = {"lru_add_pvec": 128}
#: Structs of each CPU.
_PER_CPU_STRUCTS = {
    "vm_event_states": "vm_event_state",
    "boot_pageset": "per_cpu_pages",
    "boot_zonestats": "per_cpu_zonestat",
    "boot_nodestats": "per_cpu_nodestat",
}
#: Pointers of a zone to structs of each CPU.
_PAGESETS = (
    ("pageset", "per_cpu_pageset"),
    ("per_cpu_pageset", "per_cpu_pages"),
    ("per_cpu_zonestats", "per_cpu_zonestat"),
)
#: Of struct new_utsname: sysname, release, version, machine; not the names of the host and its domain.
_UTS_FIELDS, _UTS_BYTES = (0, 2, 3, 4), 65


def collect(dump: Dump, kept: Kept) -> None:
    """Keep all that there is.

    :raises PhysmemError: the nodes or the page array cannot be read
    """
    page_array(dump, kept)
    page_tables(dump, kept)
    cpus = possible_cpus(dump)
    for nid, pgdat in dump.pgdats.items():
        node(dump, kept, nid, pgdat, cpus)
    for part in (sections, variables, resources, description):
        with contextlib.suppress(PhysmemError):
            part(dump, kept)
    for offset in cpus:
        per_cpu(dump, kept, offset)


def page_array(dump: Dump, kept: Kept) -> None:
    """The ``struct page`` of every page frame."""
    chunks, shift = dump.memmap
    size = dump.max_pfn * dump.sizeof_page
    if "mem_section" in dump.symbols:
        # It has pages of its own, to the end of the last section.
        size = len(chunks) << shift
    for number, phys in enumerate(chunks.tolist()):
        if phys != UNMAPPED:
            kept.phys("page array", phys, min(1 << shift, size - (number << shift)))


def page_tables(dump: Dump, kept: Kept) -> None:
    """The tables of the kernel's image, the direct map and the page array."""
    regions = dump.regions
    mapped = [
        (regions.start_kernel_map, regions.start_kernel_map + regions.kernel_image_size),
        (regions.page_offset, regions.page_offset + (dump.max_pfn << 12)),
    ]
    if dump.model is MemoryModel.SPARSEMEM_VMEMMAP:
        # Of the other models the page array is in the direct map.
        mapped.append((dump.mem_map, dump.mem_map + dump.max_pfn * dump.sizeof_page))
    shift = 12 + 9 * (regions.levels - 1)
    kept.tables(regions.pgd, 0, shift, mapped)


def possible_cpus(dump: Dump) -> list[int]:
    """Where each CPU has its variables: what is to be added to their addresses."""
    if "__per_cpu_offset" not in dump.symbols:
        return [0]
    with contextlib.suppress(PhysmemError):
        count = min(max(dump.s32(dump.symbols["nr_cpu_ids"]), 1), _MAX_CPUS)
        table = dump.symbols["__per_cpu_offset"]
        return [dump.u64(table + 8 * cpu) for cpu in range(count)]
    return []


def node(dump: Dump, kept: Kept, nid: int, pgdat: int, cpus: list[int]) -> None:
    """A ``struct pglist_data``, its zones with their names, and their lists and counters of each CPU."""
    layout = dump.layout
    kept.at("nodes and zones", pgdat, layout.sizeof("pglist_data"))
    if layout.has("pglist_data", "per_cpu_nodestats"):
        pointed(dump, kept, dump.field(pgdat, "pglist_data", "per_cpu_nodestats"), "per_cpu_nodestat", cpus)
    first, size = pgdat + layout.offsetof("pglist_data", "node_zones"), layout.sizeof("zone")
    for index in range(layout.lengthof("pglist_data", "node_zones")):
        zone = first + index * size
        with contextlib.suppress(PhysmemError):
            kept.text("names", dump.field(zone, "zone", "name"))
            for field, tag in _PAGESETS:
                if layout.has("zone", field):
                    pointed(dump, kept, dump.field(zone, "zone", field), tag, cpus)


def pointed(dump: Dump, kept: Kept, pointer: int, tag: str, cpus: list[int]) -> None:
    """What a per-CPU pointer points to."""
    if pointer:
        for offset in cpus:
            kept.at("lists and counters of CPUs", pointer + offset & _U64, dump.layout.sizeof(tag))


def sections(dump: Dump, kept: Kept) -> None:
    """``struct mem_section``, and the flags of pageblocks."""
    layout = dump.layout
    if dump.model is MemoryModel.FLATMEM:
        for _, blocks, flags in usemaps(dump):
            kept.at("sections", flags, -(-blocks * layout.constant("NR_PAGEBLOCK_BITS") // 64) * 8)
        return
    size = layout.sizeof("mem_section")
    per_root = layout.constant("SECTIONS_PER_ROOT")
    per_section = layout.constant("PAGES_PER_SECTION")
    roots = dump.symbols["mem_section"]
    apart = layout.has("mem_section", "usage")
    size_of_flags = blockflags_bytes(dump)
    for number in range(-(-dump.max_pfn // per_section)):
        place = roots + 8 * (number // per_root)
        with contextlib.suppress(PhysmemError):
            kept.at("sections", place, 8)
            root = dump.u64(place)
            if root:
                section = root + number % per_root * size
                kept.at("sections", section, size)
                pointer = dump.field(section, "mem_section", "usage" if apart else "pageblock_flags")
                if pointer:
                    kept.at("sections", pointer, (layout.sizeof("mem_section_usage") if apart else 0) + size_of_flags)


def blockflags_bytes(dump: Dump) -> int:
    """Bytes of the flags of a section's pageblocks, as ``usemap_size`` has them."""
    layout = dump.layout
    with contextlib.suppress(LayoutError):
        return -(-layout.constant("SECTION_BLOCKFLAGS_BITS") // 64) * 8
    bits = layout.enum("pageblock_bits")
    width = bits.get("NR_PAGEBLOCK_BITS", bits.get("__NR_PAGEBLOCK_BITS", 4))
    width = 1 << max(width - 1, 0).bit_length()
    blocks = layout.constant("PAGES_PER_SECTION") >> layout.lengthof("zone", "free_area") - 2
    return -(-blocks * width // 64) * 8


def variables(dump: Dump, kept: Kept) -> None:
    """Variables of the kernel, each with its size."""
    layout, symbols = dump.layout, dump.symbols
    cpus, nodes = len(possible_cpus(dump)), max(dump.pgdats) + 1
    words = -(-max(cpus, 1) // 64)
    sizes = dict.fromkeys(_WORDS.split(), 8) | _ARRAYS
    sizes |= dict.fromkeys(_CPU_MASKS.split(), 8 * -(-layout.constants.get("NR_CPUS", 64 * words) // 64))
    sizes["__per_cpu_offset"] = 8 * cpus
    sizes["node_data"] = 8 * min(layout.constants.get("MAX_NUMNODES", max(nodes, 64)), 1024)
    sizes["node_states"] = 8 * 8 * -(-min(layout.constants.get("MAX_NUMNODES", 64), 1024) // 64)
    sizes |= {name: 8 * array_length(dump, counted) for name, counted in _COUNTERS.items()}
    for name, tag, count in (("iomem_resource", "resource", 1), ("hstates", "hstate", 2)):
        if layout.has(tag):
            sizes[name] = count * layout.sizeof(tag)
    for name, size in sizes.items():
        if name in symbols:
            kept.at("variables", symbols[name], size)
    for name, count in (
        ("zone_names", layout.lengthof("pglist_data", "node_zones")),
        ("migratetype_names", layout.lengthof("free_area", "free_list")),
    ):
        if name in symbols:
            kept.at("variables", symbols[name], 8 * count)
            for index in range(count):
                with contextlib.suppress(PhysmemError):
                    kept.text("names", dump.u64(symbols[name] + 8 * index))
    if layout.has("uts_namespace", "name"):
        at = symbols["init_uts_ns"] + layout.offsetof("uts_namespace", "name")
    else:
        at = symbols["init_uts_ns"] + int(dump.info.get("OFFSET(uts_namespace.name)", "4"))
    for field in _UTS_FIELDS:
        kept.at("variables", at + field * _UTS_BYTES, _UTS_BYTES)


def array_length(dump: Dump, counted: str) -> int:
    """How many counters there are; of a kernel that does not tell, none."""
    with contextlib.suppress(LayoutError):
        return min(dump.layout.enumerator(counted), 512)
    if counted == "NR_VM_ZONE_STAT_ITEMS" and dump.layout.has("zone", "vm_stat"):
        return dump.layout.lengthof("zone", "vm_stat")
    return 0


def per_cpu(dump: Dump, kept: Kept, offset: int) -> None:
    """Variables of a CPU."""
    layout, symbols = dump.layout, dump.symbols
    what = "lists and counters of CPUs"
    for name in _PER_CPU_WORDS.split():
        if name in symbols:
            kept.at(what, symbols[name] + offset & _U64, 8)
    for name, size in _PER_CPU_ARRAYS.items():
        if name in symbols:
            kept.at(what, symbols[name] + offset & _U64, size)
    for name, tag in _PER_CPU_STRUCTS.items():
        if name == "boot_pageset" and layout.has("per_cpu_pageset"):
            tag = "per_cpu_pageset"
        if name in symbols and layout.has(tag):
            kept.at(what, symbols[name] + offset & _U64, layout.sizeof(tag))


def resources(dump: Dump, kept: Kept) -> None:
    """The tree of /proc/iomem with its names, and the firmware's memory map."""
    layout, symbols = dump.layout, dump.symbols
    if "e820_table" in symbols and layout.has("e820_table"):
        # A copy that is as long as it has to be (e820__reallocate_tables).
        table, entry = dump.u64(symbols["e820_table"]), layout.sizeof("e820_entry")
        count = dump.field(table, "e820_table", "nr_entries")
        if count * entry < layout.sizeof("e820_table"):
            kept.at("memory map", table, layout.offsetof("e820_table", "entries") + count * entry)
    if "iomem_resource" not in symbols or not layout.has("resource"):
        return
    pending = [symbols["iomem_resource"]]
    seen: set[int] = set()
    while pending and len(seen) < _MAX_RESOURCES:
        resource = pending.pop()
        if not resource or resource in seen:
            continue
        seen.add(resource)
        with contextlib.suppress(PhysmemError):
            kept.at("memory map", resource, layout.sizeof("resource"))
            kept.text("names", dump.field(resource, "resource", "name"))
            pending += [dump.field(resource, "resource", "sibling"), dump.field(resource, "resource", "child")]


# -- what a kernel says of itself ------------------------------------------------------------------


class _Recording:
    """A memory that writes down what is read."""

    def __init__(self, memory: PhysicalMemory) -> None:
        self._memory = memory
        self.read_ranges: list[tuple[int, int]] = []

    @property
    def ranges(self) -> Ranges:
        return self._memory.ranges

    @property
    def size(self) -> int:
        return self._memory.size

    def read(self, phys: int, size: int) -> bytes:
        self.read_ranges.append((phys, phys + size))
        return self._memory.read(phys, size)

    def u64(self, phys: int) -> int:
        return int.from_bytes(self.read(phys, 8), "little")

    def array(self, phys: int, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        found = self._memory.array(phys, dtype, count)
        self.read_ranges.append((phys, phys + found.nbytes))
        return found


def description(dump: Dump, kept: Kept) -> None:
    """The kernel's symbol table and its types, as far as they are read."""
    image = dump.regions.image
    tables = symbol_table(dump)
    if tables is not None:
        recording = _Recording(dump.memory)
        again = KernelImage(recording, image.start, image.phys_base, image.size)
        with contextlib.suppress(PhysmemError):
            read_kallsyms(tables, again, anchors_of(dump.info))
        for start, end in recording.read_ranges:
            kept.phys("symbols", start, end - start)
    if "__start_BTF" in dump.symbols and "__stop_BTF" in dump.symbols:
        start, stop = dump.symbols["__start_BTF"], dump.symbols["__stop_BTF"]
        if start in image and start < stop and stop in image:
            kept.at("types", start, stop - start)


def symbol_table(dump: Dump) -> Tables | None:
    """Where the kernel has its symbol table, if its symbols come from there."""
    if not isinstance(dump.symbols, KernelSymbols) or dump.symbols.table is None:
        return None
    told = Tables.of(dump.info)
    if told is not None:
        return told
    image, start = dump.regions.image, dump.info.symbol("_stext")
    for candidate in find_tables(image.memory, image.phys(start), start):
        with contextlib.suppress(PhysmemError):
            read_kallsyms(candidate, image, anchors_of(dump.info))
            return candidate
    return None


def described(dump: Dump) -> VmcoreInfo:
    """VMCOREINFO, with what is otherwise found by search, of which too little is left in a distilled image."""
    info = dict(dump.info)
    info.setdefault("NUMBER(phys_base)", str(dump.phys_base))
    tables = symbol_table(dump)
    if tables is not None and not tables.wide:
        places = {
            name: getattr(tables, name) for name in ("num_syms", "names", "token_table", "token_index", "offsets")
        }
        if tables.relative_base is not None:
            places["relative_base"] = tables.relative_base
        for name, place in places.items():
            info.setdefault(f"SYMBOL(kallsyms_{name})", f"{place:x}")
    return VmcoreInfo(info)

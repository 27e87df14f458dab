# SPDX-License-Identifier: GPL-2.0-only
"""The macros of Linux 4.0 that follow from the configuration and the enums.

What page->flags packs above its flag bits is laid out from the top down::

    | SECTION | NODE | ZONE | LAST_CPUPID | ... | FLAGS |

(include/linux/page-flags-layout.h; on a kernel with a virtual memmap, SECTION
has no bits).  A field that has no bits has shift 0 and mask 0.  Enumerators that
kernel code uses as constants (MIGRATE_TYPES, NR_WMARK) are found in their enums;
the GFP words belong to the allocator.
"""

from __future__ import annotations

from physmem.structs.linux_4_0.config import Config
from physmem.structs.linux_4_0.enums import pageblock_bits, pageflags, zone_type

__all__ = ["constants", "page_flags"]

BITS_PER_LONG = 64
PAGE_SHIFT = 12
PMD_SHIFT = 21
HPAGE_PMD_ORDER = PMD_SHIFT - PAGE_SHIFT
SECTION_SIZE_BITS = 27  # arch/x86/include/asm/sparsemem.h
MAX_PHYSADDR_BITS = 44
MAX_PHYSMEM_BITS = 46
SECTIONS_SHIFT = MAX_PHYSMEM_BITS - SECTION_SIZE_BITS
LAST__PID_SHIFT = 8
POISON_POINTER_DELTA = 0xDEAD000000000000

_CHECKED_AT_FREE = (
    *("PG_lru", "PG_locked", "PG_private", "PG_private_2", "PG_writeback", "PG_reserved", "PG_slab"),
    *("PG_swapcache", "PG_active", "PG_unevictable", "PG_mlocked", "PG_hwpoison", "PG_compound_lock"),
)
"""The flags that a page must not have when it is freed, as far as the kernel has them."""


def constants(c: Config, sizes: dict[str, int]) -> dict[str, int]:
    """Every macro of the layout.

    :param sizes: bytes of each struct, by tag
    """
    return _memory_map() | _orders(c) | _sections(c, sizes) | page_flags(c) | _limits(c) | _fixed() | _sizes(sizes)


def _memory_map() -> dict[str, int]:
    # Documentation/x86/x86_64/mm.txt
    return {
        "PAGE_SHIFT": PAGE_SHIFT,
        "PMD_SHIFT": PMD_SHIFT,
        "HPAGE_PMD_ORDER": HPAGE_PMD_ORDER,
        "PAGE_OFFSET": 0xFFFF880000000000,
        "VMALLOC_START": 0xFFFFC90000000000,
        "VMALLOC_END": 0xFFFFE8FFFFFFFFFF,
        "VMEMMAP_START": 0xFFFFEA0000000000,
        "__START_KERNEL_map": 0xFFFFFFFF80000000,
        "__PHYSICAL_START": 0x1000000,
        "MAX_PHYSADDR_BITS": MAX_PHYSADDR_BITS,
        "MAX_PHYSMEM_BITS": MAX_PHYSMEM_BITS,
    }


def _pageblock_order(c: Config) -> int:
    return HPAGE_PMD_ORDER if c.hugetlb_page else c.max_order - 1


def _orders(c: Config) -> dict[str, int]:
    return {
        "MAX_ORDER": c.max_order,
        "MAX_ORDER_NR_PAGES": 1 << c.max_order - 1,
        "pageblock_order": _pageblock_order(c),
        "pageblock_nr_pages": 1 << _pageblock_order(c),
    }


def _sections(c: Config, sizes: dict[str, int]) -> dict[str, int]:
    if not c.sparsemem:
        return {}
    pfn_section_shift = SECTION_SIZE_BITS - PAGE_SHIFT
    nr_mem_sections = 1 << SECTIONS_SHIFT
    per_root = (1 << PAGE_SHIFT) // sizes["mem_section"]
    pageblocks = 1 << pfn_section_shift - _pageblock_order(c)
    return {
        "SECTION_SIZE_BITS": SECTION_SIZE_BITS,
        "PFN_SECTION_SHIFT": pfn_section_shift,
        "PAGES_PER_SECTION": 1 << pfn_section_shift,
        "SECTIONS_PER_ROOT": per_root,
        "NR_SECTION_ROOTS": -(-nr_mem_sections // per_root),
        "NR_MEM_SECTIONS": nr_mem_sections,
        "SECTION_MARKED_PRESENT": 1 << 0,
        "SECTION_HAS_MEM_MAP": 1 << 1,
        "SECTION_MAP_MASK": -(1 << 2),
        "SECTION_BLOCKFLAGS_BITS": pageblocks * pageblock_bits(c)["NR_PAGEBLOCK_BITS"],
    }


def page_flags(c: Config) -> dict[str, int]:
    """Widths, shifts and masks of what page->flags packs, and the masks of flag bits."""
    flags = pageflags(c)
    used = flags["__NR_PAGEFLAGS"]
    zones_shift = (zone_type(c)["__MAX_NR_ZONES"] - 1).bit_length()
    cpupid_shift = LAST__PID_SHIFT + c.nr_cpus.bit_length() - 1 if c.numa_balancing else 0
    # A section number is kept only where the memmap is not virtual, last_cpupid only where it fits.
    sections = SECTIONS_SHIFT if c.sparsemem and not c.sparsemem_vmemmap else 0
    cpupid_fits = used + sections + zones_shift + c.nodes_shift + cpupid_shift <= BITS_PER_LONG
    widths = {
        "SECTIONS": sections,
        "NODES": c.nodes_shift,
        "ZONES": zones_shift,
        "LAST_CPUPID": cpupid_shift if cpupid_fits else 0,
    }
    values = {"NODES_SHIFT": c.nodes_shift, "ZONES_SHIFT": zones_shift, "LAST_CPUPID_SHIFT": cpupid_shift}
    offset = BITS_PER_LONG
    for name, width in widths.items():
        offset -= width
        values[f"{name}_WIDTH"] = width
        values[f"{name}_PGOFF"] = offset
        values[f"{name}_PGSHIFT"] = offset if width else 0
        values[f"{name}_MASK"] = (1 << width) - 1
    values["LAST_CPUPID_MASK"] = (1 << cpupid_shift) - 1  # wherever last_cpupid is kept
    # Zone and node are side by side, and together identify a zone.
    values["ZONEID_SHIFT"] = c.nodes_shift + zones_shift
    values["ZONEID_PGSHIFT"] = values["ZONES_PGOFF"]
    values["ZONEID_MASK"] = (1 << values["ZONEID_SHIFT"]) - 1

    values["NR_PAGEFLAGS"] = used
    values["PAGE_FLAGS_CHECK_AT_FREE"] = sum(1 << flags[n] for n in _CHECKED_AT_FREE if n in flags)
    values["PAGE_FLAGS_CHECK_AT_PREP"] = (1 << used) - 1
    values["__PG_MLOCKED"] = 1 << flags["PG_mlocked"]
    return values


def _limits(c: Config) -> dict[str, int]:
    zones = zone_type(c)["__MAX_NR_ZONES"]
    limits = {
        "MAX_NR_ZONES": zones,
        "MAX_NUMNODES": c.max_numnodes,
        "MAX_ZONELISTS": 2 if c.numa else 1,
        "MAX_ZONES_PER_ZONELIST": c.max_numnodes * zones,
        "NR_CPUS": c.nr_cpus,
        "HZ": c.hz,
    }
    return limits | {"TICKET_LOCK_INC": 1} if c.smp else limits


def _fixed() -> dict[str, int]:
    return {
        "PAGE_BUDDY_MAPCOUNT_VALUE": -128,  # in page->_mapcount of the head of a free block
        "PAGE_BALLOON_MAPCOUNT_VALUE": -256,
        "LIST_POISON1": POISON_POINTER_DELTA + 0x00100100,
        "LIST_POISON2": POISON_POINTER_DELTA + 0x00200200,
        "NUMA_NO_NODE": -1,
        "LOCAL_DISTANCE": 10,
        "RECLAIM_DISTANCE": 30,
        "PAGE_ALLOC_COSTLY_ORDER": 3,
        "DEF_PRIORITY": 12,
        "SWAP_CLUSTER_MAX": 32,
        "COMPACT_CLUSTER_MAX": 32,
        "PF_MEMALLOC": 0x800,
        # mm/internal.h
        "ALLOC_WMARK_MIN": 0,
        "ALLOC_WMARK_LOW": 1,
        "ALLOC_WMARK_HIGH": 2,
        "ALLOC_NO_WATERMARKS": 0x04,
        "ALLOC_HARDER": 0x10,
        "ALLOC_HIGH": 0x20,
        "ALLOC_CPUSET": 0x40,
        "ALLOC_CMA": 0x80,
        "ALLOC_FAIR": 0x100,
    }


def _sizes(sizes: dict[str, int]) -> dict[str, int]:
    tags = {
        "SIZEOF_STRUCT_PAGE": "page",
        "SIZEOF_STRUCT_ZONE": "zone",
        "SIZEOF_PGLIST_DATA": "pglist_data",
        "SIZEOF_MEM_SECTION": "mem_section",
        "SIZEOF_PER_CPU_PAGESET": "per_cpu_pageset",
        "SIZEOF_SPINLOCK": "spinlock",
    }
    return {name: sizes[tag] for name, tag in tags.items() if tag in sizes}

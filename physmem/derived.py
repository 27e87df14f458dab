# SPDX-License-Identifier: GPL-2.0-only
"""Facts of a kernel that follow from others: its release, and the macros that no type information has.

A layout that is read from the kernel itself has structs and enums, but macros only as far as VMCOREINFO repeats them.
The rest is computed as the headers compute it (include/linux/page-flags-layout.h, pageblock-flags.h, mmzone.h).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from physmem.structs.layout import Layout

if TYPE_CHECKING:
    from physmem.dump import Dump

__all__ = ["DERIVED", "release_of", "sublevel_of"]

_RELEASE = re.compile(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?", re.ASCII)

#: The release since which a kernel has this, latest first: for images that do not say which release it is.
_FEATURES: tuple[tuple[tuple[int, int], str, str], ...] = (
    ((7, 0), "page", "compound_info"),
    ((6, 12), "per_cpu_pages", "high_max"),
    ((5, 16), "folio", "page"),
    ((5, 14), "per_cpu_zonestat", "vm_stat_diff"),
    ((5, 9), "mem_section", "usage"),
    ((4, 14), "zone", "vm_numa_stat"),
    ((4, 8), "pglist_data", "vm_stat"),
    ((4, 6), "page", "_refcount"),
)


def release_of(info: Mapping[str, str], layout: Layout) -> tuple[int, int]:
    """Version and patchlevel of the kernel, by its name or else by what it has; 4.0 has none of what is looked for."""
    named = _RELEASE.match(info.get("OSRELEASE", ""))
    if named:
        return int(named[1]), int(named[2])
    return next((release for release, tag, field in _FEATURES if layout.has(tag, field)), (4, 0))


def sublevel_of(info: Mapping[str, str]) -> int:
    """What stable release the kernel is, by its name: 13 of 7.1.13; 0 if it does not say."""
    named = _RELEASE.match(info.get("OSRELEASE", ""))
    return int(named[3] or 0) if named else 0


def _section_shift(dump: Dump) -> int:
    return dump.layout.constant("SECTION_SIZE_BITS") - 12


def _pageblock_order(dump: Dump) -> int:
    """HUGETLB_PAGE_ORDER if there are huge pages, the largest order otherwise; since 6.10 THP are reason enough."""
    largest = dump.layout.constant("MAX_ORDER") - 1
    with_thp = dump.release >= (6, 10) and "transparent_hugepage_flags" in dump.symbols
    with_hugetlb = dump.layout.has("hstate", "order") or "hugetlb_max_hstate" in dump.symbols
    return min(9, largest) if with_hugetlb or with_thp else largest


def _pageblock_bits(dump: Dump) -> int:
    """NR_PAGEBLOCK_BITS: an enumerator, or since 6.17 the power of two that is not below one."""
    bits = dump.layout.enum("pageblock_bits")
    if "NR_PAGEBLOCK_BITS" in bits:
        return bits["NR_PAGEBLOCK_BITS"]
    return 1 << (dump.layout.enumerator("__NR_PAGEBLOCK_BITS") - 1).bit_length()


def _blockflags_bits(dump: Dump) -> int:
    shift = _section_shift(dump) - dump.layout.constant("pageblock_order")
    return dump.layout.constant("NR_PAGEBLOCK_BITS") << shift


def _nodes_width(dump: Dump) -> int:
    count = dump.layout.constants.get("MAX_NUMNODES", 1)
    return (count - 1).bit_length()


def _zones_width(dump: Dump) -> int:
    return (dump.layout.enumerator("__MAX_NR_ZONES") - 1).bit_length()


def _nodes_shift(dump: Dump) -> int:
    # From the top: section (which a virtual memory map does not need), node, zone.
    width = _nodes_width(dump)
    return 64 - width if width else 0


def _zones_shift(dump: Dump) -> int:
    width = _zones_width(dump)
    return 64 - _nodes_width(dump) - width if width else 0


def _checked_at_prep(dump: Dump) -> int:
    """PAGE_FLAGS_CHECK_AT_PREP, without what a free page may have: hwpoison (since 4.8), reported (since 5.7)."""
    flags = dump.layout.enum("pageflags")
    allowed = (1 << flags[name] for name in ("PG_hwpoison", "PG_reported") if name in flags)
    return (1 << dump.layout.constant("NR_PAGEFLAGS")) - 1 & ~sum(allowed)


#: Macros, and how they follow.
DERIVED: dict[str, Callable[[Dump], int]] = {
    "PAGE_SHIFT": lambda dump: 12,
    "PAGE_OFFSET": lambda dump: dump.regions.page_offset,
    "VMEMMAP_START": lambda dump: dump.regions.vmemmap,
    "__START_KERNEL_map": lambda dump: dump.regions.start_kernel_map,
    "MAX_PHYSMEM_BITS": lambda dump: 52 if dump.regions.levels == 5 else 46,
    "PFN_SECTION_SHIFT": _section_shift,
    "PAGES_PER_SECTION": lambda dump: 1 << _section_shift(dump),
    "SECTIONS_PER_ROOT": lambda dump: 4096 // dump.layout.sizeof("mem_section"),
    "SECTION_MARKED_PRESENT": lambda dump: 1 << 0,
    "SECTION_HAS_MEM_MAP": lambda dump: 1 << 1,
    "SECTION_BLOCKFLAGS_BITS": _blockflags_bits,
    "MAX_ORDER": lambda dump: dump.layout.lengthof("zone", "free_area"),
    "pageblock_order": _pageblock_order,
    "NR_PAGEBLOCK_BITS": _pageblock_bits,
    "NODES_WIDTH": _nodes_width,
    "NODES_PGSHIFT": _nodes_shift,
    "NODES_MASK": lambda dump: (1 << _nodes_width(dump)) - 1,
    "ZONES_WIDTH": _zones_width,
    "ZONES_PGSHIFT": _zones_shift,
    "ZONES_MASK": lambda dump: (1 << _zones_width(dump)) - 1,
    "NR_PAGEFLAGS": lambda dump: dump.layout.enumerator("__NR_PAGEFLAGS"),
    "PAGE_FLAGS_CHECK_AT_PREP": _checked_at_prep,
}

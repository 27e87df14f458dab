# SPDX-License-Identifier: GPL-2.0-only
"""What the numbers of a layout may be at most.

A layout can come from a file that anybody wrote, or from a memory image: a number
in it must not decide how much memory a reader takes, or how long it loops.
"""

from __future__ import annotations

from physmem.errors import LayoutError
from physmem.structs.btf_layout import LazyLayout
from physmem.structs.field import MAX_STRUCT, StructLayout
from physmem.structs.layout import Layout

__all__ = ["check_bounds", "check_struct"]

_CONSTANTS = {
    "PAGE_SHIFT": (12, 12),
    "MAX_PHYSMEM_BITS": (32, 52),
    "MAX_PHYSADDR_BITS": (32, 52),
    "SECTION_SIZE_BITS": (21, 34),
    "PFN_SECTION_SHIFT": (9, 22),
    "PAGES_PER_SECTION": (1 << 9, 1 << 22),
    "SECTIONS_PER_ROOT": (1, 4096),
    "NR_SECTION_ROOTS": (1, 1 << 31),
    "NR_MEM_SECTIONS": (1, 1 << 31),
    "SECTION_BLOCKFLAGS_BITS": (1, 1 << 16),
    "MAX_ORDER": (1, 32),
    "pageblock_order": (0, 31),
    "MAX_NUMNODES": (1, 1 << 10),
    "MAX_NR_ZONES": (1, 8),
    "NR_CPUS": (1, 1 << 16),
}
"""Lowest and highest value: those of any kernel for x86-64, and somewhat more."""

_SIZES = {
    "page": (32, 256),
    "zone": (64, 1 << 16),
    "mem_section": (8, 64),
    "free_area": (16, 1 << 12),
    "list_head": (16, 16),
}
"""The same for the bytes of structs."""

_LENGTHS = {
    "zone": {"free_area": 32, "watermark": 8, "_watermark": 8, "lowmem_reserve": 8, "vm_stat": 1 << 10},
    "free_area": {"free_list": 16},
    "pglist_data": {"node_zones": 8, "node_zonelists": 8, "vm_stat": 1 << 10},
    "per_cpu_pages": {"lists": 1 << 8},
    "per_cpu_pageset": {"pcp.lists": 1 << 8, "vm_stat_diff": 1 << 10},
}
"""How many elements arrays may have."""


def check_bounds(layout: Layout) -> None:
    """Refuse a layout whose numbers cannot be those of a kernel for x86-64.

    Of a layout that is read piece by piece, the structs are for :func:`check_struct` to look at.

    :raises LayoutError: naming the number
    """
    for name, (low, high) in _CONSTANTS.items():
        value = layout.constants.get(name, low)
        if not low <= value <= high:
            raise LayoutError(f"{layout.source}: {name} is {value:#x}: expected {low} to {high}")
    if not isinstance(layout, LazyLayout):
        for struct in layout.structs.values():
            check_struct(struct, layout.source)


def check_struct(struct: StructLayout, source: str) -> StructLayout:
    """The struct, if its numbers can be those of a kernel for x86-64; LayoutError if not."""
    low, high = _SIZES.get(struct.name, (0, MAX_STRUCT))
    if struct.size is not None and not low <= struct.size <= high:
        raise LayoutError(f"{source}: struct {struct.name} of {struct.size} bytes: expected {low} to {high}")
    for name, most in _LENGTHS.get(struct.name, {}).items():
        f = struct.fields.get(name)
        if f is not None and f.count > most:
            raise LayoutError(f"{source}: struct {struct.name}.{name} has {f.count} elements: at most {most} are read")
    return struct

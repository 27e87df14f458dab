# SPDX-License-Identifier: GPL-2.0-only
"""What is at an address that leads nowhere: the map of the kernel's half, and what is between its regions.

Facts: Documentation/x86/x86_64/mm.txt of Linux 4.0, Documentation/arch/x86/x86_64/mm.rst later.
"""

from __future__ import annotations

from typing import NamedTuple

from physmem.dump import Dump
from physmem.inspect.explain.models import VMEMMAP, own_model

__all__ = ["Named", "non_canonical", "region_map", "where"]

NOT_CANONICAL = "not canonical"
VMALLOC = "vmalloc area"

_TOP = 1 << 64
_VMALLOC_SIZE = {4: 32 << 40, 5: 12800 << 40}
_MODULES_END = 0xFFFFFFFFFF000000
_VSYSCALL = 0xFFFFFFFFFF600000


class Named(NamedTuple):
    """A region of virtual addresses, [start, end)."""

    name: str
    start: int
    end: int

    def __contains__(self, va: object) -> bool:
        return isinstance(va, int) and self.start <= va < self.end


def region_map(dump: Dump) -> list[Named]:
    """The regions of this kernel's address space that are known, in order; what is between them is not used."""
    regions = dump.regions
    half = 1 << (9 * regions.levels + 11)
    pages = regions.direct_map_size >> 12
    image_end = regions.start_kernel_map + regions.kernel_image_size
    found = [
        Named("user half", 0, half),
        Named(NOT_CANONICAL, half, _TOP - half),
        Named("direct map", regions.page_offset, regions.page_offset + regions.direct_map_size),
        Named("kernel image", regions.start_kernel_map, image_end),
        Named("modules", image_end, _MODULES_END),
        Named("fixmap and vsyscall", _MODULES_END, _VSYSCALL + (2 << 20)),
    ]
    if own_model(dump) == VMEMMAP:
        found.append(Named("page array (vmemmap)", regions.vmemmap, regions.vmemmap + pages * dump.sizeof_page))
    start = dump.layout.constants.get("VMALLOC_START")
    if start is None and "vmalloc_base" in dump.symbols:
        start = dump.u64(dump.symbols["vmalloc_base"])
    if start is not None:
        end = dump.layout.constants.get("VMALLOC_END", start + _VMALLOC_SIZE[regions.levels] - 1) + 1
        if end <= regions.vmemmap or start > regions.vmemmap:
            found.append(Named(VMALLOC, start, end))
        else:
            found.append(Named(VMALLOC, start, regions.vmemmap))
    return sorted(found, key=lambda each: each.start)


def where(dump: Dump, va: int) -> tuple[Named, str]:
    """The region an address is in (or the hole that it is in), and that in words."""
    before = Named("the lowest address", 0, 0)
    for region in region_map(dump):
        if va in region and region.name == NOT_CANONICAL:
            return region, "between the two halves of the address space, where no address is"
        if va in region:
            return region, f"in the {region.name}, {va - region.start:#x} bytes from its start {region.start:#x}"
        if va < region.start:
            hole = Named("hole", before.end, region.start)
            after = (
                "addresses that are not canonical end" if before.name == NOT_CANONICAL else f"the {before.name} ends"
            )
            return hole, f"in a hole: after {after} at {before.end:#x}, before the {region.name}"
        before = region
    return Named("hole", before.end, _TOP), f"above the {before.name}, where nothing is"


def non_canonical(va: int, levels: int) -> str:
    """Why an address is not canonical, and the two that it may be meant to be."""
    top = 9 * levels + 11
    low = va & (1 << top + 1) - 1
    bit = va >> top & 1
    extended = low | (_TOP - (1 << top + 1)) if bit else low
    above = va >> (top + 1)
    want = (1 << 63 - top) - 1 if bit else 0
    differing = [str(top + 1 + i) for i in reversed(range(63 - top)) if (above ^ want) >> i & 1]
    shown = ", ".join(differing[:6]) + (", ..." if len(differing) > 6 else "")
    which = f"bits {shown} differ" if len(differing) > 1 else f"bit {shown} differs"
    return (
        f"bits 63 to {top + 1} must all equal bit {top}, which is {bit}; {which}. "
        f"The processor faults before it looks at any table. With these bits mended it is {extended:#018x}"
    )

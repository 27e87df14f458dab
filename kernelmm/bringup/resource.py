# SPDX-License-Identifier: GPL-2.0-only
"""The tree behind /proc/iomem: what is where among physical addresses (kernel/resource.c, arch/x86/kernel/e820.c).

Our machines have no devices, so the firmware's memory map and the kernel's own image are all that is in it.
"""

from __future__ import annotations

from kernelmm.bringup.kernel import Kernel
from kernelmm.bringup.linker import RESOURCE_NAMES
from kernelmm.bringup.memblock import Memblock
from physmem.e820 import Kind, MemoryMap, Region
from physmem.ranges import Ranges

__all__ = ["e820_reserve_resources", "insert_resource"]

IORESOURCE_MEM = 0x200
IORESOURCE_BUSY = 0x80000000

_PAGE_SIZE = 4096
_BIOS = (640 << 10, 1 << 20)
_MIB = 1 << 20

#: What e820_type_to_string calls them.
_NAMES = {
    Kind.RAM: "System RAM",
    Kind.RESERVED: "reserved",
    Kind.ACPI: "ACPI Tables",
    Kind.NVS: "ACPI Non-volatile Storage",
    Kind.UNUSABLE: "Unusable memory",
}
#: Parts of the image, and the symbols between which they are.
_IMAGE = {
    "code_resource": ("Kernel code", "_text", "_etext"),
    "data_resource": ("Kernel data", "_etext", "_edata"),
    "bss_resource": ("Kernel bss", "__bss_start", "__bss_stop"),
}


def e820_reserve_resources(kernel: Kernel, memblock: Memblock, memory: MemoryMap) -> None:
    """``e820_reserve_resources``, with what setup_arch does before it and e820_reserve_resources_late after it.

    :raises UsageError: there is no memory for the tree
    """
    root = kernel.symbols["iomem_resource"]
    end = (1 << kernel.layout.constant("MAX_PHYSMEM_BITS")) - 1
    _set(kernel, root, "PCI mem", 0, end, IORESOURCE_MEM)
    for symbol, (name, first, behind) in _IMAGE.items():
        start, end = (kernel.phys(kernel.symbols[each]) for each in (first, behind))
        _set(kernel, kernel.symbols[symbol], name, start, end - 1, IORESOURCE_MEM | IORESOURCE_BUSY)
        insert_resource(kernel, root, kernel.symbols[symbol])
    regions = sanitized(memory)
    size = kernel.layout.sizeof("resource")
    array = kernel.va(memblock.alloc(size * len(regions), what="the tree of physical addresses"))
    for at, region in zip(range(array, array + size * len(regions), size), regions, strict=True):
        busy = region.kind is not Kind.RESERVED or region.start < _MIB
        flags = IORESOURCE_MEM | (IORESOURCE_BUSY if busy else 0)
        _set(kernel, at, _NAMES[region.kind], region.start, region.end - 1, flags)
        insert_resource(kernel, root, at)


def sanitized(memory: MemoryMap) -> list[Region]:
    """The map as setup_arch leaves it: page 0 is reserved, and where the BIOS is there is no RAM (trim_bios_range)."""
    ram = Ranges((region.start, region.end) for region in memory.regions if region.kind is Kind.RAM)
    regions = [region for region in memory.regions if region.kind is not Kind.RAM]
    first = ram & Ranges([(0, _PAGE_SIZE)])
    regions += [Region(start, end, Kind.RESERVED) for start, end in first]
    regions += [Region(start, end, Kind.RAM) for start, end in ram - first - Ranges([_BIOS])]
    return sorted(regions, key=lambda region: region.start)


def insert_resource(kernel: Kernel, parent: int, new: int) -> bool:
    """``insert_resource``: put a resource into the tree below ``parent``, and into it those that it covers.

    :return: whether it could be: it overlaps none in part
    """
    start, end = _range(kernel, new)
    while True:
        before, first = 0, kernel.get(parent, "resource.child")
        while first and _range(kernel, first)[1] < start:
            before, first = first, kernel.get(first, "resource.sibling")
        if not first or end < _range(kernel, first)[0]:
            last = 0
            break
        low, high = _range(kernel, first)
        if low <= start and end <= high and (low, high) != (start, end):
            parent = first
            continue
        last = first
        while (after := kernel.get(last, "resource.sibling")) and _range(kernel, after)[0] <= end:
            last = after
        if low < start or end < _range(kernel, last)[1]:
            return False
        break
    behind = first
    if last:
        behind = kernel.get(last, "resource.sibling")
        kernel.set(last, "resource.sibling", 0)
        kernel.set(new, "resource.child", first)
        inner = first
        while inner:
            kernel.set(inner, "resource.parent", new)
            inner = kernel.get(inner, "resource.sibling")
    kernel.set(new, "resource.parent", parent)
    kernel.set(new, "resource.sibling", behind)
    if before:
        kernel.set(before, "resource.sibling", new)
    else:
        kernel.set(parent, "resource.child", new)
    return True


def _range(kernel: Kernel, at: int) -> tuple[int, int]:
    return kernel.get(at, "resource.start"), kernel.get(at, "resource.end")


def _set(kernel: Kernel, at: int, name: str, start: int, end: int, flags: int) -> None:
    values = {"start": start, "end": end, "name": kernel.symbols[RESOURCE_NAMES[name]], "flags": flags}
    for field, value in values.items():
        kernel.set(at, f"resource.{field}", value)

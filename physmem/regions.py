# SPDX-License-Identifier: GPL-2.0-only
"""Where a kernel has its regions of virtual memory, and how they map to physical memory.

Three regions of x86-64 Linux are mapped by a subtraction: the direct map (from
PAGE_OFFSET), the kernel's image (from __START_KERNEL_map, moved by phys_base) and,
by pages of its own, the page array (from vmemmap).  Their places were constants
once.  They depend on the number of page table levels (since 4.14), and on chance:
KASLR moves the image (since 3.14) and the other two (since 4.8).  So they are read
from where the kernel itself has them: VMCOREINFO, or variables in its image.
Facts: Documentation/arch/x86/x86_64/mm.rst, arch/x86/mm/kaslr.c, page_64_types.h.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from physmem import paging
from physmem.errors import AbsentError, AddressError, CorruptionError, LayoutError, SymbolError
from physmem.image import VmcoreInfo
from physmem.memory import PhysicalMemory
from physmem.ranges import Ranges
from physmem.structs.layout import Layout

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    from physmem.later import np

__all__ = ["KERNEL_IMAGE_SIZE", "START_KERNEL_MAP", "KernelImage", "PageTables", "Regions"]

START_KERNEL_MAP = 0xFFFFFFFF80000000
#: KERNEL_IMAGE_SIZE of a kernel without KASLR: modules are mapped from there on.
KERNEL_IMAGE_SIZE = 512 << 20

#: PAGE_OFFSET of kernels that do not move it: 4 levels since 4.20 and before, 5 levels likewise.
_PAGE_OFFSETS = {4: (0xFFFF888000000000, 0xFFFF880000000000), 5: (0xFF11000000000000, 0xFF10000000000000)}
_VMEMMAP = {4: 0xFFFFEA0000000000, 5: 0xFFD4000000000000}
#: MAX_PHYSMEM_BITS of kernels that do not tell it.
_PHYSMEM_BITS = {4: 46, 5: 52}
#: Kernels are loaded at multiples of this (CONFIG_PHYSICAL_ALIGN).
_ALIGN = 1 << 21


@dataclass(frozen=True)
class KernelImage:
    """The kernel's text and data, as they are mapped from ``start`` on.

    :ivar phys_base: physical address that ``start`` would map; negative if KASLR moved the image down
    :ivar size: bytes of the region; modules begin above
    """

    memory: PhysicalMemory
    start: int
    phys_base: int
    size: int

    @classmethod
    def of(cls, info: VmcoreInfo, symbols: Mapping[str, int], layout: Layout, memory: PhysicalMemory) -> KernelImage:
        """Find out.

        :raises SymbolError: phys_base is not in VMCOREINFO, and neither is the variable's address
        :raises LayoutError: VMCOREINFO is malformed, or no page of the image holds its own phys_base
        """
        start = layout.constants.get("__START_KERNEL_map", START_KERNEL_MAP)
        size = info.number("KERNEL_IMAGE_SIZE") if "NUMBER(KERNEL_IMAGE_SIZE)" in info else KERNEL_IMAGE_SIZE
        if "NUMBER(phys_base)" in info:
            return cls(memory, start, info.number("phys_base"), size)
        return cls(memory, start, _find_phys_base(symbols["phys_base"] - start, memory), size)

    def __contains__(self, va: int) -> bool:
        return self.start <= va < self.start + self.size

    def phys(self, va: int) -> int:
        """Physical address behind an address of the image; AddressError if there is none."""
        phys = va - self.start + self.phys_base
        if va not in self or phys < 0:
            raise AddressError(va, "not in the kernel's image")
        return phys

    def read(self, va: int, size: int) -> bytes:
        """``size`` bytes of the image; AddressError, AbsentError."""
        return self.memory.read(self.phys(va), size)

    def read_present(self, va: int, size: int) -> bytes:
        """The first of ``size`` bytes of the image, as many as there are before something is absent; AddressError."""
        phys = self.phys(va)
        gap = self.memory.ranges.first_gap(phys, phys + size)
        return self.memory.read(phys, size if gap is None else gap - phys)

    def u64(self, va: int) -> int:
        """A ``u64`` of the image; AddressError, AbsentError."""
        return self.memory.u64(self.phys(va))


def _find_phys_base(at: int, memory: PhysicalMemory) -> int:
    """The variable phys_base, ``at`` bytes into the image, through itself: it is right where it says it is."""
    if at >= 0 and memory.ranges.covers(at, at + 8) and memory.u64(at) == 0:
        return 0
    for start, end in memory.ranges:
        first = -(-(start - at) // _ALIGN) * _ALIGN if start > at else 0
        for base in range(first, end - at - 7, _ALIGN):
            if memory.u64(at + base) == base:
                return base
    raise LayoutError("phys_base is not found: no page of the image holds its own offset")


class PageTables:
    """Physical memory for who walks page tables: entries are read without the bit that says "encrypted" (AMD SME).

    :param mask: that bit
    """

    def __init__(self, memory: PhysicalMemory, mask: int) -> None:
        self._memory = memory
        self._keep = ~mask & (1 << 64) - 1

    @property
    def ranges(self) -> Ranges:
        return self._memory.ranges

    @property
    def size(self) -> int:
        return self._memory.size

    def read(self, phys: int, size: int) -> bytes:
        """Whole entries."""
        entries = memoryview(self._memory.read(phys, size)).cast("Q")
        return array("Q", (entry & self._keep for entry in entries)).tobytes()

    def u64(self, phys: int) -> int:
        return self._memory.u64(phys) & self._keep

    def array(self, phys: int, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = self._memory.array(phys, dtype, count) & np.uint64(self._keep)
        return found


@dataclass(frozen=True)
class Regions:
    """The address space of a kernel.

    :ivar image: the kernel's image
    :ivar levels: of the page tables: 4 or 5
    :ivar pgd: physical address of the top page table
    :ivar sme_mask: the bit of page table entries that says that a page is encrypted; 0 if the machine does not do it
    :ivar page_offset: PAGE_OFFSET, where the direct map begins
    :ivar direct_map_size: its bytes, as far as it may reach
    :ivar vmemmap: where the page array begins, as long as it is virtually contiguous
    """

    image: KernelImage
    levels: int
    pgd: int
    sme_mask: int
    page_offset: int
    direct_map_size: int
    vmemmap: int

    @property
    def start_kernel_map(self) -> int:
        """__START_KERNEL_map."""
        return self.image.start

    @property
    def phys_base(self) -> int:
        """Physical address that __START_KERNEL_map would map."""
        return self.image.phys_base

    @property
    def kernel_image_size(self) -> int:
        """KERNEL_IMAGE_SIZE, bytes."""
        return self.image.size

    @classmethod
    def of(cls, info: VmcoreInfo, symbols: Mapping[str, int], layout: Layout, memory: PhysicalMemory) -> Regions:
        """Find out.

        :raises SymbolError: no symbol tells where the kernel's page tables are
        :raises LayoutError: VMCOREINFO is malformed, or a number in it or in the layout cannot be
        :raises CorruptionError: a variable of the kernel has a value that it cannot have
        :raises AbsentError: such a variable is not in the image
        """
        image = KernelImage.of(info, symbols, layout, memory)
        levels = 5 if "NUMBER(pgtable_l5_enabled)" in info and info.number("pgtable_l5_enabled") else 4
        sme_mask = info.number("sme_mask") if "NUMBER(sme_mask)" in info else 0
        pgd = _pgd(symbols, image) & ~sme_mask
        tables = PageTables(memory, sme_mask) if sme_mask else memory
        page_offset = _variable("page_offset_base", symbols, image)
        if page_offset is None:
            page_offset = layout.constants.get("PAGE_OFFSET")
        if page_offset is None:
            page_offset = _find_page_offset(tables, pgd, levels, image.phys(info.symbol("_stext")))
        vmemmap = info.symbol("vmemmap") if "SYMBOL(vmemmap)" in info else _variable("vmemmap_base", symbols, image)
        if vmemmap is None:
            vmemmap = layout.constants.get("VMEMMAP_START", _VMEMMAP[levels])
        size = 1 << layout.constants.get("MAX_PHYSMEM_BITS", _PHYSMEM_BITS[levels])
        vmalloc = info.number("VMALLOC_START") if "NUMBER(VMALLOC_START)" in info else None
        if vmalloc is None:
            vmalloc = _variable("vmalloc_base", symbols, image)
        if vmalloc is not None and vmalloc > page_offset:
            # Where regions are moved, they are as close together as the machine's memory allows.
            size = min(size, vmalloc - page_offset)
        return cls(image, levels, pgd, sme_mask, page_offset, size, vmemmap)

    def linear(self, va: int) -> int | None:
        """Physical address behind an address of the image or the direct map; None if it is in neither."""
        if va in self.image:
            return self.image.phys(va)
        if self.page_offset <= va < self.page_offset + self.direct_map_size:
            return va - self.page_offset
        return None


def _pgd(symbols: Mapping[str, int], image: KernelImage) -> int:
    for name in ("swapper_pg_dir", "init_level4_pgt", "init_top_pgt"):
        if name in symbols:
            return image.phys(symbols[name])
    raise SymbolError("no symbol tells where the kernel's page tables are")


def _variable(name: str, symbols: Mapping[str, int], image: KernelImage) -> int | None:
    """The kernel's variable with the address where a region begins; None if it has none."""
    if name not in symbols:
        return None
    value = image.u64(symbols[name])
    if value % (1 << 30) or not paging.is_canonical(value, 5) or value >> 63 == 0:
        raise CorruptionError(name, f"{value:#x}: not where a region of the kernel can begin")
    return value


def _find_page_offset(tables: PhysicalMemory, pgd: int, levels: int, known: int) -> int:
    """Of the places where the direct map is in kernels that do not move it, the one that maps ``known`` to itself."""
    for candidate in _PAGE_OFFSETS[levels]:
        try:
            if paging.walk(tables, pgd, candidate + known, levels).phys == known:
                return candidate
        except AbsentError:
            continue
    raise LayoutError("PAGE_OFFSET is unknown: no page table is there for any place of the direct map")

# SPDX-License-Identifier: GPL-2.0-only
"""CMA areas (mm/cma.c): memory for contiguous allocations, lent to movable pages meanwhile.

``area`` is a ``struct cma *``; which of its pages are allocated is in its bitmap, a bit for 2^order_per_bit pages.
"""

from __future__ import annotations

import errno

from kernelmm.bringup.kernel import Kernel
from kernelmm.pressure import contig
from physmem import address
from physmem.errors import UsageError

__all__ = ["cma_alloc", "cma_areas", "cma_release"]


def cma_areas(kernel: Kernel) -> list[int]:
    """The machine's CMA areas."""
    if "cma_areas" not in kernel.symbols or not kernel.layout.has("cma"):
        return []
    size = kernel.layout.sizeof("cma")
    return [kernel.symbols["cma_areas"] + i * size for i in range(kernel.var("cma_area_count"))]


class Bitmap:
    """``cma->bitmap``, in memory."""

    def __init__(self, kernel: Kernel, area: int) -> None:
        self.mm = kernel.mm
        self.at = address.off(self.mm, kernel.get(area, "cma.bitmap"))
        self.bits = kernel.get(area, "cma.count") >> kernel.get(area, "cma.order_per_bit")

    def test(self, bit: int) -> bool:
        """Whether a bit is set."""
        return bool(self.mm.as_u64[(self.at >> 3) + bit // 64] >> bit % 64 & 1)

    def fill(self, first: int, count: int, on: bool) -> None:
        """``bitmap_set``, ``bitmap_clear``."""
        for bit in range(first, first + count):
            at = (self.at >> 3) + bit // 64
            self.mm.as_u64[at] = self.mm.as_u64[at] | 1 << bit % 64 if on else self.mm.as_u64[at] & ~(1 << bit % 64)

    def find(self, start: int, count: int, mask: int, offset: int) -> int:
        """``bitmap_find_next_zero_area_off``: an aligned run of clear bits; :attr:`bits` or more: there is none."""
        while True:
            while start < self.bits and self.test(start):
                start += 1
            index = (start + offset + mask & ~mask) - offset
            if index + count > self.bits:
                return index + count if index + count > index else self.bits
            taken = next((bit for bit in range(index, index + count) if self.test(bit)), None)
            if taken is None:
                return index
            start = taken + 1


def cma_alloc(kernel: Kernel, area: int, count: int, align: int = 0) -> int:
    """``cma_alloc``: ``count`` adjacent pages, aligned to 2^align pages; ``struct page *`` of the first, or 0.

    A place where a page does not move is passed over.
    """
    base, per_bit = kernel.get(area, "cma.base_pfn"), kernel.get(area, "cma.order_per_bit")
    if count <= 0 or not kernel.get(area, "cma.count"):
        return 0
    mask = (1 << max(align - per_bit, 0)) - 1
    offset = (-base % (1 << align)) >> per_bit if align > per_bit else 0
    bitmap = Bitmap(kernel, area)
    bits = -(-count // (1 << per_bit))
    start = 0
    while True:
        first = bitmap.find(start, bits, mask, offset)
        if first + bits > bitmap.bits:
            return 0
        bitmap.fill(first, bits, True)
        pfn = base + (first << per_bit)
        result = contig.alloc_contig_range(kernel.mm, pfn, pfn + count, kernel.mm.migrate_cma)
        if result == 0:
            return int(address.pfn_to_page(kernel.mm, pfn))
        bitmap.fill(first, bits, False)
        if result != -errno.EBUSY:
            return 0
        start = first + mask + 1


def cma_release(kernel: Kernel, area: int, page: int, count: int) -> bool:
    """``cma_release``: give pages back that :func:`cma_alloc` gave; False if they are not the area's.

    :raises UsageError: the pages leave the area
    """
    base, pages = kernel.get(area, "cma.base_pfn"), kernel.get(area, "cma.count")
    pfn = address.page_to_pfn(kernel.mm, page)
    if not base <= pfn < base + pages:
        return False
    if pfn + count > base + pages:
        raise UsageError(f"cma_release: {count} pages from pfn {pfn} leave the area, which ends at {base + pages}")
    contig.free_contig_range(kernel.mm, pfn, count)
    per_bit = kernel.get(area, "cma.order_per_bit")
    Bitmap(kernel, area).fill((pfn - base) >> per_bit, -(-count // (1 << per_bit)), False)
    return True

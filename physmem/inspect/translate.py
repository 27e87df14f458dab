# SPDX-License-Identifier: GPL-2.0-only
"""From a kernel address to physical memory: by the region it is in, and by the page tables, step by step."""

from __future__ import annotations

from dataclasses import dataclass

from physmem import paging
from physmem.dump import Dump
from physmem.errors import AbsentError
from physmem.inspect.what import Region, region_of

__all__ = ["Translation", "translate"]


@dataclass(frozen=True)
class Translation:
    """What became of an address.

    :ivar steps: the page table entries read, from the top
    :ivar problem: why the last of them is the last, if that is not because it maps the address; else None
    :ivar walked: the physical address that the page tables lead to, or None
    :ivar page_size: bytes of the page that maps it, or 0
    :ivar region: the region of the address
    :ivar by_region: the physical address by subtraction, where the region has a fixed place; else None
    :ivar phys: the physical address, from the page tables or else by the region; None if it is not known
    :ivar pfn: the page frame that it is in, or None
    :ivar page: kernel address of the ``struct page`` of that, where it is or would be, or None
    """

    va: int
    steps: tuple[paging.Step, ...]
    problem: str | None
    walked: int | None
    page_size: int
    region: Region
    by_region: int | None
    phys: int | None
    pfn: int | None
    page: int | None


def translate(dump: Dump, va: int) -> Translation:
    """Translate an address both ways.

    :raises AddressError: it is not canonical
    """
    region = region_of(dump, va)
    by_region = None if region is Region.STRUCT_PAGE else dump.regions.linear(va)
    steps: list[paging.Step] = []
    problem = walked = None
    page_size = 0
    try:
        for step in dump.steps(va):
            steps.append(step)
    except AbsentError as error:
        problem = str(error)
    else:
        last = steps[-1]
        if last.is_present:
            walked, page_size = last.physical(va), 1 << last.shift
        else:
            problem = f"the {last.level} entry is not present"
    phys = by_region if walked is None else walked
    pfn = None if phys is None else phys >> dump.layout.constant("PAGE_SHIFT")
    page = None if pfn is None else dump.page_of(pfn)
    return Translation(va, tuple(steps), problem, walked, page_size, region, by_region, phys, pfn, page)

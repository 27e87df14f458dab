# SPDX-License-Identifier: GPL-2.0-only
"""The ways to name a page: addresses of every kind, PFNs, physical addresses.

===========================================  ==================================================
``ffffea0000140000``, ``0xffffea0000140000``  a kernel address: of a ``struct page``, in the direct
                                              map, in the kernel image, or mapped by page tables
``pfn:5000``, ``pfn:0x1388``                  a page frame number, decimal or hexadecimal
``phys:0x5000000``, ``phys:5000000``          a physical address, hexadecimal
===========================================  ==================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from physmem.dump import Dump
from physmem.errors import UsageError
from physmem.memory_model import MemoryModel

__all__ = ["Place", "Region", "What", "locate", "parse_address", "parse_what", "region_of"]

_HEX = re.compile(r"(?:0[xX])?([0-9a-fA-F]{1,16})", re.ASCII)
_DECIMAL = re.compile(r"[0-9]{1,20}", re.ASCII)


class Region(Enum):
    """A region of the kernel's address space, or another way to reach a page; its value is what to call it."""

    STRUCT_PAGE = "struct page"
    DIRECT_MAP = "direct map"
    KERNEL_IMAGE = "kernel image"
    PAGE_TABLES = "page tables"
    PHYSICAL = "physical address"
    PFN = "page frame number"


class What(NamedTuple):
    """What somebody asked for: PFN, PHYSICAL, or another region for a kernel address that is yet to be looked up."""

    kind: Region
    value: int


@dataclass(frozen=True)
class Place:
    """A page, and how it was named.

    :ivar region: what kind of address it was
    :ivar value: the number given
    :ivar offset: bytes from the beginning of the page, or of the ``struct page`` that was named
    """

    region: Region
    value: int
    pfn: int
    offset: int


def parse_what(text: str) -> What:
    """Read one of the forms above.

    :raises UsageError: it is none of them
    """
    kind, colon, number = text.partition(":")
    if not colon:
        return What(Region.PAGE_TABLES, parse_address(text))
    if kind == "phys":
        return What(Region.PHYSICAL, parse_address(number))
    if kind != "pfn":
        raise UsageError(f"{text!r}: expected an address, pfn:NUMBER or phys:ADDRESS")
    if number[:2] in ("0x", "0X"):
        return What(Region.PFN, parse_address(number))
    if not _DECIMAL.fullmatch(number):
        raise UsageError(f"{text!r}: {number!r} is no number, decimal or 0x...")
    return What(Region.PFN, int(number))


def parse_address(text: str) -> int:
    """A hexadecimal number of 64 bits, with or without ``0x``; raises UsageError."""
    match = _HEX.fullmatch(text)
    if not match:
        raise UsageError(f"{text!r}: not an address: expected up to 16 hexadecimal digits")
    return int(match[1], 16)


def region_of(dump: Dump, va: int) -> Region:
    """The region that a kernel address is in; PAGE_TABLES if it is in none that has a fixed place."""
    if struct_page(dump, va) is not None:
        return Region.STRUCT_PAGE
    if va in dump.regions.image:
        return Region.KERNEL_IMAGE
    return Region.PAGE_TABLES if dump.regions.linear(va) is None else Region.DIRECT_MAP


def struct_page(dump: Dump, va: int) -> tuple[int, int] | None:
    """The PFN whose ``struct page`` a kernel address is in, and how far; None if it is not in the page array."""
    size = dump.sizeof_page
    if dump.model is MemoryModel.SPARSEMEM_VMEMMAP:
        # All of the region that is there for it, whether the machine has so much memory or not.
        pages = dump.regions.direct_map_size >> dump.layout.constant("PAGE_SHIFT")
        return divmod(va - dump.mem_map, size) if 0 <= va - dump.mem_map < pages * size else None
    # In the direct map, an array begins at any address that is aligned to a cache line.
    rest = (va - (dump.mem_map if dump.model is MemoryModel.FLATMEM else dump.page_offset)) % size
    pfn = dump.page_map.pfn(va - rest)
    return None if pfn < 0 else (pfn, rest)


def locate(dump: Dump, what: What) -> Place:
    """The page that is meant.

    :raises AddressError: a kernel address that is not mapped
    :raises AbsentError: the page tables that map it are not in the image
    :raises UsageError: a PFN or physical address beyond what a machine can have
    """
    shift = dump.layout.constant("PAGE_SHIFT")
    bits = dump.layout.constant("MAX_PHYSMEM_BITS")
    region, value = what
    if region is Region.PFN:
        phys = value << shift
    elif region is Region.PHYSICAL:
        phys = value
    else:
        region = region_of(dump, value)
        if region is Region.STRUCT_PAGE:
            return Place(region, value, *(struct_page(dump, value) or (0, 0)))
        phys = dump.virt_to_phys(value)
    if phys >> bits:
        raise UsageError(f"{region.value} {value:#x}: beyond physical memory of {bits} bits")
    return Place(region, value, phys >> shift, phys & ((1 << shift) - 1))

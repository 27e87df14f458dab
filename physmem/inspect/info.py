# SPDX-License-Identifier: GPL-2.0-only
"""What an image is: its format, its kernel, how it is understood, and what of the machine is in it."""

from __future__ import annotations

from dataclasses import dataclass

from physmem.dump import Dump
from physmem.errors import AbsentError, SymbolError
from physmem.inspect.cpus import online_cpus
from physmem.inspect.memmap import PageArray
from physmem.inspect.zones import Node, nodes
from physmem.ranges import Ranges

__all__ = ["Info", "info"]


@dataclass(frozen=True)
class Info:
    """An image in a few numbers.  Addresses and sizes are bytes, unless they are called pages.

    :ivar release: of the kernel, as ``uname -r`` prints it; None if the image does not say
    :ivar layout: where struct layouts were learnt
    :ivar symbols: where addresses of variables were learnt
    :ivar memory_model: how the kernel keeps its page array
    :ivar ranges: the physical addresses that are in the image
    :ivar pages: page frames that the zones span
    :ivar absent: those of them that are not in the image
    :ivar struct_pages: PFNs that have a ``struct page``
    :ivar absent_struct_pages: those whose ``struct page`` is not in the image
    :ivar cpus: the CPUs that are online; None if the image does not say
    """

    path: str
    format: str
    release: str | None
    layout: str
    symbols: str
    memory_model: str
    phys_base: int
    page_offset: int
    ranges: Ranges
    pages: int
    absent: int
    struct_pages: int
    absent_struct_pages: int
    cpus: list[int] | None
    nodes: list[Node]


def info(dump: Dump) -> Info:
    """Look at an image as a whole.

    :raises PhysmemError: the nodes or the page array cannot be read
    """
    found = nodes(dump)
    shift = dump.layout.constant("PAGE_SHIFT")
    limit = dump.max_pfn
    spanned = Ranges(
        (min(zone.start_pfn, limit) << shift, min(zone.end_pfn, limit) << shift)
        for node in found
        for zone in node.zones
        if zone.populated
    )
    array = PageArray(dump)
    try:
        cpus = online_cpus(dump)
    except (AbsentError, SymbolError):
        cpus = None
    return Info(
        path=dump.image.path,
        format=dump.image.format,
        release=dump.info.get("OSRELEASE"),
        layout=dump.layout.source,
        symbols=dump.symbols.source,
        memory_model="sparse, with a virtual memory map" if "mem_section" in dump.symbols else "flat",
        phys_base=dump.phys_base,
        page_offset=dump.page_offset,
        ranges=dump.memory.ranges,
        pages=spanned.total() >> shift,
        absent=spanned.difference(dump.memory.ranges).total() >> shift,
        struct_pages=array.mapped.total(),
        absent_struct_pages=array.mapped.total() - array.present.total(),
        cpus=cpus,
        nodes=found,
    )

# SPDX-License-Identifier: GPL-2.0-only
"""What an image is: its format, its kernel, how it is understood, and what of the machine is in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
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
    :ivar levels: levels of the page tables
    :ivar vmemmap: where the page array begins
    :ivar kaslr: how far the kernel's image was moved, bytes; None if the image does not say
    :ivar facts: what was found out, and where: fact, value in words, source
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
    levels: int
    vmemmap: int
    kaslr: int | None
    facts: list[tuple[str, str, str]]


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
        levels=dump.regions.levels,
        vmemmap=dump.page_map.page(dump.max_pfn - 1) - (dump.max_pfn - 1) * dump.sizeof_page,
        kaslr=_kaslr(dump),
        facts=list(_facts(dump)),
    )


def _kaslr(dump: Dump) -> int | None:
    text = dump.info.get("KERNELOFFSET", "")
    return int(text, 16) if re.fullmatch("[0-9a-fA-F]{1,16}", text) else None


def _facts(dump: Dump) -> Iterator[tuple[str, str, str]]:
    """What was found out about the kernel, and where."""

    def told(key: str) -> str | None:
        return f"VMCOREINFO {key}" if key in dump.info else None

    def variable(name: str) -> str | None:
        if name not in dump.symbols:
            return None
        return f"variable {name}, whose address {_origin(dump, name)} tells"

    regions = dump.regions
    major, minor = dump.release
    yield "release", dump.info.get("OSRELEASE", f"{major}.{minor}"), told("OSRELEASE") or "what structs it has"
    kaslr = _kaslr(dump)
    if kaslr is not None:
        yield "image moved by", f"{kaslr:#x}", "VMCOREINFO KERNELOFFSET"
    yield "phys_base", f"{regions.phys_base:#x}", told("NUMBER(phys_base)") or "the variable itself, where it fits"
    page_tables = "the page table that maps the kernel's text"
    yield (
        "PAGE_OFFSET",
        f"{regions.page_offset:016x}",
        variable("page_offset_base") or ("layout" if "PAGE_OFFSET" in dump._layout.constants else page_tables),
    )
    if "mem_section" in dump.symbols:
        where = told("SYMBOL(vmemmap)") or variable("vmemmap_base")
        yield "vmemmap", f"{regions.vmemmap:016x}", where or "where kernels without KASLR have it"
    yield "page tables", f"{regions.levels} levels", told("NUMBER(pgtable_l5_enabled)") or "x86-64 without LA57"
    if regions.sme_mask:
        yield "SME mask", f"{regions.sme_mask:#x}", "VMCOREINFO NUMBER(sme_mask)"
    yield "struct page", f"{dump.sizeof_page} bytes", told("SIZE(page)") or dump.layout.source
    yield "max_pfn", str(dump.max_pfn), "the nodes' spans"


def _origin(dump: Dump, name: str) -> str:
    """Who tells the address of a symbol."""
    if f"SYMBOL({name})" in dump.info:
        return "VMCOREINFO"
    return dump.symbols.source.rpartition(" + ")[2]

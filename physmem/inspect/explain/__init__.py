# SPDX-License-Identifier: GPL-2.0-only
"""A virtual address explained: from its bits to the ``struct page`` of its frame, and all the way back.

:func:`explain_address` does what the processor and the kernel do, on the bytes of an image, and
keeps every number on the way.  The result prints itself: as text, in colours on a terminal, as
HTML in a notebook, as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from physmem import paging
from physmem.dump import Dump
from physmem.errors import AbsentError, CorruptionError, LayoutError, PhysmemError
from physmem.inspect.explain import wrong
from physmem.inspect.explain.bits import BitField, address_fields, flags_fields
from physmem.inspect.explain.entries import Level, access
from physmem.inspect.explain.models import Arithmetic, SectionEntry, memory_models, page_array_start, section_of
from physmem.inspect.explain.show import Document
from physmem.inspect.memmap import PageArray
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.zones import populated_zones

__all__ = ["AddressExplanation", "Frame", "explain_address"]

#: How an explanation ends.
MAPPED, NON_CANONICAL, NOT_PRESENT, ABSENT = "mapped", "not canonical", "not present", "table absent"


@dataclass(frozen=True)
class Frame:
    """The page frame that an address is in, and what describes it.

    :ivar section: its ``struct mem_section``; None on FLATMEM
    :ivar page: address of its ``struct page``, by the kernel's own memory model; None if that gives none
    :ivar flags: ``page->flags``; None if the ``struct page`` is not there, or not in the image
    :ivar flags_fields: that word taken apart
    :ivar node: that the flags name
    :ivar zone: name of the zone that they name
    :ivar problem: why there is no ``struct page``
    :ivar back: the direct-map address computed back from ``page``: page_address, plus the offset in the page
    """

    phys: int
    pfn: int
    in_image: bool
    section: SectionEntry | None
    models: tuple[Arithmetic, ...]
    page: int | None
    flags: int | None
    flags_fields: tuple[BitField, ...]
    flag_names: tuple[str, ...]
    node: int | None
    zone: str | None
    problem: str | None
    back: int


@dataclass(frozen=True, repr=False)
class AddressExplanation(Document):
    """What an address means.

    :ivar verdict: ``mapped``, ``not canonical``, ``not present`` or ``table absent``
    :ivar region: the region it is in, or ``hole``
    :ivar place: the same in words
    :ivar fields: its bits
    :ivar levels: the page table entries read
    :ivar access: what the entries together allow, if they map the address
    :ivar problem: why it leads nowhere, in words; None if it does not
    :ivar advice: what the kernel's helpers would make of it, where that is worth a warning
    :ivar walked: physical address by the page tables
    :ivar shortcut: the subtraction that gives it in a region of fixed place, with numbers
    :ivar by_region: its result
    :ivar describes: for an address in the page array: the PFN and field of the ``struct page`` that is there
    :ivar frame: the page frame; None if the address leads nowhere
    """

    va: int
    nr_levels: int
    verdict: str
    region: str
    place: str
    fields: tuple[BitField, ...]
    levels: tuple[Level, ...]
    access: str | None
    problem: str | None
    advice: tuple[str, ...]
    page_offset: int
    pgd: int
    page_size: int
    walked: int | None
    shortcut: str | None
    by_region: int | None
    describes: str | None
    frame: Frame | None

    @property
    def agree(self) -> bool | None:
        """Whether page tables and subtraction give the same; None if there is only one of them."""
        return None if self.walked is None or self.by_region is None else self.walked == self.by_region

    def to_json(self) -> dict[str, Any]:
        """As JSON has it: addresses and words of bits are strings."""
        from physmem.inspect.explain.as_json import as_json

        return as_json(self)

    def document(self) -> tuple[str, list[Any]]:
        from physmem.inspect.explain.sections import sections

        return f"virtual address {self.va:016x}", sections(self)


def explain_address(dump: Dump, va: int) -> AddressExplanation:
    """Explain a virtual address, right or wrong, as the kernel of this image would translate it.

    :param va: any 64-bit number
    :raises PhysmemError: the image does not tell where its page tables or regions are
    """
    regions = dump.regions
    steps: list[paging.Step] = []
    verdict, problem = NON_CANONICAL, None
    region, place = wrong.where(dump, va)
    if not paging.is_canonical(va, regions.levels):
        problem = wrong.non_canonical(va, regions.levels)
    else:
        try:
            for step in dump.steps(va):
                steps.append(step)  # those before an absent table are to be seen
        except AbsentError as error:
            verdict, problem = ABSENT, f"the next table is not in the image: {error}"
        else:
            verdict = MAPPED if steps[-1].is_present else NOT_PRESENT
    levels = tuple(Level.of(step, dump.memory.u64(step.at), regions.sme_mask) for step in steps)
    if verdict == NOT_PRESENT:
        problem = _not_present(steps[-1], region.name)
    last = steps[-1] if verdict == MAPPED else None
    walked = None if last is None else last.physical(va)
    shortcut, by_region = _shortcut(dump, va, region.name)
    phys = by_region if walked is None and verdict == ABSENT else walked
    return AddressExplanation(
        va=va,
        nr_levels=regions.levels,
        verdict=verdict,
        region=region.name,
        place=place,
        fields=address_fields(va, regions.levels, steps),
        levels=levels,
        access=None if last is None else access(levels),
        problem=problem,
        advice=tuple(_advice(dump, va, region, verdict)),
        page_offset=regions.page_offset,
        pgd=dump.pgd,
        page_size=0 if last is None else 1 << last.shift,
        walked=walked,
        shortcut=shortcut,
        by_region=by_region,
        describes=_describes(dump, va),
        frame=None if phys is None else _frame(dump, phys),
    )


def _not_present(step: paging.Step, region: str) -> str:
    size = {48: "256 TiB", 39: "512 GiB", 30: "1 GiB", 21: "2 MiB", 12: "4 KiB"}[step.shift]
    start = "" if region != "user half" else "the kernel's own tables map nothing for processes: "
    return (
        f"{start}the {step.level} entry at {step.at:#x} has P clear, "
        f"so nothing is mapped in the {size} around this address"
    )


def _shortcut(dump: Dump, va: int, region: str) -> tuple[str | None, int | None]:
    """The subtraction that translates, where there is one."""
    regions = dump.regions
    if region == "kernel image" and (phys := va - regions.start_kernel_map + regions.phys_base) >= 0:
        sign = "-" if regions.phys_base < 0 else "+"
        return (
            f"va - __START_KERNEL_map + phys_base = {va:#x} - {regions.start_kernel_map:#x} {sign} "
            f"{abs(regions.phys_base):#x}",
            phys,
        )
    if region == "direct map":
        return f"va - PAGE_OFFSET = {va:#x} - {regions.page_offset:#x}", va - regions.page_offset
    return None, None


def _advice(dump: Dump, va: int, region: wrong.Named, verdict: str) -> list[str]:
    """What goes wrong when the kernel's helpers are given such an address."""
    limit = dump.max_pfn << 12
    if region.name == "direct map":
        if va - dump.page_offset >= limit:
            return [f"the direct map is valid up to physical {limit:#x}, where this machine's memory ends"]
        if verdict == NOT_PRESENT:
            return ["a hole in physical memory: the firmware gave no RAM here, so the direct map leaves it out"]
        return []
    if region.name == "kernel image" or verdict == NON_CANONICAL:
        return []
    nonsense = va - dump.page_offset & (1 << 64) - 1
    found = [
        f"not in the direct map: virt_to_page and __pa must not be used on it; __pa would give {nonsense:#x}, "
        + ("which is no memory of this machine" if nonsense >= limit else "another page")
    ]
    if region.name == "user half":
        found.append("what is mapped here depends on the process: its own page tables say, from mm->pgd")
    elif region.name in (wrong.VMALLOC, "modules") and verdict == MAPPED:
        found.append("vmalloc_to_page is right for it: neighbouring pages here need not be neighbours in memory")
    elif region.name == "page array (vmemmap)" and verdict == NOT_PRESENT:
        found.append("no struct page is here: its section of physical memory does not exist (pfn_valid is false)")
    return found


def _describes(dump: Dump, va: int) -> str | None:
    """Which ``struct page``, and which of its fields, an address of the page array is."""
    try:
        array = page_array_start(dump, va)
    except PhysmemError:
        return None
    if array is None:
        return None
    start, first, name = array
    index, offset = divmod(va - start, dump.sizeof_page)
    fields = [f for f in dump.layout.struct("page").fields.values() if f.kind != "struct" and f.size]
    names = sorted({f.name for f in fields if f.offset == offset})
    field = f", where it has {', '.join(names)}" if names else ""
    text = f"(va - {name}) / {dump.sizeof_page} = ({va:#x} - {start:#x}) / {dump.sizeof_page}"
    return f"{text}: byte {offset} of the struct page of pfn {first + index}{field}"


def _frame(dump: Dump, phys: int) -> Frame:
    pfn = phys >> 12
    section = section_of(dump, pfn)
    models = memory_models(dump, pfn, section)
    page = next(each.page for each in models if each.own)
    flags: int | None = None
    fields: tuple[BitField, ...] = ()
    names: tuple[str, ...] = ()
    node: int | None = None
    zone = problem = None
    if pfn >= dump.max_pfn:
        problem = f"no struct page: memory ends before pfn {dump.max_pfn}"
    elif section is not None and not section.present:
        problem = f"no struct page: {section.problem}"
    else:
        try:
            array = PageArray(dump)
        except CorruptionError as error:
            problem = str(error)
        else:
            flags = array.fields(["flags"], pfn).get("flags")
            absent = pfn in array.mapped
            if flags is None:
                problem = "its struct page is not in the image" if absent else "no struct page: none is mapped here"
    if flags is not None:
        try:
            fields = flags_fields(dump.layout, flags)
        except LayoutError as error:
            problem = str(error)
        else:
            value = {field.name: field.value for field in fields}
            node, zone = value.get("node", 0), _zone_name(dump, value.get("node", 0), value["zone"])
        names = tuple(PageFormat(dump.layout).flag_names(flags))
    return Frame(
        phys=phys,
        pfn=pfn,
        in_image=phys in dump.memory.ranges,
        section=section,
        models=models,
        page=page,
        flags=flags,
        flags_fields=fields,
        flag_names=names,
        node=node,
        zone=zone,
        problem=problem,
        back=dump.page_offset + phys,
    )


def _zone_name(dump: Dump, node: int, index: int) -> str | None:
    try:
        for zone in populated_zones(dump):
            if (zone.node, zone.index) == (node, index):
                return zone.name
    except PhysmemError:
        pass
    kinds = {value: name for name, value in dump.layout.enum("zone_type").items()}
    return kinds.get(index, "").removeprefix("ZONE_") or None

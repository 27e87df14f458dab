# SPDX-License-Identifier: GPL-2.0-only
"""From a PFN to its ``struct page`` and back, by the arithmetic of each memory model.

``FLATMEM`` has one array; ``SPARSEMEM`` has an array for each section of physical memory, found
through ``mem_section``; ``SPARSEMEM_VMEMMAP`` has these arrays mapped side by side, so that one
subtraction does again.  A kernel is built for one of them.  A sparse kernel's ``mem_section``
is filled in with either sparse model, so that both can be computed from its memory.
Facts: include/asm-generic/memory_model.h, include/linux/mmzone.h, mm/sparse.c.
"""

from __future__ import annotations

from dataclasses import dataclass

from physmem.dump import Dump
from physmem.errors import PhysmemError
from physmem.inspect.sections import sections

__all__ = ["Arithmetic", "SectionEntry", "memory_models", "own_model", "page_array_start", "section_of"]

FLATMEM, SPARSEMEM, VMEMMAP = "FLATMEM", "SPARSEMEM", "SPARSEMEM_VMEMMAP"

#: What a flag bit of section_mem_map says, lowest first; kernels have more of them with time.
_SECTION_FLAGS = ("PRESENT", "HAS_MEM_MAP", "ONLINE", "EARLY", "ZONE_DEVICE")


@dataclass(frozen=True)
class SectionEntry:
    """The ``struct mem_section`` of a PFN.

    :ivar nr: number of the section
    :ivar shift: PFN_SECTION_SHIFT, log2 of a section's pages
    :ivar root: which root of the table it is in
    :ivar index: which entry of that root
    :ivar at: kernel address of the entry; None if there is no such root
    :ivar raw: ``section_mem_map``; None if there is none or it cannot be read
    :ivar mem_map: ``raw`` without its flags: where the ``struct page`` of PFN 0 would be
    :ivar problem: why there is none
    """

    nr: int
    shift: int
    root: int
    index: int
    at: int | None
    raw: int | None
    mem_map: int | None
    flags: tuple[str, ...]
    problem: str | None

    @property
    def present(self) -> bool:
        """``valid_section``: it has a part of the page array."""
        return self.raw is not None and bool(self.raw & 2)


@dataclass(frozen=True)
class Arithmetic:
    """How one memory model gets from a PFN to the ``struct page`` and back.

    :ivar own: whether it is the model this kernel was built for
    :ivar forward: the computation with numbers, in C's notation
    :ivar page: its result, None if it has none
    :ivar back: the computation from ``page`` to the PFN
    :ivar pfn: its result
    """

    model: str
    own: bool
    forward: str
    page: int | None
    back: str
    pfn: int | None


def section_of(dump: Dump, pfn: int) -> SectionEntry | None:
    """``__pfn_to_section``; None on a kernel whose memory map is flat."""
    if "mem_section" not in dump.symbols:
        return None
    layout = dump.layout
    shift = layout.constant("PFN_SECTION_SHIFT")
    nr = pfn >> shift
    root, index = divmod(nr, layout.constant("SECTIONS_PER_ROOT"))
    at = raw = mem_map = None
    problem = None
    flags: tuple[str, ...] = ()
    try:
        if root >= layout.constant("NR_SECTION_ROOTS"):
            problem = f"root {root} is beyond the table of {layout.constant('NR_SECTION_ROOTS')}"
        elif base := dump.u64(dump.symbols["mem_section"] + 8 * root):
            at = base + index * layout.sizeof("mem_section")
            raw = dump.field(at, "mem_section", "section_mem_map")
            mask = _flag_mask(dump)
            mem_map = raw & ~mask
            flags = tuple(
                _SECTION_FLAGS[i] if i < len(_SECTION_FLAGS) else f"bit {i}"
                for i in range(mask.bit_length())
                if raw >> i & 1
            )
            if not raw & 2:
                problem = "the section has no memory"
        else:
            problem = f"root {root} of the table is NULL: no section there has memory"
    except PhysmemError as error:
        problem = str(error)
    return SectionEntry(nr, shift, root, index, at, raw, mem_map, flags, problem)


def _flag_mask(dump: Dump) -> int:
    """The low bits of section_mem_map that are flags."""
    constants = dump.layout.constants
    if "SECTION_MAP_MASK" in constants:
        return ~constants["SECTION_MAP_MASK"] & (1 << 64) - 1
    try:
        return (1 << dump.layout.constant("SECTION_MAP_LAST_BIT")) - 1
    except PhysmemError:
        # The array is aligned to its elements at least.
        return (dump.sizeof_page & -dump.sizeof_page) - 1


def own_model(dump: Dump) -> str:
    """The model that this kernel was built for: one that keeps section numbers in page flags is classic sparse."""
    if "mem_section" not in dump.symbols:
        return FLATMEM
    return SPARSEMEM if dump.layout.constants.get("SECTIONS_WIDTH") else VMEMMAP


def memory_models(dump: Dump, pfn: int, section: SectionEntry | None) -> tuple[Arithmetic, ...]:
    """The arithmetic of all three models for one PFN; a model that this kernel's memory has nothing for says so."""
    own = own_model(dump)
    # With one linear array, whichever model it belongs to, FLATMEM's arithmetic can be shown on it.
    base = None if own == SPARSEMEM else dump.mem_map
    flat = _arithmetic(dump, FLATMEM, own, "mem_map", base, pfn, "this kernel's page array has no one beginning")
    if section is None:
        sparse = _arithmetic(dump, SPARSEMEM, own, "", None, pfn, "this kernel has no mem_section")
    else:
        start = section.mem_map if section.present else None
        sparse = _arithmetic(dump, SPARSEMEM, own, "section_mem_map", start, pfn, section.problem or "no section")
    vmemmap = dump.regions.vmemmap if own == VMEMMAP else None
    mapped = _arithmetic(dump, VMEMMAP, own, "vmemmap", vmemmap, pfn, "this kernel maps no vmemmap")
    return flat, sparse, mapped


def _arithmetic(dump: Dump, model: str, own: str, name: str, base: int | None, pfn: int, reason: str) -> Arithmetic:
    """One model's: an array whose entry for PFN 0 is, or would be, at ``base``."""
    if base is None:
        return Arithmetic(model, model == own, f"none: {reason}", None, "none", None)
    size = dump.sizeof_page
    page = base + pfn * size & (1 << 64) - 1
    return Arithmetic(
        model,
        model == own,
        f"{name} + pfn = {base:#x} + {pfn} * {size}",
        page,
        f"page - {name} = ({page:#x} - {base:#x}) / {size}",
        (page - base & (1 << 64) - 1) // size,
    )


def page_array_start(dump: Dump, va: int) -> tuple[int, int, str] | None:
    """The array of ``struct page`` that an address is in: where its first entry is, the PFN of that, and its name."""
    size = dump.sizeof_page
    if own_model(dump) != SPARSEMEM:
        name = "mem_map" if own_model(dump) == FLATMEM else "vmemmap"
        return (dump.mem_map, 0, name) if 0 <= va - dump.mem_map < dump.max_pfn * size else None
    for section in sections(dump):
        first = section.nr << dump.layout.constant("PFN_SECTION_SHIFT")
        start = (section.mem_map & ~_flag_mask(dump)) + first * size & (1 << 64) - 1
        if 0 <= va - start < size << dump.layout.constant("PFN_SECTION_SHIFT"):
            return start, first, f"the array of section {section.nr}"
    return None

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

__all__ = ["Arithmetic", "SectionEntry", "memory_models", "section_of"]

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


def memory_models(dump: Dump, pfn: int, section: SectionEntry | None) -> tuple[Arithmetic, ...]:
    """The arithmetic of all three models for one PFN; a model that this kernel's memory has nothing for says so."""
    size = dump.sizeof_page
    base = dump.mem_map
    linear = base + pfn * size
    if section is None:
        own = FLATMEM
    elif not section.present or section.mem_map == base:
        own = VMEMMAP
    else:
        own = SPARSEMEM
    flat_base = f"{base:#x}"
    flat = Arithmetic(
        FLATMEM,
        own == FLATMEM,
        f"mem_map + pfn = {flat_base} + {pfn} * {size}",
        linear,
        f"page - mem_map = ({linear:#x} - {flat_base}) / {size}",
        pfn,
    )
    if section is None or section.mem_map is None or not section.present:
        reason = "this kernel has no mem_section" if section is None else section.problem or "no section"
        sparse = Arithmetic(SPARSEMEM, False, f"none: {reason}", None, "none", None)
    else:
        page = section.mem_map + pfn * size
        sparse = Arithmetic(
            SPARSEMEM,
            own == SPARSEMEM,
            f"section_mem_map + pfn = {section.mem_map:#x} + {pfn} * {size}",
            page,
            f"page - section_mem_map = ({page:#x} - {section.mem_map:#x}) / {size}",
            (page - section.mem_map) // size,
        )
    vmemmap = dump.regions.vmemmap
    virtual = vmemmap + pfn * size
    mapped = Arithmetic(
        VMEMMAP,
        own == VMEMMAP,
        f"vmemmap + pfn = {vmemmap:#x} + {pfn} * {size}",
        virtual,
        f"page - vmemmap = ({virtual:#x} - {vmemmap:#x}) / {size}",
        (virtual - vmemmap) // size,
    )
    return flat, sparse, mapped

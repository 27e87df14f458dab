# SPDX-License-Identifier: GPL-2.0-only
"""Sections of a sparse memory map, and the migratetype of every pageblock (include/linux/mmzone.h, mm/page_alloc.c).

A section is 128 MiB of physical memory.  Besides its part of the page array it has the
pageblock flags: four bits for each pageblock of 2^pageblock_order pages, three of which are
the migratetype of the pageblock.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from physmem.dump import Dump
from physmem.errors import AbsentError, UnsupportedError
from physmem.structs.layout import Layout

__all__ = [
    "ABSENT",
    "NO_SECTION",
    "Section",
    "migratetype_of",
    "pageblock_flags",
    "pageblock_types",
    "sections",
]

#: Instead of a pageblock's flags: there is no section, so that it has none.
NO_SECTION = -1
#: Instead of them: they are not in the image.
ABSENT = -2


class Section(NamedTuple):
    """A section that has memory: its number, ``section_mem_map``, and the address of its pageblock flags."""

    nr: int
    mem_map: int
    pageblock_flags: int


def sections(dump: Dump) -> Iterator[Section]:
    """The sections below ``max_pfn`` that are marked present.

    :raises UnsupportedError: the kernel's memory map is flat
    :raises AbsentError: the table of sections is not in the image
    :raises AddressError: a pointer in it leads nowhere
    """
    layout = dump.layout
    if "mem_section" not in dump.symbols:
        raise UnsupportedError("not modelled: sections of a flat memory map")
    per_root = layout.constant("SECTIONS_PER_ROOT")
    count = -(-dump.max_pfn >> layout.constant("PFN_SECTION_SHIFT"))
    present = layout.constant("SECTION_MARKED_PRESENT")
    dtype = layout.dtype("mem_section", ["section_mem_map", "pageblock_flags"])
    nr_roots = min(-(-count // per_root), layout.constant("NR_SECTION_ROOTS"))
    roots = dump.memory.array(dump.virt_to_phys(dump.symbols["mem_section"]), np.uint64, nr_roots)
    for root in np.flatnonzero(roots).tolist():
        here = min(per_root, count - root * per_root)
        for i, entry in enumerate(dump.memory.array(dump.virt_to_phys(int(roots[root])), dtype, here).tolist()):
            if entry[0] & present:
                yield Section(root * per_root + i, *entry)


def pageblock_flags(dump: Dump, *, partial: bool = False) -> npt.NDArray[np.int16]:
    """The flags of every pageblock below ``max_pfn``, indexed by PFN >> pageblock_order.

    A pageblock's first bit is the uppermost of its value; NO_SECTION stands where there is none.

    :param partial: put ABSENT for flags that are not in the image, instead of raising AbsentError
    :raises PhysmemError: what :func:`sections` raises
    """
    layout = dump.layout
    blocks_shift = layout.constant("PFN_SECTION_SHIFT") - layout.constant("pageblock_order")
    width = layout.constant("NR_PAGEBLOCK_BITS")
    found = np.full(-(-dump.max_pfn >> layout.constant("pageblock_order")), NO_SECTION, np.int16)
    words = layout.constant("SECTION_BLOCKFLAGS_BITS") // 64
    bit = np.arange(1 << blocks_shift) * width
    # Bits are counted from the top of a word down.
    shift = (64 - width - bit % 64).astype(np.uint64)
    mask = np.uint64((1 << width) - 1)
    for section in sections(dump):
        first = section.nr << blocks_shift
        here = found[first : first + (1 << blocks_shift)]
        try:
            flags = dump.memory.array(dump.virt_to_phys(section.pageblock_flags), np.uint64, words)
        except AbsentError:
            if not partial:
                raise
            here[:] = ABSENT
        else:
            here[:] = (flags[bit // 64] >> shift & mask)[: len(here)]
    return found


def migratetype_of(layout: Layout, flags: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """The migratetype in the flags of pageblocks."""
    start, end = layout.constant("PB_migrate"), layout.constant("PB_migrate_end")
    low = layout.constant("NR_PAGEBLOCK_BITS") - 1 - end
    return np.where(flags < 0, flags, flags >> low & (2 << end - start) - 1).astype(np.int16)


def pageblock_types(dump: Dump, *, partial: bool = False) -> npt.NDArray[np.int16]:
    """The migratetype of every pageblock; otherwise as :func:`pageblock_flags`."""
    return migratetype_of(dump.layout, pageblock_flags(dump, partial=partial))

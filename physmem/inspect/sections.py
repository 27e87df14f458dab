# SPDX-License-Identifier: GPL-2.0-only
"""Sections of a sparse memory map, and the migratetype of every pageblock (include/linux/mmzone.h, mm/page_alloc.c).

A section is 128 MiB of physical memory.  Besides its part of the page array it has the
pageblock flags: four or eight bits for each pageblock of 2^pageblock_order pages, three of which
are the migratetype of the pageblock.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from physmem.dump import Dump
from physmem.errors import AbsentError, LayoutError, UnsupportedError
from physmem.memory_model import MemoryModel
from physmem.structs.record import Record

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    from physmem.later import np

__all__ = [
    "ABSENT",
    "NO_SECTION",
    "PageblockFormat",
    "Section",
    "block_types",
    "online_sections",
    "pageblock_flags",
    "pageblock_types",
    "sections",
    "usemaps",
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
    # Since 5.3 the flags are part of what the section points to.
    apart = layout.has("mem_section", "usage")
    offset = layout.offsetof("mem_section_usage", "pageblock_flags") if apart else 0
    size, places = layout.sizeof("mem_section"), ["section_mem_map", "usage" if apart else "pageblock_flags"]
    nr_roots = min(-(-count // per_root), layout.constant("NR_SECTION_ROOTS"))
    roots = memoryview(dump.read(dump.symbols["mem_section"], 8 * nr_roots)).cast("Q")
    for root, address in enumerate(roots):
        if not address:
            continue
        data = dump.read(address, min(per_root, count - root * per_root) * size)
        for i in range(len(data) // size):
            entry = Record(layout, "mem_section", data, i * size)
            mem_map, usage = (entry[name] for name in places)
            if mem_map & present:
                yield Section(root * per_root + i, mem_map, usage + offset)


def online_sections(dump: Dump) -> list[int]:
    """Numbers of the sections whose pages can be looked at (SECTION_HAS_MEM_MAP, and since 4.13 SECTION_IS_ONLINE).

    Sections up to the last node's last; raises as :func:`sections` does.
    """
    wanted = dump.layout.constant("SECTION_HAS_MEM_MAP") | (1 << 2 if dump.release >= (4, 13) else 0)
    return [each.nr for each in sections(dump) if each.mem_map & wanted == wanted]


class PageblockFormat:
    """Which bits of a pageblock mean what.

    :ivar width: bits of a pageblock
    :ivar from_top: whether bits are counted from the top of a word, as before 5.9
    """

    def __init__(self, dump: Dump) -> None:
        layout = dump.layout
        self.width = layout.constant("NR_PAGEBLOCK_BITS")
        self.from_top = dump.release < (5, 9)
        if not 0 < self.width <= 8 or 64 % self.width:
            raise LayoutError(f"{layout.source}: {self.width} bits for a pageblock")
        try:
            bits = layout.enum("pageblock_bits")
        except LayoutError:
            bits = {name: layout.constant(name) for name in ("PB_migrate", "PB_migrate_end", "PB_migrate_skip")}
        first = bits.get("PB_migrate", bits.get("PB_migrate_0", 0))
        last = bits.get("PB_migrate_end", bits.get("PB_migrate_2", first + 2))
        self._low = self.width - 1 - last if self.from_top else first
        self._mask = (2 << last - first) - 1
        named = {"skip": ("PB_migrate_skip", "PB_compact_skip"), "isolate": ("PB_migrate_isolate",)}
        self._names = {bits[name]: word for word, names in named.items() for name in names if name in bits}
        self._others = [bit for bit in range(self.width) if not first <= bit <= last]
        isolate = bits.get("PB_migrate_isolate")
        self._isolate = 0 if isolate is None else 1 << isolate
        self._isolated = layout.enumerator("MIGRATE_ISOLATE") if self._isolate else 0

    @cached_property
    def types(self) -> tuple[int, ...]:
        """The migratetype that each value of a pageblock's flags has."""
        # Since 6.17 a pageblock that is isolated keeps its own type besides.
        return tuple(
            self._isolated if flags & self._isolate else flags >> self._low & self._mask
            for flags in range(1 << self.width)
        )

    def migratetype(self, flags: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
        """The migratetype in the flags of pageblocks."""
        known = np.array(self.types, np.int16)[np.maximum(flags, 0)]
        return np.where(flags < 0, flags, known).astype(np.int16)

    def others(self, flags: int) -> list[str]:
        """What else is set in the flags of a pageblock, in words."""
        position = {bit: self.width - 1 - bit if self.from_top else bit for bit in self._others}
        return [self._names.get(bit, f"bit {bit}") for bit in self._others if flags >> position[bit] & 1]


def pageblock_flags(dump: Dump, *, partial: bool = False) -> npt.NDArray[np.int16]:
    """The flags of every pageblock below ``max_pfn``, indexed by PFN >> pageblock_order.

    NO_SECTION stands where there is none.  In kernels that count bits from the top, a pageblock's first bit is the
    uppermost of its value.

    :param partial: put ABSENT for flags that are not in the image, instead of raising AbsentError
    :raises PhysmemError: what :func:`sections` raises
    """
    found = np.full(_pageblocks(dump), NO_SECTION, np.int16)
    for first, flags in _flags(dump, partial):
        found[first : first + len(flags)] = flags
    return found


def block_types(dump: Dump) -> array[int]:
    """The same as :func:`pageblock_types`, for who has no use for numpy."""
    types = PageblockFormat(dump).types
    found = array("h", [NO_SECTION]) * _pageblocks(dump)
    for first, flags in _flags(dump, partial=False):
        found[first : first + len(flags)] = array("h", map(types.__getitem__, flags))
    return found


def _pageblocks(dump: Dump) -> int:
    return -(-dump.max_pfn >> dump.layout.constant("pageblock_order"))


def _flags(dump: Dump, partial: bool) -> Iterator[tuple[int, list[int]]]:
    """The flags of pageblocks in a row, and which is the first of them; as :func:`pageblock_flags`."""
    form = PageblockFormat(dump)
    width, mask, total = form.width, (1 << form.width) - 1, _pageblocks(dump)
    for first, count, address in usemaps(dump):
        count = max(min(count, total - first), 0)
        try:
            words = memoryview(dump.read(address, -(-count * width // 64) * 8)).cast("Q")
        except AbsentError:
            if not partial:
                raise
            yield first, [ABSENT] * count
            continue
        bits = range(0, count * width, width)
        if form.from_top:
            yield first, [words[bit >> 6] >> 64 - width - (bit & 63) & mask for bit in bits]
        else:
            yield first, [words[bit >> 6] >> (bit & 63) & mask for bit in bits]


def usemaps(dump: Dump) -> Iterator[tuple[int, int, int]]:
    """Where pageblock flags are: the first pageblock, how many, and the address: of sections, or of flat zones."""
    layout = dump.layout
    order = layout.constant("pageblock_order")
    if dump.model is not MemoryModel.FLATMEM:
        blocks_shift = layout.constant("PFN_SECTION_SHIFT") - order
        for section in sections(dump):
            yield section.nr << blocks_shift, 1 << blocks_shift, section.pageblock_flags
        return
    node_zones = layout.field("pglist_data", "node_zones")
    for pgdat in dump.pgdats.values():
        for i in range(node_zones.count):
            zone = pgdat + node_zones.offset + i * layout.sizeof("zone")
            start, spanned = (dump.field(zone, "zone", name) for name in ("zone_start_pfn", "spanned_pages"))
            if spanned:
                end = min(start + spanned, dump.max_pfn)
                count = (end - 1 >> order) - (start >> order) + 1
                yield start >> order, max(count, 0), dump.field(zone, "zone", "pageblock_flags")


def pageblock_types(dump: Dump, *, partial: bool = False) -> npt.NDArray[np.int16]:
    """The migratetype of every pageblock; otherwise as :func:`pageblock_flags`."""
    return PageblockFormat(dump).migratetype(pageblock_flags(dump, partial=partial))

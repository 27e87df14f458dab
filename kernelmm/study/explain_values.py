# SPDX-License-Identifier: GPL-2.0-only
"""What a number in the allocator is: which page, zone, list, statistic or flag word, by its name.

Addresses are looked up in the machine's own structures; what a plain number means (a mobility, a
gfp mask) is told by the name of the variable that holds it.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from kernelmm import gfp
from kernelmm.core import watermark
from kernelmm.core.mm import Mm
from physmem import abi, address
from physmem.dump import Dump
from physmem.errors import PhysmemError
from physmem.inspect.diff.leaves import Leaf, struct_leaves
from physmem.inspect.diff.objects import labels, objects
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.sections import usemaps
from physmem.inspect.zones import stat_items
from physmem.memory_model import MemoryModel
from physmem.space import UNMAPPED

__all__ = ["Names", "Spot", "is_physical"]

_MIGRATETYPES = frozenset({"migratetype", "start_migratetype", "start_type", "buddy_type", "mt", "kind"})
_GFP = frozenset({"gfp_mask", "gfp_flags", "gfp", "alloc_mask"})
#: What the code calls a physical address, besides names that end in _at: of a page's struct, a zone, a pageset.
_PHYSICAL = frozenset({"at", "z", "pageset", "tail", "cache", "zref", "refs", "end"})
#: Constants that say more by their name than by their number.
_FLAG_NAMES = ("__GFP_", "GFP_", "ALLOC_", "PG_", "PF_", "LIST_POISON")
#: The other members of the unions in struct page, by the constant that the code names them with.
_UNION = {
    "PAGE_COMPOUND_DTOR": "compound_dtor",
    "PAGE_COMPOUND_ORDER": "compound_order",
    "PAGE_FIRST_PAGE": "first_page",
    "PAGE_PFMEMALLOC": "pfmemalloc",
}


def is_physical(name: str) -> bool:
    """Whether a variable of this name holds a physical address."""
    return name in _PHYSICAL or name.endswith("_at")


@dataclass(frozen=True)
class Spot:
    """A place in memory.

    :ivar what: the structure: ``pfn 27520``, ``node 0 zone DMA32``
    :ivar field: which field of it
    :ivar kind: ``page``, ``zone``, ``pageset``, ``counter``, ``contents`` or ``other``
    :ivar pfn: of the page whose ``struct page`` or contents it is
    :ivar signed: whether the field is a signed number
    """

    what: str
    field: str
    kind: str
    pfn: int | None = None
    signed: bool = False

    def __str__(self) -> str:
        return f"{self.what} {self.field}".rstrip()


class Names:
    """Names for the addresses and numbers of one machine."""

    def __init__(self, mm: Mm, dump: Dump) -> None:
        self.mm = mm
        layout = dump.layout
        self.migratetypes = PageFormat(layout).migratetypes
        self.stat_items = stat_items(layout)
        self._nodes = {pgdat: f"node {nid}" for nid, pgdat in dump.pgdats.items()}
        first = ("flags", "mapping", "index", "_mapcount", "_count", "lru", "private")
        self._page = {leaf.offset: leaf for leaf in reversed(struct_leaves(layout, "page", labels(layout), first))}
        self._chunks = sorted(
            (phys, chunk << mm.memmap_shift - abi.SIZEOF_PAGE_SHIFT)
            for chunk, phys in enumerate(mm.memmap)
            if phys != UNMAPPED
        )
        self._objects: list[tuple[int, int, str, str, list[Leaf]]] = []
        for each in objects(dump):
            try:
                phys = dump.virt_to_phys(each.address)
            except PhysmemError:
                continue
            self._objects.append((phys, phys + each.size, each.name, _kind(each.name), each.leaves()))
        for start, end, name in _usemaps(mm, dump):
            self._objects.append((start, end, name, "other", []))
        # A node contains its zones: the one that begins last is meant.
        self._objects.sort(key=lambda each: (each[0], -each[1]))
        self._zones = {start: name for start, _, name, kind, _ in self._objects if kind == "zone"}
        self._starts = [each[0] for each in self._objects]
        self._max_pfn = dump.max_pfn
        symbols = ((dump, name) for name in ("jiffies", "fail_page_alloc", "gfp_allowed_mask"))
        self._symbols = {d.virt_to_phys(d.symbols[name]): name for d, name in symbols if name in d.symbols}

    def spot(self, phys: int, hint: str = "") -> Spot:
        """The place at a physical address.

        :param hint: the statement that writes there, which may name the member of a union
        """
        found = self._page_at(phys)
        if found is not None:
            return self._page_spot(*found, hint)
        for i in range(bisect_right(self._starts, phys) - 1, max(bisect_right(self._starts, phys) - 40, -1), -1):
            start, end, name, kind, leaves = self._objects[i]
            if phys < end:
                return self._field(name, kind, leaves, phys - start)
        if phys in self._symbols:
            return Spot(self._symbols[phys], "", "other")
        if phys >> abi.PAGE_SHIFT < self._max_pfn:
            return Spot(f"pfn {phys >> abi.PAGE_SHIFT}", f"contents +{phys & 4095:#x}", "contents", phys >> 12)
        return Spot("kernel stack", f"+{phys & 4095:#x}", "other")

    def _page_at(self, phys: int) -> tuple[int, int] | None:
        """The PFN whose ``struct page`` is at a physical address, and the byte in it; None if there is none."""
        at = bisect_right(self._chunks, (phys, 1 << 63)) - 1
        if at < 0:
            return None
        start, first = self._chunks[at]
        index, offset = divmod(phys - start, abi.SIZEOF_PAGE)
        inside = phys - start < 1 << self.mm.memmap_shift and first + index < self._max_pfn
        return (first + index, offset) if inside else None

    def page_of(self, va: int) -> tuple[int, int] | None:
        """The PFN whose ``struct page`` is at a kernel address, and the byte in it; None if there is none."""
        phys = address.lookup(self.mm, va & -8)
        found = self._page_at(phys) if phys < self.mm.size else None
        return None if found is None else (found[0], found[1] + va % 8)

    def _page_spot(self, pfn: int, offset: int, hint: str) -> Spot:
        for constant, member in _UNION.items():
            if constant in hint:
                return Spot(f"pfn {pfn}", member, "page", pfn)
        leaf = self._page.get(offset)
        return Spot(f"pfn {pfn}", leaf.name if leaf else f"+{offset}", "page", pfn, leaf is not None and leaf.signed)

    def _field(self, name: str, kind: str, leaves: list[Leaf], offset: int) -> Spot:
        for leaf in leaves:
            if leaf.offset <= offset < leaf.offset + leaf.size:
                rest = f"+{offset - leaf.offset}" if offset != leaf.offset else ""
                if leaf.name == "lock" and offset - leaf.offset < 2:
                    rest = (".head", ".tail")[offset - leaf.offset]  # of the tickets
                return Spot(name, leaf.name + rest, kind, None, leaf.signed)
        return Spot(name, f"+{offset:#x}" if offset else "", kind)

    def number(self, value: object, name: str = "") -> str:
        """A value as a person reads it.

        :param name: of the variable, argument or function that it is the value of
        """
        if isinstance(value, bool):
            return "yes" if value else "no"
        if not isinstance(value, int):
            return str(value) if isinstance(value, str | float) or value is None else type(value).__name__
        if name.endswith("_off"):
            return hex(value)
        if value >= 1 << 46:
            return self._address(value, name)
        if (name in _MIGRATETYPES or name.endswith("migratetype")) and 0 <= value < len(self.migratetypes):
            return f"{value} ({self.migratetypes[value]})"
        if name.startswith("MIGRATE_") and 0 <= value < len(self.migratetypes):
            return f"{value} ({self.migratetypes[value]})"
        if name.startswith(_FLAG_NAMES):
            return name
        if name == "item" and 0 <= value < len(self.stat_items):
            return self.stat_items[value]
        if name in _GFP:
            return gfp.gfp_names(value)
        if name == "alloc_flags":
            return _alloc_flags(value)
        if is_physical(name) and value > 4096:
            spot = self.spot(value)
            return spot.what if spot.field in ("flags", "node") or spot.kind in ("zone", "pageset") else str(spot)
        if "zone" in name and value in self._zones:
            return self._zones[value]
        return str(value) if -(1 << 16) < value < 1 << 16 else hex(value)

    def _address(self, value: int, name: str) -> str:
        """A kernel address."""
        mm = self.mm
        if "pgdat" in name and value in self._nodes:
            return self._nodes[value]
        if value in (mm.list_poison1, mm.list_poison2):
            return "LIST_POISON1" if value == mm.list_poison1 else "LIST_POISON2"
        found = self.page_of(value)
        if found is not None:
            return f"pfn {found[0]}" if found[1] in (0, abi.PAGE_LRU) else str(self._page_spot(*found, ""))
        phys = address.lookup(mm, value & -8)
        if phys >= mm.size:
            return f"{value & (1 << 64) - 1:#x}"
        spot = self.spot(phys)
        if spot.kind == "contents" or (spot.kind == "other" and spot.field):
            return f"{value:#x}"
        if phys in self._starts and spot.kind in ("zone", "pageset", "other"):
            return spot.what
        return f"{spot.what} {spot.field.removesuffix('.next')}"


def _alloc_flags(value: int) -> str:
    names = [("MIN", "LOW", "HIGH", "?")[value & 3]] if not value & watermark.ALLOC_NO_WATERMARKS else []
    for name, bit in vars(watermark).items():
        if name.startswith("ALLOC_") and "WMARK" not in name and isinstance(bit, int) and value & bit:
            names.append(name.removeprefix("ALLOC_"))
    if value & watermark.ALLOC_NO_WATERMARKS:
        names.append("NO_WATERMARKS")
    return "|".join(names)


def _kind(name: str) -> str:
    if name.startswith(("vm_stat", "events of")):
        return "counter"
    if " CPU " in name:
        return "pageset"
    return "zone" if " zone " in name else "other"


def _usemaps(mm: Mm, dump: Dump) -> list[tuple[int, int, str]]:
    """The pageblock flags of each section; of each zone, if the memory map is flat."""
    found = []
    if dump.model is MemoryModel.FLATMEM:
        for first, blocks, usemap in usemaps(dump):
            at = address.off(mm, usemap)
            size = -(-blocks * dump.layout.constant("NR_PAGEBLOCK_BITS") // 64) * 8
            found.append((at, at + size, f"pageblock flags from pfn {first * abi.PAGEBLOCK_NR_PAGES} on"))
        return found
    size = dump.layout.constant("SECTION_BLOCKFLAGS_BITS") // 8
    for section in range(-(-dump.max_pfn >> mm.pfn_section_shift)):
        root = mm.as_u64[(mm.var_mem_section + 8 * (section >> mm.root_section_shift)) >> 3]
        if root:
            entry = root + (section & mm.root_section_mask) * mm.sizeof_mem_section
            usemap = mm.as_u64[address.off(mm, entry + mm.section_pageblock_flags) >> 3]
            if usemap:
                at = address.off(mm, usemap)
                found.append((at, at + size, f"pageblock flags of section {section}"))
    return found

# SPDX-License-Identifier: GPL-2.0-only
"""Cuts a real dump down to what describes its memory: how the images in this folder were made.

    python make.py DUMP IMAGE.vmcore.xz

Of the dump's pages those are kept, as they are, that hold the page array, nodes, zones, per-CPU lists, sections,
the page tables of the kernel's own regions, and the variables named below.  The kernel's symbol table and its
types are most of such an image: of these, a few hundred symbols and the structs named below are written anew, in
the kernel's formats, in the place of the whole ones.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from physmem.dump import Dump, open_dump
from physmem.errors import PhysmemError
from physmem.image.notes import vmcoreinfo_note
from physmem.image.write import write_elf
from physmem.kallsyms import Tables, read_tokens
from physmem.kallsyms_search import find_tables
from physmem.ranges import Ranges
from physmem.structs.btf import Btf, Kind

PAGE = 4096
U64 = (1 << 64) - 1

VARIABLES = """
    node_data page_offset_base vmemmap_base vmalloc_base __per_cpu_offset nr_cpu_ids __cpu_online_mask
    __cpu_possible_mask node_states vm_zone_stat vm_node_stat vm_numa_event init_uts_ns jiffies_64 jiffies phys_base
    high_memory max_pfn max_low_pfn _totalram_pages totalreserve_pages mem_section nr_online_nodes nr_node_ids
    page_group_by_mobility_disabled hstates hugetlb_max_hstate default_hstate_idx min_free_kbytes nr_swap_pages
    zero_pfn huge_zero_page huge_zero_pfn huge_zero_folio movable_zone zone_names migratetype_names e820_table
    iomem_resource sysctl_lowmem_reserve_ratio compound_page_dtors
"""

PER_CPU = "vm_event_states numa_node boot_pageset boot_zonestats boot_nodestats cpu_number"

SYMBOLS = """
    _text _stext _etext _sdata _edata _end __bss_start __bss_stop __start_BTF __stop_BTF __start_rodata __end_rodata
    init_top_pgt free_compound_page free_huge_page
"""

STRUCTS = """
    page folio slab ptdesc zone pglist_data free_area per_cpu_pages per_cpu_zonestat per_cpu_nodestat per_cpu_pageset
    mem_section mem_section_usage list_head zonelist zoneref lruvec hstate vm_event_state uts_namespace new_utsname
    resource e820_table e820_entry page_pool dev_pagemap
"""

ENUMS = """
    pageflags pagetype zone_type zone_stat_item node_stat_item numa_stat_item migratetype lru_list zone_flags
    pgdat_flags zone_watermarks vm_event_item pageblock_bits compound_dtor_id node_states
"""
#: Enums without a name are kept if an enumerator begins so.
ANONYMOUS = ("SECTION_", "SUBSECTION_", "ZONELIST_", "PG_", "MAX_", "MIGRATE")


class Kept:
    """Some pages of a dump, of which some bytes are others."""

    def __init__(self, dump: Dump) -> None:
        self.dump = dump
        self.pages: dict[int, bytearray] = {}

    def keep(self, phys: int, size: int) -> None:
        for page in range(phys & -PAGE, phys + size, PAGE):
            if page not in self.pages and self.dump.memory.ranges.covers(page, page + PAGE):
                self.pages[page] = bytearray(self.dump.memory.read(page, PAGE))

    def keep_at(self, va: int, size: int) -> None:
        for at in range(va & -PAGE, va + size, PAGE):
            with contextlib.suppress(PhysmemError):
                self.keep(self.dump.virt_to_phys(at), 1)

    def put(self, va: int, data: bytes) -> None:
        self.keep_at(va, len(data))
        for i, byte in enumerate(data):
            phys = self.dump.virt_to_phys(va + i)
            self.pages[phys & -PAGE][phys % PAGE] = byte

    # What the image writer asks for.
    @property
    def ranges(self) -> Ranges:
        return Ranges((page, page + PAGE) for page in self.pages)

    @property
    def size(self) -> int:
        return self.ranges.end

    def read(self, phys: int, size: int) -> bytes:
        first = phys & -PAGE
        pages = b"".join(bytes(self.pages[page]) for page in range(first, phys + size, PAGE))
        return pages[phys - first : phys - first + size]

    def u64(self, phys: int) -> int:
        return int.from_bytes(self.read(phys, 8), "little")

    def array(self, phys: int, dtype: Any, count: int) -> Any:
        return np.frombuffer(self.read(phys, np.dtype(dtype).itemsize * count), dtype)


def page_tables(dump: Dump, table: int, first: int, shift: int, regions: list[tuple[int, int]]) -> Iterator[int]:
    """The tables below and with ``table``, whose entry 0 maps ``first``, that map any of the regions."""
    yield table
    for index, entry in enumerate(dump.tables.array(table, np.uint64, 512).tolist()):
        start = first + (index << shift)
        # Addresses are continued upwards with their topmost bit.
        start |= (1 << 64) - (1 << 57) if start >> 56 & 1 else 0
        start |= 0xFFFF << 48 if start >> 47 & 1 and dump.regions.levels == 4 else 0
        wanted = any(start < end and begin < start + (1 << shift) for begin, end in regions)
        if wanted and entry & 1 and shift > 12 and not (entry & 0x80 and shift < 39):
            yield from page_tables(dump, entry & 0x000FFFFFFFFFF000, start, shift - 9, regions)


def metadata(dump: Dump, kept: Kept) -> None:
    """Keep everything that is not a symbol table or a type."""
    layout, regions = dump.layout, dump.regions
    chunks, shift = dump.memmap
    for phys in chunks.tolist():
        if phys < 1 << 52:
            kept.keep(phys, 1 << shift)
    mapped = [
        (regions.start_kernel_map, regions.start_kernel_map + regions.kernel_image_size),
        (regions.page_offset, regions.page_offset + (dump.max_pfn << 12)),
        (regions.vmemmap, regions.vmemmap + dump.max_pfn * dump.sizeof_page),
    ]
    for table in page_tables(dump, regions.pgd, 0, 48 if regions.levels == 5 else 39, mapped):
        kept.keep(table, PAGE)
    for name in VARIABLES.split():
        if name in dump.symbols:
            kept.keep_at(dump.symbols[name], 8192 if name == "node_data" else 1024)
    cpus = dump.s32(dump.symbols["nr_cpu_ids"])
    percpu = [dump.u64(dump.symbols["__per_cpu_offset"] + 8 * cpu) for cpu in range(cpus)]
    for name in PER_CPU.split():
        for offset in percpu if name in dump.symbols else ():
            kept.keep_at(dump.symbols[name] + offset & U64, 1024)
    for pgdat in dump.pgdats.values():
        kept.keep_at(pgdat, layout.sizeof("pglist_data"))
        for offset in percpu:
            stats = dump.field(pgdat, "pglist_data", "per_cpu_nodestats") + offset & U64
            kept.keep_at(stats, layout.sizeof("per_cpu_nodestat"))
        for index in range(layout.lengthof("pglist_data", "node_zones")):
            zone = pgdat + layout.offsetof("pglist_data", "node_zones") + index * layout.sizeof("zone")
            kept.keep_at(dump.field(zone, "zone", "name"), 16)
            for field in ("pageset", "per_cpu_pageset", "per_cpu_zonestats"):
                for offset in percpu if layout.has("zone", field) else ():
                    kept.keep_at(dump.field(zone, "zone", field) + offset & U64, 512)
    sections(dump, kept)
    resources(dump, kept, dump.symbols["iomem_resource"])
    table = dump.u64(dump.symbols["e820_table"])
    kept.keep_at(table, layout.sizeof("e820_table"))


def sections(dump: Dump, kept: Kept) -> None:
    layout = dump.layout
    roots = dump.symbols["mem_section"]
    per_root = layout.constant("SECTIONS_PER_ROOT")
    count = -(-dump.max_pfn // layout.constant("PAGES_PER_SECTION"))
    for number in range(count):
        kept.keep_at(roots + 8 * (number // per_root), 8)
        root = dump.u64(roots + 8 * (number // per_root))
        if root:
            section = root + number % per_root * layout.sizeof("mem_section")
            kept.keep_at(section, layout.sizeof("mem_section"))
            usage = dump.field(section, "mem_section", "usage")
            kept.keep_at(usage, 256)


def resources(dump: Dump, kept: Kept, resource: int) -> None:
    """The tree of /proc/iomem, with its names."""
    while resource:
        kept.keep_at(resource, dump.layout.sizeof("resource"))
        kept.keep_at(dump.field(resource, "resource", "name"), 32)
        resources(dump, kept, dump.field(resource, "resource", "child"))
        resource = dump.field(resource, "resource", "sibling")


def types(dump: Dump, makers: Any) -> bytes:
    """The structs and enums that are wanted, as BTF of their own; other structs are names."""
    start, stop = dump.symbols["__start_BTF"], dump.symbols["__stop_BTF"]
    btf = Btf(dump.regions.image.read(start, stop - start), "BTF")
    out = makers.BtfMaker()
    numbers: dict[int, int] = {0: 0}

    def copy(number: int, pointed_to: bool = False) -> int:
        if number in numbers:
            return numbers[number]
        found = btf.type(number)
        if found.kind in (Kind.STRUCT, Kind.UNION) and found.name and pointed_to:
            # Structs may point to each other: a pointer has the name alone.
            return int(out.add(makers.FWD, found.name, flag=found.kind == Kind.UNION))
        if found.kind in (Kind.STRUCT, Kind.UNION):
            members = [(m.name, copy(m.type), m.bit, m.bits) for m in btf.members(found)]
            numbers[number] = out.aggregate(found.name, found.ref, members, found.kind)
        elif found.kind == Kind.INT:
            flags, _, _ = btf.integer(found)
            numbers[number] = out.integer(found.name, found.ref, signed=bool(flags & 1), boolean=bool(flags & 4))
        elif found.kind == Kind.ARRAY:
            element, count = btf.array(found)
            numbers[number] = out.array(copy(element), count)
        elif found.kind in (Kind.ENUM, Kind.ENUM64):
            wide = found.kind == Kind.ENUM64
            numbers[number] = out.enum(found.name, btf.enumerators(found), wide=wide, signed=found.flag)
        elif found.kind == Kind.FUNC_PROTO:
            numbers[number] = out.function(0, [])
        elif found.kind == Kind.FWD:
            numbers[number] = out.add(makers.FWD, found.name, flag=found.flag)
        else:
            target = copy(found.ref, found.kind == Kind.PTR or pointed_to)
            numbers[number] = out.add(found.kind, found.name, target)
        return numbers[number]

    for tag in STRUCTS.split():
        wanted = btf.find(tag, Kind.STRUCT, Kind.UNION)
        if wanted is not None:
            copy(wanted)
    for name in ENUMS.split():
        wanted = btf.find(name, Kind.ENUM, Kind.ENUM64)
        if wanted is not None:
            copy(wanted)
    for number in range(1, len(btf) + 1):
        found = btf.type(number)
        if found.kind == Kind.ENUM and not found.name and any(n.startswith(ANONYMOUS) for n in btf.enumerators(found)):
            copy(number)
    return bytes(out.data())


def symbols(dump: Dump, kept: Kept, stop_btf: int, makers: Any) -> int:
    """The symbols of what is kept, in place of the kernel's; returns how many they are."""
    image = dump.regions.image
    stext = dump.info.symbol("_stext")
    told = Tables.of(dump.info)
    tables = told or next(find_tables(dump.memory, image.phys(stext), stext))
    pages = set(kept.pages)
    named = SYMBOLS.split() + PER_CPU.split()
    chosen = set()
    for name in dump.symbols:
        address = dump.symbols[name]
        known = address in image and (image.phys(address) & -PAGE) in pages
        if name in named or address < 1 << 31 or (known and not name.startswith(("__UNIQUE", "___", "__func"))):
            chosen.add((stop_btf if name == "__stop_BTF" else address, name))
    table, index = read_tokens(tables, image)
    tokens = {i: table[first : table.index(b"\0", first)] for i, first in enumerate(index)}
    made = makers.make_kallsyms(
        [("D" + name, address) for address, name in sorted(chosen)],
        stext,
        tables.offsets,
        "place" if tables.relative_base is None else "percpu",
        tokens=tokens,
    )
    if told is None:
        # Nobody says where they are: they are found by what they look like, all in one piece.
        kept.put(tables.offsets, made.data)
        return len(chosen)
    starts = [*made.places.values(), len(made.data)]
    for part, end in zip(made.places, starts[1:], strict=True):
        if part == "relative_base":
            kept.put(tables.relative_base, made.data[made.places[part] : end])
        elif part != "markers":
            kept.put(getattr(tables, part), made.data[made.places[part] : end])
    return len(chosen)


def main(source: str, target: str) -> None:
    spec = importlib.util.spec_from_file_location("makers", Path(__file__).parents[2] / "physmem" / "makers.py")
    assert spec is not None
    assert spec.loader is not None
    makers = importlib.util.module_from_spec(spec)
    sys.modules["makers"] = makers
    spec.loader.exec_module(makers)
    with open_dump(source) as dump:
        kept = Kept(dump)
        metadata(dump, kept)
        data = types(dump, makers)
        start = dump.symbols["__start_BTF"]
        count = symbols(dump, kept, start + len(data), makers)
        kept.put(start, data)
        write_elf(target, kept, [vmcoreinfo_note(dump.info.encode())], virt_of=dump.page_offset)
        print(f"{target}: {len(kept.pages)} pages, {count} symbols, {len(data)} bytes of types")


if __name__ == "__main__":
    main(*sys.argv[1:])

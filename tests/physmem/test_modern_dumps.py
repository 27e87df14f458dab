# SPDX-License-Identifier: GPL-2.0-only
"""Real dumps of Linux 5.10 to 7.2: understood with nothing but the dump."""

from __future__ import annotations

import gzip
import lzma
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from physmem.dump import Dump, open_dump
from physmem.errors import AddressError, LayoutError, SymbolError
from physmem.image import VmcoreInfo, vmcoreinfo
from physmem.image.notes import vmcoreinfo_note
from physmem.image.write import write_elf
from physmem.kernel_layout import find_kallsyms, own_layout
from physmem.ram import Ram
from physmem.space import UNMAPPED
from physmem.structs.layout import Layout
from physmem.symbols import Symbols

DATA = Path(__file__).parents[1] / "data" / "vmcores"
NAMES = ["deb510-512m", "deb61-256m", "deb61-1g-2node", "deb612-256m", "deb618-512m-2node", "deb72-1g-2node"]
#: Guests with 5-level paging.
DEEP = ("deb618-512m-2node", "deb72-1g-2node")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


@pytest.fixture
def dump(modern: Callable[[str], Dump], name: str) -> Dump:
    return modern(name)


# -- the address space ---------------------------------------------------------

REGIONS = {
    "deb510-512m": (-0x18E00000, 0xFFFF9B29C0000000, 0xFFFFF69480000000, 0x1FFE0),
    "deb61-256m": (0x2200000, 0xFFFF88E4C0000000, 0xFFFFF2A500000000, 0xFFDC),
    "deb61-1g-2node": (0, 0xFFFF888000000000, 0xFFFFEA0000000000, 0x3FFDC),
    "deb612-256m": (-0x10000000, 0xFFFF8C07C0000000, 0xFFFFF9B4C0000000, 0xFFDF),
    "deb618-512m-2node": (0x12400000, 0xFF2A6BB240000000, 0xFF850E8380000000, 0x1FFE0),
    "deb72-1g-2node": (-0x5400000, 0xFF18A0A2C0000000, 0xFFF387BA40000000, 0x3FFE0),
}


def test_regions(dump: Dump, name: str) -> None:
    assert (dump.phys_base, dump.page_offset, dump.mem_map, dump.max_pfn) == REGIONS[name]
    assert dump.start_kernel_map == 0xFFFFFFFF80000000
    assert dump.regions.levels == (5 if name in DEEP else 4)
    assert dump.layout.constant("PAGE_OFFSET") == dump.page_offset
    assert dump.layout.constant("VMEMMAP_START") == dump.mem_map
    assert dump.layout.constant("__START_KERNEL_map") == dump.start_kernel_map
    assert dump.layout.constant("PAGES_PER_SECTION") == 1 << dump.layout.constant("PFN_SECTION_SHIFT") == 32768
    assert dump.layout.constant("SECTIONS_PER_ROOT") == 256
    assert dump.layout.constant("MAX_ORDER") == 11
    assert dict(dump.layout.constants)["PAGE_SHIFT"] == 12
    with pytest.raises(LayoutError, match="no constant 'NOTHING'"):
        dump.layout.constant("NOTHING")


def test_page_tables_agree_with_the_regions(dump: Dump) -> None:
    for va in (dump.symbols["init_uts_ns"], dump.page_offset + 0x1000000, dump.symbols["node_data"]):
        steps = list(dump.steps(va))
        assert steps[0].level == "PGD"
        assert steps[-1].physical(va) == dump.virt_to_phys(va)
    # The page array is mapped by pages of its own.
    assert dump.regions.linear(dump.mem_map) is None
    chunks, shift = dump.memmap
    assert shift == 21
    assert [dump.virt_to_phys(dump.mem_map + (i << 21)) for i in range(len(chunks))] == chunks.tolist()
    assert UNMAPPED not in chunks
    with pytest.raises(AddressError, match="not mapped"):
        dump.virt_to_phys(dump.mem_map + (1 << 38))


def test_nodes(dump: Dump, name: str) -> None:
    assert len(dump.pgdats) == (2 if "2node" in name else 1)
    spans = []
    for nid, pgdat in dump.pgdats.items():
        assert dump.field(pgdat, "pglist_data", "node_id") == nid
        start = dump.field(pgdat, "pglist_data", "node_start_pfn")
        spans.append((start, start + dump.field(pgdat, "pglist_data", "node_spanned_pages")))
    assert spans[0][0] in (0, 1)
    assert spans[-1][1] == dump.max_pfn


# -- structs and symbols -------------------------------------------------------


def test_the_release_is_where_the_symbols_say(dump: Dump) -> None:
    at = dump.symbols["init_uts_ns"] + dump.layout.offsetof("uts_namespace", "name")
    at += dump.layout.offsetof("new_utsname", "release")
    assert dump.read(at, 65).split(b"\0")[0].decode() == dump.info.release


def test_symbols(dump: Dump, name: str) -> None:
    assert dump.symbols.source == "VMCOREINFO + kallsyms"
    assert dump.symbols["node_data"] == dump.info.symbol("node_data")
    # A per-CPU variable: its place in each CPU's area, or since 6.15 an address in the image like any other.
    assert (dump.symbols["vm_event_states"] < 1 << 20) == (name not in DEEP)
    assert dump.symbols["page_offset_base"] in dump.regions.image
    with pytest.raises(SymbolError, match="the address of 'no_such_thing' is unknown"):
        dump.symbols["no_such_thing"]


def test_layout(dump: Dump, name: str) -> None:
    layout = dump.layout
    assert layout.source == "VMCOREINFO + BTF"
    assert layout.sizeof("page") == dump.sizeof_page == 64
    assert layout.dtype("page", ["flags", "_refcount"])["flags"].kind == "u"
    assert layout.field("page", "_refcount").type == "atomic_t"
    assert layout.offsetof("page", "compound_info" if "deb72" in name else "compound_head") == 8
    assert layout.lengthof("zone", "free_area") == 11
    assert layout.lengthof("free_area", "free_list") == layout.enumerator("MIGRATE_TYPES")
    zones = layout.lengthof("pglist_data", "node_zones")
    assert layout.sizeof("zone") * zones == layout.sizeof("pglist_data", "node_zones")
    assert layout.enumerator("PG_head") == (16 if "deb5" in name or "deb61-" in name else 6)
    assert layout.has("page", "compound_dtor") == ("deb5" in name or "deb61-" in name)
    assert layout.lengthof("per_cpu_pages", "lists") == (3 if "deb5" in name else 14)
    assert layout.has("per_cpu_pageset") == ("deb5" in name)


def test_a_vmcoreinfo_that_another_kernel_wrote(dump: Dump, tmp_path: Path) -> None:
    text = vmcoreinfo.encode({**dump.info, "OFFSET(zone.spanned_pages)": "8"})
    path = tmp_path / "image.vmcore"
    write_elf(path, dump.memory, [vmcoreinfo_note(text)])
    with open_dump(path) as other:
        assert other.page_offset == dump.page_offset
        with pytest.raises(LayoutError, match=r"offsetof\(struct zone, spanned_pages\) is"):
            other.layout.struct("zone")


# -- what it is good for -------------------------------------------------------


def free_counts(dump: Dump) -> Iterator[str]:
    """/proc/buddyinfo, by following every free list."""
    layout = dump.layout
    for nid, pgdat in dump.pgdats.items():
        for index in range(layout.lengthof("pglist_data", "node_zones")):
            zone = pgdat + layout.offsetof("pglist_data", "node_zones") + index * layout.sizeof("zone")
            if not dump.field(zone, "zone", "present_pages"):
                continue
            counts = []
            for order in range(layout.lengthof("zone", "free_area")):
                area = zone + layout.offsetof("zone", "free_area") + order * layout.sizeof("free_area")
                count = 0
                for kind in range(layout.lengthof("free_area", "free_list")):
                    head = area + layout.offsetof("free_area", "free_list") + kind * layout.sizeof("list_head")
                    entry = dump.u64(head)
                    while entry != head:
                        count += 1
                        entry = dump.u64(entry)
                assert count == dump.field(area, "free_area", "nr_free")
                counts.append(count)
            zone_name = dump.read(dump.field(zone, "zone", "name"), 8).split(b"\0")[0].decode()
            yield f"Node {nid}, zone {zone_name:>8} " + "".join(f"{count:6d} " for count in counts)


def test_every_free_list_as_the_kernel_counted_it(dump: Dump, name: str) -> None:
    expected = (DATA / name / "buddyinfo_at_dump.txt").read_text().splitlines()
    assert list(free_counts(dump)) == expected


def test_the_page_array_as_the_kernel_showed_it(dump: Dump, name: str) -> None:
    shown = np.frombuffer(gzip.decompress((DATA / name / "kpageflags.gz").read_bytes()), "<u8")[: dump.max_pfn]
    pages, exists = dump.pages(0, dump.max_pfn + 100, ["flags", "_refcount"])
    assert exists[: dump.max_pfn].all()
    flag = np.uint64(dump.layout.enumerator("PG_reserved"))
    assert np.array_equal(pages["flags"][: dump.max_pfn] >> flag & np.uint64(1), shown >> np.uint64(32) & np.uint64(1))
    # Truth that is a moment older than the dump is right about nearly all pages.
    free = (shown >> np.uint64(10) & np.uint64(1)).astype(bool)
    in_use = np.count_nonzero(pages["_refcount"][: dump.max_pfn][free])
    assert in_use <= (0 if "deb5" in name or name in DEEP else dump.max_pfn // 1000)


def test_pages_beyond_memory_do_not_exist(dump: Dump) -> None:
    _, exists = dump.pages(1 << 30, (1 << 30) + 100, ["flags"])
    assert not exists.any()


def test_the_same_in_emulated_ram(dump: Dump, name: str) -> None:
    other = dump.over(Ram.from_image(dump.image, dump.max_pfn << 12))
    assert other.max_pfn == dump.max_pfn
    assert list(free_counts(other)) == list(free_counts(dump))


# -- parts that are missing ----------------------------------------------------


def without(dump: Dump, *parts: str) -> VmcoreInfo:
    return VmcoreInfo({key: value for key, value in dump.info.items() if not any(part in key for part in parts)})


def test_a_kernel_without_types(dump: Dump) -> None:
    """What VMCOREINFO tells is there; for the rest it says why not, and what to do."""
    names = Symbols({"_stext": dump.info.symbol("_stext")}, "VMCOREINFO")
    layout = own_layout(dump.info, names, dump.regions.image)
    assert layout.sizeof("page") == 64
    assert layout.offsetof("zone", "free_area") == dump.layout.offsetof("zone", "free_area")
    assert layout.enumerator("PG_lru") == dump.layout.enumerator("PG_lru")
    assert layout.enum("pageflags")["PG_lru"] == layout.enumerator("PG_lru")
    assert "page" in list(layout.structs)
    assert "PG_lru" in list(layout.enumerators)
    assert list(layout.enums) == ["pageflags", "zone_stat_item"]
    for ask in (
        lambda: layout.struct("mem_section_usage"),
        lambda: layout.enum("migratetype"),
        lambda: layout.enumerator("MIGRATE_TYPES"),
        lambda: layout.has("per_cpu_pages"),
    ):
        with pytest.raises(LayoutError, match=r"__start_BTF' is unknown .*: give a layout with --layout"):
            ask()


def test_types_of_an_absurd_size(dump: Dump) -> None:
    names = Symbols({"__start_BTF": 1 << 63, "__stop_BTF": (1 << 63) + (1 << 40)}, "a test")
    with pytest.raises(LayoutError, match="BTF of 1099511627776 bytes"):
        own_layout(dump.info, names, dump.regions.image).struct("mem_section_usage")


def test_kallsyms_where_vmcoreinfo_does_not_say_where(modern: Callable[[str], Dump]) -> None:
    assert not any("kallsyms" in key for key in modern("deb510-512m").info)
    assert len(find_kallsyms(modern("deb510-512m").info, modern("deb510-512m").regions.image)) > 1000
    # In the other images the tables are cut apart, so that there is nothing to be found by search.
    dump = modern("deb61-256m")
    with pytest.raises(SymbolError, match="not found in the kernel's image"):
        find_kallsyms(without(dump, "kallsyms"), dump.regions.image)


def test_an_image_without_a_note(dump: Dump, tmp_path: Path) -> None:
    """The text is looked for in memory, where these images do not have it."""
    path = tmp_path / "image.vmcore"
    write_elf(path, dump.memory)
    with pytest.raises(LayoutError, match="no kernel in it says what it is: give a layout with --layout"):
        open_dump(path)
    raw = tmp_path / "raw"
    text = dump.info.encode()
    memory = bytearray(max(end for _, end in dump.memory.ranges))
    for start, end in dump.memory.ranges:
        memory[start:end] = dump.memory.read(start, end - start)
    place = next(p for p in range(0x1000, len(memory), 4096) if dump.memory.ranges.first_gap(p, p + 4096) == p)
    memory[place : place + len(text)] = text
    raw.write_bytes(memory)
    with open_dump(raw) as other:
        assert other.image.format == "raw memory"
        assert dict(other.info) == dict(dump.info)
        assert list(free_counts(other)) == list(free_counts(dump))


def test_a_layout_from_elsewhere(dump: Dump, tmp_path: Path, name: str) -> None:
    tags = ["page", "zone", "pglist_data", "free_area", "list_head"]
    own = Layout.of([dump.layout.struct(tag) for tag in tags], {}, dict(dump.layout.constants), "own")
    path = tmp_path / "layout.json"
    path.write_text(own.to_json())
    with open_dump(DATA / name / "image.vmcore.xz", layout=path) as other:
        assert other.max_pfn == dump.max_pfn
        assert other.page_offset == dump.page_offset
        assert not other.layout.has("mem_section_usage")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytearray:
    """The smallest image, as it is before compression."""
    return bytearray(lzma.decompress((DATA / "deb61-256m" / "image.vmcore.xz").read_bytes()))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_any_image_is_understood_or_refused(
    makers: ModuleType, plain: bytearray, tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """Changes where it hurts: notes, page tables, variables, nodes, symbols, types."""
    chance = random.Random(seed)
    path = tmp_path_factory.getbasetemp() / "mutated.vmcore"
    data = bytearray(plain)
    places = [*range(0x600, 0x1400), *(data.find(word) for word in (b"\x9f\xeb\x01", b"init_uts", b"NUMBER(phys"))]
    for _ in range(chance.randrange(1, 30)):
        at = chance.choice(places) if chance.random() < 0.7 else chance.randrange(len(data))
        data[at] = chance.choice([0, 0xFF, 0x80, chance.randrange(256)])
    path.write_bytes(data)
    with makers.read_or_refused(), open_dump(path) as dump:
        dump.pages(0, min(dump.max_pfn, 1 << 17), ["flags"])
        dump.layout.struct("zone")
        for va in (dump.mem_map, dump.page_offset, dump.symbols["node_data"]):
            dump.virt_to_phys(va)

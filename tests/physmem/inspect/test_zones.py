# SPDX-License-Identifier: GPL-2.0-only
"""Nodes, zones and pagesets against what symbols.json says of the same image."""

from __future__ import annotations

import dataclasses
import json

import pytest

from physmem.errors import AbsentError, AddressError
from physmem.inspect import zones
from physmem.ranges import Ranges


@pytest.mark.parametrize("case", ["n128_s1", "n256x2_s6n", "u128_s1", "n128cma_s17_contig"])
def test_zones_are_those_of_symbols_json(case, open_case, oracle):
    said = json.loads((oracle / case / "symbols.json").read_text())["values_in_A"]
    dump = open_case(case)
    found = list(zones.populated_zones(dump))
    assert len(found) == len(said["zones"])
    for zone, expected in zip(found, said["zones"], strict=True):
        assert (zone.node, zone.index, zone.name) == (expected["node"], expected["zone"], expected["name"])
        assert zone.address == int(expected["addr"], 16)
        assert zone.pageset == int(expected["pageset_percpu_ptr"], 16)
        assert zone.start_pfn == expected["zone_start_pfn"]
        assert (zone.spanned, zone.present) == (expected["spanned_pages"], expected["present_pages"])
        assert zone.managed == expected["managed_pages"]
        assert list(zone.watermark) == expected["watermark"]
        assert list(zone.lowmem_reserve) == expected["lowmem_reserve"]
        assert [p.address for p in zones.pagesets(dump, zone)] == [int(a, 16) for a in expected["pageset_addr"]]


def test_nodes(open_case):
    first, second = zones.nodes(open_case("n256x2_s6n"))
    assert (first.id, first.id_field, second.id, second.id_field) == (0, 0, 1, 1)
    assert (second.start_pfn, second.spanned, second.present) == (32768, 32736, 32736)
    assert [zone.populated for zone in second.zones] == [False, True, False, False]
    assert [zone.node_field for zone in second.zones] == [1, 1, 1, 1]
    assert {zone.pgdat for zone in second.zones} == {second.address}


def test_a_zone_in_full(open_case):
    dump = open_case("n128_s1")
    zone = list(zones.populated_zones(dump))[1]
    assert str(zone) == "node 0 zone DMA32"
    assert zone.end_pfn == 4096 + 28640
    assert zone.flags == ("ZONE_FAIR_DEPLETED",)
    assert len(zone.free_lists) == 11
    assert {len(heads) for heads in zone.free_lists} == {6}
    assert zone.nr_isolate_pageblock == 0
    assert next(iter(zone.vm_stat)) == "NR_FREE_PAGES"
    assert zone.vm_stat["NR_ALLOC_BATCH"] == -2
    assert "NR_LRU_BASE" not in zone.vm_stat
    assert zone.vm_stat["NR_INACTIVE_ANON"] == 66


def test_pagesets_of_a_kernel_without_smp(open_case):
    dump = open_case("u128_s1")
    (pageset,) = zones.pagesets(dump, list(zones.populated_zones(dump))[1])
    assert (pageset.cpu, pageset.high, pageset.batch) == (0, 42, 7)
    assert (pageset.expire, pageset.stat_threshold, pageset.vm_stat_diff) == (None, None, {})


def test_pagesets_of_a_kernel_with_smp(open_case):
    dump = open_case("n128_s1")
    (pageset,) = zones.pagesets(dump, next(zones.populated_zones(dump)))
    assert (pageset.expire, pageset.stat_threshold) == (0, 2)
    assert pageset.vm_stat_diff["NUMA_HIT"] == 1


def test_names_come_from_the_image_or_are_known_by_index(open_case, edit):
    # The page with "Movable" is absent from this image.
    assert [zone.name for zone in zones.nodes(open_case("n128cma_s17_contig"))[0].zones] == [
        *("DMA", "DMA32", "Normal", "Movable")
    ]
    editor = edit()
    zone = editor.zone()
    name = editor.get(zone.address, "zone", "name")
    editor.ram.write(editor.dump.virt_to_phys(name), b"Odd\0")
    assert editor.zone("Odd").index == 1
    for hostile in (b"\x1b[31mRed\0", b"\0", b"with space\0"):
        editor.ram.write(editor.dump.virt_to_phys(name), hostile)
        assert editor.zone("DMA32").index == 1
    for pointer in (0, 0xFFFFC90000000000, 0xFFFFFFFFFFFFFFFF, 0x123456789ABCDEF0):
        editor.set(zone.address, "zone", "name", pointer)
        assert editor.zone("DMA32").index == 1


def test_a_name_may_cross_into_another_page(edit):
    """As "DMA" does in Debian's 7.1.13: its first letter is the last byte of a page."""
    editor = edit()
    zone = editor.zone()
    page = editor.dump.virt_to_phys(editor.dump.page_of(4096)) & -4096
    editor.set(zone.address, "zone", "name", editor.dump.page_offset + page + 4095)
    editor.ram.write(page + 4095, b"Odd\0")
    assert editor.zone("Odd").index == 1
    editor.ram.ranges = editor.ram.ranges.difference(Ranges([(page + 4096, page + 8192)]))
    assert editor.zone("DMA32").index == 1


def test_absent_and_unmapped_are_told_apart(edit):
    editor = edit()
    zone = editor.zone()
    (pageset,) = zones.pagesets(editor.dump, zone)
    page = editor.dump.virt_to_phys(pageset.address) & -4096
    editor.ram.ranges = editor.ram.ranges.difference(Ranges([(page, page + 4096)]))
    with pytest.raises(AbsentError):
        zones.pagesets(editor.dump, zone)
    with pytest.raises(AddressError):
        zones.pagesets(editor.dump, dataclasses.replace(zone, pageset=0x1234567890000000))

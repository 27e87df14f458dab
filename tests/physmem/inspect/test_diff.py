# SPDX-License-Identifier: GPL-2.0-only
"""Two images compared: nothing of the allocator's hides, and nothing else counts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from physmem.errors import UsageError
from physmem.image import VmcoreInfo
from physmem.inspect.diff import PageblockChange, diff, pages
from physmem.inspect.diff.leaves import FieldChange, changes, struct_leaves
from physmem.inspect.diff.objects import objects
from physmem.inspect.sections import sections
from physmem.inspect.states import State
from physmem.inspect.zones import pagesets, populated_zones
from physmem.ranges import Ranges
from physmem.structs import linux_4_0


def fields(found, name):
    """The changed fields of one object, as (name, old, new)."""
    (each,) = [each for each in found.objects if each.name == name]
    return [(change.name, change.old, change.new) for change in each.fields]


@pytest.mark.parametrize("case", ["n128_s1", "n256x2_s6n", "u128_s1"])
def test_an_image_does_not_differ_from_itself(case, open_case):
    found = diff(open_case(case), open_case(case))
    assert not found
    assert (found.objects, found.pageblocks, found.pages.count, found.not_compared) == ((), (), 0, ())


def test_one_allocation(open_case):
    """alloc_pages of one page, served by a per-cpu list."""
    found = diff(open_case("n128_s0_one"), open_case("n128_s0_one", "B"))
    assert found
    assert found.pageblocks == ()
    assert dict(found.pages.transitions) == {(State.PCP, State.IN_USE): 1, (State.PCP, State.PCP): 1}
    taken = next(page for page in found.pages.listed if page.new is State.IN_USE)
    assert FieldChange("_count", 0, 1) in taken.fields
    assert {change.name for change in taken.fields} == {"_count", "lru.next", "lru.prev"}
    assert fields(found, "node 0 zone DMA32 CPU 0")[0] == ("pcp.count", 40, 39)
    ((event, before, after),) = fields(found, "events of CPU 0")
    assert (event, after - before) == ("event[PGALLOC_DMA32]", 1)


def test_a_long_script(open_case):
    found = diff(open_case("n128_s1"), open_case("n128_s1", "B"))
    assert [(each.pfn, each.old, each.new) for each in found.pageblocks] == [
        (25600, "Movable", "Unmovable"),
        (26112, "Movable", "Unmovable"),
    ]
    zone = {name: (old, new) for name, old, new in fields(found, "node 0 zone DMA32")}
    assert zone["free_area[0].nr_free"] == (7, 2)
    assert zone["vm_stat[NR_ALLOC_BATCH]"] == (-2, 11)
    assert zone["lock"] == (0x6161, 0xC3C3)
    assert zone["flags"] == (0x20, 0)
    assert "free_area[10].free_list[Movable].next" in zone
    assert found.pages.count == sum(found.pages.transitions.values()) == len(found.pages.listed) == 462
    assert found.pages.fields["_count"] == 412


def test_two_nodes(open_case):
    found = diff(open_case("n256x2_s6n"), open_case("n256x2_s6n", "B"))
    names = [name for name, _, _ in fields(found, "node 0")]
    assert names == [
        *("kswapd_wait.lock", "kswapd_wait.task_list.next", "kswapd_wait.task_list.prev"),
        *("kswapd_max_order", "classzone_idx"),
    ]
    assert [name for name, _, _ in fields(found, "node 1 zonelist 0")] == [
        "zlcache.fullzones[0]",
        "zlcache.last_full_zap",
    ]


def regions(dump):
    """Physical (start, size) of every byte that the allocator keeps, with the object's name."""
    found = []
    for each in objects(dump):
        found += [(each.name, dump.virt_to_phys(each.address + offset), size) for offset, size in each.spans]
    size = dump.layout.constant("SECTION_BLOCKFLAGS_BITS") // 8
    found += [("pageblocks", dump.virt_to_phys(each.pageblock_flags), size) for each in sections(dump)]
    phys, shift = dump.memmap
    found += [("pages", int(start), 1 << shift) for start in phys[:-1]]
    found.append(("pages", int(phys[-1]), dump.max_pfn * dump.sizeof_page - (len(phys) - 1 << shift)))
    return found


@pytest.mark.parametrize("case", ["n256x2_s6n", "u128_s1"])
def test_no_byte_of_the_allocator_hides(case, edit, open_case):
    before = open_case(case)
    editor = edit(case)
    places = regions(before)

    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from(places), st.integers(0, 1 << 30), st.integers(1, 255))
    def check(place, offset, change):
        name, start, size = place
        at = start + offset % size
        old = editor.ram.u8(at)
        editor.ram.set_u8(at, old ^ change)
        try:
            found = diff(before, editor.dump)
        finally:
            editor.ram.set_u8(at, old)
        assert found
        if name == "pages":
            assert found.pages.count == 1
            assert len(found.pages.listed[0].fields) == 1
        elif name == "pageblocks":
            assert 1 <= len(found.pageblocks) <= 2
        else:
            assert name in [each.name for each in found.objects]

    check()


def test_what_is_not_the_allocators_does_not_count(edit, open_case):
    before = open_case("n256x2_s6n")
    editor = edit("n256x2_s6n")
    # What is needed to find the rest must stay: page tables, tables of nodes and sections, the names of zones.
    variables = ("node_data", "mem_section", "cpu_online_bits", "__per_cpu_offset", "phys_base")
    needed = [before.virt_to_phys(before.symbols[name]) for name in variables]
    needed.append(before.virt_to_phys(before.u64(before.symbols["mem_section"])))
    for va in (before.mem_map, before.mem_map + (2 << 20)):
        needed += [step.table for step in before.steps(va)]
    for zone in populated_zones(before):
        needed.append(before.virt_to_phys(before.field(zone.address, "zone", "name")))
    size = before.layout.sizeof("pglist_data")
    other = before.memory.ranges
    for kept in (
        Ranges((start, start + size) for _, start, size in regions(before)),
        Ranges((at & -4096, (at & -4096) + 4096) for at in needed),
        Ranges((at, at + size) for at in map(before.virt_to_phys, before.pgdats.values())),
    ):
        other = other.difference(kept)
    changed = 0
    for start, end in other:
        for at in range(start, end, 509):
            editor.ram.set_u8(at, editor.ram.u8(at) ^ 0xFF)
            changed += 1
    # Of a node, what other parts of the kernel keep there.
    for pgdat in before.pgdats.values():
        for name in ("pfmemalloc_wait", "kswapd", "numabalancing_migrate_lock", "numabalancing_migrate_nr_pages"):
            editor.add(pgdat, "pglist_data", name, 1)
    editor.set_symbol("jiffies", 12345)
    assert changed > 100
    assert not diff(before, editor.dump)


def test_the_boot_pageset_of_empty_zones(edit, open_case):
    editor = edit()
    address = editor.dump.symbols["boot_pageset"] + editor.dump.u64(editor.dump.symbols["__per_cpu_offset"])
    editor.add(address, "per_cpu_pageset", "vm_stat_diff", 1, index=1)
    found = diff(open_case("n128_s1"), editor.dump)
    assert [each.name for each in found.objects] == ["boot_pageset CPU 0"]


def test_pageblock_flags_are_named(edit, open_case):
    editor = edit()
    section = next(sections(editor.dump))
    at = editor.dump.virt_to_phys(section.pageblock_flags)
    word = editor.ram.u64(at)
    # Pageblocks 2 and 3, of four bits each from the top: a skip bit, and a type that does not exist.
    editor.ram.set_u64(at, word & ~(0xFF << 48) | 0x5E << 48)
    found = diff(open_case("n128_s1"), editor.dump)
    assert found.pageblocks == (
        PageblockChange(1024, "Movable", "Movable, skip"),
        PageblockChange(1536, "Movable", "migratetype 7"),
    )


def test_memory_that_only_one_image_has_is_no_difference(edit, open_case):
    before, editor = open_case("n128_s1"), edit()
    (pageset,) = pagesets(editor.dump, editor.zone())
    page = editor.dump.virt_to_phys(pageset.address) & -4096
    array = editor.dump.virt_to_phys(editor.page(20480))
    lost = Ranges([(page, page + 4096), (array, array + 4096)])
    editor.ram.ranges = editor.ram.ranges.difference(lost)
    found = diff(before, editor.dump.over(editor.ram))
    assert not found
    assert (found.only_a, found.only_b) == (lost, Ranges())
    assert any(what.startswith("node 0 zone DMA32 CPU 0: physical") for what in found.not_compared)
    assert "64 struct pages, from pfn 20480 on: absent" in found.not_compared
    other_way = diff(editor.dump.over(editor.ram), before)
    assert (bool(other_way), other_way.only_a, other_way.only_b) == (False, Ranges(), lost)


def test_pageblock_flags_that_are_absent(edit, open_case):
    before, editor = open_case("n256x2_s6n"), edit("n256x2_s6n")
    second = list(sections(editor.dump))[1]
    at = editor.dump.virt_to_phys(second.pageblock_flags)
    editor.ram.ranges = editor.ram.ranges.difference(Ranges([(at, at + 32)]))
    found = diff(before, editor.dump)
    assert not found
    assert "64 pageblock flags: absent" in found.not_compared


def test_a_pointer_that_leads_nowhere_is_a_difference(edit, open_case):
    editor = edit()
    editor.set(editor.zone().address, "zone", "pageset", 0x1234567890000000)
    found = diff(open_case("n128_s1"), editor.dump)
    assert [name for name, _, _ in fields(found, "node 0 zone DMA32")] == ["pageset"]
    assert any("not canonical" in what for what in found.not_compared)


def test_a_cpu_that_came_online(edit, open_case):
    editor = edit()
    editor.set_symbol("cpu_online_bits", 3)
    editor.set_symbol("__per_cpu_offset", editor.dump.u64(editor.dump.symbols["__per_cpu_offset"]) + 64, 8)
    found = diff(open_case("n128_s1"), editor.dump)
    assert found
    assert fields(found, "events of CPU 1") == [("exists", 0, 1)]


def test_an_image_that_does_not_tell_its_cpus(edit, open_case):
    editor = edit()
    page = editor.dump.virt_to_phys(editor.dump.symbols["cpu_online_bits"]) & -4096
    editor.ram.ranges = editor.ram.ranges.difference(Ranges([(page, page + 4096)]))
    editor.dump.pgdats = open_case("n128_s1").pgdats  # whose table is in the same page
    found = diff(open_case("n128_s1"), editor.dump)
    assert not found
    assert [what for what in found.not_compared if what.startswith("what CPUs have for themselves: physical")]


def test_images_of_two_kernels_or_boots_are_not_compared(open_case):
    with pytest.raises(UsageError, match=r"not of the same kernel as .*n128_s1/A.vmcore.xz: VMCOREINFO "):
        diff(open_case("n128_s1"), open_case("u128_s1"))
    with pytest.raises(UsageError, match="or of another boot: its nodes are at other addresses"):
        diff(open_case("n128_s1"), open_case("n128_s3", "B"))


def test_the_time_of_a_crash_may_differ(edit, open_case):
    editor = edit()
    editor.dump.info = VmcoreInfo({**editor.dump.info, "CRASHTIME": "1700000000"})
    assert not diff(open_case("n128_s1"), editor.dump)


def test_only_so_many_pages_are_listed(open_case, monkeypatch):
    monkeypatch.setattr(pages, "MAX_LISTED", 10)
    found = diff(open_case("n128_s1"), open_case("n128_s1", "B")).pages
    assert (found.count, len(found.listed)) == (462, 10)
    assert sum(found.transitions.values()) == 462


# -- a struct taken apart ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [linux_4_0.NUMA, linux_4_0.UP], ids=["numa", "up"])
@pytest.mark.parametrize("tag", ["page", "zone", "zonelist", "per_cpu_pageset", "pglist_data", "vm_event_state"])
def test_every_byte_of_a_struct_has_a_name(config, tag):
    layout = linux_4_0.layout(config)
    size = layout.sizeof(tag)
    leaves = struct_leaves(layout, tag, {})
    named = list(changes(leaves, bytes(size), b"\xff" * size))
    assert len({each.name for each in named}) == len(named)
    spelled = sum(leaf.size for leaf in leaves if leaf.name in {each.name for each in named})
    assert spelled + sum(each.name.startswith("padding +") for each in named) == size


def test_names_of_leaves():
    layout = linux_4_0.layout(linux_4_0.NUMA)
    labels = {("free_area", "free_list"): ("Unmovable", "Reclaimable")}
    names = {leaf.name: leaf for leaf in struct_leaves(layout, "zone", labels)}
    assert names["lock"].size == 2
    assert names["vm_stat[1]"].signed
    assert names["free_area[3].free_list[Reclaimable].prev"].size == 8
    assert names["free_area[3].free_list[5].next"].size == 8  # has no label
    assert names["free_area[3].nr_free"].offset == layout.offsetof("zone", "free_area") + 3 * 104 + 96


def test_the_members_of_a_union_that_are_asked_for_speak_for_it():
    layout = linux_4_0.layout(linux_4_0.NUMA)
    old, new = bytearray(64), bytearray(64)
    new[24:28] = (-128 & 0xFFFFFFFF).to_bytes(4, "little")
    plain = list(changes(struct_leaves(layout, "page", {}), bytes(old), bytes(new)))
    assert [each.name for each in plain] == ["counters"]
    asked = list(changes(struct_leaves(layout, "page", {}, ("_mapcount", "_count")), bytes(old), bytes(new)))
    assert asked == [FieldChange("_mapcount", 0, -128)]

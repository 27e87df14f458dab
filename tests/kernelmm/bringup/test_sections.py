# SPDX-License-Identifier: GPL-2.0-only
"""Sections, and the page array of each."""

from __future__ import annotations

from collections.abc import Callable

from kernelmm.boot import BootConfig, Booted, boot
from kernelmm.bringup.kernel import Kernel
from kernelmm.bringup.sections import present_sections, section_ptr
from kernelmm.core import mmzone
from physmem.e820 import Kind, MemoryMap, Region
from physmem.ranges import Ranges

MIB = 1 << 20
GIB = 1 << 30
VMEMMAP_START = 0xFFFFEA0000000000


def test_sections_with_any_memory_are_present(booted: Callable[..., Booted]) -> None:
    # 3 GiB below the PCI hole, 100 MiB above: part of a section.
    kernel = booted("3172M").kernel
    assert present_sections(kernel) == [*range(24), 32]
    assert section_ptr(kernel, 24) == section_ptr(kernel, 23) + kernel.layout.sizeof("mem_section")
    assert section_ptr(kernel, 5000) == 0
    for nr in present_sections(kernel):
        section = section_ptr(kernel, nr)
        # The page array begins at VMEMMAP_START for all; marked present, and with a page array.
        assert kernel.get(section, "mem_section.section_mem_map") == VMEMMAP_START | 3
    assert kernel.get(section_ptr(kernel, 24), "mem_section.section_mem_map") == 0


def test_the_page_array_is_on_its_node(booted: Callable[..., Booted]) -> None:
    machine = booted("2G", 4)
    for nid in range(4):
        start = VMEMMAP_START + nid * (512 * MIB >> 12) * 64
        phys = {machine.dump.virt_to_phys(start + i * (2 * MIB)) for i in range(4)}
        assert {at // (512 * MIB) for at in phys} == {nid}


def test_a_section_that_nodes_share_is_the_first_ones(booted: Callable[..., Booted]) -> None:
    machine = booted("128M", 4)
    assert present_sections(machine.kernel) == [0]
    assert machine.dump.virt_to_phys(VMEMMAP_START) < 32 * MIB
    array, exists = machine.dump.pages(0, 128 * 256, ["flags"])
    assert exists.all()
    shift = machine.dump.layout.constant("NODES_PGSHIFT")
    assert [int(array["flags"][(32 * i + 16) * 256]) >> shift for i in range(4)] == [0, 1, 2, 3]


def test_nodes_that_are_interleaved() -> None:
    """Each page is its own node's, though both nodes span all of it."""
    ram = [Region(0, 256 * MIB, Kind.RAM)]
    turns = [Ranges((i * 32 * MIB, (i + 1) * 32 * MIB) for i in range(8) if i % 2 == nid) for nid in range(2)]
    machine = boot(BootConfig(MemoryMap.of(ram, turns)))
    kernel = machine.kernel
    array, _ = machine.dump.pages(0, 256 * 256, ["flags"])
    shift = machine.dump.layout.constant("NODES_PGSHIFT")
    assert [int(array["flags"][(32 * i + 16) * 256]) >> shift for i in range(8)] == [0, 1] * 4
    spans = [kernel.get(kernel.zone(nid, 1).at, "zone.spanned_pages") for nid in range(2)]
    present = [kernel.get(kernel.zone(nid, 1).at, "zone.present_pages") for nid in range(2)]
    assert spans == [(224 - 16) * 256, 224 * 256]
    assert present == [(128 - 16) * 256, 128 * 256]


def test_pageblocks_begin_as_movable(booted: Callable[..., Booted]) -> None:
    machine = booted("200M")
    types = [mmzone.pageblock_migratetype(machine.mm, pfn) for pfn in range(0, 256 * 256, 512)]
    # The first begins with page 0, which is in no zone; behind the end of memory there are none.
    assert types[0] == 0
    assert set(types[1:100]) == {2, 3}
    assert set(types[100:]) == {0}


def test_usemaps_are_all_on_node_0(booted: Callable[..., Booted]) -> None:
    """As in 4.0, which asks a pgdat for its node before it has one."""
    kernel: Kernel = booted("1G", 2).kernel
    for nr in present_sections(kernel):
        assert kernel.phys(kernel.get(section_ptr(kernel, nr), "mem_section.pageblock_flags")) < 512 * MIB

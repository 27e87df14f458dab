# SPDX-License-Identifier: GPL-2.0-only
"""How memory is divided among zones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from physmem.e820 import Kind, MemoryMap, Region
from physmem.errors import UsageError
from physmem.ranges import Ranges

MIB = 1 << 20
GIB = 1 << 30
DMA, DMA32, NORMAL, MOVABLE = range(4)


def spans(machine: Any) -> dict[tuple[int, int], tuple[int, int, int]]:
    """Of each zone that spans pages: first PFN, end PFN, present pages; by node and index."""
    kernel = machine.kernel
    found = {}
    for zone in kernel.zones():
        start, spanned, present = (
            kernel.get(zone.at, f"zone.{field}") for field in ("zone_start_pfn", "spanned_pages", "present_pages")
        )
        if spanned:
            found[zone.nid, zone.idx] = start, start + spanned, present
    return found


def test_the_bounds_of_the_zones(booted: Callable[..., Any]) -> None:
    assert spans(booted("5G")) == {
        (0, DMA): (1, 4096, 3998),
        (0, DMA32): (4096, 4 << 18, (3 << 18) - 4096),
        (0, NORMAL): (4 << 18, 6 << 18, 2 << 18),
    }


def test_nodes(booted: Callable[..., Any]) -> None:
    machine = booted("6G", 2)
    kernel = machine.kernel
    first, second = spans(machine)[0, DMA32], spans(machine)[1, NORMAL]
    assert set(spans(machine)) == {(0, DMA), (0, DMA32), (1, NORMAL)}
    assert first[1] * 4096 == 3 * GIB
    assert second == (4 << 18, 7 << 18, 3 << 18)
    for nid, start, end in ((0, 1, 3 << 18), (1, 4 << 18, 7 << 18)):
        pgdat = kernel.node_data(nid)
        assert kernel.get(pgdat, "pglist_data.node_start_pfn") == start
        assert kernel.get(pgdat, "pglist_data.node_spanned_pages") == end - start
        assert kernel.get(pgdat, "pglist_data.nr_zones") == (2 if nid == 0 else 3)
    # A node's struct is in its own memory.
    assert 4 * GIB <= kernel.phys(kernel.node_data(1)) < 7 * GIB


def test_a_hole_is_spanned_but_not_present(booted: Callable[..., Any]) -> None:
    ram = [(MIB, 64 * MIB), (80 * MIB, 96 * MIB)]
    memory = MemoryMap.of([Region(start, end, Kind.RAM) for start, end in ram])
    from kernelmm.boot import BootConfig, boot

    machine = boot(BootConfig(memory))
    start, end, present = spans(machine)[0, DMA32]
    assert (start, end) == (4096, 96 * 256)
    assert present == end - start - 16 * 256
    # The hole's pages have entries, and will never be free.
    array, exists = machine.dump.pages(64 * 256, 80 * 256, ["flags", "_count"])
    assert exists.all()
    assert (array["flags"] >> 10 & 1).all()


def test_movablecore_is_the_upper_end_of_each_node(booted: Callable[..., Any]) -> None:
    machine = booted("1G", 2, movablecore=256 * MIB)
    found = spans(machine)
    assert found[0, MOVABLE][1] * 4096 == 512 * MIB
    assert found[1, MOVABLE][1] * 4096 == 1024 * MIB
    movable = [found[nid, MOVABLE] for nid in (0, 1)]
    # Rounded up to blocks of 4 MiB, in every node.
    assert 256 * MIB // 4096 - 2048 <= sum(present for _, _, present in movable) <= 256 * MIB // 4096 + 2048
    assert all(start % 1024 == 0 for start, _, _ in movable)
    assert found[0, DMA32][1] == movable[0][0]
    assert machine.kernel.var("movable_zone") == DMA32


def test_kernelcore_is_shared_evenly_as_far_as_nodes_have_it(booted: Callable[..., Any]) -> None:
    """A node that is smaller than its share is all the kernel's, and the others give more."""
    memory = MemoryMap.of(
        [Region(0, 512 * MIB, Kind.RAM)],
        [Ranges([(0, 64 * MIB)]), Ranges([(64 * MIB, 256 * MIB)]), Ranges([(256 * MIB, 512 * MIB)])],
    )
    from kernelmm.boot import BootConfig, boot

    machine = boot(BootConfig(memory, kernelcore=300 * MIB))
    found = spans(machine)
    assert (0, MOVABLE) not in found
    core = {nid: found[nid, DMA32][2] for nid in range(3)}
    assert core[0] == 48 * 256
    # What node 0 cannot give is shared by the other two; each zone begins at a multiple of 4 MiB.
    assert abs(core[1] - core[2]) <= 1024
    # Zone DMA is the kernel's as well; 640K to 1M and page 0 are nobody's.
    assert abs(sum(core.values()) + found[0, DMA][2] - 300 * 256) <= 2 * 1024


def test_more_movable_memory_than_there_is(booted: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="movablecore"):
        booted("64M", movablecore=128 * MIB)


def test_empty_zones_have_names_and_lists(booted: Callable[..., Any]) -> None:
    kernel = booted("64M").kernel
    names = [kernel.string(kernel.get(zone.at, "zone.name")) for zone in kernel.zones()]
    assert names == ["DMA", "DMA32", "Normal", "Movable"]
    for zone in kernel.zones():
        for lru in range(5):
            head = kernel.at(zone.at, "zone.lruvec.lists", lru)
            assert kernel.words(kernel.phys(head), 2).tolist() == [head, head]


def test_wait_tables_grow_with_the_zone(booted: Callable[..., Any]) -> None:
    kernel = booted("5G").kernel
    entries = {zone.idx: kernel.get(zone.at, "zone.wait_table_hash_nr_entries") for zone in kernel.populated_zones()}
    assert entries == {DMA: 16, DMA32: 4096, NORMAL: 2048}
    zone = kernel.zone(0, DMA)
    table = kernel.get(zone.at, "zone.wait_table")
    for i in range(16):
        head = kernel.at(table + i * 24, "__wait_queue_head.task_list")
        assert kernel.words(kernel.phys(head), 2).tolist() == [head, head]
    assert kernel.get(zone.at, "zone.wait_table_bits") == 4

# SPDX-License-Identifier: GPL-2.0-only
"""From memblock to the free lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kernelmm import gfp
from kernelmm.boot import Booted
from kernelmm.core import entry, mmzone
from physmem.errors import UsageError
from physmem.inspect.check import check

MIB = 1 << 20
MOVABLE, CMA = 2, 4


def free_pages(machine: Any) -> set[int]:
    """Every PFN that is in a free block, by the marks of the blocks' first pages."""
    array, _ = machine.dump.pages(0, machine.dump.max_pfn, ["_mapcount", "private"])
    heads = np.flatnonzero(array["_mapcount"] == -128)
    return {pfn for head in heads.tolist() for pfn in range(head, head + (1 << int(array["private"][head])))}


@pytest.mark.parametrize("deferred", [False, True])
def test_all_that_is_not_reserved_is_free(booted: Callable[..., Booted], deferred: bool) -> None:
    holes = ((0x1234000, 0x1235000), (0x1800000, 0x1C00000), (0x2000000, 0x2345678))
    machine = booted("64M", reserved=holes, deferred=deferred)
    free = free_pages(machine)
    for start, end in holes:
        assert not free & set(range(start >> 12, -(-end >> 12)))
    assert 0x1233 in free
    assert 0x1235 in free
    assert -(-0x2345678 >> 12) in free
    array, _ = machine.dump.pages(0, machine.dump.max_pfn, ["flags", "_count"])
    reserved = set(np.flatnonzero(array["flags"] >> 10 & 1).tolist())
    assert not reserved & free
    assert len(reserved) + len(free) == machine.dump.max_pfn - 1
    assert {int(count) for count in array["_count"][sorted(reserved)]} == {1}
    assert not array["_count"][sorted(free)].any()
    kernel = machine.kernel
    assert kernel.var("totalram_pages") == len(free)
    assert kernel.var("vm_stat", 0) == len(free)
    assert not check(machine.dump).findings


def test_events_and_locks_are_counted(booted: Callable[..., Booted]) -> None:
    """As if every block had been freed by itself."""
    one, other = booted("256M", 2, deferred=False), booted("256M", 2)
    for machine in (one, other):
        kernel = machine.kernel
        events = kernel.per_cpu_ptr(kernel.symbols["vm_event_states"], 0)
        assert kernel.get(events, "vm_event_state.event", machine.mm.pgfree) == kernel.var("totalram_pages")
    for zone in one.kernel.populated_zones():
        assert one.kernel.get(zone.at, "zone.lock") == other.kernel.get(zone.at, "zone.lock") != 0


def test_contiguous_memory(booted: Callable[..., Booted]) -> None:
    machine = booted("128M", cma=15 * MIB)
    kernel = machine.kernel
    area = kernel.var("dma_contiguous_default_area")
    base, count = kernel.get(area, "cma.base_pfn"), kernel.get(area, "cma.count")
    # Rounded up to whole blocks of 4 MiB, and as high as there is room.
    assert count == kernel.var("totalcma_pages") == 4096
    assert base % 1024 == 0
    assert base + count <= machine.dump.max_pfn
    pageblocks = range(base, base + count, 512)
    assert {mmzone.pageblock_migratetype(machine.mm, pfn) for pfn in pageblocks} == {CMA}
    assert set(range(base, base + count)) <= free_pages(machine)
    zone = kernel.zone(0, 1)
    item = kernel.layout.enumerator("NR_FREE_CMA_PAGES")
    assert kernel.get(zone.at, "zone.vm_stat", item) == 4096
    assert kernel.get(area, "cma.bitmap") % 4096 == 0
    assert kernel.get(area, "cma.lock.count") == 1
    # Only movable pages come from there.
    for flags, there in ((gfp.GFP_KERNEL, False), (gfp.GFP_HIGHUSER_MOVABLE, True)):
        pfns = set()
        while page := entry.alloc_pages_node(machine.mm, 0, flags & ~gfp.__GFP_WAIT, 9):
            pfns.add((page - machine.mm.mem_map) >> 6)
        assert bool(pfns & set(pageblocks)) == there
    assert not check(machine.dump).findings


@pytest.mark.parametrize("cma", [64 * MIB, 1 << 40])
def test_more_contiguous_memory_than_there_is(booted: Callable[..., Booted], cma: int) -> None:
    with pytest.raises(UsageError, match="no such piece"):
        booted("64M", cma=cma)

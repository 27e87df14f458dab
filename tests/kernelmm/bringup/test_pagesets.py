# SPDX-License-Identifier: GPL-2.0-only
"""Per-CPU areas, and what they hold."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from kernelmm.boot import Booted
from kernelmm.bringup import sysctl
from kernelmm.bringup.pagesets import units_per_allocation, zone_batchsize
from kernelmm.core import entry
from kernelmm.gfp import GFP_KERNEL
from physmem.errors import UsageError
from physmem.structs.linux_4_0 import UP

MIB = 1 << 20


@pytest.mark.parametrize(
    ("pages", "batch"),
    [(100, 0), (4095, 0), (3998, 0), (11 * 1024, 1), (16 * 1024, 3), (28000, 7), (1 << 18, 31), (1 << 24, 31)],
)
def test_batches(booted: Callable[..., Booted], pages: int, batch: int) -> None:
    """About a 4000th of the zone, a power of two less one, at most 31: numbers worked out by hand."""
    kernel = booted().kernel
    zone = kernel.zone(0, 1)
    kernel.set(zone.at, "zone.managed_pages", pages)
    assert zone_batchsize(kernel, zone) == batch


@pytest.mark.parametrize(
    ("used", "node_of", "units"),
    [(100 << 10, [0], 1), (32 << 10, [0, 0, 0, 0], 4), (32 << 10, [0] * 8, 8), (100 << 10, [0, 1] * 4, 4)],
)
def test_units_waste_little(used: int, node_of: list[int], units: int) -> None:
    assert units_per_allocation(used, node_of) == units


def test_every_cpu_has_an_area_on_its_node(booted: Callable[..., Booted]) -> None:
    machine = booted("256M", 2, cpus=5)
    kernel = machine.kernel
    assert [kernel.var("numa_node", cpu=cpu) for cpu in range(5)] == [0, 1, 0, 1, 0]
    areas = [kernel.phys(kernel.per_cpu_offset(cpu)) for cpu in range(5)]
    assert len(set(areas)) == 5
    for cpu, area in enumerate(areas):
        assert area // (128 * MIB) == cpu % 2
        assert kernel.var("this_cpu_off", cpu=cpu) == kernel.per_cpu_offset(cpu)
        assert kernel.var("cpu_number", cpu=cpu) == cpu
    size = kernel.symbols["__per_cpu_end"] + len(list(kernel.populated_zones())) * 128
    ordered = sorted(areas)
    assert all(one + size <= other for one, other in itertools.pairwise(ordered))
    assert kernel.online_cpus() == [0, 1, 2, 3, 4]
    assert [kernel.var("node_to_cpumask_map", nid) for nid in range(2)] == [0b10101, 0b01010]


def test_no_area_is_free_memory(booted: Callable[..., Booted]) -> None:
    machine = booted("256M", 2, cpus=3)
    kernel = machine.kernel
    array, _ = machine.dump.pages(0, machine.dump.max_pfn, ["flags"])
    for zone in kernel.populated_zones():
        for cpu in range(3):
            pageset = kernel.per_cpu_ptr(kernel.get(zone.at, "zone.pageset"), cpu)
            assert int(array["flags"][kernel.phys(pageset) >> 12]) >> 10 & 1


def test_pagesets_are_each_cpus_own(booted: Callable[..., Booted]) -> None:
    machine = booted("256M", cpus=2)
    kernel = machine.kernel
    zone = kernel.zone(0, 1)
    pageset = kernel.get(zone.at, "zone.pageset")
    machine.mm.set_cpu(1)
    assert entry.alloc_pages_node(machine.mm, 0, GFP_KERNEL, 0)
    counts = [kernel.get(kernel.per_cpu_ptr(pageset, cpu), "per_cpu_pageset.pcp.count") for cpu in range(2)]
    batch = kernel.get(kernel.per_cpu_ptr(pageset, 1), "per_cpu_pageset.pcp.batch")
    assert counts == [0, batch - 1]


def high_and_batch(kernel: Any) -> set[tuple[int, int]]:
    zone = kernel.zone(0, 1)
    pagesets = [kernel.per_cpu_ptr(kernel.get(zone.at, "zone.pageset"), cpu) for cpu in kernel.possible_cpus()]
    return {
        (kernel.get(pageset, "per_cpu_pageset.pcp.high"), kernel.get(pageset, "per_cpu_pageset.pcp.batch"))
        for pageset in pagesets
    }


def test_the_fraction_of_each_zone(booted: Callable[..., Booted]) -> None:
    kernel = booted("256M", cpus=2).kernel
    managed = kernel.get(kernel.zone(0, 1).at, "zone.managed_pages")
    assert high_and_batch(kernel) == {(6 * 15, 15)}
    sysctl.percpu_pagelist_fraction_sysctl_handler(kernel, 8)
    assert high_and_batch(kernel) == {(managed // 8, 96)}
    sysctl.percpu_pagelist_fraction_sysctl_handler(kernel, 4000)
    assert high_and_batch(kernel) == {(managed // 4000, managed // 4000 // 4)}
    sysctl.percpu_pagelist_fraction_sysctl_handler(kernel, 0)
    assert high_and_batch(kernel) == {(6 * 15, 15)}
    with pytest.raises(UsageError, match="from 8"):
        sysctl.percpu_pagelist_fraction_sysctl_handler(kernel, 7)


def test_without_smp(booted: Callable[..., Booted]) -> None:
    machine = booted("256M", kernel=UP)
    kernel = machine.kernel
    assert kernel.online_cpus() == [0]
    assert entry.alloc_pages_node(machine.mm, 0, GFP_KERNEL, 0)
    zone = kernel.zone(0, 1)
    assert kernel.get(kernel.get(zone.at, "zone.pageset"), "per_cpu_pageset.pcp.count") == 15 - 1

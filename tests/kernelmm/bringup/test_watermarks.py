# SPDX-License-Identifier: GPL-2.0-only
"""Watermarks and reserves of our own machines, and what changing them at run time does."""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt
from typing import Any

import pytest

from kernelmm.boot import Booted
from kernelmm.bringup import sysctl
from kernelmm.bringup.kernel import Kernel
from kernelmm.core import mmzone
from physmem.errors import UsageError
from physmem.inspect.check import check

RESERVE = 3


def marks(kernel: Kernel) -> dict[tuple[int, int], list[int]]:
    return {(zone.nid, zone.idx): [kernel.wmark(zone, which) for which in range(3)] for zone in kernel.zones()}


@pytest.mark.parametrize(("size", "nodes"), [("16M", 1), ("256M", 2), ("5G", 1), ("20G", 3)])
def test_watermarks_share_out_min_free_kbytes(booted: Callable[..., Booted], size: str, nodes: int) -> None:
    kernel = booted(size, nodes).kernel
    managed = {(zone.nid, zone.idx): kernel.get(zone.at, "zone.managed_pages") for zone in kernel.zones()}
    total = sum(managed.values())
    assert total == kernel.var("totalram_pages")
    kbytes = max(128, min(isqrt(total * 4 * 16), 65536))
    assert kernel.var("min_free_kbytes") == kbytes
    for zone, (low, mid, high) in marks(kernel).items():
        share = kbytes // 4 * managed[zone] // total
        assert (low, mid, high) == (share, share + share // 4, share + share // 2)


def test_lowmem_reserves_grow_with_what_is_above(booted: Callable[..., Booted]) -> None:
    kernel = booted("20G").kernel
    dma, dma32, normal, movable = (kernel.zone(0, idx) for idx in range(4))
    pages = {zone: kernel.get(zone.at, "zone.managed_pages") for zone in (dma, dma32, normal, movable)}

    def kept(zone: Any) -> list[int]:
        return [kernel.get(zone.at, "zone.lowmem_reserve", j) for j in range(4)]

    above = pages[dma32], pages[dma32] + pages[normal]
    assert kept(dma) == [0, above[0] // 256, above[1] // 256, above[1] // 256]
    assert kept(dma32) == [0, 0, pages[normal] // 256, pages[normal] // 256]
    assert kept(normal) == [0, 0, 0, 0]
    # The DMA zone would keep more than it has.
    assert kept(dma)[3] > pages[dma]
    assert kernel.get(dma.at, "zone.dirty_balance_reserve") == pages[dma]
    total = sum(kernel.get(zone.at, "zone.dirty_balance_reserve") for zone in kernel.zones())
    assert kernel.var("totalreserve_pages") == kernel.var("dirty_balance_reserve") == total

    sysctl.lowmem_reserve_ratio_sysctl_handler(kernel, [32, 0])
    # Ratios below 1 are 1.
    assert kernel.var("sysctl_lowmem_reserve_ratio", 1) == 1
    assert kept(dma)[3] == above[1] // 32
    assert kept(dma32)[3] == pages[normal]
    with pytest.raises(UsageError, match="there are 3"):
        sysctl.lowmem_reserve_ratio_sysctl_handler(kernel, [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("size", "cpus", "threshold"),
    [("64M", 1, 2), ("64M", 2, 4), ("256M", 1, 4), ("3G", 1, 12), ("3G", 4, 36), ("3G", 8, 48)],
)
def test_thresholds(booted: Callable[..., Booted], size: str, cpus: int, threshold: int) -> None:
    """Twice the bits of the number of CPUs, times the bits of the memory in 128 MiB and one: worked out by hand."""
    kernel = booted(size, cpus=cpus).kernel
    zone = kernel.zone(0, 1)
    pageset = kernel.get(zone.at, "zone.pageset")
    for cpu in range(cpus):
        at = kernel.per_cpu_ptr(pageset, cpu)
        assert kernel.get(at, "per_cpu_pageset.stat_threshold") == threshold
    low, mid, high = marks(kernel)[0, 1]
    drift = cpus * threshold
    assert kernel.get(zone.at, "zone.percpu_drift_mark") == (high + drift if drift > mid - low else 0)


def test_inactive_ratio(booted: Callable[..., Booted]) -> None:
    kernel = booted("20G").kernel
    # 2.99 and 16.7 GiB are 2 and 16 of them: the roots of 20 and 160.
    assert [kernel.get(kernel.zone(0, idx).at, "zone.inactive_ratio") for idx in range(4)] == [1, 4, 12, 1]


def reserve_blocks(machine: Any) -> list[int]:
    """PFNs of the MIGRATE_RESERVE pageblocks."""
    return [
        pfn for pfn in range(0, machine.dump.max_pfn, 512) if mmzone.pageblock_migratetype(machine.mm, pfn) == RESERVE
    ]


def test_migrate_reserve_follows_the_watermark(booted: Callable[..., Booted]) -> None:
    """One pageblock for each 512 pages of the min mark, or part of them, but two at most."""
    machine = booted("64M")
    kernel = machine.kernel
    at_boot = reserve_blocks(machine)
    assert len(at_boot) == 2
    dma, dma32 = kernel.zone(0, 0), kernel.zone(0, 1)
    assert [kernel.get(zone.at, "zone.nr_migrate_reserve_block") for zone in (dma, dma32)] == [1, 1]
    sysctl.min_free_kbytes_sysctl_handler(kernel, 16384)
    assert kernel.var("user_min_free_kbytes") == 16384
    assert [kernel.get(zone.at, "zone.nr_migrate_reserve_block") for zone in (dma, dma32)] == [2, 2]
    assert len(reserve_blocks(machine)) == 4
    assert set(at_boot) < set(reserve_blocks(machine))
    # Of reserved pages there are none in them.
    array, _ = machine.dump.pages(0, machine.dump.max_pfn, ["flags"])
    for pfn in reserve_blocks(machine):
        assert not (array["flags"][pfn : pfn + 512] >> 10 & 1).any()
    sysctl.min_free_kbytes_sysctl_handler(kernel, 0)
    assert reserve_blocks(machine) == []
    sysctl.min_free_kbytes_sysctl_handler(kernel, 1000)
    assert reserve_blocks(machine) == at_boot
    assert not check(machine.dump).findings


def test_ratios_of_zone_reclaim(booted: Callable[..., Booted]) -> None:
    kernel = booted("64M").kernel
    zone = kernel.zone(0, 1)
    managed = kernel.get(zone.at, "zone.managed_pages")
    sysctl.sysctl_min_unmapped_ratio_sysctl_handler(kernel, 10)
    sysctl.sysctl_min_slab_ratio_sysctl_handler(kernel, 20)
    assert kernel.get(zone.at, "zone.min_unmapped_pages") == managed * 10 // 100
    assert kernel.get(zone.at, "zone.min_slab_pages") == managed * 20 // 100
    with pytest.raises(UsageError, match="from 0 to 100"):
        sysctl.sysctl_min_slab_ratio_sysctl_handler(kernel, 101)

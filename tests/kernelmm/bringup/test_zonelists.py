# SPDX-License-Identifier: GPL-2.0-only
"""The order of zones: by distance, in turns, by node or by zone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from kernelmm.boot import BootConfig, Booted, boot
from kernelmm.bringup import sysctl, zonelists
from kernelmm.bringup.kernel import Kernel
from physmem.e820 import Kind, MemoryMap, Region
from physmem.errors import UsageError
from physmem.ranges import Ranges
from physmem.structs.linux_4_0 import UP

MIB = 1 << 20
DMA, DMA32, NORMAL = range(3)


def nodes_of(kernel: Kernel, nid: int, which: int = 0) -> list[int]:
    """The nodes of the zones on a list, in order, without repetition."""
    nodes = [kernel.get(zone, "zone.node") for zone, _ in zonelists.zonelist(kernel, nid, which)]
    return list(dict.fromkeys(nodes))


def with_distances(distances: Sequence[Sequence[int]]) -> Kernel:
    """A machine with 32 MiB on each node, so far from each other."""
    count = len(distances)
    nodes = [Ranges([(i * 32 * MIB, (i + 1) * 32 * MIB)]) for i in range(count)]
    return boot(BootConfig(MemoryMap.of([Region(0, count * 32 * MIB, Kind.RAM)], nodes, distances))).kernel


def test_one_node_goes_down_through_its_zones(booted: Callable[..., Booted]) -> None:
    kernel = booted("5G").kernel
    for which in range(2):
        found = zonelists.zonelist(kernel, 0, which)
        assert found == [(kernel.zone(0, idx).at, idx) for idx in (NORMAL, DMA32, DMA)]


def test_equally_far_nodes_take_turns(booted: Callable[..., Booted]) -> None:
    """The next node comes first, not always node 0."""
    kernel = booted("256M", 4).kernel
    assert [nodes_of(kernel, nid) for nid in range(4)] == [[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1], [3, 0, 1, 2]]
    assert [nodes_of(kernel, nid, 1) for nid in range(4)] == [[0], [1], [2], [3]]
    # Each was first among the equally far ones once, after the local node.
    assert [kernel.var("node_load", nid) for nid in range(4)] == [3, 3, 3, 3]


def test_near_nodes_come_first() -> None:
    far = [[10, 40, 20, 30], [40, 10, 30, 20], [20, 30, 10, 40], [30, 20, 40, 10]]
    kernel = with_distances(far)
    assert [nodes_of(kernel, nid) for nid in range(4)] == [[0, 2, 3, 1], [1, 3, 2, 0], [2, 0, 1, 3], [3, 1, 0, 2]]
    assert [[zonelists.node_distance(kernel, i, j) for j in range(4)] for i in range(4)] == far


def test_nodes_beyond_the_table_are_near_or_far(booted: Callable[..., Booted]) -> None:
    kernel = booted().kernel
    assert [zonelists.node_distance(kernel, 5, 5), zonelists.node_distance(kernel, 0, 5)] == [10, 20]


def test_zone_order(booted: Callable[..., Booted]) -> None:
    """All normal memory, the local first, before anybody's DMA32."""
    kernel = booted("8G", 2, zonelist_order="zone").kernel
    order = [(kernel.get(zone, "zone.node"), idx) for zone, idx in zonelists.zonelist(kernel, 0, 0)]
    assert order == [(0, NORMAL), (1, NORMAL), (0, DMA32), (0, DMA)]
    order = [(kernel.get(zone, "zone.node"), idx) for zone, idx in zonelists.zonelist(kernel, 1, 0)]
    assert order == [(1, NORMAL), (0, NORMAL), (0, DMA32), (0, DMA)]
    assert [kernel.var("node_order", i) for i in range(3)] == [1, 0, 0]


def test_the_order_changes_at_run_time(booted: Callable[..., Booted], contents: Callable[[Any], bytes]) -> None:
    machine = booted("8G", 2)
    kernel = machine.kernel
    before = zonelists.zonelist(kernel, 0, 0)
    sysctl.numa_zonelist_order_handler(kernel, "zone")
    assert kernel.var("current_zonelist_order") == zonelists.ZONELIST_ORDER_ZONE
    assert [idx for _, idx in zonelists.zonelist(kernel, 0, 0)] == [NORMAL, NORMAL, DMA32, DMA]
    sysctl.numa_zonelist_order_handler(kernel, "default")
    assert zonelists.zonelist(kernel, 0, 0) == before
    with pytest.raises(UsageError, match="default, node, zone"):
        sysctl.numa_zonelist_order_handler(kernel, "best")


def test_the_cache_of_the_first_list(booted: Callable[..., Booted]) -> None:
    kernel = booted("8G", 2).kernel
    at = kernel.at(kernel.node_data(1), "pglist_data.node_zonelists", 0)
    cache = kernel.get(at, "zonelist.zlcache_ptr")
    assert cache == kernel.at(at, "zonelist.zlcache")
    assert [kernel.get(cache, "zonelist_cache.z_to_n", i) for i in range(4)] == [1, 0, 0, 0]
    second = kernel.at(kernel.node_data(1), "pglist_data.node_zonelists", 1)
    assert kernel.get(second, "zonelist.zlcache_ptr") == 0


def test_without_numa(booted: Callable[..., Booted]) -> None:
    kernel = booted("5G", kernel=UP).kernel
    assert [idx for _, idx in zonelists.zonelist(kernel, 0, 0)] == [NORMAL, DMA32, DMA]
    at = kernel.at(kernel.node_data(0), "pglist_data.node_zonelists", 0)
    assert kernel.get(at, "zonelist.zlcache_ptr") == 0


def test_mobility_is_not_grouped_when_memory_is_too_little() -> None:
    """Fewer pages than one pageblock for each type: 512 times 6, which is 12 MiB."""

    def grouped(mebibytes: int) -> bool:
        # The kernel's image is at 2 MiB.
        regions = [Region(0x100000, (mebibytes + 1) * MIB, Kind.RAM)]
        kernel = boot(BootConfig(MemoryMap.of(regions))).kernel
        return not kernel.var("page_group_by_mobility_disabled")

    assert not grouped(10)
    assert grouped(16)

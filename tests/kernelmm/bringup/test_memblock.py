# SPDX-License-Identifier: GPL-2.0-only
"""memblock against a model that everyone believes: sets of page numbers."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelmm.bringup.memblock import Memblock
from physmem.errors import UsageError

PAGE = 4096
SPAN = 64  # pages

points = st.integers(0, SPAN)
pieces = st.tuples(points, points).map(sorted).filter(lambda pair: pair[0] < pair[1])


def pages(intervals: Any) -> set[int]:
    return {page for start, end, *_ in intervals for page in range(start // PAGE, end // PAGE)}


@st.composite
def maps(draw: st.DrawFn) -> Memblock:
    """Memory in disjoint regions of two nodes, some of it reserved."""
    memblock = Memblock()
    cuts = sorted(draw(st.sets(points, min_size=2, max_size=8)))
    for low, high in zip(cuts[::2], cuts[1::2], strict=False):
        memblock.add(low * PAGE, high * PAGE)
    border = draw(points) * PAGE
    memblock.set_node(0, border, 0)
    memblock.set_node(border, SPAN * PAGE, 1)
    for low, high in draw(st.lists(pieces, max_size=4)):
        memblock.reserve(low * PAGE, high * PAGE)
    memblock.current_limit = SPAN * PAGE
    return memblock


@given(maps(), pieces)
def test_free_is_memory_that_is_not_reserved(memblock: Memblock, piece: list[int]) -> None:
    taken = pages(memblock.reserved)
    assert pages(memblock.free_ranges()) == pages(memblock.memory) - taken
    low, high = (point * PAGE for point in piece)
    memblock.free(low, high)
    assert pages(memblock.reserved) == taken - set(range(*piece))


@given(maps())
def test_every_region_has_one_node(memblock: Memblock) -> None:
    assert {region.nid for region in memblock.memory} <= {0, 1}
    assert all(region.start < region.end for region in memblock.memory)
    assert memblock.memory == sorted(memblock.memory)
    # Neighbours of one node are one region.
    for one, other in zip(memblock.memory, memblock.memory[1:], strict=False):
        assert one.end < other.start or one.nid != other.nid
    of_nodes = pages(memblock.free_ranges(0)), pages(memblock.free_ranges(1))
    assert not of_nodes[0] & of_nodes[1]
    assert of_nodes[0] | of_nodes[1] == pages(memblock.free_ranges())


@given(maps(), st.integers(1, 8), st.sampled_from([1, 2, 4]), st.sampled_from([None, 0, 1]), points)
def test_allocation_is_the_highest_that_fits(
    memblock: Memblock, size: int, align: int, nid: int | None, above: int
) -> None:
    def fits(free: set[int], low: int) -> list[int]:
        # Page 0 is never given: its address would be taken for failure.
        starts = range(max(low, 1), SPAN - size + 1)
        return [s for s in starts if s % align == 0 and set(range(s, s + size)) <= free]

    regions = [set(range(r.start // PAGE, r.end // PAGE)) for r in memblock.memory]
    free = pages(memblock.free_ranges())
    here = [region & free for region, r in zip(regions, memblock.memory, strict=True) if nid in (None, r.nid)]
    anywhere = [region & free for region in regions]
    wanted = None
    for within, low in ((here, above), (anywhere, above), (here, 0), (anywhere, 0)):
        if found := [start for region in within for start in fits(region, low)]:
            wanted = max(found)
            break
    got = memblock.try_alloc(size * PAGE, align * PAGE, nid, above * PAGE)
    assert got == (None if wanted is None else wanted * PAGE)
    if got is not None:
        assert pages(memblock.free_ranges()) == free - set(range(got // PAGE, got // PAGE + size))


def test_out_of_memory_says_what_for() -> None:
    memblock = Memblock()
    memblock.add(PAGE, 4 * PAGE)
    with pytest.raises(UsageError, match="too little memory to boot: no 0x4000 bytes left for a hat"):
        memblock.alloc(4 * PAGE, what="a hat")


def test_partial_pages_are_no_pages() -> None:
    memblock = Memblock()
    memblock.add(PAGE // 2, 3 * PAGE + 1, 0)
    assert list(memblock.pfn_ranges()) == [(1, 3, 0)]


def regions(kernel: Any, name: str) -> list[tuple[int, int, int, int]]:
    """What is in the kernel's variable."""
    head = kernel.symbols["memblock"]
    count = kernel.get(head, f"memblock.{name}.cnt")
    data = kernel.ram.read(kernel.phys(kernel.get(head, f"memblock.{name}.regions")), 32 * count)
    return list(struct.iter_unpack("<QQQi4x", data))


def test_it_is_left_in_memory(booted: Callable[..., Any]) -> None:
    kernel = booted("64M", 2).kernel
    memory = regions(kernel, "memory")
    assert [(base, base + size, nid) for base, size, _, nid in memory] == [
        (0x1000, 0x9F000, 0),
        (0x100000, 0x2000000, 0),
        (0x2000000, 0x4000000, 1),
    ]
    head = kernel.symbols["memblock"]
    assert kernel.get(head, "memblock.memory.total_size") == sum(size for _, size, *_ in memory)
    assert kernel.get(head, "memblock.current_limit") == 0x4000000
    # What is not reserved was released.
    reserved = pages((base, base + size + PAGE - 1) for base, size, *_ in regions(kernel, "reserved"))
    usable = pages((base + PAGE - 1 & -PAGE, base + size) for base, size, *_ in memory)
    assert kernel.var("totalram_pages") == len(usable - reserved)


def test_lists_that_are_too_long_get_room(booted: Callable[..., Any]) -> None:
    holes = tuple((2 * i << 12, (2 * i + 1) << 12) for i in range(0x1800, 0x1800 + 200))
    kernel = booted("64M", reserved=holes).kernel
    head = kernel.symbols["memblock"]
    assert kernel.get(head, "memblock.reserved.max") == 256
    assert kernel.get(head, "memblock.reserved.cnt") > 200
    assert kernel.get(head, "memblock.memory.max") == 128
    found = regions(kernel, "reserved")
    assert found == sorted(found)
    assert {(start, end - start) for start, end in holes} <= {(base, size) for base, size, *_ in found}

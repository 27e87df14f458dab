# SPDX-License-Identifier: GPL-2.0-only
"""Bring-up against what a real Linux 4.0 did: repeated on its memory, each step leaves every byte as it is.

A step is repeated from the inputs that it had when that kernel booted.  Two differ from what the images
have: what a zone manages has grown since, by the pages of initialisation code; and the watermarks were
zero, where a step that runs before them reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kernelmm.boot import BootConfig, boot
from kernelmm.bringup import memmap, pagesets, sections, tables, watermarks, zonelists, zones
from kernelmm.bringup.kernel import Kernel
from kernelmm.bringup.memblock import Memblock
from physmem.e820 import MemoryMap
from physmem.structs.linux_4_0 import NUMA

CASES = ["n128_s0_empty", "n128_s1", "n128_s12_bad", "n128cma_s17_contig", "n256x2_s6n", "u128_s1"]
WMARKS = range(3)

cases = pytest.mark.parametrize("name", CASES)


@contextmanager
def as_it_was(real: Any, managed: dict[Any, int], *, sets_watermarks: bool = False) -> Iterator[None]:
    """For a while, zones manage other numbers of pages, and no watermarks are set (until the step sets them)."""
    kernel: Kernel = real.kernel
    now = {zone: kernel.get(zone.at, "zone.managed_pages") for zone in kernel.zones()}
    marks = {zone: [kernel.wmark(zone, which) for which in WMARKS] for zone in kernel.zones()}
    for zone in now:
        kernel.set(zone.at, "zone.managed_pages", managed.get(zone, now[zone]))
        for which in WMARKS:
            kernel.set(zone.at, "zone.watermark", 0, which)
    yield
    for zone, pages in now.items():
        kernel.set(zone.at, "zone.managed_pages", pages)
        for which in WMARKS:
            if not sets_watermarks:
                kernel.set(zone.at, "zone.watermark", marks[zone][which], which)


def before_release(real: Any, *, cma: bool = True) -> dict[Any, int]:
    """What the zones managed before initialisation code was released (and, if not ``cma``, contiguous memory)."""
    kernel: Kernel = real.kernel
    zone = real.init_zone
    pages = kernel.get(zone.at, "zone.managed_pages") - real.init_pages
    return {zone: pages - (0 if cma else kernel.var("totalcma_pages"))}


def estimates(real: Any) -> dict[Any, int]:
    """What the zones were thought to manage, when the zonelists were built."""
    kernel: Kernel = real.kernel
    sizes = {
        zone: (kernel.get(zone.at, "zone.spanned_pages"), kernel.get(zone.at, "zone.present_pages"))
        for zone in kernel.zones()
    }
    # Nothing is released in the DMA zone later: what it does not manage was taken from the start.
    dma = kernel.zone(0, 0)
    taken = sizes[dma][1] - kernel.get(dma.at, "zone.managed_pages")
    return {zone: zones.estimate_managed(kernel, zone, *size, taken) for zone, size in sizes.items()}


@cases
def test_zonelists(attached: Callable[[str], Any], name: str) -> None:
    """Both lists of each node, the zonelist cache, node_load[], vm_total_pages, the boot pagesets."""
    real = attached(name)
    before = real.snapshot()
    with as_it_was(real, estimates(real)):
        zonelists.build_all_zonelists(real.kernel)
    assert real.changed(before) == []


@cases
def test_zonelists_are_built_from_nothing(attached: Callable[[str], Any], name: str) -> None:
    """The lists are cleared first, so that it is not their old contents that are right."""
    real = attached(name)
    kernel = real.kernel
    before = real.snapshot()
    for nid in kernel.nodes():
        for which in range(kernel.layout.constant("MAX_ZONELISTS")):
            at = kernel.at(kernel.node_data(nid), "pglist_data.node_zonelists", which)
            # Beyond the end of a list the kernel leaves what was there: zeros.
            start = kernel.layout.offsetof("zonelist", "_zonerefs")
            kernel.ram.write(kernel.phys(at + start), bytes(kernel.layout.sizeof("zonelist", "_zonerefs")))
    assert real.changed(before)
    with as_it_was(real, estimates(real)):
        zonelists.build_all_zonelists(kernel)
    assert real.changed(before) == []


@cases
def test_watermarks_reserves_thresholds(attached: Callable[[str], Any], name: str) -> None:
    """min_free_kbytes, watermarks, lowmem and total reserves, thresholds, drift marks, ratios, MIGRATE_RESERVE."""
    real = attached(name)
    kernel: Kernel = real.kernel
    before = real.snapshot()
    kernel.set_var("min_free_kbytes", 1024)
    kernel.set_var("totalreserve_pages", 0)
    for zone in kernel.zones():
        for j in range(zone.idx, kernel.max_nr_zones):
            kernel.set(zone.at, "zone.lowmem_reserve", 12345, j)
        kernel.set(zone.at, "zone.inactive_ratio", 77)
    with as_it_was(real, before_release(real), sets_watermarks=True):
        watermarks.init_per_zone_wmark_min(kernel)
    # The allocator has used the fair batches meanwhile; and each zone's lock was taken once more.
    item = kernel.layout.enumerator("NR_ALLOC_BATCH")
    moved = {kernel.phys(kernel.symbols["vm_stat"]) + 8 * item + i for i in range(8)}
    for zone in kernel.zones():
        moved |= {kernel.phys(kernel.at(zone.at, "zone.vm_stat", item)) + i for i in range(8)}
        if kernel.smp:
            moved |= {kernel.phys(kernel.at(zone.at, "zone.lock")) + i for i in range(2)}
            diff = kernel.at(kernel.get(zone.at, "zone.pageset"), "per_cpu_pageset.vm_stat_diff", item)
            moved.add(kernel.phys(diff + kernel.per_cpu_offset(0)))
    assert set(real.changed(before)) <= moved


@cases
def test_pagesets(attached: Callable[[str], Any], name: str) -> None:
    """High mark and batch of every CPU's pageset."""
    real = attached(name)
    kernel: Kernel = real.kernel
    before = real.snapshot()
    with as_it_was(real, before_release(real, cma=False)):
        for zone in kernel.populated_zones():
            for cpu in kernel.possible_cpus():
                pageset = kernel.per_cpu_ptr(kernel.get(zone.at, "zone.pageset"), cpu)
                kernel.set(pageset, "per_cpu_pageset.pcp.high", 0)
                kernel.set(pageset, "per_cpu_pageset.pcp.batch", 0)
                pagesets.pageset_set_high_and_batch(kernel, zone, pageset)
    assert real.changed(before) == []


@cases
def test_page_links(attached: Callable[[str], Any], name: str) -> None:
    """Zone and node in the flags of every page, free and used, good and bad."""
    real = attached(name)
    before = real.snapshot()
    for zone in real.kernel.populated_zones():
        start = real.kernel.get(zone.at, "zone.zone_start_pfn")
        memmap.set_page_links(real.kernel, zone, start, start + real.kernel.get(zone.at, "zone.spanned_pages"))
    assert real.changed(before) == []


def test_page_links_of_another_zone_differ(attached: Callable[[str], Any]) -> None:
    real = attached("n256x2_s6n")
    before = real.snapshot()
    memmap.set_page_links(real.kernel, real.kernel.zone(1, 1), 4096, 4096 + 10)
    # A byte of each: the node's number.
    assert len(real.changed(before)) == 10


@cases
def test_sections_and_vmemmap(attached: Callable[[str], Any], name: str) -> None:
    """mem_section's entries, and the page array's mapping: all is there already."""
    real = attached(name)
    kernel: Kernel = real.kernel
    before = real.snapshot()
    present = sections.present_sections(kernel)
    assert present == ([0, 1] if name == "n256x2_s6n" else [0])

    def nothing() -> int:
        raise AssertionError("the page array is mapped already")

    start = kernel.layout.constant("VMEMMAP_START")
    size = kernel.layout.constant("PAGES_PER_SECTION") * kernel.layout.sizeof("page")
    for nr in present:
        section = sections.section_ptr(kernel, nr)
        usemap = kernel.get(section, "mem_section.pageblock_flags")
        kernel.set(section, "mem_section.section_mem_map", 1)
        sections.sparse_init_one_section(kernel, section, nr, start + nr * size, usemap)
        tables.vmemmap_populate(kernel, start + nr * size, start + (nr + 1) * size, nothing, nothing)
    assert real.changed(before) == []


@cases
def test_direct_map(attached: Callable[[str], Any], name: str) -> None:
    """The pages that the direct map is made of: those of that kernel, which had no pages of 1 GiB."""
    real = attached(name)
    kernel: Kernel = real.kernel
    memblock = Memblock()
    for start, end in MemoryMap.from_text(real.iomem).usable:
        memblock.add(start, end)
    before = real.snapshot()

    def nothing() -> int:
        raise AssertionError("all memory is mapped already")

    for start, end in [(0, 1 << 20), *((s * 4096, e * 4096) for s, e, _ in memblock.pfn_ranges())]:
        for piece in tables.split_mem_range(start, end, memblock, 21):
            va = kernel.va(piece.start)
            top = va + piece.end - piece.start
            tables.map_range(kernel, va, top, piece.start, piece.shift, nothing)
    assert real.changed(before) == []


# -- a machine of our own with a real one's memory ------------------------------------------------


def place(kernel: Kernel) -> list[tuple[int, ...]]:
    """Of each zone: node, index, start, spanned, present."""
    fields = ("zone_start_pfn", "spanned_pages", "present_pages")
    return [
        (zone.nid, zone.idx, *(kernel.get(zone.at, f"zone.{field}") for field in fields)) for zone in kernel.zones()
    ]


def lists(kernel: Kernel) -> list[list[tuple[int, int]]]:
    """Of each node's zonelists: (node, zone type) of the zones, in order."""
    which = [(nid, i) for nid in kernel.nodes() for i in range(kernel.layout.constant("MAX_ZONELISTS"))]
    names = {zone.at: (zone.nid, zone.idx) for zone in kernel.zones()}
    return [[names[at] for at, _ in zonelists.zonelist(kernel, *each)] for each in which]


@pytest.mark.parametrize(("name", "nodes"), [("n128_s1", 1), ("n256x2_s6n", 2)])
def test_a_machine_with_this_memory_has_the_same_zones(attached: Callable[[str], Any], name: str, nodes: int) -> None:
    real = attached(name)
    ours = boot(BootConfig(MemoryMap.from_text(real.iomem, nodes=nodes), kernel=NUMA)).kernel
    assert place(ours) == place(real.kernel)
    assert lists(ours) == lists(real.kernel)
    for field in ("node_start_pfn", "node_spanned_pages", "node_present_pages", "node_id", "nr_zones"):
        assert [ours.get(ours.node_data(nid), f"pglist_data.{field}") for nid in ours.nodes()] == [
            real.kernel.get(real.kernel.node_data(nid), f"pglist_data.{field}") for nid in real.kernel.nodes()
        ]
    for variable in ("max_pfn", "max_low_pfn", "highest_memmap_pfn", "movable_zone", "nr_node_ids", "nr_online_nodes"):
        assert ours.var(variable) == real.kernel.var(variable)
    # We have more of it to give: our kernel is small.
    for mine, theirs in zip(ours.populated_zones(), real.kernel.populated_zones(), strict=True):
        assert ours.get(mine.at, "zone.managed_pages") >= real.kernel.get(theirs.at, "zone.managed_pages")

# SPDX-License-Identifier: GPL-2.0-only
"""How much memory there is and where: the report under a failed allocation (lib/show_mem.c, mm/page_alloc.c).

The lines are those of Linux 4.0.  Writing them takes each zone's lock once, as there: a report is seen in
the lock's tickets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from kernelmm.bringup.kernel import N_MEMORY, Kernel, Zone
from kernelmm.core import mmzone
from kernelmm.core.mm import Mm
from kernelmm.pressure import stat
from kernelmm.pressure.reclaim import zone_reclaimable
from physmem import abi, address
from physmem.space import UNMAPPED

__all__ = [
    "SHOW_MEM_FILTER_NODES",
    "SysInfo",
    "show_free_areas",
    "show_mem",
    "si_meminfo",
    "si_meminfo_node",
]

#: Leave out the nodes that the caller may not use.
SHOW_MEM_FILTER_NODES = 1

#: KiB of a page, and of a task's stack.
_PAGE_KB = 4
_STACK_KB = 16

#: Three of the first report's lines; a name is that of a counter without ``NR_``.
_GLOBAL = (
    ("active_anon:ACTIVE_ANON", "inactive_anon:INACTIVE_ANON", "isolated_anon:ISOLATED_ANON"),
    ("active_file:ACTIVE_FILE", "inactive_file:INACTIVE_FILE", "isolated_file:ISOLATED_FILE"),
    ("unevictable:UNEVICTABLE", "dirty:FILE_DIRTY", "writeback:WRITEBACK", "unstable:UNSTABLE_NFS"),
    ("free:FREE_PAGES", "slab_reclaimable:SLAB_RECLAIMABLE", "slab_unreclaimable:SLAB_UNRECLAIMABLE"),
    ("mapped:FILE_MAPPED", "shmem:SHMEM", "pagetables:PAGETABLE", "bounce:BOUNCE"),
    ("free_cma:FREE_CMA_PAGES",),
)
_ZONE_LRU = (
    *("active_anon:ACTIVE_ANON", "inactive_anon:INACTIVE_ANON", "active_file:ACTIVE_FILE"),
    *("inactive_file:INACTIVE_FILE", "unevictable:UNEVICTABLE", "isolated(anon):ISOLATED_ANON"),
    "isolated(file):ISOLATED_FILE",
)
_ZONE_USE = (
    *("mlocked:MLOCK", "dirty:FILE_DIRTY", "writeback:WRITEBACK", "mapped:FILE_MAPPED", "shmem:SHMEM"),
    *("slab_reclaimable:SLAB_RECLAIMABLE", "slab_unreclaimable:SLAB_UNRECLAIMABLE"),
)
_ZONE_REST = (
    *("pagetables:PAGETABLE", "unstable:UNSTABLE_NFS", "bounce:BOUNCE", "free_cma:FREE_CMA_PAGES"),
    "writeback_tmp:WRITEBACK_TEMP",
)
_LETTERS = {
    "MIGRATE_UNMOVABLE": "U",
    "MIGRATE_RECLAIMABLE": "E",
    "MIGRATE_MOVABLE": "M",
    "MIGRATE_RESERVE": "R",
    "MIGRATE_CMA": "C",
    "MIGRATE_ISOLATE": "I",
}


class SysInfo(NamedTuple):
    """``struct sysinfo``, as far as it is about memory: pages; there is no high memory on 64 bits."""

    totalram: int
    sharedram: int
    freeram: int
    bufferram: int
    totalhigh: int
    freehigh: int
    mem_unit: int


def si_meminfo(kernel: Kernel) -> SysInfo:
    """``si_meminfo``: what sysinfo(2) says of memory; there are no block devices, so that nothing is buffered."""
    mm, item = kernel.mm, kernel.layout.enumerator
    shared, free = (stat.global_state(mm, item(name)) for name in ("NR_SHMEM", "NR_FREE_PAGES"))
    return SysInfo(kernel.var("totalram_pages"), shared, free, 0, 0, 0, abi.PAGE_SIZE)


def si_meminfo_node(kernel: Kernel, nid: int) -> SysInfo:
    """``si_meminfo_node``: the same of one node."""
    zones = [zone for zone in kernel.zones() if zone.nid == nid]
    managed = sum(kernel.get(zone.at, "zone.managed_pages") for zone in zones)
    shared, free = (sum(_state(kernel, zone, name) for zone in zones) for name in ("SHMEM", "FREE_PAGES"))
    return SysInfo(managed, shared, free, 0, 0, 0, abi.PAGE_SIZE)


def show_mem(kernel: Kernel, mask: int) -> Iterator[str]:
    """``show_mem``: all that is known of memory.

    :param mask: SHOW_MEM_FILTER_*
    """
    yield "Mem-Info:"
    yield from show_free_areas(kernel, mask)
    present = managed = 0
    for zone in kernel.populated_zones():
        present += kernel.get(zone.at, "zone.present_pages")
        managed += kernel.get(zone.at, "zone.managed_pages")
    yield f"{present} pages RAM"
    yield "0 pages HighMem/MovableOnly"
    if kernel.layout.enum("migratetype").get("MIGRATE_CMA") is None:
        yield f"{present - managed} pages reserved"
    else:
        cma = kernel.var("totalcma_pages")
        # %lu: as long as the areas are not yet managed, they are in both numbers.
        yield f"{present - managed - cma & 0xFFFF_FFFF_FFFF_FFFF} pages reserved"
        yield f"{cma} pages cma reserved"


def show_free_areas(kernel: Kernel, mask: int) -> Iterator[str]:
    """``show_free_areas``: per-cpu lists, counters, watermarks and free blocks of each zone."""
    mm = kernel.mm
    zones = [zone for zone in kernel.populated_zones() if not skip_free_areas_node(kernel, mask, zone.nid)]
    for zone in zones:
        yield f"{show_node(kernel, zone)}{zone_name(kernel, zone)} per-cpu:"
        for cpu in kernel.online_cpus():
            pageset = kernel.per_cpu_ptr(kernel.get(zone.at, "zone.pageset"), cpu)
            high, batch, count = (kernel.get(pageset, f"per_cpu_pageset.pcp.{f}") for f in ("high", "batch", "count"))
            yield f"CPU {cpu:4}: hi:{high:5}, btch:{batch:4} usd:{count:4}"
    for number, fields in enumerate(_GLOBAL):
        words = (f"{label}:{_global(kernel, name)}" for label, _, name in (field.partition(":") for field in fields))
        yield " " * (number > 0) + " ".join(words)
    for zone in zones:
        yield _zone_line(kernel, zone)
        reserve = (kernel.get(zone.at, "zone.lowmem_reserve", i) for i in range(mm.max_nr_zones))
        yield "lowmem_reserve[]:" + "".join(f" {pages}" for pages in reserve)
    for zone in zones:
        yield f"{show_node(kernel, zone)}{zone_name(kernel, zone)}: {_blocks(kernel, zone)}"
    yield from hugetlb_show_meminfo(kernel)
    yield f"{_global(kernel, 'FILE_PAGES')} total pagecache pages"
    # show_swap_cache_info: there is nothing to swap to.
    yield "0 pages in swap cache"
    yield "Swap cache stats: add 0, delete 0, find 0/0"
    yield "Free swap  = 0kB"
    yield "Total swap = 0kB"


def skip_free_areas_node(kernel: Kernel, mask: int, nid: int) -> bool:
    """``skip_free_areas_node``: the report leaves out this node, which the caller may not use."""
    return bool(mask & SHOW_MEM_FILTER_NODES) and not kernel.mm.mems_allowed >> nid & 1


def show_node(kernel: Kernel, zone: Zone) -> str:
    """``show_node``: which node a line is about, if there can be several."""
    return f"Node {zone.nid} " if kernel.numa else ""


def show_migration_types(kernel: Kernel, types: int) -> str:
    """``show_migration_types``: a letter for each mobility whose bit is set."""
    values = kernel.layout.enum("migratetype")
    kinds = sorted((values[name], letter) for name, letter in _LETTERS.items() if name in values)
    return f"({''.join(letter for value, letter in kinds if types >> value & 1)}) "


def hugetlb_show_meminfo(kernel: Kernel) -> Iterator[str]:
    """``hugetlb_show_meminfo``: each node's pages of 2 MiB, on a kernel that has such a pool."""
    if "HTLB_BUDDY_PGALLOC" not in kernel.layout.enum("vm_event_item"):
        return
    total, free = huge_pages(kernel.mm)
    for nid in kernel.nodes(N_MEMORY):
        yield (
            f"Node {nid} hugepages_total={total.get(nid, 0)} hugepages_free={free.get(nid, 0)} "
            "hugepages_surp=0 hugepages_size=2048kB"
        )


def huge_pages(mm: Mm) -> tuple[dict[int, int], dict[int, int]]:
    """How many huge pages each node has, and how many of them are in the pool.

    They are the compound pages with another destructor than the allocator's own.
    """
    total: dict[int, int] = {}
    free: dict[int, int] = {}
    if mm.deferred is not None:
        # A machine of ours, where nobody fills the pool.
        return total, free
    for phys in mm.memmap:
        if phys == UNMAPPED:
            continue
        words = np.frombuffer(mm.as_u8, np.uint64, 1 << mm.memmap_shift >> 3, phys).reshape(-1, abi.SIZEOF_PAGE // 8)
        flags = words[:-1, abi.PAGE_FLAGS // 8] & np.uint64(1 << abi.PG_head | 1 << abi.PG_slab)
        heads = np.flatnonzero(flags == 1 << abi.PG_head)
        dtors = words[heads + 1, abi.PAGE_COMPOUND_DTOR // 8]
        for i in heads[(dtors != 0) & (dtors != np.uint64(mm.free_compound_page))].tolist():
            nid = int(words[i, 0]) >> mm.nodes_pgshift & mm.nodes_mask
            total[nid] = total.get(nid, 0) + 1
            free[nid] = free.get(nid, 0) + (int(words[i, abi.PAGE_COUNT // 8]) >> 32 == 0)
    return total, free


def zone_name(kernel: Kernel, zone: Zone) -> str:
    """``zone->name``; ``?`` if the image does not have the string."""
    at = kernel.phys(kernel.get(zone.at, "zone.name"))
    if not kernel.ram.ranges.covers(at, at + 8):
        return "?"
    return kernel.ram.read(at, 8).split(b"\0")[0].decode("ascii", "replace")


def _global(kernel: Kernel, name: str) -> int:
    return stat.global_state(kernel.mm, kernel.layout.enumerator(f"NR_{name}"))


def _state(kernel: Kernel, zone: Zone, name: str) -> int:
    return stat.zone_state(kernel.mm, address.off(kernel.mm, zone.at), kernel.layout.enumerator(f"NR_{name}"))


def _zone_line(kernel: Kernel, zone: Zone) -> str:
    """The counters of one zone, in KiB but for the pages scanned: these the kernel multiplies, and calls pages."""

    def kilobytes(fields: tuple[str, ...]) -> str:
        pairs = (field.partition(":") for field in fields)
        return "".join(f" {label}:{_state(kernel, zone, name) * _PAGE_KB}kB" for label, _, name in pairs)

    marks = (f" {name}:{kernel.wmark(zone, which) * _PAGE_KB}kB" for which, name in enumerate(("min", "low", "high")))
    sizes = (f" {name}:{kernel.get(zone.at, f'zone.{name}_pages') * _PAGE_KB}kB" for name in ("present", "managed"))
    reclaimable = zone_reclaimable(kernel.mm, address.off(kernel.mm, zone.at))
    return (
        f"{show_node(kernel, zone)}{zone_name(kernel, zone)}{kilobytes(('free:FREE_PAGES',))}{''.join(marks)}"
        f"{kilobytes(_ZONE_LRU)}{''.join(sizes)}{kilobytes(_ZONE_USE)}"
        f" kernel_stack:{_state(kernel, zone, 'KERNEL_STACK') * _STACK_KB}kB{kilobytes(_ZONE_REST)}"
        f" pages_scanned:{_state(kernel, zone, 'PAGES_SCANNED') * _PAGE_KB}"
        f" all_unreclaimable? {'no' if reclaimable else 'yes'}"
    )


def _blocks(kernel: Kernel, zone: Zone) -> str:
    """The free blocks of one zone by order, and the sum; seen under the zone's lock."""
    mm, z = kernel.mm, address.off(kernel.mm, zone.at)
    counts: list[tuple[int, int]] = []
    mmzone.spin_lock(mm, z)
    for order in range(abi.MAX_ORDER):
        types = 0
        for kind in range(mm.migrate_types):
            head = mmzone.free_list(mm, order, kind)
            types |= (mm.as_u64[(z + head) >> 3] != zone.at + head) << kind
        counts.append((mmzone.nr_free(mm, z, order), types))
    mmzone.spin_unlock(mm, z)
    parts = (
        f"{count}*{_PAGE_KB << order}kB {show_migration_types(kernel, types) if count else ''}"
        for order, (count, types) in enumerate(counts)
    )
    total = sum(count << order for order, (count, _) in enumerate(counts))
    return f"{''.join(parts)}= {total * _PAGE_KB}kB"

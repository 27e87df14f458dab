# SPDX-License-Identifier: GPL-2.0-only
"""Per-CPU areas and pagesets (mm/page_alloc.c, mm/percpu.c, arch/x86/kernel/setup_percpu.c).

Each CPU has an area with its own copies of the per-CPU variables, on its node; ``__per_cpu_offset[cpu]``
is what to add to a variable's address.  Behind the variables is room for what is allocated later: a
*pageset* for each zone, the single pages that a CPU keeps at hand.  It holds up to ``high`` pages and
exchanges ``batch`` of them at once, about a thousandth of the zone and a quarter of that.
"""

from __future__ import annotations

from kernelmm.bringup.kernel import Kernel, Zone
from kernelmm.bringup.memblock import Memblock
from kernelmm.bringup.rounding import div_round_up, round_up

__all__ = [
    "pageset_set_high_and_batch",
    "setup_boot_pagesets",
    "setup_per_cpu_areas",
    "setup_per_cpu_pageset",
    "zone_batchsize",
]

PAGE_SHIFT = 12
PAGE_SIZE = 4096
PMD_SIZE = 1 << 21
MAX_DMA_ADDRESS = 16 << 20
#: Room behind the variables of each CPU (PERCPU_DYNAMIC_RESERVE).
DYNAMIC_RESERVE = 28 << 10


def setup_per_cpu_areas(kernel: Kernel, memblock: Memblock, node_of: list[int]) -> None:
    """``setup_per_cpu_areas``: an area for each possible CPU.

    The areas of a node's CPUs are units of equal size in one piece of memory, aligned to 2 MiB; what a
    unit does not use goes back to memblock.

    :param node_of: the node of each CPU
    """
    if not kernel.smp:
        # Per-CPU variables are plain variables here, but what is allocated needs room all the same.
        area = memblock.alloc(32 << 10, PAGE_SIZE, what="the per-CPU area")
        kernel.set_var("pcpu_base_addr", kernel.va(area))
        return
    used = round_up(kernel.symbols["__per_cpu_end"] + DYNAMIC_RESERVE, PAGE_SIZE)
    units = units_per_allocation(used, node_of)
    size = PMD_SIZE // units
    base: dict[int, int] = {}
    for nid in sorted(set(node_of)):
        cpus = [cpu for cpu, node in enumerate(node_of) if node == nid]
        total = div_round_up(len(cpus), units) * PMD_SIZE
        area = memblock.alloc(total, PMD_SIZE, nid, MAX_DMA_ADDRESS, what=f"the per-CPU areas of node {nid}")
        for i, cpu in enumerate(cpus):
            base[cpu] = area + i * size
            memblock.free(base[cpu] + used, base[cpu] + size)
        memblock.free(area + len(cpus) * size, area + total)
    kernel.set_var("pcpu_base_addr", kernel.va(min(base.values())))
    for cpu, phys in sorted(base.items()):
        kernel.set_var("__per_cpu_offset", kernel.va(phys) - kernel.symbols["__per_cpu_start"], cpu)
        kernel.set_var("this_cpu_off", kernel.per_cpu_offset(cpu), cpu=cpu)
        kernel.set_var("cpu_number", cpu, cpu=cpu)
        if kernel.numa:
            kernel.set_var("x86_cpu_to_node_map", node_of[cpu], cpu=cpu)
            kernel.set_var("numa_node", node_of[cpu], cpu=cpu)


def units_per_allocation(used: int, node_of: list[int]) -> int:
    """``pcpu_build_alloc_info``: into how many units of whole pages to cut 2 MiB.

    As many as there is room for; but where that leaves more than a third as many units unused as there
    are CPUs, fewer and larger ones.
    """
    smallest = max(used, 32 << 10)
    best = 1
    fewest: int | None = None
    for units in range(PMD_SIZE // smallest, 0, -1):
        if PMD_SIZE % units or PMD_SIZE // units % PAGE_SIZE:
            continue
        allocations = sum(div_round_up(node_of.count(nid), units) for nid in set(node_of))
        if allocations * units - len(node_of) > len(node_of) // 3:
            continue
        if fewest is not None and allocations > fewest:
            break
        fewest, best = allocations, units
    return best


# -- pagesets ---------------------------------------------------------------------


def setup_boot_pagesets(kernel: Kernel) -> None:
    """The end of ``build_all_zonelists``: until a zone has pagesets, a freed page goes straight to the free lists."""
    for cpu in kernel.possible_cpus():
        setup_pageset(kernel, kernel.per_cpu_ptr(kernel.symbols["boot_pageset"], cpu), 0)


def setup_pageset(kernel: Kernel, pageset: int, batch: int) -> None:
    """``setup_pageset``: an empty pageset with a given batch."""
    pageset_init(kernel, pageset)
    pageset_set_batch(kernel, pageset, batch)


def setup_per_cpu_pageset(kernel: Kernel) -> None:
    """``setup_per_cpu_pageset``: pagesets for all populated zones, in the dynamic part of the per-CPU areas."""
    size = kernel.layout.sizeof("per_cpu_pageset")
    pointer = kernel.symbols["__per_cpu_end"] if kernel.smp else kernel.var("pcpu_base_addr")
    for zone in kernel.populated_zones():
        setup_zone_pageset(kernel, zone, pointer)
        pointer += size


def setup_zone_pageset(kernel: Kernel, zone: Zone, pointer: int) -> None:
    """``setup_zone_pageset``: a zone's pagesets, one for each possible CPU.

    :param pointer: the per-cpu pointer that was allocated for them
    """
    kernel.set(zone.at, "zone.pageset", pointer)
    for cpu in kernel.possible_cpus():
        zone_pageset_init(kernel, zone, cpu)


def zone_pageset_init(kernel: Kernel, zone: Zone, cpu: int) -> None:
    """``zone_pageset_init``: one CPU's pageset of a zone."""
    pageset = kernel.per_cpu_ptr(kernel.get(zone.at, "zone.pageset"), cpu)
    pageset_init(kernel, pageset)
    pageset_set_high_and_batch(kernel, zone, pageset)


def pageset_init(kernel: Kernel, pageset: int) -> None:
    """``pageset_init``: empty lists, no statistics pending."""
    kernel.ram.write(kernel.phys(pageset), bytes(kernel.layout.sizeof("per_cpu_pageset")))
    for migratetype in range(kernel.layout.enumerator("MIGRATE_PCPTYPES")):
        kernel.init_list_head(kernel.at(pageset, "per_cpu_pageset.pcp.lists", migratetype))


def zone_batchsize(kernel: Kernel, zone: Zone) -> int:
    """``zone_batchsize``: pages; one less than a power of two, lest two CPUs in turn share the cache's colours."""
    batch = min(kernel.get(zone.at, "zone.managed_pages") // 1024, (512 << 10) // PAGE_SIZE)
    # The caller takes more than this by a factor, so start with a quarter.
    batch = max(batch // 4, 1)
    return (1 << (batch + batch // 2).bit_length() - 1) - 1


def pageset_set_high_and_batch(kernel: Kernel, zone: Zone, pageset: int) -> None:
    """``pageset_set_high_and_batch``: by the zone's size, or as ``percpu_pagelist_fraction`` says."""
    fraction = kernel.var("percpu_pagelist_fraction")
    if fraction:
        pageset_set_high(kernel, pageset, kernel.get(zone.at, "zone.managed_pages") // fraction)
    else:
        pageset_set_batch(kernel, pageset, zone_batchsize(kernel, zone))


def pageset_set_batch(kernel: Kernel, pageset: int, batch: int) -> None:
    """``pageset_set_batch``: up to six batches."""
    pageset_update(kernel, pageset, 6 * batch, max(1, batch))


def pageset_set_high(kernel: Kernel, pageset: int, high: int) -> None:
    """``pageset_set_high``: up to ``high`` pages, in batches of a quarter, but at most 96."""
    pageset_update(kernel, pageset, high, max(1, min(high // 4, PAGE_SHIFT * 8)))


def pageset_update(kernel: Kernel, pageset: int, high: int, batch: int) -> None:
    """``pageset_update``."""
    kernel.set(pageset, "per_cpu_pageset.pcp.high", high)
    kernel.set(pageset, "per_cpu_pageset.pcp.batch", batch)

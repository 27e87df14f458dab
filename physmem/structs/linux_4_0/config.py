# SPDX-License-Identifier: GPL-2.0-only
"""The switches of a kernel's .config that change what this package declares.

Each field is the ``CONFIG_*`` option of the same name, in lower case.  What follows
from them by #define (MAX_NUMNODES, USE_SPLIT_PTE_PTLOCKS) is derived here, as
include/linux/numa.h, mm_types.h and page-flags-layout.h do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from physmem.errors import LayoutError

__all__ = ["CONFIGS", "MODELS", "NUMA", "SMP", "UP", "Config"]

#: The memory models: where ``struct page`` of a PFN is, in three ways.
MODELS = ("sparsemem-vmemmap", "sparsemem", "flatmem")


@dataclass(frozen=True)
class Config:
    """A configuration of Linux 4.0 for x86-64.

    :ivar name: what to call the kernel in messages
    :ivar nr_cpus: most CPUs it can have (CONFIG_NR_CPUS)
    :ivar nodes_shift: log2 of the most nodes it can have
    :ivar hz: ticks a second
    :ivar max_order: number of free lists of a zone (MAX_ORDER, CONFIG_FORCE_MAX_ZONEORDER)
    :ivar internode_cache_shift: log2 of the bytes that two CPUs' data is kept apart by

    :raises LayoutError: the switches contradict each other
    """

    name: str
    smp: bool
    numa: bool
    nr_cpus: int
    nodes_shift: int
    numa_balancing: bool
    hz: int = 250
    max_order: int = 11
    internode_cache_shift: int = 6
    zone_dma: bool = True
    zone_dma32: bool = True
    sparsemem: bool = True
    sparsemem_vmemmap: bool = True
    memory_hotplug: bool = False
    memory_isolation: bool = True
    cma: bool = True
    compaction: bool = True
    migration: bool = True
    hugetlb_page: bool = True
    transparent_hugepage: bool = True
    memcg: bool = False
    memory_failure: bool = False
    page_extension: bool = False
    page_owner: bool = False
    debug_pagealloc: bool = False
    kmemcheck: bool = False

    def __post_init__(self) -> None:
        rules = {
            "numa needs smp": self.smp or not self.numa,
            "numa_balancing needs numa": self.numa or not self.numa_balancing,
            "numa needs sparsemem": self.sparsemem or not self.numa,
            "sparsemem_vmemmap needs sparsemem": self.sparsemem or not self.sparsemem_vmemmap,
            "without numa there is one node": self.numa or self.nodes_shift == 0,
            "without smp there is one CPU": self.smp or self.nr_cpus == 1,
            "nr_cpus is from 1 to 8192": 1 <= self.nr_cpus <= 8192,
            "nodes_shift is from 0 to 10": 0 <= self.nodes_shift <= 10,
            "cma needs memory_isolation": self.memory_isolation or not self.cma,
            "page_owner needs page_extension": self.page_extension or not self.page_owner,
            "debug_pagealloc needs page_extension": self.page_extension or not self.debug_pagealloc,
            "kmemcheck excludes debug_pagealloc": not (self.kmemcheck and self.debug_pagealloc),
        }
        for rule, kept in rules.items():
            if not kept:
                raise LayoutError(f"{self.name}: {rule}")

    @property
    def model(self) -> str:
        """The memory model, one of :data:`MODELS`."""
        if not self.sparsemem:
            return "flatmem"
        return "sparsemem-vmemmap" if self.sparsemem_vmemmap else "sparsemem"

    def with_model(self, model: str) -> Config:
        """The same kernel with another memory model.

        :raises LayoutError: there is no such model, or it cannot have several nodes
        """
        if model not in MODELS:
            raise LayoutError(f"memory model {model[:20]!r}: there are {', '.join(MODELS)}")
        name = self.name if model == self.model else f"{self.name} {model.upper()}"
        return replace(self, name=name, sparsemem=model != "flatmem", sparsemem_vmemmap=model == "sparsemem-vmemmap")

    def with_debug(self) -> Config:
        """The build that debugs its page allocator: what was freed is hidden, and pages have owners."""
        if self.page_owner and self.debug_pagealloc:
            return self
        return replace(self, name=f"{self.name}, debug", page_extension=True, page_owner=True, debug_pagealloc=True)

    def with_kmemcheck(self) -> Config:
        """The build that notes of each byte whether it was written; it cannot hide what is free as well."""
        if self.kmemcheck:
            return self
        return replace(self, name=f"{self.name}, kmemcheck", debug_pagealloc=False, kmemcheck=True)

    @property
    def max_numnodes(self) -> int:
        """MAX_NUMNODES: most nodes the kernel can have."""
        return 1 << self.nodes_shift

    @property
    def internode_cache_bytes(self) -> int:
        """Alignment by ____cacheline_internodealigned_in_smp: none without SMP."""
        return 1 << self.internode_cache_shift if self.smp else 1

    @property
    def small_pages(self) -> bool:
        """The direct map has pages of 4 KiB only, so that each can be hidden by itself (arch/x86/mm/init.c)."""
        return self.debug_pagealloc or self.kmemcheck

    @property
    def split_ptlocks(self) -> bool:
        """USE_SPLIT_PTE_PTLOCKS: each page table has a lock of its own (CONFIG_SPLIT_PTLOCK_CPUS is 4)."""
        return self.nr_cpus >= 4

    @property
    def split_pmd_ptlocks(self) -> bool:
        """USE_SPLIT_PMD_PTLOCKS: so has each page middle directory."""
        return self.split_ptlocks


NUMA = Config("Linux 4.0 SMP+NUMA", smp=True, numa=True, nr_cpus=8, nodes_shift=6, numa_balancing=True)
"""An 8-CPU, 64-node kernel with per-cpu statistics, ticket locks and zonelist caches."""

UP = Config("Linux 4.0 UP", smp=False, numa=False, nr_cpus=1, nodes_shift=0, numa_balancing=False)
"""A kernel for one CPU and one node: spinlocks have no bytes, statistics no per-cpu part."""

SMP = Config("Linux 4.0 SMP", smp=True, numa=False, nr_cpus=8, nodes_shift=0, numa_balancing=False)
"""An 8-CPU kernel for one node."""


_BUILDS = {
    "numa": NUMA,
    "up": UP,
    "smp": SMP,
    "numa-sparsemem": NUMA.with_model("sparsemem"),
    "up-sparsemem": UP.with_model("sparsemem"),
    "smp-sparsemem": SMP.with_model("sparsemem"),
    "smp-flatmem": SMP.with_model("flatmem"),
    "up-flatmem": UP.with_model("flatmem"),
    "numa-debug": NUMA.with_debug(),
    "up-debug": UP.with_debug(),
    "smp-debug": SMP.with_debug(),
    "numa-sparsemem-debug": NUMA.with_model("sparsemem").with_debug(),
    "up-sparsemem-debug": UP.with_model("sparsemem").with_debug(),
    "smp-sparsemem-debug": SMP.with_model("sparsemem").with_debug(),
    "smp-flatmem-debug": SMP.with_model("flatmem").with_debug(),
    "up-flatmem-debug": UP.with_model("flatmem").with_debug(),
}

CONFIGS = _BUILDS | {f"{name}-kmemcheck": build.with_kmemcheck() for name, build in _BUILDS.items()}
"""Configurations by the name that files use; ``numa`` and ``up`` are proven against real kernels."""

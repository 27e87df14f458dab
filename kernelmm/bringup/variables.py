# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's variables that bring-up reads and writes: their C types, and what they are before boot.

From mm/page_alloc.c, mm/vmstat.c, mm/sparse.c, mm/cma.c, mm/memblock.c, kernel/kexec.c, kernel/cpu.c,
arch/x86/mm/numa.c and arch/x86/kernel/setup_percpu.c of Linux 4.0.  Where they are is not here: that
is the symbol table of a kernel that was attached, or the linker's of one of ours
(:mod:`kernelmm.bringup.linker`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kernelmm import gfp
from kernelmm.bringup.rounding import div_round_up
from physmem.structs.layout import Layout

__all__ = ["SCALARS", "VARIABLES", "Variable", "initial_jiffies"]

#: Bytes and signedness of the C types of variables that are no structs.
SCALARS = {
    "char": (1, False),
    "u8": (1, False),
    "int": (4, True),
    "unsigned int": (4, False),
    "long": (8, True),
    "unsigned long": (8, False),
    "pointer": (8, False),
}

CACHE_LINE = 64
PAGE_SIZE = 4096
#: Bytes of a task's stack, and how far below its end it is used from (KERNEL_STACK_OFFSET).
THREAD_SIZE = 16384
KERNEL_STACK_OFFSET = 40
#: Regions that memblock has room for before it allocates.
INIT_MEMBLOCK_REGIONS = 128
#: CONFIG_CMA_AREAS, and the default area.
MAX_CMA_AREAS = 8
#: kref, the six strings of 65 bytes of a new_utsname, user_ns, and ns_common.
SIZEOF_UTS_NAMESPACE = 432

#: Bytes for the names of the allocator's callers, on kernels with debugging aids.
CALLER_SYMBOLS = 1 << 18
#: FAULT_ATTR_INITIALIZER up to its count: every time, once, and verbosely.
_FAULT_ATTR = [0, 0, 1, 0, 1, 0, 2, 0, 0, 0, 32, 0, 0, 0, -1, -1]

_Number = int | str | Callable[[Layout], int]


@dataclass(frozen=True)
class Variable:
    """A variable of the kernel.

    :ivar ctype: type of an element: a key of :data:`SCALARS`, or ``struct`` and a tag
    :ivar count: elements: a number, the name of a constant of the layout, or a function of the layout
    :ivar initial: what the first elements are before boot; the others are zero
    :ivar only: the kernels that have it: ``smp``, ``up``, ``numa``, ``no-numa``, ``sparse``, ``kmemcheck``,
        ``callers`` (those with an aid that tells who called), the tag of a struct (``cma``, ``page_ext``), several
        of these with blanks between, or empty for all
    """

    name: str
    ctype: str
    count: _Number = 1
    initial: Sequence[int] = ()
    align: int = 8
    percpu: bool = False
    only: str = ""

    def exists(self, layout: Layout) -> bool:
        """Whether a kernel with this layout has the variable."""
        numa = layout.has("zone", "node")
        smp = layout.has("per_cpu_pageset", "stat_threshold")
        have = {"smp": smp, "up": not smp, "numa": numa, "no-numa": not numa}
        have |= {"sparse": layout.has("mem_section"), "kmemcheck": layout.has("page", "shadow")}
        have["callers"] = have["kmemcheck"] or layout.has("page_ext")
        return all(have[one] if one in have else layout.has(one) for one in self.only.split())

    def elements(self, layout: Layout) -> int:
        """How many elements it has."""
        if isinstance(self.count, str):
            return layout.constant(self.count)
        return self.count if isinstance(self.count, int) else self.count(layout)

    def size(self, layout: Layout) -> int:
        """Bytes of all its elements."""
        if self.ctype in SCALARS:
            return SCALARS[self.ctype][0] * self.elements(layout)
        return layout.sizeof(self.ctype.removeprefix("struct ")) * self.elements(layout)


def _mask_words(constant: str) -> Callable[[Layout], int]:
    """Words of a ``nodemask_t`` or ``cpumask_t``."""
    return lambda layout: div_round_up(layout.constant(constant), 64)


def _zone_stat_items(layout: Layout) -> int:
    return layout.enumerator("NR_VM_ZONE_STAT_ITEMS")


def _lower_zones(layout: Layout) -> int:
    return layout.constant("MAX_NR_ZONES") - 1


#: In the order in which they lie in memory.
VARIABLES = (
    # the page allocator
    Variable("jiffies_64", "unsigned long", align=CACHE_LINE),
    # While interrupts are off, nobody may wait or do I/O.
    Variable("gfp_allowed_mask", "unsigned int", initial=[gfp.GFP_BOOT_MASK]),
    Variable("page_group_by_mobility_disabled", "int"),
    Variable("min_free_kbytes", "int", initial=[1024]),
    Variable("user_min_free_kbytes", "int", initial=[-1]),
    Variable("percpu_pagelist_fraction", "int"),
    Variable("sysctl_lowmem_reserve_ratio", "int", _lower_zones, [256, 256, 32]),
    Variable("totalram_pages", "unsigned long"),
    Variable("totalreserve_pages", "unsigned long"),
    Variable("dirty_balance_reserve", "unsigned long"),
    Variable("vm_total_pages", "long"),
    Variable("highest_memmap_pfn", "unsigned long"),
    Variable("movable_zone", "int"),
    Variable("current_zonelist_order", "int"),
    Variable("mem_section", "pointer", "NR_SECTION_ROOTS", align=CACHE_LINE, only="sparse"),
    Variable("vm_stat", "long", _zone_stat_items, align=CACHE_LINE),
    Variable("vm_event_states", "struct vm_event_state", percpu=True),
    Variable("boot_pageset", "struct per_cpu_pageset", percpu=True),
    # fault injection: a fault_attr, in which SMP has a lock more; then what to leave alone, and the least order
    Variable("fail_page_alloc", "int", 36, [*_FAULT_ATTR, *[0] * 8, 10, *[0] * 7, 1, 1, 1], only="smp"),
    Variable("fail_page_alloc", "int", 34, [*_FAULT_ATTR, *[0] * 7, 10, *[0] * 6, 1, 1, 1], only="up"),
    Variable("net_rand_state", "unsigned int", 4, percpu=True),
    # nodes
    Variable("mem_map", "pointer", only="no-numa"),
    Variable("contig_page_data", "struct pglist_data", align=CACHE_LINE, only="no-numa"),
    Variable("node_data", "pointer", "MAX_NUMNODES", align=CACHE_LINE, only="numa"),
    # four sets: possible, online, with memory, with CPUs
    Variable("node_states", "unsigned long", lambda layout: 4 * _mask_words("MAX_NUMNODES")(layout)),
    Variable("nr_node_ids", "int", initial=[1], only="numa"),
    Variable("nr_online_nodes", "int", initial=[1], only="numa"),
    Variable("zone_reclaim_mode", "int", only="numa"),
    Variable("user_zonelist_order", "int", only="numa"),
    Variable("node_load", "int", "MAX_NUMNODES", only="numa"),
    Variable("node_order", "int", "MAX_NUMNODES", only="numa"),
    Variable("numa_distance", "pointer", only="numa"),
    Variable("numa_distance_cnt", "int", only="numa"),
    Variable("sysctl_min_unmapped_ratio", "int", initial=[1], only="numa"),
    Variable("sysctl_min_slab_ratio", "int", initial=[5], only="numa"),
    # a cpumask_t for each node
    Variable(
        "node_to_cpumask_map",
        "unsigned long",
        lambda layout: layout.constant("MAX_NUMNODES") * _mask_words("NR_CPUS")(layout),
        only="numa",
    ),
    Variable("numa_node", "int", percpu=True, only="numa"),
    Variable("x86_cpu_to_node_map", "int", percpu=True, only="numa"),
    # CPUs
    Variable("cpu_possible_bits", "unsigned long", _mask_words("NR_CPUS")),
    Variable("cpu_present_bits", "unsigned long", _mask_words("NR_CPUS")),
    Variable("cpu_online_bits", "unsigned long", _mask_words("NR_CPUS")),
    Variable("nr_cpu_ids", "int", only="smp"),
    Variable("pcpu_base_addr", "pointer"),
    Variable("__per_cpu_offset", "unsigned long", "NR_CPUS", align=CACHE_LINE, only="smp"),
    Variable("this_cpu_off", "unsigned long", percpu=True, only="smp"),
    Variable("cpu_number", "int", percpu=True, only="smp"),
    # the first task's stack, and where the running task's begins
    Variable("init_thread_union", "char", THREAD_SIZE, align=THREAD_SIZE),
    Variable("kernel_stack", "unsigned long", percpu=True),
    # early boot
    Variable("phys_base", "unsigned long"),
    Variable("max_pfn", "unsigned long"),
    Variable("max_low_pfn", "unsigned long"),
    Variable("required_kernelcore", "unsigned long"),
    Variable("required_movablecore", "unsigned long"),
    Variable("arch_zone_lowest_possible_pfn", "unsigned long", "MAX_NR_ZONES"),
    Variable("arch_zone_highest_possible_pfn", "unsigned long", "MAX_NR_ZONES"),
    Variable("dma_reserve", "unsigned long"),
    Variable("zone_movable_pfn", "unsigned long", "MAX_NUMNODES"),
    Variable("memblock", "struct memblock"),
    Variable("memblock_memory_init_regions", "struct memblock_region", INIT_MEMBLOCK_REGIONS),
    Variable("memblock_reserved_init_regions", "struct memblock_region", INIT_MEMBLOCK_REGIONS),
    Variable("cma_areas", "struct cma", MAX_CMA_AREAS, only="cma"),
    Variable("cma_area_count", "unsigned int", only="cma"),
    Variable("dma_contiguous_default_area", "pointer", only="cma"),
    Variable("totalcma_pages", "unsigned long"),
    # what the kernel says of itself
    Variable("log_first_idx", "unsigned int"),
    Variable("log_next_idx", "unsigned int"),
    Variable("init_uts_ns", "char", SIZEOF_UTS_NAMESPACE),
    Variable("vmap_area_list", "pointer", 2),
    Variable("vmcoreinfo_size", "unsigned long"),
    Variable("vmcoreinfo_data", "char", PAGE_SIZE, align=PAGE_SIZE),
    Variable("vmcoreinfo_note", "char", PAGE_SIZE + CACHE_LINE),
    # how often failed allocations are reported: a ratelimit_state, of 5 seconds and 10 messages
    Variable("nopage_rs", "int", 8, only="smp"),
    Variable("nopage_rs", "int", 6, only="up"),
    # the OOM killer's settings
    Variable("sysctl_panic_on_oom", "int"),
    Variable("sysctl_oom_kill_allocating_task", "int"),
    Variable("sysctl_oom_dump_tasks", "int", initial=[1]),
    # debugging aids (mm/debug-pagealloc.c, mm/page_owner.c); at the end, for few kernels have them
    Variable("_debug_pagealloc_enabled", "u8", only="page_ext"),
    Variable("_debug_guardpage_enabled", "u8", only="page_ext"),
    Variable("_debug_guardpage_minorder", "unsigned int", only="page_ext"),
    Variable("page_poisoning_enabled", "u8", only="page_ext"),
    Variable("page_owner_disabled", "u8", initial=[1], only="page_ext"),
    Variable("page_owner_inited", "u8", only="page_ext"),
    # whether the kernel is one that poisons frames rather than hide them: in Linux that is decided when it is built
    Variable("page_poisoning_built", "u8", only="page_ext"),
    # arch/x86/mm/kmemcheck: whether it is on; of the last error that was reported, which instruction made it; and the
    # ratelimit_state of printk_ratelimit(), 5 seconds and 10 messages
    Variable("kmemcheck_enabled", "int", only="kmemcheck"),
    Variable("prev_ip", "unsigned long", only="kmemcheck"),
    Variable("printk_ratelimit_state", "int", 8, only="kmemcheck smp"),
    Variable("printk_ratelimit_state", "int", 6, only="kmemcheck up"),
    # the functions that called the allocator, and where they are said to be (kernelmm.debug.callers)
    Variable("caller_symbols_len", "unsigned int", only="callers"),
    Variable("caller_symbols", "char", CALLER_SYMBOLS, align=PAGE_SIZE, only="callers"),
    # whether large hash tables are spread over the nodes
    Variable("hashdist", "int", initial=[1], only="numa"),
)


def initial_jiffies(hz: int) -> int:
    """INITIAL_JIFFIES: the tick counter begins five minutes before its low 32 bits wrap."""
    return -300 * hz & 0xFFFFFFFF

# SPDX-License-Identifier: GPL-2.0-only
# room: compiled
"""``mm``: the running kernel's view of one memory; what every function of the core is given first.

It holds no allocator state.  There are three kinds of attributes:

* where this kernel's configuration puts things: offsets inside struct zone and its
  neighbours, widths inside ``page->flags``, numbers of statistics items (all from the
  image's layout);
* where the kernel's variables are: physical addresses, from its symbols;
* who is calling: the CPU and the task, which in a real machine are registers, the stack
  and ``current``.

It is long as it is one class, an extension type whose attributes the hot rooms reach without Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kernelmm.core import task
from physmem import abi, address
from physmem.ctype import s32, u32, u64
from physmem.errors import AddressError, BudgetError, CorruptionError, UnsupportedError, UsageError
from physmem.ram import Ram
from physmem.space import AddressSpace

__all__ = ["AllocContext", "Mm"]

#: The shifts and mask of each of the four generators behind prandom_u32.
_TAUSWORTHE = (
    (6, 13, 0xFFFFFFFE, 18),
    (2, 27, 0xFFFFFFF8, 2),
    (13, 21, 0xFFFFFFF0, 7),
    (3, 12, 0xFFFFFF80, 13),
)


class AllocContext:
    """``struct alloc_context``: what stays the same through one allocation (mm/internal.h)."""

    zonelist: u64
    #: Physical addresses: the zonelist's array of zonerefs, and just past it
    zonerefs: u64
    zonerefs_end: u64
    nodemask: u64
    preferred_zone: u64
    #: Physical address of the same
    preferred_z: u64
    classzone_idx: s32
    migratetype: s32
    high_zoneidx: s32


class Mm(AddressSpace):
    """One kernel: an address space, its layout, its variables, and the caller's context.

    :param numbers: a value for each attribute in the three blocks of offsets, numbers and
        variables below, by name (:mod:`kernelmm.attach` computes them)
    :param space: the keyword arguments of :class:`~physmem.space.AddressSpace`
    """

    # configuration
    smp: bool
    numa: bool
    compaction: bool
    migrate_types: s32
    migrate_cma: s32
    migrate_isolate: s32
    max_nr_zones: s32
    nr_node_ids: s32
    hz: u64
    ticket_lock_inc: u32

    # page->flags
    zones_pgshift: u32
    zones_mask: u64
    nodes_pgshift: u32
    nodes_mask: u64
    zoneid_pgshift: u32
    zoneid_mask: u64
    last_cpupid_bits: u64
    check_at_free: u64
    check_at_prep: u64
    compound_lock_bit: u32

    # struct zone
    zone_watermark: u64
    zone_lowmem_reserve: u64
    zone_node: u64
    zone_pgdat: u64
    zone_pageset: u64
    zone_start_pfn: u64
    zone_managed_pages: u64
    zone_spanned_pages: u64
    zone_present_pages: u64
    zone_name: u64
    zone_nr_isolate_pageblock: u64
    zone_free_area: u64
    zone_flags: u64
    zone_lock: u64
    zone_percpu_drift_mark: u64
    zone_vm_stat: u64
    sizeof_zone: u64
    free_area_nr_free: u64
    sizeof_free_area: u64

    # struct per_cpu_pageset
    sizeof_pageset: u64
    pageset_stat_threshold: u64
    pageset_vm_stat_diff: u64

    # struct pglist_data, zonelist, zonelist_cache, mem_section
    pgdat_node_zones: u64
    pgdat_node_zonelists: u64
    pgdat_nr_zones: u64
    pgdat_node_id: u64
    pgdat_kswapd_wait_lock: u64
    pgdat_kswapd_wait_task_list: u64
    pgdat_kswapd_max_order: u64
    pgdat_classzone_idx: u64
    sizeof_pgdat: u64
    sizeof_zonelist: u64
    max_zonelists: u64
    zonelist_zonerefs: u64
    max_zonerefs: u64
    zonelist_zlcache_ptr: u64
    zlc_z_to_n: u64
    zlc_fullzones: u64
    zlc_last_full_zap: u64
    sizeof_zlc: u64
    flatmem: bool
    zone_pageblock_flags: u64
    section_pageblock_flags: u64
    sizeof_mem_section: u64
    pfn_section_shift: u32
    pfn_section_mask: u64
    root_section_shift: u32
    root_section_mask: u64
    nr_section_roots: u64

    # enum zone_stat_item, enum vm_event_item
    nr_free_cma_pages: s32
    nr_pages_scanned: s32
    nr_file_dirty: s32
    nr_unstable_nfs: s32
    numa_hit: s32
    numa_miss: s32
    numa_foreign: s32
    numa_local: s32
    numa_other: s32
    pgalloc: s32
    pgfree: s32
    compactmigrate_scanned: s32
    compactfree_scanned: s32
    compactisolated: s32
    pg_hwpoison: s32

    # kernel variables: physical addresses (but for per-cpu ones, which are offsets; see this_cpu)
    var_node_data: u64
    var_mem_section: u64
    var_vm_stat: u64
    var_gfp_allowed_mask: u64
    var_page_group_by_mobility_disabled: u64
    var_jiffies: u64
    var_nr_online_nodes: u64
    var_zone_reclaim_mode: u64
    var_node_states_memory: u64
    var_per_cpu_offset: u64
    percpu_vm_event_states: u64
    sizeof_vm_event_state: u64
    percpu_numa_node: u64
    contig_page_data: u64
    free_compound_page: u64
    free_huge_page: u64
    nr_cpus: u32
    var_cpu_online_bits: u64
    var_fail_page_alloc: u64
    percpu_net_rand_state: u64

    # the caller
    cpu: u32
    this_cpu_off: u64
    vm_events: u64
    numa_node: u64
    task: u64
    first_task: u64
    stack: u64
    in_interrupt: bool
    serving_softirq: bool
    make_it_fail: bool
    cpusets_enabled: bool
    current: u64
    comm: str
    pid: s32
    ac: AllocContext

    # what the cold rooms know and do: see kernelmm.pressure
    cold: Any
    pressure: Any
    owners_root: u64
    step_budget: s32
    steps_left: s32

    # what watches the allocator: see kernelmm.study
    tracing: bool
    tracer: Any
    debug_vm: bool
    checker: Any
    reporter: Any
    failing: Any

    # debugging aids: see kernelmm.debug, and set_debugging
    aids: Any
    debug_pages: bool
    kmemcheck: bool
    alloc_aids: bool
    debugging: bool
    debug_alloc: bool
    guard_minorder: u32
    expand_watch: u32
    irqs_off: bool
    preempt_count: s32

    # what knows how to write out a page array that is not all written out (kernelmm.bringup.deferred), or None
    deferred: Any

    def __init__(self, ram: Ram, space: Mapping[str, object], numbers: Mapping[str, int]) -> None:
        super().__init__(ram, **space)  # type: ignore[arg-type]
        for name, value in numbers.items():
            setattr(self, name, value)
        self.ac = AllocContext()
        self.task = self.first_task = 0
        self.in_interrupt = False
        self.serving_softirq = False
        self.make_it_fail = False
        self.cpusets_enabled = False
        self.current = 0
        self.cold = None
        self.pressure = None
        self.owners_root = 0
        self.step_budget = 2048
        self.steps_left = 2048
        self.comm = "swapper/0"
        self.pid = 0
        self.tracing = False
        self.tracer = None
        self.debug_vm = False
        self.checker = None
        self.reporter = None
        self.failing = None
        self.aids = None
        self.debug_pages = False
        self.kmemcheck = False
        self.alloc_aids = False
        self.guard_minorder = 0
        self.irqs_off = False
        self.preempt_count = 0
        self.set_debugging()
        self.deferred = None
        self.set_cpu(0)

    def set_debugging(self) -> None:
        """After ``debug_vm`` or one of the aids was switched: set the flags that the hot paths test."""
        self.debugging = self.debug_vm or self.debug_pages or self.kmemcheck
        self.debug_alloc = self.debug_vm or self.alloc_aids or self.kmemcheck
        self.expand_watch = abi.MAX_ORDER if self.debug_vm else self.guard_minorder

    # -- the running task, for those who are in no hurry (the hot rooms ask kernelmm.core.current) -------------

    def set_task(self, record: u64) -> None:
        """Go on as the task with this record (a kernel address); 0: the first task, which has one of its own."""
        self.current = record
        self.task = address.struct_off(self, record, task.SIZE) if record != 0 else self.first_task

    @property
    def task_flags(self) -> int:
        """``current->flags``: PF_*."""
        return int(self.as_u32[(self.task + task.FLAGS) >> 2])

    @task_flags.setter
    def task_flags(self, flags: int) -> None:
        self.as_u32[(self.task + task.FLAGS) >> 2] = flags

    @property
    def rt_task(self) -> bool:
        """``rt_task(current)``: whether it is a realtime one."""
        return bool(self.as_u32[(self.task + task.RT_PRIORITY) >> 2])

    @rt_task.setter
    def rt_task(self, realtime: bool) -> None:
        self.as_u32[(self.task + task.RT_PRIORITY) >> 2] = realtime

    @property
    def memdie(self) -> bool:
        """``test_thread_flag(TIF_MEMDIE)``: the OOM killer has chosen the task."""
        return bool(self.as_u32[(self.task + task.TIF) >> 2] & task.TIF_MEMDIE)

    @memdie.setter
    def memdie(self, on: bool) -> None:
        self._set_tif(task.TIF_MEMDIE, on)

    @property
    def fatal_signal(self) -> bool:
        """``fatal_signal_pending(current)``."""
        return bool(self.as_u32[(self.task + task.TIF) >> 2] & task.TIF_SIGKILL)

    @fatal_signal.setter
    def fatal_signal(self, on: bool) -> None:
        self._set_tif(task.TIF_SIGKILL, on)

    def _set_tif(self, flag: int, on: bool) -> None:
        at = (self.task + task.TIF) >> 2
        self.as_u32[at] = self.as_u32[at] | flag if on else self.as_u32[at] & ~flag

    @property
    def mems_allowed(self) -> int:
        """``current->mems_allowed``: a bit for each node (:mod:`kernelmm.pressure.cpusets` changes it)."""
        return int(self.as_u64[(self.task + task.MEMS_ALLOWED) >> 3])

    @property
    def mems_allowed_seq(self) -> int:
        """``current->mems_allowed_seq``."""
        return int(self.as_u32[(self.task + task.MEMS_ALLOWED_SEQ) >> 2])

    @property
    def hardwall_mems(self) -> int:
        """The nodes of the nearest hardwalled cpuset above the task's."""
        return int(self.as_u64[(self.task + task.HARDWALL_MEMS) >> 3])

    @hardwall_mems.setter
    def hardwall_mems(self, nodes: int) -> None:
        self.as_u64[(self.task + task.HARDWALL_MEMS) >> 3] = nodes

    def endless_change(self) -> None:
        """A change of ``mems_allowed`` is under way and nobody is there to finish it: always raises BudgetError."""
        raise BudgetError("read_mems_allowed_begin: mems_allowed_seq is odd and stays so; a real kernel would go on")

    def set_cpu(self, cpu: u32) -> None:
        """Go on as if running on ``cpu`` (smp_processor_id)."""
        self.cpu = cpu
        self.this_cpu_off = self.per_cpu_offset(cpu)
        self.vm_events = address.struct_off(
            self, self.percpu_vm_event_states + self.this_cpu_off, self.sizeof_vm_event_state
        )
        if self.numa:
            at: u64 = self.percpu_numa_node + self.this_cpu_off
            # An int, in the half of a word that it is in.
            self.numa_node = address.off(self, at - at % 8) + (at & 4)

    def per_cpu_offset(self, cpu: u32) -> u64:
        """``__per_cpu_offset[cpu]``; 0 on a kernel without SMP, whose per-cpu variables are plain ones."""
        if not self.smp:
            return 0
        return self.as_u64[(self.var_per_cpu_offset + 8 * cpu) >> 3]

    def flat_zone(self, pfn: u64) -> u64:
        """Physical address of the zone that spans a PFN of a flat memory map, whose one node has one such zone."""
        z: u64
        start: u64
        i: s32
        for i in range(self.max_nr_zones):
            z = address.struct_off(
                self, self.contig_page_data + self.pgdat_node_zones + i * self.sizeof_zone, self.sizeof_zone
            )
            start = self.as_u64[(z + self.zone_start_pfn) >> 3]
            if start <= pfn and pfn - start < self.as_u64[(z + self.zone_spanned_pages) >> 3]:
                return z
        raise AddressError(pfn << abi.PAGE_SHIFT, f"pfn {pfn} is in no zone")

    def numa_node_id(self) -> s32:
        """Node of the running CPU."""
        if not self.numa:
            return 0
        return self.as_s32[self.numa_node >> 2]

    def corrupt(self, page: u64, rule: str, detail: str) -> None:
        """Report a structure that contradicts itself, by the PFN of ``page``: always raises."""
        raise CorruptionError(rule, detail, address.page_to_pfn(self, page))

    def bad_order(self, page: u64, order: u64) -> None:
        """Report a free block of impossible order: always raises CorruptionError."""
        self.corrupt(page, "buddy_order", f"block of order {order}, the largest is {abi.MAX_ORDER - 1}")

    def bad_migratetype(self, page: u64, migratetype: s32) -> None:
        """Report a free page of impossible mobility: always raises CorruptionError."""
        self.corrupt(page, "migratetype", f"free page of migratetype {migratetype}, there are {self.migrate_types}")

    def bad_zonelist(self, end: u64) -> None:
        """Report a zonelist without an end: always raises CorruptionError."""
        raise CorruptionError("zonelist", f"no NULL zone before its end at physical {end:#x}")

    def bad_zone_idx(self, zref: u64, index: s32) -> None:
        """Report a zoneref with an impossible index: always raises CorruptionError."""
        raise CorruptionError("zonelist", f"the zoneref at physical {zref:#x} has zone_idx {index}")

    def bad_node(self, nid: s32) -> None:
        """Say that there cannot be such a node: always raises UsageError."""
        raise UsageError(f"node {nid}: the kernel is built for {self.nodes_mask + 1}")

    def bad_pcp_count(self, zone: u64, count: s32, missing: s32) -> None:
        """Report per-cpu lists shorter than their count: always raises CorruptionError."""
        raise CorruptionError(
            "pcp_count",
            f"per-cpu lists of zone {zone:#x} have not the {count} pages to be freed: {missing} are missing",
        )

    def warn_alloc_failed(self, gfp_mask: u32, order: u32) -> None:
        """``warn_alloc_failed``: tell whoever listens that an allocation failed."""
        if self.failing is not None:
            self.failing(gfp_mask, order)
        if self.reporter is not None:
            self.reporter.warn_alloc_failed(self, gfp_mask, order)

    def warn_order(self, gfp_mask: u32) -> None:
        """``WARN_ON_ONCE``: a block larger than there are was asked for, by one who does not expect to be refused."""
        if self.reporter is not None:
            self.reporter.warn_order(self, gfp_mask)

    def prandom_u32(self) -> int:
        """``prandom_u32``: the next number of the running CPU's generator (four Tausworthe ones, lib/random32.c)."""
        if self.percpu_net_rand_state == 0:
            self.unsupported("a probability between 0 and 100: the state of prandom_u32 (net_rand_state) is unknown")
        at = address.off(self, self.percpu_net_rand_state + self.this_cpu_off)
        mixed = 0
        for i, (a, b, keep, d) in enumerate(_TAUSWORTHE):
            s = self.as_u32[(at >> 2) + i]
            s = ((s & keep) << d ^ ((s << a & 0xFFFFFFFF) ^ s) >> b) & 0xFFFFFFFF
            self.as_u32[(at >> 2) + i] = s
            mixed ^= s
        return mixed

    def hwpoisoned(self, at: int) -> bool:
        """``PageHWPoison``; never without CONFIG_MEMORY_FAILURE."""
        return self.pg_hwpoison >= 0 and bool(self.as_u64[(at + abi.PAGE_FLAGS) >> 3] >> self.pg_hwpoison & 1)

    def zone_reclaim(self, zone: u64, gfp_mask: u32, order: u32) -> s32:
        """``zone_reclaim``: rather reclaim from this zone than go to another node; ZONE_RECLAIM_*."""
        result: s32 = self.pressure.zone_reclaim(self, zone, gfp_mask, order)
        return result

    def zone_allows_reclaim(self, local: u64, zone: u64) -> bool:
        """``zone_allows_reclaim``: the two zones are near enough."""
        near: bool = self.pressure.zone_allows_reclaim(self, local, zone)
        return near

    def zone_dirty_ok(self, z: u64) -> bool:
        """``zone_dirty_ok``: the zone is within its dirty limit."""
        within: bool = self.pressure.zone_dirty_ok(self, z)
        return within

    def page_cache_release(self, page: u64) -> None:
        """``__page_cache_release``: a page that nobody has any more leaves its LRU list."""
        self.pressure.page_cache_release(self, page)

    def unsupported(self, what: str) -> None:
        """Something is needed that is not modelled: always raises UnsupportedError."""
        raise UnsupportedError(f"not modelled: {what}")

    def clear_pages(self, page: u64, order: u32) -> None:
        """``prep_zero_page``: zero the frames of a block, as far as the image has their contents."""
        self.ram.clear(address.page_to_phys(self, page), abi.PAGE_SIZE << order)

    def bad_page_at_free(self, page: u64, at: u64) -> None:
        """Report a page that was freed in a bad state."""
        self.report_bad(page, at, self.check_at_free, "PAGE_FLAGS_CHECK_AT_FREE flag(s) set")

    def bad_page_at_alloc(self, page: u64, at: u64) -> None:
        """Report a free page that is in a bad state when it is to be handed out."""
        self.report_bad(page, at, self.check_at_prep, "PAGE_FLAGS_CHECK_AT_PREP flag set")

    def report_bad(self, page: int, at: int, flags: int, flags_reason: str) -> None:
        """Find the reason that the kernel names, of several the last, and report the page."""
        reason, bad_flags = "", 0
        if self.as_s32[(at + abi.PAGE_MAPCOUNT) >> 2] != -1:
            reason = "nonzero mapcount"
        if self.as_u64[(at + abi.PAGE_MAPPING) >> 3] != 0:
            reason = "non-NULL mapping"
        if self.as_s32[(at + abi.PAGE_COUNT) >> 2] != 0:
            reason = "nonzero _count"
        if self.as_u64[(at + abi.PAGE_FLAGS) >> 3] & flags != 0:
            reason, bad_flags = flags_reason, flags
        self.bad_page(page, reason, bad_flags)

    def bad_page(self, page: int, reason: str, bad_flags: int) -> None:
        """``bad_page``: report it, then take the PageBuddy mark off so that it does no more harm."""
        if self.reporter is not None:
            self.reporter.bad_page(self, page, reason, bad_flags)
        self.as_s32[(address.page_off(self, page) + abi.PAGE_MAPCOUNT) >> 2] = -1

    # -- debugging aids: called where the kernel calls theirs, if one of them is on ------------------------

    def page_untracked(self, page: u64, order: u32) -> None:
        """``kmemcheck_free_shadow``, as a block begins to be freed."""
        if self.kmemcheck:
            self.aids.kmemcheck.free_shadow(self, page, order)

    def page_freed(self, page: u64, order: u32) -> None:
        """A block has been found good to be freed: forget its owner, and hide or poison its frames."""
        if self.debug_pages:
            self.aids.free_pages_prepare(self, page, order)

    def page_allocated(self, page: u64, order: u32, gfp_flags: u32) -> None:
        """A block is about to be handed out: show its frames again, and note who gets it."""
        if self.debug_vm:
            self.checker.prep_new_page(self, page, gfp_flags)
        if self.debug_pages:
            self.aids.prep_new_page(self, page, order, gfp_flags)

    def page_split(self, page: u64, order: u32) -> None:
        """A block is about to become single pages: ``split_page``'s assertions, its shadow, a new owner for each."""
        if self.debug_vm:
            self.checker.split_page(self, page)
        if self.kmemcheck:
            self.aids.kmemcheck.split(self, page, order)
        if self.debug_pages:
            self.aids.split_page(self, page, order)

    def expand_guarded(self, zone: u64, page: u64, order: u32, migratetype: s32) -> bool:
        """One half that ``expand`` splits off: checked, and True if it has become a guard page."""
        guarded: bool
        if self.debug_vm:
            self.checker.range(self, page, zone, 910)
        if order >= self.guard_minorder:
            return False
        guarded = self.aids.set_page_guard(self, zone, page, order, migratetype)
        return guarded

    def alloc_begins(self, gfp_mask: u32) -> None:
        """``lockdep_trace_alloc`` and ``might_sleep_if``, as an allocation begins."""
        if self.debug_vm:
            self.checker.gfp_zone(self, gfp_mask)
        if self.alloc_aids:
            self.aids.alloc_begins(self, gfp_mask)

    def alloc_ends(self, page: u64, order: u32, gfp_mask: u32) -> None:
        """``kmemcheck_pagealloc_alloc``, as an allocation has succeeded."""
        if self.kmemcheck:
            self.aids.kmemcheck.pagealloc_alloc(self, page, order, gfp_mask)

    def fail_dump(self, attr: u64) -> None:
        """``fail_dump``: say that an allocation is made to fail."""
        if self.reporter is not None:
            self.reporter.fail_dump(self, attr)

    def fail_task(self) -> bool:
        """``fail_task``: the caller is a task that is to fail (``/proc/<pid>/make-it-fail``), and not interrupted."""
        return self.make_it_fail and not self.in_interrupt

    # -- CONFIG_DEBUG_VM: called where the kernel has its VM_BUG_ONs, if debug_vm is on ---------------

    def check_buddy(self, buddy_at: u64) -> None:
        """The assertion of ``page_is_buddy`` about a buddy found free; raises VmBugOn."""
        self.checker.page_is_buddy(self, buddy_at)

    def check_free_one_page(self, page: u64, zone: u64, migratetype: s32) -> None:
        """The assertions with which ``__free_one_page`` begins; raises VmBugOn."""
        self.checker.free_one_page(self, page, zone, migratetype)

    def check_page_idx(self, page: u64, zone: u64, page_idx: u64, order: u32) -> None:
        """The assertions of ``__free_one_page`` about the block's place; raises VmBugOn."""
        self.checker.page_idx(self, page, zone, page_idx, order)

    def check_free_pages_prepare(self, page: u64, order: u32) -> None:
        """The assertions of ``free_pages_prepare``; raises VmBugOn."""
        self.checker.free_pages_prepare(self, page, order)

    def check_free_pages(self, addr: u64) -> None:
        """The assertion of ``free_pages`` about its address; raises VmBugOn."""
        self.checker.free_pages(self, addr)

    def check_put_page_testzero(self, at: u64) -> None:
        """The assertion of ``put_page_testzero``; raises VmBugOn."""
        self.checker.put_page_testzero(self, at)

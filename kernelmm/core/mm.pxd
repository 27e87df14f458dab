# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from mm.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from kernelmm.core cimport task
from physmem cimport abi
from physmem cimport address
from physmem.space cimport AddressSpace

cdef class AllocContext:
    cdef public uint64_t zonelist
    cdef public uint64_t zonerefs
    cdef public uint64_t zonerefs_end
    cdef public uint64_t nodemask
    cdef public uint64_t preferred_zone
    cdef public uint64_t preferred_z
    cdef public int32_t classzone_idx
    cdef public int32_t migratetype
    cdef public int32_t high_zoneidx

cdef class Mm(AddressSpace):
    cdef public bint smp
    cdef public bint numa
    cdef public bint compaction
    cdef public int32_t migrate_types
    cdef public int32_t migrate_cma
    cdef public int32_t migrate_isolate
    cdef public int32_t max_nr_zones
    cdef public int32_t nr_node_ids
    cdef public uint64_t hz
    cdef public uint32_t ticket_lock_inc
    cdef public uint32_t zones_pgshift
    cdef public uint64_t zones_mask
    cdef public uint32_t nodes_pgshift
    cdef public uint64_t nodes_mask
    cdef public uint32_t zoneid_pgshift
    cdef public uint64_t zoneid_mask
    cdef public uint64_t last_cpupid_bits
    cdef public uint64_t check_at_free
    cdef public uint64_t check_at_prep
    cdef public uint32_t compound_lock_bit
    cdef public uint64_t zone_watermark
    cdef public uint64_t zone_lowmem_reserve
    cdef public uint64_t zone_node
    cdef public uint64_t zone_pgdat
    cdef public uint64_t zone_pageset
    cdef public uint64_t zone_start_pfn
    cdef public uint64_t zone_managed_pages
    cdef public uint64_t zone_spanned_pages
    cdef public uint64_t zone_present_pages
    cdef public uint64_t zone_name
    cdef public uint64_t zone_nr_isolate_pageblock
    cdef public uint64_t zone_free_area
    cdef public uint64_t zone_flags
    cdef public uint64_t zone_lock
    cdef public uint64_t zone_percpu_drift_mark
    cdef public uint64_t zone_vm_stat
    cdef public uint64_t sizeof_zone
    cdef public uint64_t free_area_nr_free
    cdef public uint64_t sizeof_free_area
    cdef public uint64_t sizeof_pageset
    cdef public uint64_t pageset_stat_threshold
    cdef public uint64_t pageset_vm_stat_diff
    cdef public uint64_t pgdat_node_zones
    cdef public uint64_t pgdat_node_zonelists
    cdef public uint64_t pgdat_nr_zones
    cdef public uint64_t pgdat_node_id
    cdef public uint64_t pgdat_kswapd_wait_lock
    cdef public uint64_t pgdat_kswapd_wait_task_list
    cdef public uint64_t pgdat_kswapd_max_order
    cdef public uint64_t pgdat_classzone_idx
    cdef public uint64_t sizeof_pgdat
    cdef public uint64_t sizeof_zonelist
    cdef public uint64_t max_zonelists
    cdef public uint64_t zonelist_zonerefs
    cdef public uint64_t max_zonerefs
    cdef public uint64_t zonelist_zlcache_ptr
    cdef public uint64_t zlc_z_to_n
    cdef public uint64_t zlc_fullzones
    cdef public uint64_t zlc_last_full_zap
    cdef public uint64_t sizeof_zlc
    cdef public bint flatmem
    cdef public uint64_t zone_pageblock_flags
    cdef public uint64_t section_pageblock_flags
    cdef public uint64_t sizeof_mem_section
    cdef public uint32_t pfn_section_shift
    cdef public uint64_t pfn_section_mask
    cdef public uint32_t root_section_shift
    cdef public uint64_t root_section_mask
    cdef public uint64_t nr_section_roots
    cdef public int32_t nr_free_cma_pages
    cdef public int32_t nr_pages_scanned
    cdef public int32_t nr_file_dirty
    cdef public int32_t nr_unstable_nfs
    cdef public int32_t numa_hit
    cdef public int32_t numa_miss
    cdef public int32_t numa_foreign
    cdef public int32_t numa_local
    cdef public int32_t numa_other
    cdef public int32_t pgalloc
    cdef public int32_t pgfree
    cdef public int32_t compactmigrate_scanned
    cdef public int32_t compactfree_scanned
    cdef public int32_t compactisolated
    cdef public int32_t pg_hwpoison
    cdef public uint64_t var_node_data
    cdef public uint64_t var_mem_section
    cdef public uint64_t var_vm_stat
    cdef public uint64_t var_gfp_allowed_mask
    cdef public uint64_t var_page_group_by_mobility_disabled
    cdef public uint64_t var_jiffies
    cdef public uint64_t var_nr_online_nodes
    cdef public uint64_t var_zone_reclaim_mode
    cdef public uint64_t var_node_states_memory
    cdef public uint64_t var_per_cpu_offset
    cdef public uint64_t percpu_vm_event_states
    cdef public uint64_t sizeof_vm_event_state
    cdef public uint64_t percpu_numa_node
    cdef public uint64_t contig_page_data
    cdef public uint64_t free_compound_page
    cdef public uint64_t free_huge_page
    cdef public uint32_t nr_cpus
    cdef public uint64_t var_cpu_online_bits
    cdef public uint64_t var_fail_page_alloc
    cdef public uint64_t percpu_net_rand_state
    cdef public uint32_t cpu
    cdef public uint64_t this_cpu_off
    cdef public uint64_t vm_events
    cdef public uint64_t numa_node
    cdef public uint64_t task
    cdef public uint64_t first_task
    cdef public uint64_t stack
    cdef public bint in_interrupt
    cdef public bint serving_softirq
    cdef public bint make_it_fail
    cdef public bint cpusets_enabled
    cdef public uint64_t current
    cdef public object comm
    cdef public int32_t pid
    cdef public AllocContext ac
    cdef public object cold
    cdef public object pressure
    cdef public uint64_t owners_root
    cdef public int32_t step_budget
    cdef public int32_t steps_left
    cdef public bint tracing
    cdef public object tracer
    cdef public bint debug_vm
    cdef public object checker
    cdef public object reporter
    cdef public object failing
    cdef public object aids
    cdef public bint debug_pages
    cdef public bint kmemcheck
    cdef public bint alloc_aids
    cdef public bint debugging
    cdef public bint debug_alloc
    cdef public uint32_t guard_minorder
    cdef public uint32_t expand_watch
    cdef public bint irqs_off
    cdef public int32_t preempt_count
    cdef public object deferred

    cpdef set_debugging(self)

    cpdef set_task(self, uint64_t record)

    cpdef endless_change(self)

    @cython.locals(at=uint64_t)
    cpdef set_cpu(self, uint32_t cpu)

    cpdef uint64_t per_cpu_offset(self, uint32_t cpu) except? 0xBAD0BAD0BAD0BAD0

    @cython.locals(z=uint64_t, start=uint64_t, i=int32_t)
    cpdef uint64_t flat_zone(self, uint64_t pfn) except? 0xBAD0BAD0BAD0BAD0

    cpdef int32_t numa_node_id(self) except? -0x5BAD5BAD

    cpdef bad_order(self, uint64_t page, uint64_t order)

    cpdef bad_migratetype(self, uint64_t page, int32_t migratetype)

    cpdef bad_zonelist(self, uint64_t end)

    cpdef bad_zone_idx(self, uint64_t zref, int32_t index)

    cpdef bad_node(self, int32_t nid)

    cpdef bad_pcp_count(self, uint64_t zone, int32_t count, int32_t missing)

    cpdef warn_alloc_failed(self, uint32_t gfp_mask, uint32_t order)

    cpdef warn_order(self, uint32_t gfp_mask)

    @cython.locals(result=int32_t)
    cpdef int32_t zone_reclaim(self, uint64_t zone, uint32_t gfp_mask, uint32_t order) except? -0x5BAD5BAD

    @cython.locals(near=bint)
    cpdef bint zone_allows_reclaim(self, uint64_t local, uint64_t zone) except -1

    @cython.locals(within=bint)
    cpdef bint zone_dirty_ok(self, uint64_t z) except -1

    cpdef page_cache_release(self, uint64_t page)

    cpdef clear_pages(self, uint64_t page, uint32_t order)

    cpdef bad_page_at_free(self, uint64_t page, uint64_t at)

    cpdef bad_page_at_alloc(self, uint64_t page, uint64_t at)

    cpdef page_untracked(self, uint64_t page, uint32_t order)

    cpdef page_freed(self, uint64_t page, uint32_t order)

    cpdef page_allocated(self, uint64_t page, uint32_t order, uint32_t gfp_flags)

    cpdef page_split(self, uint64_t page, uint32_t order)

    @cython.locals(guarded=bint)
    cpdef bint expand_guarded(self, uint64_t zone, uint64_t page, uint32_t order, int32_t migratetype) except -1

    cpdef alloc_begins(self, uint32_t gfp_mask)

    cpdef alloc_ends(self, uint64_t page, uint32_t order, uint32_t gfp_mask)

    cpdef fail_dump(self, uint64_t attr)

    cpdef bint fail_task(self) except -1

    cpdef check_buddy(self, uint64_t buddy_at)

    cpdef check_free_one_page(self, uint64_t page, uint64_t zone, int32_t migratetype)

    cpdef check_page_idx(self, uint64_t page, uint64_t zone, uint64_t page_idx, uint32_t order)

    cpdef check_free_pages_prepare(self, uint64_t page, uint32_t order)

    cpdef check_free_pages(self, uint64_t addr)

    cpdef check_put_page_testzero(self, uint64_t at)

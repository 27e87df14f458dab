# SPDX-License-Identifier: GPL-2.0-only
"""From a memory image to a running kernel: an :class:`~kernelmm.core.mm.Mm` over a copy of its memory.

Everything the core needs to know of this kernel is looked up here, once: field offsets and
numbers in its layout, addresses of its variables in its symbols.  What the core will touch is
checked to be present, so that the hot paths need not ask whether memory is absent.
"""

from __future__ import annotations

from kernelmm.core import bounds
from kernelmm.core.mm import Mm
from kernelmm.pressure import hooks, owners
from kernelmm.pressure.fields import Fields
from physmem import abi, address
from physmem.dump import Dump
from physmem.errors import AbsentError, CorruptionError, LayoutError, UnsupportedError
from physmem.memory_model import usemap_size
from physmem.ram import Ram
from physmem.space import UNMAPPED
from physmem.structs.layout import Layout

__all__ = ["attach", "come_alive", "numbers"]

#: Index of N_MEMORY in node_states[]: N_HIGH_MEMORY and N_NORMAL_MEMORY are the same on 64 bits.
N_MEMORY = 2

#: Bytes from the per-cpu variable kernel_stack down to the list head of alloc_contig_range, called by a module's init.
STACK_DEPTH = 0x248
#: Where the stack is used in a frame that we make one of: there is something deeper in it, too.
STACK_IN_FRAME = 3072

#: A field or value of struct page that the hot paths have as a compile-time constant.
_FIXED_FIELDS = {
    "flags": abi.PAGE_FLAGS,
    "mapping": abi.PAGE_MAPPING,
    "index": abi.PAGE_INDEX,
    "pfmemalloc": abi.PAGE_PFMEMALLOC,
    "_mapcount": abi.PAGE_MAPCOUNT,
    "_count": abi.PAGE_COUNT,
    "lru": abi.PAGE_LRU,
    "compound_dtor": abi.PAGE_COMPOUND_DTOR,
    "compound_order": abi.PAGE_COMPOUND_ORDER,
    "private": abi.PAGE_PRIVATE,
    "first_page": abi.PAGE_FIRST_PAGE,
}
_FIXED_CONSTANTS = {
    "PAGE_SHIFT": abi.PAGE_SHIFT,
    "MAX_ORDER": abi.MAX_ORDER,
    "pageblock_order": abi.PAGEBLOCK_ORDER,
    "MIGRATE_PCPTYPES": abi.MIGRATE_PCPTYPES,
    "MIGRATE_RESERVE": abi.MIGRATE_RESERVE,
    "NR_PAGEBLOCK_BITS": 4,
    "PG_lru": abi.PG_lru,
    "PG_slab": abi.PG_slab,
    "PG_head": abi.PG_head,
    "PG_tail": abi.PG_tail,
    "NR_FREE_PAGES": abi.NR_FREE_PAGES,
    "NR_ALLOC_BATCH": abi.NR_ALLOC_BATCH,
    "ZONE_FAIR_DEPLETED": abi.ZONE_FAIR_DEPLETED,
    "MAX_NR_ZONES": 4,
}

_SUPPORTED = "only a kernel laid out as Linux 4.0 on x86-64 can be gone on with (physmem inspects later ones)"


def check_layout(layout: Layout) -> None:
    """Refuse a kernel whose ``struct page`` or buddy system is not the one the core is compiled for.

    :raises LayoutError: naming the first difference
    """
    # First a struct of which VMCOREINFO says nothing: who has nothing else is told what to give.
    fields = [("per_cpu_pageset", "pcp.lists", abi.PCP_LISTS)]
    fields += [("page", name, want) for name, want in _FIXED_FIELDS.items()]
    for tag, name, _ in fields:
        if not layout.has(tag, name):
            raise LayoutError(f"{layout.source}: struct {tag} has no {name}; {_SUPPORTED}")
    facts = [(f"offset of {tag}.{name}", layout.offsetof(tag, name), want) for tag, name, want in fields]
    facts += [(name, layout.constant(name), want) for name, want in _FIXED_CONSTANTS.items()]
    facts.append(("size of struct page", layout.sizeof("page"), abi.SIZEOF_PAGE))
    for what, is_, want in facts:
        if is_ != want:
            raise LayoutError(f"{layout.source}: {what} is {is_}, not {want}; {_SUPPORTED}")


def numbers(dump: Dump) -> dict[str, int]:
    """A value for each attribute of :class:`~kernelmm.core.mm.Mm` that this kernel's build decides.

    :raises LayoutError: a struct, field or constant is unknown
    :raises SymbolError: a variable is unknown
    """
    layout = dump.layout
    check_layout(layout)
    smp = layout.has("per_cpu_pageset", "stat_threshold")
    numa = layout.has("zone", "node")

    def zone(name: str) -> int:
        return layout.offsetof("zone", name)

    def pgdat(name: str) -> int:
        return layout.offsetof("pglist_data", name)

    def variable(name: str) -> int:
        return dump.virt_to_phys(dump.symbols[name])

    def optional(name: str) -> int:
        return layout.enum("zone_stat_item").get(name, layout.enum("vm_event_item").get(name, -1))

    # A flat memory map has no sections, but pageblock flags in each zone.
    sparse = layout.has("mem_section")
    sections_per_root = layout.constant("SECTIONS_PER_ROOT") if sparse else 1
    return {
        "smp": smp,
        "numa": numa,
        "compaction": layout.has("zone", "compact_considered"),
        "migrate_types": layout.constant("MIGRATE_TYPES"),
        "migrate_cma": layout.enum("migratetype").get("MIGRATE_CMA", -1),
        "migrate_isolate": layout.enum("migratetype").get("MIGRATE_ISOLATE", -1),
        "max_nr_zones": layout.constant("MAX_NR_ZONES"),
        "nr_node_ids": max(dump.pgdats) + 1,
        "hz": layout.constant("HZ"),
        "ticket_lock_inc": layout.constant("TICKET_LOCK_INC") if smp else 0,
        "zones_pgshift": layout.constant("ZONES_PGSHIFT"),
        "zones_mask": layout.constant("ZONES_MASK"),
        "nodes_pgshift": layout.constant("NODES_PGSHIFT"),
        "nodes_mask": layout.constant("NODES_MASK"),
        "zoneid_pgshift": layout.constant("ZONEID_PGSHIFT"),
        "zoneid_mask": layout.constant("ZONEID_MASK"),
        "last_cpupid_bits": layout.constant("LAST_CPUPID_MASK") << layout.constant("LAST_CPUPID_PGSHIFT"),
        "check_at_free": layout.constant("PAGE_FLAGS_CHECK_AT_FREE"),
        "check_at_prep": layout.constant("PAGE_FLAGS_CHECK_AT_PREP"),
        "zone_watermark": zone("watermark"),
        "zone_lowmem_reserve": zone("lowmem_reserve"),
        "zone_node": zone("node") if numa else 0,
        "zone_pgdat": zone("zone_pgdat"),
        "zone_pageset": zone("pageset"),
        "zone_start_pfn": zone("zone_start_pfn"),
        "zone_managed_pages": zone("managed_pages"),
        "zone_spanned_pages": zone("spanned_pages"),
        "zone_present_pages": zone("present_pages"),
        "zone_name": zone("name"),
        "zone_nr_isolate_pageblock": zone("nr_isolate_pageblock") if layout.has("zone", "nr_isolate_pageblock") else 0,
        "zone_free_area": zone("free_area"),
        "zone_flags": zone("flags"),
        "zone_lock": zone("lock"),
        "zone_percpu_drift_mark": zone("percpu_drift_mark"),
        "zone_vm_stat": zone("vm_stat"),
        "sizeof_zone": layout.sizeof("zone"),
        # As if there were a list for every index that a request may have.
        "sizeof_pageset": max(
            layout.sizeof("per_cpu_pageset"), abi.PCP_LISTS + abi.SIZEOF_LIST_HEAD * (abi.MIGRATE_PCPTYPES + 1)
        ),
        "free_area_nr_free": layout.offsetof("free_area", "nr_free"),
        "sizeof_free_area": layout.sizeof("free_area"),
        "pageset_stat_threshold": layout.offsetof("per_cpu_pageset", "stat_threshold") if smp else 0,
        "pageset_vm_stat_diff": layout.offsetof("per_cpu_pageset", "vm_stat_diff") if smp else 0,
        "pgdat_node_zones": pgdat("node_zones"),
        "pgdat_node_zonelists": pgdat("node_zonelists"),
        "pgdat_nr_zones": pgdat("nr_zones"),
        "pgdat_node_id": pgdat("node_id"),
        "pgdat_kswapd_wait_lock": pgdat("kswapd_wait.lock"),
        "pgdat_kswapd_wait_task_list": pgdat("kswapd_wait.task_list"),
        "pgdat_kswapd_max_order": pgdat("kswapd_max_order"),
        "pgdat_classzone_idx": pgdat("classzone_idx"),
        "sizeof_pgdat": layout.sizeof("pglist_data"),
        "sizeof_zonelist": layout.sizeof("zonelist"),
        "max_zonelists": layout.constant("MAX_ZONELISTS"),
        "zonelist_zonerefs": layout.offsetof("zonelist", "_zonerefs"),
        "max_zonerefs": layout.lengthof("zonelist", "_zonerefs"),
        "zonelist_zlcache_ptr": layout.offsetof("zonelist", "zlcache_ptr"),
        "zlc_z_to_n": layout.offsetof("zonelist_cache", "z_to_n") if numa else 0,
        "zlc_fullzones": layout.offsetof("zonelist_cache", "fullzones") if numa else 0,
        "zlc_last_full_zap": layout.offsetof("zonelist_cache", "last_full_zap") if numa else 0,
        "sizeof_zlc": layout.sizeof("zonelist_cache") if numa else 0,
        "flatmem": not sparse,
        "zone_pageblock_flags": 0 if sparse else zone("pageblock_flags"),
        "section_pageblock_flags": layout.offsetof("mem_section", "pageblock_flags") if sparse else 0,
        "sizeof_mem_section": layout.sizeof("mem_section") if sparse else 0,
        "pfn_section_shift": layout.constant("PFN_SECTION_SHIFT") if sparse else 0,
        "pfn_section_mask": layout.constant("PAGES_PER_SECTION") - 1 if sparse else 0,
        "root_section_shift": sections_per_root.bit_length() - 1,
        "root_section_mask": sections_per_root - 1,
        "nr_section_roots": layout.constant("NR_SECTION_ROOTS") if sparse else 0,
        "nr_free_cma_pages": optional("NR_FREE_CMA_PAGES"),
        "nr_pages_scanned": layout.enumerator("NR_PAGES_SCANNED"),
        "nr_file_dirty": layout.enumerator("NR_FILE_DIRTY"),
        "nr_unstable_nfs": layout.enumerator("NR_UNSTABLE_NFS"),
        "numa_hit": optional("NUMA_HIT"),
        "numa_miss": optional("NUMA_MISS"),
        "numa_foreign": optional("NUMA_FOREIGN"),
        "numa_local": optional("NUMA_LOCAL"),
        "numa_other": optional("NUMA_OTHER"),
        # __count_zone_vm_events counts from PGALLOC_NORMAL - ZONE_NORMAL.
        "pgalloc": layout.enumerator("PGALLOC_NORMAL") - layout.enumerator("ZONE_NORMAL"),
        "pgfree": layout.enumerator("PGFREE"),
        "compactmigrate_scanned": optional("COMPACTMIGRATE_SCANNED"),
        "compactfree_scanned": optional("COMPACTFREE_SCANNED"),
        "compactisolated": optional("COMPACTISOLATED"),
        "pg_hwpoison": layout.enum("pageflags").get("PG_hwpoison", -1),
        "var_node_data": variable("node_data") if numa else 0,
        "contig_page_data": 0 if numa else dump.symbols["contig_page_data"],
        "var_mem_section": variable("mem_section") if sparse else 0,
        "var_vm_stat": variable("vm_stat"),
        "var_gfp_allowed_mask": variable("gfp_allowed_mask"),
        "var_page_group_by_mobility_disabled": variable("page_group_by_mobility_disabled"),
        "var_jiffies": variable("jiffies"),
        "var_nr_online_nodes": variable("nr_online_nodes") if numa else 0,
        "var_zone_reclaim_mode": variable("zone_reclaim_mode") if numa else 0,
        "var_node_states_memory": variable("node_states") + N_MEMORY * -(-layout.constant("MAX_NUMNODES") // 64) * 8,
        "var_per_cpu_offset": variable("__per_cpu_offset") if smp else 0,
        "sizeof_vm_event_state": layout.sizeof("vm_event_state"),
        "percpu_vm_event_states": dump.symbols["vm_event_states"],
        "percpu_numa_node": dump.symbols["numa_node"] if numa else 0,
        "free_compound_page": dump.symbols["free_compound_page"],
        "free_huge_page": dump.symbols.find("free_huge_page"),
        "var_cpu_online_bits": variable("cpu_online_bits"),
        "var_fail_page_alloc": variable("fail_page_alloc") if "fail_page_alloc" in dump.symbols else 0,
        "percpu_net_rand_state": dump.symbols.find("net_rand_state"),
        "nr_cpus": nr_cpu_ids(dump) if smp else 1,
    }


def nr_cpu_ids(dump: Dump) -> int:
    """How many CPUs there can be, online or not; CorruptionError if it is not what the kernel was built for."""
    count, limit = dump.s32(dump.symbols["nr_cpu_ids"]), dump.layout.constant("NR_CPUS")
    if not 0 < count <= limit:
        raise CorruptionError("nr_cpu_ids", f"{count} CPUs, the kernel is built for {limit}")
    return count


def attach(dump: Dump) -> Mm:
    """Copy the dump's memory and go on as its kernel.  The image itself is not changed.

    :raises LayoutError: the kernel is not one that the engine can be
    :raises SymbolError: the address of a variable is unknown
    :raises AbsentError: a structure that the allocator works on is not in the image
    :raises CorruptionError: a structure contradicts itself so badly that there is nothing to run on
    """
    values = numbers(dump)
    # One frame more than the machine has: the running task's record and, if need be, its kernel stack, for lists
    # that live in a function.
    ram = Ram.from_image(dump.image, max(dump.image.size, dump.max_pfn << abi.PAGE_SHIFT) + abi.PAGE_SIZE)
    try:
        mm = Mm(ram, dump.over(ram).space(ram), values)
    except OverflowError as error:
        raise LayoutError(f"{dump.layout.source}: a number is out of the engine's range: {error}") from None
    frame = mm.page_offset + ram.size - abi.PAGE_SIZE
    mm.stack = task_stack(mm, dump) or frame + STACK_IN_FRAME
    come_alive(mm, dump, frame)
    require_present(mm, dump)
    return mm


def come_alive(mm: Mm, dump: Dump, frame: int) -> None:
    """What is above the core, and the task that runs; ``frame``: where to note what the image does not tell.

    :raises LayoutError: :func:`kernelmm.core.bounds.check`
    """
    bounds.check(mm)
    mm.cold = Fields(dump)
    mm.pressure = hooks
    owners.first_task(mm, dump.symbols.find("init_thread_union"), frame)


def task_stack(mm: Mm, dump: Dump) -> int:
    """Kernel address for a list on the running task's stack, as deep as ``alloc_contig_range`` has its own; 0 if
    the image does not tell where that stack is.
    """
    if "kernel_stack" not in dump.symbols:
        return 0
    top = mm.as_u64[address.off(mm, dump.symbols["kernel_stack"] + mm.this_cpu_off) >> 3]
    frame = top - STACK_DEPTH
    return frame if address.lookup(mm, frame) < mm.size - abi.PAGE_SIZE else 0


def require_present(mm: Mm, dump: Dump) -> None:
    """Check that all the core will touch is in the image: page array, nodes, zonelists, pagesets, pageblock flags."""
    layout, ranges = dump.layout, mm.ram.ranges

    def need(va: int, size: int, what: str) -> None:
        phys = dump.virt_to_phys(va)
        gap = ranges.first_gap(phys, phys + size)
        if gap is not None:
            raise AbsentError(gap, size, what)

    if 1 << mm.memmap_shift < abi.SIZEOF_PAGE << (abi.MAX_ORDER - 1):
        raise UnsupportedError("not modelled: a page array in pieces smaller than the entries of a largest block")
    if max(dump.pgdats) > 63:
        raise UnsupportedError("not modelled: node ids above 63")
    for nid, pgdat in dump.pgdats.items():
        need(pgdat, layout.sizeof("pglist_data"), f"node {nid}")
        for index in range(mm.max_nr_zones):
            zone = pgdat + mm.pgdat_node_zones + index * mm.sizeof_zone
            if not dump.field(zone, "zone", "present_pages"):
                continue
            if mm.flatmem:
                size = usemap_size(*(dump.field(zone, "zone", f) for f in ("zone_start_pfn", "spanned_pages")))
                need(dump.field(zone, "zone", "pageblock_flags"), size, f"pageblock flags of zone {index}")
            for cpu in range(mm.nr_cpus):
                pageset = dump.field(zone, "zone", "pageset") + mm.per_cpu_offset(cpu)
                need(pageset, layout.sizeof("per_cpu_pageset"), f"pageset of node {nid} zone {index} CPU {cpu}")
    for chunk, phys in enumerate(mm.memmap):
        if phys != UNMAPPED:
            gap = ranges.first_gap(phys, phys + (1 << mm.memmap_shift))
            if gap is not None:
                raise AbsentError(gap, 1 << mm.memmap_shift, f"page array from pfn {(chunk << mm.memmap_shift) >> 6}")
    for name in ("vm_stat", "mem_map" if mm.flatmem else "mem_section", "gfp_allowed_mask", "jiffies"):
        need(dump.symbols[name], 8, name)
    for cpu in range(mm.nr_cpus):
        need(mm.percpu_vm_event_states + mm.per_cpu_offset(cpu), layout.sizeof("vm_event_state"), "vm_event_states")
    for section in range(0 if mm.flatmem else -(-dump.max_pfn >> mm.pfn_section_shift)):
        root = mm.as_u64[(mm.var_mem_section + 8 * (section >> mm.root_section_shift)) >> 3]
        if root:
            entry = root + (section & mm.root_section_mask) * mm.sizeof_mem_section
            need(entry, mm.sizeof_mem_section, f"mem_section {section}")
            usemap = dump.field(entry, "mem_section", "pageblock_flags")
            if usemap:
                need(usemap, layout.constant("SECTION_BLOCKFLAGS_BITS") // 8, f"pageblock flags of section {section}")

#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Write ``docs/coverage.md``: every function of Linux 4.0's mm/page_alloc.c, and where it is here, or why it is not.

The list of functions is that of the kernel's source, in its order.  Where a function lives is found by its
name in the project's source, so that the table cannot name what does not exist; a function under another name
is in :data:`ELSEWHERE`, a reason for one that is missing in :data:`NOT_MODELLED`.  ``--check`` writes nothing and
fails if the document is stale.
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "coverage.md"
PACKAGES = ("kernelmm", "physmem")


def words(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


#: mm/page_alloc.c of Linux 4.0, CONFIG_NUMA and SPARSEMEM, in order of appearance.
FUNCTIONS = words("""
pm_restore_gfp_mask pm_restrict_gfp_mask pm_suspended_storage set_pageblock_migratetype page_outside_zone_boundaries
page_is_consistent bad_range bad_page free_compound_page prep_compound_page prep_zero_page early_debug_pagealloc
need_debug_guardpage init_debug_guardpage debug_guardpage_minorder_setup set_page_guard clear_page_guard
set_page_order rmv_page_order page_is_buddy __free_one_page free_pages_check free_pcppages_bulk free_one_page
free_tail_pages_check free_pages_prepare __free_pages_ok __free_pages_bootmem init_cma_reserved_pageblock expand
check_new_page prep_new_page __rmqueue_smallest move_freepages move_freepages_block change_pageblock_range
try_to_steal_freepages __rmqueue_fallback __rmqueue rmqueue_bulk drain_zone_pages drain_pages_zone drain_pages
drain_local_pages drain_all_pages mark_free_pages free_hot_cold_page free_hot_cold_page_list split_page
__isolate_free_page split_free_page buffered_rmqueue setup_fail_page_alloc should_fail_alloc_page
fail_page_alloc_debugfs __zone_watermark_ok zone_watermark_ok zone_watermark_ok_safe zlc_setup zlc_zone_worth_trying
zlc_mark_zone_full zlc_clear_zones_full zone_local zone_allows_reclaim reset_alloc_batches get_page_from_freelist
should_suppress_show_mem warn_alloc_failed should_alloc_retry __alloc_pages_may_oom __alloc_pages_direct_compact
__perform_reclaim __alloc_pages_direct_reclaim __alloc_pages_high_priority wake_all_kswapds gfp_to_alloc_flags
gfp_pfmemalloc_allowed __alloc_pages_slowpath __alloc_pages_nodemask __get_free_pages get_zeroed_page __free_pages
free_pages alloc_kmem_pages alloc_kmem_pages_node __free_kmem_pages free_kmem_pages make_alloc_exact
alloc_pages_exact alloc_pages_exact_nid free_pages_exact nr_free_zone_pages nr_free_buffer_pages
nr_free_pagecache_pages show_node si_meminfo si_meminfo_node skip_free_areas_node show_migration_types
show_free_areas zoneref_set_zone build_zonelists_node __parse_numa_zonelist_order setup_numa_zonelist_order
numa_zonelist_order_handler find_next_best_node build_zonelists_in_node_order build_thisnode_zonelists
build_zonelists_in_zone_order default_zonelist_order set_zonelist_order build_zonelists build_zonelist_cache
local_memory_node __build_all_zonelists build_all_zonelists_init build_all_zonelists wait_table_hash_nr_entries
wait_table_bits pageblock_is_reserved setup_zone_migrate_reserve memmap_init_zone zone_init_free_lists
zone_batchsize pageset_update pageset_set_batch pageset_init setup_pageset pageset_set_high
pageset_set_high_and_batch zone_pageset_init setup_zone_pageset setup_per_cpu_pageset zone_wait_table_init
zone_pcp_init init_currently_empty_zone __early_pfn_to_nid early_pfn_to_nid early_pfn_in_nid
free_bootmem_with_active_regions sparse_memory_present_with_active_regions get_pfn_range_for_nid
find_usable_zone_for_movable adjust_zone_range_for_zone_movable zone_spanned_pages_in_node __absent_pages_in_range
absent_pages_in_range zone_absent_pages_in_node calculate_node_totalpages usemap_size setup_usemap
set_pageblock_order calc_memmap_size free_area_init_core alloc_node_mem_map free_area_init_node setup_nr_node_ids
node_map_pfn_alignment find_min_pfn_for_node find_min_pfn_with_active_regions early_calculate_totalpages
find_zone_movable_pfns_for_nodes check_for_memory free_area_init_nodes cmdline_parse_core cmdline_parse_kernelcore
cmdline_parse_movablecore adjust_managed_page_count free_reserved_area free_highmem_page mem_init_print_info
set_dma_reserve free_area_init page_alloc_cpu_notify page_alloc_init calculate_totalreserve_pages
setup_per_zone_lowmem_reserve __setup_per_zone_wmarks setup_per_zone_wmarks calculate_zone_inactive_ratio
setup_per_zone_inactive_ratio init_per_zone_wmark_min sysctl_min_unmapped_ratio_sysctl_handler
sysctl_min_slab_ratio_sysctl_handler lowmem_reserve_ratio_sysctl_handler percpu_pagelist_fraction_sysctl_handler
set_hashdist alloc_large_system_hash get_pageblock_bitmap pfn_to_bitidx get_pfnblock_flags_mask
set_pfnblock_flags_mask has_unmovable_pages is_pageblock_removable_nolock pfn_max_align_down pfn_max_align_up
__alloc_contig_migrate_range alloc_contig_range free_contig_range zone_pcp_update zone_pcp_reset
__offline_isolated_pages is_free_buddy_page
""")

#: Functions that have another name here, or are part of another one: kernel name to ``module.function``.
ELSEWHERE = {
    "bad_page": "kernelmm.core.mm.Mm.bad_page",
    "warn_alloc_failed": "kernelmm.study.reporter.Reporter.warn_alloc_failed",
    "should_suppress_show_mem": "kernelmm.study.reporter.Reporter.should_suppress_show_mem",
    "free_tail_pages_check": "kernelmm.study.debug_vm.DebugVm.free_tail_pages_check",
    "early_debug_pagealloc": "kernelmm.debug.options.early_params",
    "debug_guardpage_minorder_setup": "kernelmm.debug.options.early_params",
    "need_debug_guardpage": "kernelmm.debug.aids.page_ext_init",
    "init_debug_guardpage": "kernelmm.debug.aids.page_ext_init",
    "set_page_guard": "kernelmm.debug.aids.Aids.set_page_guard",
    "clear_page_guard": "kernelmm.debug.aids.Aids.merge_guard",
    "page_outside_zone_boundaries": "kernelmm.study.debug_vm.DebugVm.bad_range",
    "page_is_consistent": "kernelmm.study.debug_vm.DebugVm.bad_range",
    "bad_range": "kernelmm.study.debug_vm.DebugVm.bad_range",
    "prep_zero_page": "kernelmm.core.mm.Mm.clear_pages",
    "free_compound_page": "kernelmm.core.free.put_compound_or_single",
    "page_is_buddy": "kernelmm.core.page.is_buddy",
    "set_page_order": "kernelmm.core.page.set_order",
    "rmv_page_order": "kernelmm.core.page.rmv_order",
    "check_new_page": "kernelmm.core.page.is_bad",
    "page_alloc_cpu_notify": "kernelmm.pressure.cpu_hotplug.page_alloc_cpu_dead",
    "__isolate_free_page": "kernelmm.pressure.isolation.isolate_free_page",
    "__zone_watermark_ok": "kernelmm.core.watermark.leaves_enough",
    "zone_local": "kernelmm.core.alloc.get_page_from_freelist",
    "__perform_reclaim": "kernelmm.pressure.slowpath.__alloc_pages_direct_reclaim",
    "get_pageblock_bitmap": "kernelmm.core.mmzone.pageblock_word",
    "pfn_to_bitidx": "kernelmm.core.mmzone.pageblock_word",
    "get_pfnblock_flags_mask": "kernelmm.core.mmzone.pageblock_migratetype",
    "set_pfnblock_flags_mask": "kernelmm.core.mmzone.set_pageblock_migratetype",
    "change_pageblock_range": "kernelmm.core.mobility.try_to_steal_freepages",
    "pfn_max_align_down": "kernelmm.pressure.contig.alloc_contig_range",
    "pfn_max_align_up": "kernelmm.pressure.contig.alloc_contig_range",
    "is_free_buddy_page": "kernelmm.core.page.buddy",
}

#: Why a function that is found nowhere is not there.
NOT_MODELLED = {
    "local_memory_node": "for machines with nodes that have CPUs and no memory (CONFIG_HAVE_MEMORYLESS_NODES): "
    "never on x86-64 of this version",
    "free_bootmem_with_active_regions": "for architectures that boot with a bitmap (bootmem); x86-64 frees what "
    "memblock has (`free_all_bootmem`)",
    "set_pageblock_order": "for architectures whose huge pages vary in size (CONFIG_HUGETLB_PAGE_SIZE_VARIABLE); "
    "a pageblock of x86-64 always has order 9",
    "node_map_pfn_alignment": "for kernels whose page flags have no room for the node (NODE_NOT_IN_PAGE_FLAGS); "
    "those of all memory models here have",
    "free_reserved_area": "frees what is for boot only (init sections, initrd); our kernel has neither",
    "free_area_init": "for architectures that know neither nodes nor holes; x86-64 calls `free_area_init_nodes`",
    "page_alloc_init": "registers `page_alloc_cpu_notify` with the CPU notifiers; here `cpu_down` calls it itself",
    "free_highmem_page": "there is no high memory on 64 bits",
    "alloc_large_system_hash": "hash tables of other subsystems",
}

_HEAD = """# Every function of mm/page_alloc.c

Linux 4.0's `mm/page_alloc.c`, function by function in the order of its source: where it works here, or why it is
not modelled. Written by `tools/coverage.py`; a test compares it with the code.

"""


def definitions() -> dict[str, str]:
    """Every function and class of the packages: plain name to the dotted name where it is."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    found.setdefault(node.name, f"{module}.{node.name}")
                if isinstance(node, ast.ClassDef):
                    for part in node.body:
                        if isinstance(part, ast.FunctionDef):
                            found.setdefault(f"{node.name}.{part.name}", f"{module}.{node.name}.{part.name}")
    return found


def where(name: str, found: dict[str, str]) -> str | None:
    """Dotted name of what a kernel function is here, or None."""
    if name in ELSEWHERE:
        return ELSEWHERE[name]
    return found.get(name) or found.get("_" + name) or found.get(name.removeprefix("__"))


def document() -> str:
    """The text of the document.

    :raises SystemExit: a function is neither found nor excused
    """
    found = definitions()
    known = set(found.values())
    rows, works = [], 0
    for name in FUNCTIONS:
        place = where(name, found)
        if place is None and name not in NOT_MODELLED:
            raise SystemExit(f"{name}: not found, and no reason is given")
        if place is not None and name in NOT_MODELLED:
            raise SystemExit(f"{name}: it is {place}, and a reason is given why it is not")
        if place is not None and place not in known:
            raise SystemExit(f"{name}: there is no {place}")
        works += place is not None
        status = f"works | `{place}`" if place else f"not modelled | {NOT_MODELLED[name]}"
        rows.append(f"| `{name}` | {status} |")
    table = ["| function | | where, or why |", "| --- | --- | --- |", *rows]
    return _HEAD + f"{works} of {len(FUNCTIONS)} work.\n\n" + "\n".join(table) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the document is stale")
    text = document()
    if parser.parse_args().check:
        return int(not DOCUMENT.exists() or DOCUMENT.read_text() != text)
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: GPL-2.0-only
"""What the accessors of the inline rooms rely on: that every offset they add stays within what was proved.

The compiled engine proves an address once, where it is translated: a whole ``struct page``, ``zone``,
``per_cpu_pageset``, ``zonelist`` (:func:`physmem.address.struct_off`, ``page_off``).  From then on
it adds offsets that come from the image's layout, and variables' addresses that come from its symbols,
without asking again.  Here both are looked at, once, when a kernel is attached.
"""

from __future__ import annotations

from collections.abc import Iterator

from kernelmm.core import fault
from kernelmm.core.mm import Mm
from physmem import abi
from physmem.errors import LayoutError, SymbolError
from physmem.space import UNMAPPED

__all__ = ["check"]

#: zone_idx() counts so far at most, in a zone that contradicts its node.
_ZONES = 8

_Place = tuple[str, int, int]


def check(mm: Mm) -> None:
    """Refuse offsets and addresses that lead out of their struct, or out of memory.

    :raises LayoutError: of a field, or the page array
    :raises SymbolError: of a variable
    """
    largest = abi.SIZEOF_PAGE << (abi.MAX_ORDER - 1)
    if mm.size < largest:
        raise LayoutError(f"{mm.size} bytes of memory: the page array of one largest block has {largest}")
    for struct, size, fields in (
        ("zone", mm.sizeof_zone, _zone(mm)),
        ("free_area", mm.sizeof_free_area, _free_area(mm)),
        ("per_cpu_pageset", mm.sizeof_pageset, _pageset(mm)),
        ("pglist_data", mm.sizeof_pgdat, _pgdat(mm)),
        ("zonelist", mm.sizeof_zonelist, _zonelist(mm)),
        ("zonelist_cache", mm.sizeof_zlc, _zonelist_cache(mm)),
        ("vm_event_state", mm.sizeof_vm_event_state, _events(mm)),
    ):
        if size > mm.size:
            raise LayoutError(f"struct {struct}: {size} bytes are more than the memory has")
        for name, offset, length in fields:
            if not (0 <= offset and offset + length <= size) or offset % _alignment(length):
                raise LayoutError(f"struct {struct}: {name} at {offset} is outside its {size} bytes, or not aligned")
    for name, phys, length in _variables(mm):
        if not 0 <= phys <= mm.size - length or phys % _alignment(length):
            raise SymbolError(f"{name}: {length} bytes at physical {phys:#x} are outside the memory, or not aligned")
    chunks = [phys for phys in mm.memmap if phys != UNMAPPED]
    if not mm.sectioned and any(phys % abi.SIZEOF_PAGE for phys in [mm.mem_map, *chunks]):
        raise LayoutError(f"the page array at {mm.mem_map:#x} is not aligned to its entries")


def _alignment(length: int) -> int:
    """Of a field, or an array, of as many bytes: that of the widest words it can be made of, at most 8."""
    return min(length & -length, 8) or 1


def _items(mm: Mm) -> list[int]:
    """The statistics that the core counts; -1 for one that this kernel does not have."""
    items = [
        abi.NR_FREE_PAGES,
        abi.NR_ALLOC_BATCH,
        mm.nr_free_cma_pages,
        mm.nr_pages_scanned,
        mm.nr_file_dirty,
        mm.nr_unstable_nfs,
        mm.numa_hit,
        mm.numa_miss,
        mm.numa_foreign,
        mm.numa_local,
        mm.numa_other,
    ]
    if min(items) < -1:
        raise LayoutError(f"enum zone_stat_item: {min(items)} is the number of none")
    return items


def _zone(mm: Mm) -> Iterator[_Place]:
    yield "watermark", mm.zone_watermark, 4 * 8
    yield "lowmem_reserve", mm.zone_lowmem_reserve, 4 * 8
    yield "node", mm.zone_node, 4
    yield "free_area", mm.zone_free_area, abi.MAX_ORDER * mm.sizeof_free_area
    yield "lock", mm.zone_lock, 2
    for item in _items(mm):
        yield f"vm_stat[{item}]", mm.zone_vm_stat + 8 * item, 8
    for name in (
        "pgdat",
        "pageset",
        "start_pfn",
        "managed_pages",
        "spanned_pages",
        "present_pages",
        "nr_isolate_pageblock",
        "flags",
        "percpu_drift_mark",
        "pageblock_flags",
    ):
        yield name, getattr(mm, f"zone_{name}"), 8


def _free_area(mm: Mm) -> Iterator[_Place]:
    yield "nr_free", mm.free_area_nr_free, 8
    for migratetype in (abi.MIGRATE_RESERVE, mm.migrate_types - 1, mm.migrate_cma, mm.migrate_isolate):
        if migratetype != -1:
            yield f"free_list[{migratetype}]", abi.SIZEOF_LIST_HEAD * migratetype, abi.SIZEOF_LIST_HEAD


def _pageset(mm: Mm) -> Iterator[_Place]:
    # A request that is both movable and reclaimable is of migratetype 3, for which there is no list.
    yield "pcp", 0, abi.PCP_LISTS + 4 * abi.SIZEOF_LIST_HEAD
    if mm.smp:
        yield "stat_threshold", mm.pageset_stat_threshold, 1
        for item in _items(mm):
            yield f"vm_stat_diff[{item}]", mm.pageset_vm_stat_diff + item, 1


def _pgdat(mm: Mm) -> Iterator[_Place]:
    yield "kswapd_wait.lock", mm.pgdat_kswapd_wait_lock, 2
    yield "kswapd_wait.task_list", mm.pgdat_kswapd_wait_task_list, abi.SIZEOF_LIST_HEAD
    yield "kswapd_max_order", mm.pgdat_kswapd_max_order, 4
    yield "classzone_idx", mm.pgdat_classzone_idx, 4


def _zonelist(mm: Mm) -> Iterator[_Place]:
    yield "_zonerefs", mm.zonelist_zonerefs, max(mm.max_zonerefs, 1) * abi.SIZEOF_ZONEREF


def _zonelist_cache(mm: Mm) -> Iterator[_Place]:
    if mm.numa:
        yield "fullzones", mm.zlc_fullzones, -(-mm.max_zonerefs // 64) * 8


def _events(mm: Mm) -> Iterator[_Place]:
    yield "PGFREE", 8 * mm.pgfree, 8
    for index in (0, _ZONES):
        yield "PGALLOC", 8 * (mm.pgalloc + index), 8


def _variables(mm: Mm) -> Iterator[_Place]:
    items = max(_items(mm)) + 1
    # One before the first: the statistic that there is not.
    yield "vm_stat", mm.var_vm_stat - 8, 8 * items + 8
    yield "gfp_allowed_mask", mm.var_gfp_allowed_mask, 4
    yield "page_group_by_mobility_disabled", mm.var_page_group_by_mobility_disabled, 4
    yield "jiffies", mm.var_jiffies, 8
    yield "node_states", mm.var_node_states_memory, 8
    if mm.numa:
        yield "node_data", mm.var_node_data, 8 * (mm.nodes_mask + 1)
        yield "nr_online_nodes", mm.var_nr_online_nodes, 4
        yield "zone_reclaim_mode", mm.var_zone_reclaim_mode, 4
    if mm.smp:
        yield "cpu_online_bits", mm.var_cpu_online_bits, -(-mm.nr_cpus // 64) * 8
    if mm.nr_section_roots:
        yield "mem_section", mm.var_mem_section, 8 * mm.nr_section_roots
    if mm.var_fail_page_alloc:
        yield "fail_page_alloc", mm.var_fail_page_alloc, fault.SIZE

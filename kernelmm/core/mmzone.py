# SPDX-License-Identifier: GPL-2.0-only
# room: inline
"""Nodes, zones, zone locks and pageblock flags (include/linux/mmzone.h, mm/page_alloc.c).

``zone`` and ``pgdat`` are kernel addresses; ``z`` is the physical address of a zone.
"""

from __future__ import annotations

from kernelmm.core import page
from kernelmm.core.mm import Mm
from physmem import abi, address, word
from physmem.ctype import s32, s64, u32, u64


def node_data(mm: Mm, nid: s32) -> u64:
    """``NODE_DATA(nid)``: kernel address of the node's ``struct pglist_data``."""
    node: u64 = nid
    if mm.numa:
        if node > mm.nodes_mask:
            mm.bad_node(nid)
        return mm.as_u64[(mm.var_node_data + 8 * node) >> 3]
    return mm.contig_page_data


def zone_off(mm: Mm, zone: u64) -> u64:
    """Physical address of a ``struct zone``, all of it memory; AddressError if it is not."""
    return address.struct_off(mm, zone, mm.sizeof_zone)


def node_zonelist(mm: Mm, nid: s32, thisnode: bool) -> u64:
    """``node_zonelist``: the fallback list of a node, or its own zones only."""
    if thisnode and mm.numa:
        return node_data(mm, nid) + mm.pgdat_node_zonelists + mm.sizeof_zonelist
    return node_data(mm, nid) + mm.pgdat_node_zonelists


def page_zone(mm: Mm, at: u64) -> u64:
    """``page_zone``: kernel address of the zone that the flags of the page name."""
    return node_data(mm, page.nid(mm, at)) + mm.pgdat_node_zones + page.zonenum(mm, at) * mm.sizeof_zone


def zone_idx(mm: Mm, zone: u64, z: u64) -> u64:
    """``zone_idx``: index of the zone in its node."""
    mask: u64 = 0xFFFFFFFFFFFFFFFF
    rest: u64 = (zone - pgdat_of(mm, z) - mm.pgdat_node_zones) & mask
    index: u64 = 0
    # A handful of zones: cheaper than dividing by a size that the compiler does not know.
    while rest >= mm.sizeof_zone and index < 8:
        rest -= mm.sizeof_zone
        index += 1
    return index


def pgdat_of(mm: Mm, z: u64) -> u64:
    """``zone->zone_pgdat``."""
    return mm.as_u64[(z + mm.zone_pgdat) >> 3]


def test_zone_flag(mm: Mm, z: u64, nr: u32) -> bool:
    """``test_bit(nr, &zone->flags)``."""
    return (mm.as_u64[(z + mm.zone_flags) >> 3] >> nr) & 1 != 0


def nr_online_nodes(mm: Mm) -> s32:
    """``nr_online_nodes``."""
    if mm.numa:
        return mm.as_s32[mm.var_nr_online_nodes >> 2]
    return 1


def zone_nid(mm: Mm, z: u64) -> s32:
    """``zone_to_nid``."""
    if mm.numa:
        return mm.as_s32[(z + mm.zone_node) >> 2]
    return 0


def populated(mm: Mm, z: u64) -> bool:
    """``populated_zone``."""
    return mm.as_u64[(z + mm.zone_present_pages) >> 3] != 0


def spans_pfn(mm: Mm, z: u64, pfn: u64) -> bool:
    """``zone_spans_pfn``."""
    start: u64 = mm.as_u64[(z + mm.zone_start_pfn) >> 3]
    return start <= pfn and pfn - start < mm.as_u64[(z + mm.zone_spanned_pages) >> 3]


def populated_zone(mm: Mm, nid: s32, index: s32) -> u64:
    """Kernel address of zone ``index`` of node ``nid``, 0 if it has no pages.

    ``for_each_populated_zone`` is a loop over nodes and zones that asks this: it needs no link of a zone to the next.
    """
    pgdat: u64 = node_data(mm, nid)
    zone: u64
    if pgdat == 0:
        return 0
    zone = pgdat + mm.pgdat_node_zones + index * mm.sizeof_zone
    if populated(mm, zone_off(mm, zone)):
        return zone
    return 0


def free_list(mm: Mm, order: u32, migratetype: s32) -> u64:
    """Offset of ``free_area[order].free_list[migratetype]`` in struct zone."""
    return mm.zone_free_area + order * mm.sizeof_free_area + abi.SIZEOF_LIST_HEAD * migratetype


def add_nr_free(mm: Mm, z: u64, order: u32, delta: s32) -> None:
    """``zone->free_area[order].nr_free += delta``."""
    word.add_u64(mm, z + mm.zone_free_area + order * mm.sizeof_free_area + mm.free_area_nr_free, delta)


def nr_free(mm: Mm, z: u64, order: u32) -> s64:
    """``zone->free_area[order].nr_free``: blocks, signed as the watermark arithmetic takes it."""
    return mm.as_s64[(z + mm.zone_free_area + order * mm.sizeof_free_area + mm.free_area_nr_free) >> 3]


def spin_lock(mm: Mm, z: u64) -> None:
    """Take ``zone->lock``, a ticket lock: draw a ticket.  Kernels without SMP have no lock at all."""
    if mm.smp:
        word.add_u8(mm, z + mm.zone_lock + 1, mm.ticket_lock_inc)


def spin_unlock(mm: Mm, z: u64) -> None:
    """Release ``zone->lock``: serve the next ticket."""
    if mm.smp:
        word.add_u8(mm, z + mm.zone_lock, mm.ticket_lock_inc)


def pageset_va(mm: Mm, z: u64, cpu: u32) -> u64:
    """Kernel address of a CPU's ``struct per_cpu_pageset`` of the zone (``per_cpu_ptr``)."""
    return mm.as_u64[(z + mm.zone_pageset) >> 3] + mm.per_cpu_offset(cpu)


def this_cpu_pageset_va(mm: Mm, z: u64) -> u64:
    """Kernel address of the running CPU's ``struct per_cpu_pageset`` of the zone (``this_cpu_ptr``)."""
    return mm.as_u64[(z + mm.zone_pageset) >> 3] + mm.this_cpu_off


def pageset_off(mm: Mm, pageset: u64) -> u64:
    """Physical address of a ``struct per_cpu_pageset``, all of it memory; AddressError if it is not."""
    return address.struct_off(mm, pageset, mm.sizeof_pageset)


def this_cpu_pageset(mm: Mm, z: u64) -> u64:
    """Physical address of the running CPU's ``struct per_cpu_pageset`` of the zone."""
    return pageset_off(mm, this_cpu_pageset_va(mm, z))


def pcp_batch(mm: Mm, pageset: u64) -> s32:
    """``pcp->batch``: pages that go to and from the buddy lists at a time."""
    return mm.as_s32[(pageset + abi.PCP_BATCH) >> 2]


def pcp_count(mm: Mm, pageset: u64) -> s32:
    """``pcp->count``: pages on the lists."""
    return mm.as_s32[(pageset + abi.PCP_COUNT) >> 2]


def pcp_high(mm: Mm, pageset: u64) -> s32:
    """``pcp->high``: as many pages are too many."""
    return mm.as_s32[(pageset + abi.PCP_HIGH) >> 2]


def pageset_of(mm: Mm, z: u64, cpu: u32) -> u64:
    """Physical address of a CPU's ``struct per_cpu_pageset`` of the zone."""
    return pageset_off(mm, pageset_va(mm, z, cpu))


def cpu_online(mm: Mm, cpu: u32) -> bool:
    """``cpu_online``."""
    if not mm.smp:
        return cpu == 0
    return (mm.as_u64[(mm.var_cpu_online_bits >> 3) + (cpu >> 6)] >> (cpu & 63)) & 1 != 0


def has_isolate_pageblock(mm: Mm, z: u64) -> bool:
    """``has_isolate_pageblock``: some pageblock of the zone is MIGRATE_ISOLATE."""
    return mm.zone_nr_isolate_pageblock != 0 and mm.as_u64[(z + mm.zone_nr_isolate_pageblock) >> 3] != 0


def add_nr_isolate_pageblock(mm: Mm, z: u64, delta: s32) -> None:
    """``zone->nr_isolate_pageblock += delta``."""
    word.add_u64(mm, z + mm.zone_nr_isolate_pageblock, delta)


def pageblock_nr(mm: Mm, pfn: u64) -> u64:
    """Number of ``pfn``'s pageblock modulo 16, the pageblocks of a word (``pfn_to_bitidx``).

    Sections begin with a word; in a flat memory map, pageblocks count from the zone's first.
    """
    if mm.flatmem:
        return (pfn >> abi.PAGEBLOCK_ORDER) - (
            mm.as_u64[(mm.flat_zone(pfn) + mm.zone_start_pfn) >> 3] >> abi.PAGEBLOCK_ORDER
        )
    return pfn >> abi.PAGEBLOCK_ORDER


def mobility_disabled(mm: Mm) -> bool:
    """``page_group_by_mobility_disabled``: too little memory to keep pages apart by mobility."""
    return mm.as_s32[mm.var_page_group_by_mobility_disabled >> 2] != 0


def pageblock_word(mm: Mm, pfn: u64) -> u64:
    """Physical address of the word that holds the flags of ``pfn``'s pageblock (``get_pageblock_bitmap``).

    It is in ``mem_section[].pageblock_flags``, or of a flat memory map in ``zone->pageblock_flags``.
    """
    section: u64 = pfn >> mm.pfn_section_shift
    root: u64 = section >> mm.root_section_shift
    usemap: u64
    if mm.flatmem:
        usemap = mm.as_u64[(mm.flat_zone(pfn) + mm.zone_pageblock_flags) >> 3]
        return address.off(mm, usemap + ((pageblock_nr(mm, pfn) >> 4) << 3))
    if root >= mm.nr_section_roots:
        mm.bad_page_pointer(address.pfn_to_page(mm, pfn))
    root = mm.as_u64[(mm.var_mem_section + 8 * root) >> 3]
    section = root + (section & mm.root_section_mask) * mm.sizeof_mem_section
    usemap = mm.as_u64[address.off(mm, section + mm.section_pageblock_flags) >> 3]
    return address.off(mm, usemap + (((pfn & mm.pfn_section_mask) >> (abi.PAGEBLOCK_ORDER + 4)) << 3))


def pageblock_migratetype(mm: Mm, pfn: u64) -> s32:
    """``get_pfnblock_migratetype``: bits 0 to 2 of the pageblock's four, the first bit uppermost in the word."""
    shift: u32 = 61 - ((pageblock_nr(mm, pfn) * 4) & 63)
    return (mm.as_u64[pageblock_word(mm, pfn) >> 3] >> shift) & 7


def set_pageblock_migratetype(mm: Mm, pfn: u64, migratetype: s32) -> None:
    """``set_pageblock_migratetype``: without grouping by mobility, everything is unmovable."""
    at: u64 = pageblock_word(mm, pfn)
    shift: u32 = 61 - ((pageblock_nr(mm, pfn) * 4) & 63)
    seven: u64 = 7
    kind: u64 = migratetype
    if mm.debug_vm:
        mm.checker.pageblock(mm, address.pfn_to_page(mm, pfn), pfn)
    if migratetype < abi.MIGRATE_PCPTYPES and mobility_disabled(mm):
        kind = abi.MIGRATE_UNMOVABLE
    word.clear_bits(mm, at, seven << shift)
    word.set_bits(mm, at, kind << shift)

# SPDX-License-Identifier: GPL-2.0-only
# room: compiled
"""The buddy system: blocks of 2^order pages, split and joined (mm/page_alloc.c).

Free blocks of one order and mobility are a list in ``zone->free_area[order]``.  The first
page of a block carries the mark (PageBuddy), the order (``page->private``) and the list
links; the block's other pages say nothing.  The buddy of the block at index ``i`` of order
``o`` is the block at ``i ^ (1 << o)``; the two together start at the lower of them.

The caller holds ``zone->lock``.  Of a page both addresses are kept, ``pg`` and ``at``: inside a
block of the largest order the structs are contiguous physically as well, so moving to another
page of it is the same step for both.
"""

from __future__ import annotations

from kernelmm.core import mmzone, page, vmstat
from kernelmm.core.mm import Mm
from physmem import abi, address, list_head, word
from physmem.ctype import s32, s64, u32, u64


def __free_one_page(mm: Mm, pg: u64, pfn: u64, zone: u64, z: u64, pageset: u64, order: u32, migratetype: s32) -> None:
    """Put a block on the free lists, joined with its buddy again and again as long as that is free.

    :param pg: ``struct page *`` of the block's first page
    :param zone: ``struct zone *``
    :param z: physical address of the same
    :param pageset: physical address of the running CPU's pageset of the zone
    """
    at: u64 = address.buddies_off(mm, pg, pfn)
    max_order: u32 = abi.MAX_ORDER
    index: u64
    buddy_index: u64 = 0
    step: s64
    head: u64
    if order >= abi.MAX_ORDER:
        mm.bad_block(pg, order)
    if mm.debug_vm:
        mm.check_free_one_page(pg, zone, migratetype)
    if migratetype == mm.migrate_isolate:
        # An isolated pageblock must not grow together with its neighbours.
        max_order = abi.PAGEBLOCK_ORDER + 1
    else:
        vmstat.mod_zone_freepage_state(mm, z, pageset, word.bit(order), migratetype)

    index = pfn & (word.bit(max_order) - 1)
    if mm.debug_vm:
        mm.check_page_idx(pg, zone, index, order)
    while order < max_order - 1:
        buddy_index = index ^ word.bit(order)
        step = (buddy_index - index) << abi.SIZEOF_PAGE_SHIFT
        if not page.is_buddy(mm, at, at + step, order):
            break
        if mm.guard_minorder == 0 or not mm.aids.merge_guard(mm, zone, pg + step, order, migratetype):
            list_head.list_del(mm, pg + step + abi.PAGE_LRU, at + step + abi.PAGE_LRU)
            mmzone.add_nr_free(mm, z, order, -1)
            page.rmv_order(mm, at + step)
        if buddy_index < index:
            pg += step
            at += step
            index = buddy_index
        order += 1
    if mm.debug_vm:
        mm.checker.set_buddy(mm, at)
    page.set_order(mm, at, order)

    head = mmzone.free_list(mm, order, migratetype)
    if order < abi.MAX_ORDER - 2 and next_order_is_likely(mm, at, index, buddy_index, order):
        list_head.list_add_tail(mm, pg + abi.PAGE_LRU, at + abi.PAGE_LRU, zone + head, z + head)
    else:
        list_head.list_add(mm, pg + abi.PAGE_LRU, at + abi.PAGE_LRU, zone + head, z + head)
    mmzone.add_nr_free(mm, z, order, 1)


def next_order_is_likely(mm: Mm, at: u64, index: u64, buddy_index: u64, order: u32) -> bool:
    """Whether the block one order up has a free buddy, so that this block had better wait for its own.

    A block that may soon become part of a larger one goes to the tail of its list, to be used last.
    """
    combined: u64 = buddy_index & index
    higher_at: u64 = at - ((index - combined) << abi.SIZEOF_PAGE_SHIFT)
    step: s64 = ((combined ^ word.bit(order + 1)) - combined) << abi.SIZEOF_PAGE_SHIFT
    return page.is_buddy(mm, higher_at, higher_at + step, order + 1)


def expand(mm: Mm, pg: u64, at: u64, zone: u64, z: u64, low: u32, high: u32, migratetype: s32) -> None:
    """Split a block of order ``high`` until its first part has order ``low``; the rest become free blocks."""
    half: u64
    head: u64
    if at > mm.size - (word.bit(high) << abi.SIZEOF_PAGE_SHIFT):
        mm.bad_block(pg, high)
    while high > low:
        high -= 1
        half = word.bit(high) << abi.SIZEOF_PAGE_SHIFT
        if high < mm.expand_watch and mm.expand_guarded(zone, pg + half, high, migratetype):
            continue
        head = mmzone.free_list(mm, high, migratetype)
        list_head.list_add(mm, pg + half + abi.PAGE_LRU, at + half + abi.PAGE_LRU, zone + head, z + head)
        mmzone.add_nr_free(mm, z, high, 1)
        page.set_order(mm, at + half, high)


def first_free(mm: Mm, zone: u64, z: u64, order: u32, migratetype: s32) -> u64:
    """``struct page *`` of the first block of a free list, or 0."""
    head: u64 = mmzone.free_list(mm, order, migratetype)
    entry: u64 = list_head.first(mm, z + head)
    if entry == zone + head:
        return 0
    return entry - abi.PAGE_LRU


def __rmqueue_smallest(mm: Mm, zone: u64, z: u64, order: u32, migratetype: s32) -> u64:
    """Take the first block of the smallest sufficient order from the lists of one mobility; 0 if there is none.

    :raises CorruptionError: a list does not lead to an entry of the page array
    """
    largest: u32 = abi.MAX_ORDER
    current: u32
    pg: u64
    at: u64
    for current in range(order, largest):
        pg = first_free(mm, zone, z, current, migratetype)
        if pg == 0:
            continue
        at = address.page_off(mm, pg)
        if current == abi.MAX_ORDER - 1 and mm.deferred is not None:
            # The block leaves its list for the first time, perhaps.
            mm.deferred.write_out(at)
        list_head.list_del(mm, pg + abi.PAGE_LRU, at + abi.PAGE_LRU)
        if mm.debug_vm:
            mm.checker.clear_buddy(mm, at)
        page.rmv_order(mm, at)
        mmzone.add_nr_free(mm, z, current, -1)
        expand(mm, pg, at, zone, z, order, current, migratetype)
        page.set_freepage_migratetype(mm, at, migratetype)
        return pg
    return 0

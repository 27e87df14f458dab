# SPDX-License-Identifier: GPL-2.0-only
# room: compiled
"""The buddy system: blocks of 2^order pages, split and joined (mm/page_alloc.c).

Free blocks of one order and mobility are a list in ``zone->free_area[order]``.  The first
page of a block carries the mark (PageBuddy), the order (``page->private``) and the list
links; the block's other pages say nothing.  The buddy of the block at index ``i`` of order
``o`` is the block at ``i ^ (1 << o)``; the two together start at the lower of them.

The caller holds ``zone->lock``.
"""

from __future__ import annotations

from kernelmm.core import mmzone, page, vmstat
from kernelmm.core.mm import Mm
from physmem import abi, address, list_head, word
from physmem.ctype import s32, u32, u64


def page_is_buddy(mm: Mm, at: u64, buddy_at: u64, order: u32) -> bool:
    """``page_is_buddy``: the other block is free, of the same order, in the same zone."""
    return (
        page.buddy(mm, buddy_at)
        and page.order(mm, buddy_at) == order
        and page.zone_id(mm, at) == page.zone_id(mm, buddy_at)
    )


def __free_one_page(mm: Mm, pg: u64, pfn: u64, zone: u64, order: u32, migratetype: s32) -> None:
    """Put a block on the free lists, joined with its buddy again and again as long as that is free.

    :param pg: ``struct page *`` of the block's first page
    :param zone: ``struct zone *``
    """
    z: u64 = address.off(mm, zone)
    at: u64 = address.page_off(mm, pg)
    max_order: u32 = abi.MAX_ORDER
    index: u64
    buddy_index: u64 = 0
    combined: u64
    buddy: u64 = 0
    buddy_at: u64
    head: u64
    if mm.debug_vm:
        mm.check_free_one_page(pg, pfn, zone, order, migratetype)
    if migratetype == mm.migrate_isolate:
        # An isolated pageblock must not grow together with its neighbours.
        max_order = abi.PAGEBLOCK_ORDER + 1
    else:
        vmstat.mod_zone_freepage_state(mm, z, word.bit(order), migratetype)

    index = pfn & (word.bit(max_order) - 1)
    while order < max_order - 1:
        buddy_index = index ^ word.bit(order)
        buddy = address.pfn_to_page(mm, pfn - index + buddy_index)
        buddy_at = address.page_off(mm, buddy)
        if not page_is_buddy(mm, at, buddy_at, order):
            break
        list_head.list_del(mm, buddy + abi.PAGE_LRU)
        mmzone.add_nr_free(mm, z, order, -1)
        page.rmv_order(mm, buddy_at)
        combined = buddy_index & index
        pfn = pfn - index + combined
        pg = address.pfn_to_page(mm, pfn)
        at = address.page_off(mm, pg)
        index = combined
        order += 1
    page.set_order(mm, at, order)

    head = mmzone.free_area(mm, zone, order) + abi.SIZEOF_LIST_HEAD * migratetype
    if order < abi.MAX_ORDER - 2 and next_order_is_likely(mm, at, pfn, index, buddy_index, order):
        list_head.list_add_tail(mm, pg + abi.PAGE_LRU, head)
    else:
        list_head.list_add(mm, pg + abi.PAGE_LRU, head)
    mmzone.add_nr_free(mm, z, order, 1)


def next_order_is_likely(mm: Mm, at: u64, pfn: u64, index: u64, buddy_index: u64, order: u32) -> bool:
    """Whether the block one order up has a free buddy, so that this block had better wait for its own.

    A block that may soon become part of a larger one goes to the tail of its list, to be used last.
    """
    combined: u64 = buddy_index & index
    higher: u64 = pfn - index + combined
    higher_at: u64 = address.page_off(mm, address.pfn_to_page(mm, higher))
    higher_buddy: u64 = higher - combined + (combined ^ word.bit(order + 1))
    return page_is_buddy(mm, higher_at, address.page_off(mm, address.pfn_to_page(mm, higher_buddy)), order + 1)


def expand(mm: Mm, pg: u64, zone: u64, low: u32, high: u32, migratetype: s32) -> None:
    """Split a block of order ``high`` until its first part has order ``low``; the rest become free blocks."""
    z: u64 = address.off(mm, zone)
    half: u64
    while high > low:
        high -= 1
        half = pg + (word.bit(high) << abi.SIZEOF_PAGE_SHIFT)
        list_head.list_add(
            mm, half + abi.PAGE_LRU, mmzone.free_area(mm, zone, high) + abi.SIZEOF_LIST_HEAD * migratetype
        )
        mmzone.add_nr_free(mm, z, high, 1)
        page.set_order(mm, address.page_off(mm, half), high)


def first_free(mm: Mm, zone: u64, order: u32, migratetype: s32) -> u64:
    """``struct page *`` of the first block of a free list, or 0.

    :raises CorruptionError: the list does not lead to an entry of the page array
    """
    head: u64 = mmzone.free_area(mm, zone, order) + abi.SIZEOF_LIST_HEAD * migratetype
    entry: u64 = list_head.first(mm, head)
    if entry == head:
        return 0
    address.page_off(mm, entry - abi.PAGE_LRU)
    return entry - abi.PAGE_LRU


def __rmqueue_smallest(mm: Mm, zone: u64, order: u32, migratetype: s32) -> u64:
    """Take the first block of the smallest sufficient order from the lists of one mobility; 0 if there is none."""
    largest: u32 = abi.MAX_ORDER
    current: u32
    pg: u64
    at: u64
    for current in range(order, largest):
        pg = first_free(mm, zone, current, migratetype)
        if pg == 0:
            continue
        at = address.page_off(mm, pg)
        list_head.list_del(mm, pg + abi.PAGE_LRU)
        page.rmv_order(mm, at)
        mmzone.add_nr_free(mm, address.off(mm, zone), current, -1)
        expand(mm, pg, zone, order, current, migratetype)
        page.set_freepage_migratetype(mm, at, migratetype)
        return pg
    return 0

# SPDX-License-Identifier: GPL-2.0-only
# room: compiled
"""Compound pages: a block that is handled as one page (mm/page_alloc.c, mm/swap.c, include/linux/mm.h).

The first page is the *head* (PG_head); the others are *tails* (PG_tail) and point to it with
``first_page``.  The second page also keeps the destructor and the order.
"""

from __future__ import annotations

from kernelmm.core import page
from kernelmm.core.mm import Mm
from physmem import abi, address, word
from physmem.ctype import u32, u64


def prep_compound_page(mm: Mm, pg: u64, order: u32) -> None:
    """Turn a fresh block of ``order`` >= 1 into a compound page."""
    at: u64 = address.block_off(mm, pg, order)
    tail: u64 = at + abi.SIZEOF_PAGE
    i: u64
    mm.as_u64[(tail + abi.PAGE_COMPOUND_DTOR) >> 3] = mm.free_compound_page
    mm.as_u64[(tail + abi.PAGE_COMPOUND_ORDER) >> 3] = order
    page.set_flag(mm, at, abi.PG_head)
    for i in range(1, word.bit(order)):
        tail = at + (i << abi.SIZEOF_PAGE_SHIFT)
        page.set_count(mm, tail, 0)
        mm.as_u64[(tail + abi.PAGE_FIRST_PAGE) >> 3] = pg
        page.set_flag(mm, tail, abi.PG_tail)


def compound_order(mm: Mm, pg: u64) -> u64:
    """``compound_order``: of a head; 0 for a page that is none."""
    if not page.test_flag(mm, address.page_off(mm, pg), abi.PG_head):
        return 0
    return mm.as_u64[(address.page_off(mm, pg + abi.SIZEOF_PAGE) + abi.PAGE_COMPOUND_ORDER) >> 3]


def compound_head(mm: Mm, pg: u64) -> u64:
    """``compound_head``: the head of a tail; any other page itself."""
    at: u64 = address.page_off(mm, pg)
    if page.test_flag(mm, at, abi.PG_tail):
        return page.first_page(mm, at)
    return pg


def compound_tail_refcounted(mm: Mm, head_at: u64) -> bool:
    """``__compound_tail_refcounted``: tails are counted unless the head is a slab or hugetlb page.

    hugetlb pages are told by their destructor, ``free_huge_page``.
    """
    if page.test_flag(mm, head_at, abi.PG_slab):
        return False
    return mm.as_u64[(head_at + abi.SIZEOF_PAGE + abi.PAGE_COMPOUND_DTOR) >> 3] != mm.free_huge_page


def get_page_unless_zero(mm: Mm, at: u64) -> bool:
    """``get_page_unless_zero``: take a reference if somebody else still has one."""
    if page.count(mm, at) == 0:
        return False
    word.add_s32(mm, at + abi.PAGE_COUNT, 1)
    return True


def get_page(mm: Mm, pg: u64) -> None:
    """``get_page``: take a reference; through a tail it is the head's, noted in the tail's mapcount as well."""
    at: u64 = address.page_off(mm, pg)
    head_at: u64
    if page.test_flag(mm, at, abi.PG_tail):
        head_at = address.page_off(mm, page.first_page(mm, at))
        if not compound_tail_refcounted(mm, head_at):
            if mm.debug_vm:
                mm.checker.get_page_tail(mm, at, head_at, False)
            word.add_s32(mm, head_at + abi.PAGE_COUNT, 1)
            return
        if get_page_unless_zero(mm, head_at):
            if mm.debug_vm:
                mm.checker.get_page_tail(mm, at, head_at, True)
            word.add_s32(mm, at + abi.PAGE_MAPCOUNT, 1)
            return
    if mm.debug_vm:
        mm.checker.get_page(mm, at)
    word.add_s32(mm, at + abi.PAGE_COUNT, 1)

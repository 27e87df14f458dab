# SPDX-License-Identifier: GPL-2.0-only
# room: inline
"""Fields of one ``struct page`` (include/linux/mm.h, page-flags.h, mm/internal.h).

A page comes in two forms: ``page`` is its kernel address, as the kernel passes it around;
``at`` is the physical address of the same struct, which the callers have translated once.
"""

from __future__ import annotations

from kernelmm.core.mm import Mm
from physmem import abi, word
from physmem.ctype import s32, u32, u64


def test_flag(mm: Mm, at: u64, nr: u32) -> bool:
    """``test_bit(nr, &page->flags)``."""
    return (mm.as_u64[(at + abi.PAGE_FLAGS) >> 3] >> nr) & 1 != 0


def set_flag(mm: Mm, at: u64, nr: u32) -> None:
    """``__set_bit(nr, &page->flags)``."""
    word.set_bits(mm, at + abi.PAGE_FLAGS, word.bit(nr))


def clear_flag(mm: Mm, at: u64, nr: u32) -> None:
    """``__clear_bit(nr, &page->flags)``."""
    word.clear_bits(mm, at + abi.PAGE_FLAGS, word.bit(nr))


def compound(mm: Mm, at: u64) -> bool:
    """``PageCompound``: a head or a tail."""
    return mm.as_u64[(at + abi.PAGE_FLAGS) >> 3] & (1 << abi.PG_head | 1 << abi.PG_tail) != 0


def count(mm: Mm, at: u64) -> s32:
    """``page->_count``."""
    return mm.as_s32[(at + abi.PAGE_COUNT) >> 2]


def set_count(mm: Mm, at: u64, value: s32) -> None:
    """``set_page_count``."""
    mm.as_s32[(at + abi.PAGE_COUNT) >> 2] = value


def mapcount(mm: Mm, at: u64) -> s32:
    """``page->_mapcount``: -1 for a page that nobody maps."""
    return mm.as_s32[(at + abi.PAGE_MAPCOUNT) >> 2]


def buddy(mm: Mm, at: u64) -> bool:
    """``PageBuddy``: the head of a free block."""
    return mm.as_s32[(at + abi.PAGE_MAPCOUNT) >> 2] == abi.PAGE_BUDDY_MAPCOUNT_VALUE


def order(mm: Mm, at: u64) -> u64:
    """``page_order``: ``page->private`` of the head of a free block."""
    return mm.as_u64[(at + abi.PAGE_PRIVATE) >> 3]


def set_private(mm: Mm, at: u64, value: u64) -> None:
    """``set_page_private``."""
    mm.as_u64[(at + abi.PAGE_PRIVATE) >> 3] = value


def set_order(mm: Mm, at: u64, value: u32) -> None:
    """``set_page_order``: mark the head of a free block."""
    mm.as_u64[(at + abi.PAGE_PRIVATE) >> 3] = value
    mm.as_s32[(at + abi.PAGE_MAPCOUNT) >> 2] = abi.PAGE_BUDDY_MAPCOUNT_VALUE


def rmv_order(mm: Mm, at: u64) -> None:
    """``rmv_page_order``: it is the head of a free block no longer."""
    mm.as_s32[(at + abi.PAGE_MAPCOUNT) >> 2] = -1
    mm.as_u64[(at + abi.PAGE_PRIVATE) >> 3] = 0


def freepage_migratetype(mm: Mm, at: u64) -> s32:
    """``get_freepage_migratetype``: ``page->index`` of a free page."""
    return mm.as_s32[(at + abi.PAGE_INDEX) >> 2]


def set_freepage_migratetype(mm: Mm, at: u64, migratetype: s32) -> None:
    """``set_freepage_migratetype``."""
    mm.as_u64[(at + abi.PAGE_INDEX) >> 3] = migratetype


def set_pfmemalloc(mm: Mm, at: u64, value: bool) -> None:
    """``page->pfmemalloc = value``."""
    mm.as_u8[at + abi.PAGE_PFMEMALLOC] = 1 if value else 0


def flags(mm: Mm, at: u64) -> u64:
    """``page->flags``."""
    return mm.as_u64[(at + abi.PAGE_FLAGS) >> 3]


def set_flags(mm: Mm, at: u64, value: u64) -> None:
    """``page->flags = value``."""
    mm.as_u64[(at + abi.PAGE_FLAGS) >> 3] = value


def mapping(mm: Mm, at: u64) -> u64:
    """``page->mapping``."""
    return mm.as_u64[(at + abi.PAGE_MAPPING) >> 3]


def set_mapping(mm: Mm, at: u64, value: u64) -> None:
    """``page->mapping = value``."""
    mm.as_u64[(at + abi.PAGE_MAPPING) >> 3] = value


def first_page(mm: Mm, at: u64) -> u64:
    """``page->first_page``: of a tail, the head of its compound page."""
    return mm.as_u64[(at + abi.PAGE_FIRST_PAGE) >> 3]


def is_buddy(mm: Mm, at: u64, buddy_at: u64, order: u32) -> bool:
    """``page_is_buddy``: the other block is free, of the same order, in the same zone."""
    if mm.as_s32[(buddy_at + abi.PAGE_MAPCOUNT) >> 2] != abi.PAGE_BUDDY_MAPCOUNT_VALUE:
        # A guard page is not on a list, but joins its buddy all the same.
        return mm.guard_minorder != 0 and mm.aids.guard_is_buddy(mm, at, buddy_at, order)
    if mm.as_u64[(buddy_at + abi.PAGE_PRIVATE) >> 3] != order:
        return False
    if zone_id(mm, at) != zone_id(mm, buddy_at):
        return False
    if mm.debug_vm:
        mm.check_buddy(buddy_at)
    return True


def is_bad(mm: Mm, at: u64, flags: u64) -> bool:
    """Whether a page that nobody should own is mapped, counted, or has one of the ``flags`` set."""
    # _mapcount and _count, the two halves of one word: -1 and 0
    unmapped_uncounted: u64 = 0xFFFFFFFF
    return (
        mm.as_u64[(at + abi.PAGE_MAPCOUNT) >> 3] != unmapped_uncounted
        or mm.as_u64[(at + abi.PAGE_MAPPING) >> 3] != 0
        or mm.as_u64[(at + abi.PAGE_FLAGS) >> 3] & flags != 0
    )


def put_testzero(mm: Mm, at: u64) -> bool:
    """``put_page_testzero``: drop one reference; whether it was the last."""
    if mm.debug_vm:
        mm.check_put_page_testzero(at)
    word.add_s32(mm, at + abi.PAGE_COUNT, -1)
    return mm.as_s32[(at + abi.PAGE_COUNT) >> 2] == 0


def zonenum(mm: Mm, at: u64) -> s32:
    """``page_zonenum``."""
    return (mm.as_u64[(at + abi.PAGE_FLAGS) >> 3] >> mm.zones_pgshift) & mm.zones_mask


def nid(mm: Mm, at: u64) -> s32:
    """``page_to_nid``."""
    return (mm.as_u64[(at + abi.PAGE_FLAGS) >> 3] >> mm.nodes_pgshift) & mm.nodes_mask


def zone_id(mm: Mm, at: u64) -> u64:
    """``page_zone_id``: node and zone as one number, to compare two pages."""
    return (mm.as_u64[(at + abi.PAGE_FLAGS) >> 3] >> mm.zoneid_pgshift) & mm.zoneid_mask

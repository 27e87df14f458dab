# SPDX-License-Identifier: GPL-2.0-only
"""MIGRATE_RESERVE: pageblocks at the start of each zone that are the last to be broken up (mm/page_alloc.c).

They keep large blocks together for atomic allocations that live briefly: as many pageblocks as the min
watermark has pages for, but two at most.  A pageblock with a reserved page in it is no use.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from kernelmm.bringup.kernel import Kernel, Zone
from kernelmm.bringup.memmap import write_out
from kernelmm.bringup.rounding import div_round_up, round_up
from kernelmm.core import mmzone, mobility
from physmem import abi, address
from physmem.ranges import Ranges

__all__ = ["setup_zone_migrate_reserve"]

WMARK_MIN = 0
#: Two blocks help atomic allocations; more would be for huge pages, which have other means.
MAX_BLOCKS = 2


def setup_zone_migrate_reserve(kernel: Kernel, zone: Zone) -> None:
    """``setup_zone_migrate_reserve``: give the zone as many such pageblocks as its watermark calls for.

    The caller holds ``zone->lock``.
    """
    mm, at = kernel.mm, zone.at
    blocks = div_round_up(kernel.wmark(zone, WMARK_MIN), abi.PAGEBLOCK_NR_PAGES)
    reserve = min(MAX_BLOCKS, blocks)
    old = kernel.get(at, "zone.nr_migrate_reserve_block")
    if reserve == old:
        return
    kernel.set(at, "zone.nr_migrate_reserve_block", reserve)
    start = kernel.get(at, "zone.zone_start_pfn")
    end = start + kernel.get(at, "zone.spanned_pages")
    for pfn in _pageblocks(kernel, start, end):
        if _nid(kernel, pfn) != zone.nid:
            continue
        kind = mmzone.pageblock_migratetype(mm, pfn)
        if reserve > 0:
            if _pageblock_is_reserved(kernel, pfn, min(pfn + abi.PAGEBLOCK_NR_PAGES, end)):
                continue
            if kind == abi.MIGRATE_RESERVE:
                reserve -= 1
                continue
            if kind == abi.MIGRATE_MOVABLE:
                _set_migratetype(kernel, at, pfn, abi.MIGRATE_RESERVE)
                reserve -= 1
                continue
        elif not old:
            # At boot there is nothing to take back further up.
            break
        if kind == abi.MIGRATE_RESERVE:
            _set_migratetype(kernel, at, pfn, abi.MIGRATE_MOVABLE)


def _set_migratetype(kernel: Kernel, zone: int, pfn: int, migratetype: int) -> None:
    """Make a pageblock one of another mobility, with its free pages."""
    mmzone.set_pageblock_migratetype(kernel.mm, pfn, migratetype)
    write_out(kernel, pfn, pfn + 1)
    mobility.move_freepages_block(kernel.mm, zone, pfn, migratetype)


def _pageblocks(kernel: Kernel, start_pfn: int, end_pfn: int) -> Iterator[int]:
    """The first pages of the pageblocks from a pfn on, where they have a ``struct page``; holes cost nothing."""
    for low, high in Ranges((low, high) for low, high, _ in kernel.page_runs(start_pfn, end_pfn)):
        yield from range(round_up(low, abi.PAGEBLOCK_NR_PAGES), high, abi.PAGEBLOCK_NR_PAGES)


def _pageblock_is_reserved(kernel: Kernel, start_pfn: int, end_pfn: int) -> bool:
    """``pageblock_is_reserved``: some page of it will never be free."""
    flags = _flags(kernel, start_pfn, end_pfn - start_pfn)
    return bool((flags >> np.uint64(abi.PG_reserved) & np.uint64(1)).any())


def _nid(kernel: Kernel, pfn: int) -> int:
    """``page_to_nid``."""
    constant = kernel.layout.constant
    return int(_flags(kernel, pfn, 1)[0]) >> constant("NODES_PGSHIFT") & constant("NODES_MASK")


def _flags(kernel: Kernel, pfn: int, count: int) -> npt.NDArray[np.uint64]:
    """``page->flags`` of ``count`` pages of one pageblock."""
    at = address.page_off(kernel.mm, address.pfn_to_page(kernel.mm, pfn))
    words: npt.NDArray[np.uint64] = kernel.ram.array(at, np.uint64, count * abi.SIZEOF_PAGE // 8)
    return words[:: abi.SIZEOF_PAGE // 8]

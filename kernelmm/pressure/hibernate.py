# SPDX-License-Identifier: GPL-2.0-only
"""What hibernation asks of the page allocator: which frames need not be saved (kernel/power/snapshot.c)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kernelmm.core import mmzone
from kernelmm.core.mm import Mm
from kernelmm.pressure import isolation
from physmem import abi, address
from physmem.errors import CorruptionError

__all__ = ["mark_free_pages"]


def mark_free_pages(
    mm: Mm, zone: int, free_pages_map: npt.NDArray[np.bool_], forbidden_pages_map: npt.NDArray[np.bool_]
) -> None:
    """``mark_free_pages``: enter the frames of a zone that are on its free lists; pages at a CPU's hand are not.

    :param zone: ``struct zone *``
    :param free_pages_map: by PFN; entries of forbidden pages stay as they are
    :param forbidden_pages_map: by PFN: pages that hibernation itself uses
    :raises CorruptionError: a free list does not end
    """
    z = mmzone.zone_off(mm, zone)
    start, end = isolation.zone_span(mm, z)
    if start == end:
        return
    mmzone.spin_lock(mm, z)
    entries = [pfn for pfn in range(start, end) if address.pfn_has_page(mm, pfn)]
    clear = np.array(entries, np.int64)
    free_pages_map[clear[~forbidden_pages_map[clear]]] = False
    for order in range(abi.MAX_ORDER):
        for kind in range(mm.migrate_types):
            head = zone + mmzone.free_list(mm, order, kind)
            entry = mm.ram.u64(address.off(mm, head))
            left = end - start
            while entry != head:
                if left == 0:
                    raise CorruptionError("free_list", f"the list of order {order} and type {kind} does not end")
                left -= 1
                pfn = address.page_to_pfn(mm, entry - abi.PAGE_LRU)
                free_pages_map[pfn : pfn + (1 << order)] = True
                entry = mm.ram.u64(address.off(mm, entry))
    mmzone.spin_unlock(mm, z)

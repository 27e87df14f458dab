# SPDX-License-Identifier: GPL-2.0-only
"""Where pages come from and go to: the allocator's own lists, as the events of a trace show them change.

Until 5.13 a CPU's lists are of single pages, and each step between them and the free lists has its event::

    free lists --mm_page_alloc_zone_locked--> a CPU's list --mm_page_alloc--> somebody
               <---mm_page_pcpu_drain--------              <--mm_page_free---
    free lists --mm_page_alloc_zone_locked--> mm_page_alloc of the same block, at once, of a larger order

So an event that is missing, or has another order, shows at the next one, and that of a page's first allocation at the
one before.  Later kernels have steps without an event: nothing is concluded from their traces, which have hexadecimal
PFNs.
"""

from __future__ import annotations

from collections.abc import Callable

from kernelmm.validate import cells
from kernelmm.validate.cells import Cells

__all__ = ["Origin"]

#: As ``Ledger._found``: kind, line, the line that it contradicts, PFN, order, and in words.
Found = Callable[[str, int, int, int, int, str], None]


class Origin:
    """Compares each step with the one before.

    :ivar is_modern: the kernel has steps without an event
    :ivar is_sure: no events were lost so far
    """

    def __init__(self, pages: Cells, found: Found) -> None:
        self.is_modern = False
        self.is_sure = True
        self._pages = pages
        self._found = found
        #: Whether such events are recorded at all.
        self._taken = self._drained = False

    def allocated(self, line: int, pfn: int, order: int) -> None:
        """mm_page_alloc of a block that nobody has: did it come off the lists as such?"""
        if self.is_modern or not self._taken:
            return
        cell = self._pages.at(pfn)
        state, known = cell & 3, cell >> cells.ORDER & cells.ORDER_MASK
        since = cell >> cells.LINE & cells.LINE_MASK
        if state == cells.UNKNOWN:
            # A CPU's list may have had a single page since before the trace.
            if order and self.is_sure:
                self._found("unlisted", line, 0, pfn, order, f"order {order}, and no mm_page_alloc_zone_locked before")
        elif state == cells.HELD and cell & cells.DRAINED:
            self._found("unlisted", line, since, pfn, order, "on the free lists, and not taken off them since")
        elif cell & cells.TAIL or known != order:
            how = "came off the lists" if state == cells.HELD else "was freed"
            self._found("unlisted", line, since, pfn, order, f"allocated with order {order}; it {how} with {known}")
        elif state == cells.FREE and order:
            self._found("unlisted", line, since, pfn, order, "freed to the free lists, and not taken off them since")

    def listed(self, line: int, pfn: int, order: int, *, drained: bool) -> None:
        """mm_page_pcpu_drain or mm_page_alloc_zone_locked of pages that nobody has: where have they been?"""
        if drained:
            self._drained = True
        else:
            self._taken = True
        if self.is_modern or not (self._taken and self._drained):
            return
        for page in range(pfn, pfn + (1 << order)):
            cell = self._pages.at(page)
            on_free_lists = cell & 3 == cells.HELD and cell & cells.DRAINED
            since = cell >> cells.LINE & cells.LINE_MASK
            was_block = cell & cells.TAIL or cell >> cells.ORDER & cells.ORDER_MASK
            if cell & 3 == cells.UNKNOWN or not since:
                continue
            if drained and (on_free_lists or (was_block and cell & 3 == cells.FREE)):
                self._found("undrained", line, since, page, order, "drained, and on the free lists already")
                return
            if not drained and not on_free_lists and not (was_block and cell & 3 == cells.FREE):
                what = "freed to a CPU's list" if cell & 3 == cells.FREE else "taken off the lists before"
                self._found("undrained", line, since, page, order, f"{what}, and not come back to the free lists since")
                return

# SPDX-License-Identifier: GPL-2.0-only
"""What a ledger keeps of each page: one number.

From the lowest bit: state 2, tail 1, order 5, line 34, who 22.  Of a page in the allocator's hands, who is DRAINED if
it is on the free lists, and else 0: it is on its way to somebody, or on a CPU's list.
"""

from __future__ import annotations

from array import array
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["BEFORE", "Cells", "Start"]

UNKNOWN, LIVE, FREE, HELD = 0, 1, 2, 3
TAIL = 1 << 2
ORDER, LINE, WHO = 3, 8, 42
ORDER_MASK, LINE_MASK, STATE_MASK = 31, (1 << 34) - 1, 0xFF
MAX_WHO = (1 << 22) - 1
DRAINED = 1 << WHO
#: With an order that no block has: a page in use before the trace begins, by an image of that time.
BEFORE = UNKNOWN | ORDER_MASK << ORDER
#: Pages of one array of numbers.
BITS = 6
SIZE = 1 << BITS


class Start(Protocol):
    """Somebody who knows how pages were when a trace began."""

    def cells(self, start: int, count: int) -> npt.NDArray[np.uint64]:
        """The numbers of some pages."""


class Cells(dict[int, "array[int]"]):
    """The numbers of all pages, in arrays: zeros at first, or how the trace began."""

    def __init__(self, start: Start | None = None) -> None:
        super().__init__()
        self._start = start

    def __missing__(self, key: int) -> array[int]:
        first = bytes(8 * SIZE) if self._start is None else self._start.cells(key << BITS, SIZE).tobytes()
        self[key] = cells = array("Q", first)
        return cells

    def at(self, pfn: int) -> int:
        """The number of a page."""
        chunk = self.get(pfn >> BITS) if self._start is None else self[pfn >> BITS]
        return 0 if chunk is None else chunk[pfn & (SIZE - 1)]

    def fill(self, pfn: int, order: int, value: int) -> None:
        """Give the pages of a block this number, all but the first marked as tails."""
        tail = value | TAIL
        self[pfn >> BITS][pfn & (SIZE - 1)] = value
        for page in range(pfn + 1, pfn + (1 << order)):
            self[page >> BITS][page & (SIZE - 1)] = tail

# SPDX-License-Identifier: GPL-2.0-only
"""Free memory as blocks, and the state of every page, many at a time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from physmem.inspect.freelist import FreeLists
from physmem.inspect.pageformat import PageFormat

__all__ = ["Blocks", "PageStates", "State"]


class State(Enum):
    """What a page is; the value is what to call it."""

    HOLE = "hole"
    ABSENT = "absent"
    FREE = "free"
    PCP = "per-cpu"
    COMPOUND = "compound"
    RESERVED = "reserved"
    SLAB = "slab"
    LRU = "lru"
    IN_USE = "in use"
    UNREFERENCED = "unreferenced"


@dataclass(frozen=True)
class Blocks:
    """All free memory: blocks of the free lists, single pages of the per-cpu lists, ascending.

    :ivar pfn: first page of each
    :ivar order: as its list says, or the page itself if it is on none
    :ivar owner: number of its list, -1 for none
    :ivar at: position in the table of links
    :ivar buddy: whether it is marked as a free block
    """

    pfn: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]
    owner: npt.NDArray[np.intc]
    at: npt.NDArray[np.intp]
    buddy: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, lists: FreeLists) -> Blocks:
        """Every page that is on a list, or marked as a free block."""
        links = lists.links
        buddy = links.format.buddy(links.pages)
        at = np.flatnonzero(buddy | (lists.owner >= 0))
        owner = lists.owner[at]
        of_list = np.array([each.order for each in lists.lists] or [0], np.int64)[owner]
        own = links.pages[PageFormat.ORDER][at]
        own = np.where(own < links.format.max_order, own, 0).astype(np.int64)
        return cls(links.pfns[at], np.where(owner >= 0, of_list, own), owner, at, buddy[at])

    def __getitem__(self, where: npt.NDArray[np.bool_]) -> Blocks:
        """Some of the blocks."""
        return Blocks(self.pfn[where], self.order[where], self.owner[where], self.at[where], self.buddy[where])

    @property
    def end(self) -> npt.NDArray[np.int64]:
        """One past the last page of each."""
        return self.pfn + (1 << self.order)

    def cover(self, start: int, count: int) -> npt.NDArray[np.bool_]:
        """Which of the ``count`` pages from ``start`` on are in a block."""
        # Blocks are ascending, and none is longer than the longest.
        longest = 1 << int(self.order.max(initial=0))
        first, last = np.searchsorted(self.pfn, [start - longest, start + count])
        change = np.zeros(count + 1, np.int64)
        begin = self.pfn[first:last] - start
        np.add.at(change, np.clip(begin, 0, count), 1)
        np.add.at(change, np.clip(begin + (1 << self.order[first:last]), 0, count), -1)
        inside: npt.NDArray[np.bool_] = np.cumsum(change[:-1]) > 0
        return inside


class PageStates:
    """Tells the state of pages, given all lists of free pages."""

    #: The fields of struct page that are looked at.
    FIELDS = ("flags", PageFormat.COUNT)

    def __init__(self, lists: FreeLists) -> None:
        self._format = lists.links.format
        blocks = Blocks.of(lists)
        per_cpu = np.array([each.cpu is not None for each in lists.lists] or [False])[blocks.owner]
        self._pcp = blocks[per_cpu & (blocks.owner >= 0)]
        self._free = blocks[~per_cpu | (blocks.owner < 0)]

    def codes(self, start: int, pages: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """The state of each page from PFN ``start`` on, as a position in ``list(State)``."""
        flags = pages["flags"]
        states = np.full(len(pages), _CODE[State.IN_USE], np.uint8)
        # What comes later prevails.
        for state, where in (
            (State.UNREFERENCED, pages[PageFormat.COUNT] == 0),
            (State.LRU, self._has(flags, "PG_lru")),
            (State.SLAB, self._has(flags, "PG_slab")),
            (State.RESERVED, self._has(flags, "PG_reserved")),
            (State.COMPOUND, self._has(flags, "PG_head", "PG_tail")),
            (State.PCP, self._pcp.cover(start, len(pages))),
            (State.FREE, self._free.cover(start, len(pages))),
        ):
            states[where] = _CODE[state]
        return states

    def _has(self, flags: npt.NDArray[np.uint64], *names: str) -> npt.NDArray[np.bool_]:
        mask = sum(self._format.bit(name) for name in names)
        found: npt.NDArray[np.bool_] = (flags & np.uint64(mask)) != 0
        return found


_CODE = {state: code for code, state in enumerate(State)}

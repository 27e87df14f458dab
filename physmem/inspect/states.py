# SPDX-License-Identifier: GPL-2.0-only
"""Free memory as blocks, and the state of every page, many at a time.

:class:`PageStates` tells what pages are.  :func:`survey` goes over all of a machine's page frames, holes too, and tells
of each its state, the order of the free block that it is in and its mobility: what a picture of memory needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from physmem.dump import Dump
from physmem.errors import PhysmemError
from physmem.inspect.classes import CODE, Classes, State
from physmem.inspect.freelist import FreeLists, read_lists
from physmem.inspect.memmap import CHUNK
from physmem.inspect.sections import ABSENT, pageblock_types
from physmem.inspect.zones import populated_zones

__all__ = ["Blocks", "PageStates", "Piece", "State", "survey"]


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
        own = links.pages[links.format.order][at]
        own = np.where(own < links.format.max_order, own, 0).astype(np.int64)
        return cls(links.pfns[at], np.where(owner >= 0, of_list, own), owner, at, buddy[at])

    def __getitem__(self, where: npt.NDArray[np.bool_]) -> Blocks:
        """Some of the blocks."""
        return Blocks(self.pfn[where], self.order[where], self.owner[where], self.at[where], self.buddy[where])

    @property
    def end(self) -> npt.NDArray[np.int64]:
        """One past the last page of each."""
        return self.pfn + (1 << self.order)

    def touching(self, start: int, count: int) -> Blocks:
        """The blocks that have any of the ``count`` pages from ``start`` on, and perhaps a few before."""
        # Blocks are ascending, and none is longer than the longest.
        longest = 1 << int(self.order.max(initial=0))
        first, last = np.searchsorted(self.pfn, [start - longest, start + count])
        where = slice(int(first), int(last))
        return Blocks(self.pfn[where], self.order[where], self.owner[where], self.at[where], self.buddy[where])

    def cover(self, start: int, count: int) -> npt.NDArray[np.bool_]:
        """Which of the ``count`` pages from ``start`` on are in a block."""
        here = self.touching(start, count)
        change = np.zeros(count + 1, np.int64)
        np.add.at(change, np.clip(here.pfn - start, 0, count), 1)
        np.add.at(change, np.clip(here.end - start, 0, count), -1)
        inside: npt.NDArray[np.bool_] = np.cumsum(change[:-1]) > 0
        return inside


class PageStates:
    """Tells the state of pages, given all lists of free pages.

    :ivar fields: the fields of ``struct page`` that are looked at
    """

    def __init__(self, lists: FreeLists) -> None:
        self._format = lists.links.format
        self._classes = Classes(lists.links.dump, lists.links.array, self._format)
        self.fields = self._classes.fields
        blocks = Blocks.of(lists)
        per_cpu = np.array([each.cpu is not None for each in lists.lists] or [False])[blocks.owner]
        migratetypes = [-1 if each.migratetype is None else each.migratetype for each in lists.lists] or [-1]
        self._pcp = blocks[per_cpu & (blocks.owner >= 0)]
        self._free = blocks[~per_cpu | (blocks.owner < 0)]
        self._of_list = np.array(migratetypes, np.int8)
        # Where a link leads to a page that is absent, who is on the list is not known, and nobody is to blame.
        whole = not any(each.rule == "absent" for each in lists.breaks)
        self._lost = blocks[blocks.buddy & (blocks.owner < 0)] if whole else blocks[np.zeros(len(blocks.pfn), bool)]

    def codes(self, start: int, pages: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """The state of each page from PFN ``start`` on, as a position in ``list(State)``."""
        count = len(pages)
        states = self._classes.codes(start, pages)
        pcp, free = self._pcp.cover(start, count), self._free.cover(start, count)
        states[pcp] = CODE[State.PCP]
        states[free] = CODE[State.FREE]
        states[((pcp | free) & self.contradicts(pages)) | self._lost.cover(start, count)] = CODE[State.SUSPICIOUS]
        return states

    def contradicts(self, pages: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Which pages are not what a free page is: they have a reference, are mapped, or have a flag."""
        form = self._format
        flags = (pages["flags"] & np.uint64(form.checked_flags)) != 0
        found: npt.NDArray[np.bool_] = (
            flags | (pages[form.count] != 0) | ((pages[form.mapcount] != -1) & ~form.buddy(pages))
        )
        return found

    def free_blocks(self, start: int, count: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
        """Of each page, the order of the free block (also of a per-cpu list) that it is in and the migratetype of its
        list; -1 where there is none, or it is not known.
        """
        orders, types = np.full(count, -1, np.int8), np.full(count, -1, np.int8)
        for blocks in (self._pcp, self._free):
            here = blocks.touching(start, count)
            begin = np.clip(here.pfn - start, 0, count)
            length = np.clip(here.end - start, 0, count) - begin
            at = np.repeat(begin - (np.cumsum(length) - length), length) + np.arange(length.sum())
            orders[at] = np.repeat(here.order, length)
            of_list = np.where(here.owner >= 0, self._of_list[here.owner], np.int8(-1))
            types[at] = np.repeat(of_list, length)
        return orders, types


class Piece(NamedTuple):
    """Some page frames in a row: the first PFN, and of each its state (a position in ``list(State)``), the order of the
    free block it is in (-1: none), and the migratetype: of its free list, or else of its pageblock (-1: none).
    """

    start: int
    states: npt.NDArray[np.uint8]
    orders: npt.NDArray[np.int8]
    migratetypes: npt.NDArray[np.int8]


def survey(dump: Dump, lists: FreeLists | None = None) -> Iterator[Piece]:
    """Every page frame below ``max_pfn``, in pieces of at most CHUNK.

    :raises PhysmemError: the zones or the page array cannot be read
    """
    zones = list(populated_zones(dump))
    lists = read_lists(dump, zones) if lists is None else lists
    states = PageStates(lists)
    try:
        types = pageblock_types(dump, partial=True)
    except PhysmemError:
        types = np.full(0, ABSENT, np.int16)
    order = dump.layout.constant("pageblock_order")
    pieces = lists.links.array.scan(states.fields)
    begin, pages = next(pieces, (dump.max_pfn, None))
    for start in range(0, dump.max_pfn, CHUNK):
        count = min(CHUNK, dump.max_pfn - start)
        codes = np.full(count, CODE[State.HOLE], np.uint8)
        for first, last in lists.links.array.mapped.clip(start, start + count):
            codes[first - start : last - start] = CODE[State.ABSENT]
        while pages is not None and begin < start + count:
            first, last = max(begin, start), min(begin + len(pages), start + count)
            codes[first - start : last - start] = states.codes(first, pages[first - begin : last - begin])
            if begin + len(pages) > start + count:
                break
            begin, pages = next(pieces, (dump.max_pfn, None))
        spanned = np.zeros(count, bool)
        for zone in zones:
            spanned[max(0, zone.start_pfn - start) : max(0, zone.end_pfn - start)] = True
        codes[~spanned] = CODE[State.HOLE]
        orders, migratetypes = states.free_blocks(start, count)
        blocks = np.arange(start, start + count) >> order
        of_block = np.full(count, -1, np.int8)
        known = blocks < len(types)
        of_block[known] = np.maximum(types[blocks[known]], -1)
        yield Piece(start, codes, orders, np.where(migratetypes >= 0, migratetypes, of_block))

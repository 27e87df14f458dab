# SPDX-License-Identifier: GPL-2.0-only
"""``/proc/kpageflags`` and ``/proc/kpagecount``: what the kernel tells of each page frame (fs/proc/page.c).

The flags of kpageflags have numbers of their own (KPF_*, include/uapi/linux/kernel-page-flags.h) that never change.
Most are copied from ``page->flags``; others say what the kernel concludes.  How it does has changed:

=======  ==================================================================================================
4.0      a page speaks for itself alone
4.6      free and slab pages behind the first are told too
4.15...  what maps a compound page is looked for in all of its pages
6.10     the head of a compound page speaks for all of it
6.16     nothing is said of holes; they were KPF_NOPAGE before
=======  ==================================================================================================

The page array is read in pieces that are aligned, so that no free block is in two of them.  The pages of a piece are
sorted into kinds (:mod:`physmem.inspect.rows`), the rules are applied to kinds (:mod:`physmem.inspect.kpage_rules`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from physmem.dump import Dump
from physmem.errors import PhysmemError
from physmem.inspect.kpage_rules import Rules
from physmem.inspect.kpf import KPF
from physmem.inspect.memmap import PageArray
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.rows import Rows, anonymous, rows
from physmem.inspect.sections import online_sections
from physmem.ranges import Ranges

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    from physmem.later import np

__all__ = ["PIECE", "KPages", "Piece"]

#: Pages at a time: a multiple of the largest free block, and so few that what is told of them stays in the cache.
PIECE = 1 << 15


class Piece(NamedTuple):
    """Some page frames in a row: the first PFN, and what both files have of each, a word of 8 bytes each."""

    start: int
    flag_words: memoryview
    count_words: memoryview

    @property
    def flags(self) -> npt.NDArray[np.uint64]:
        """What kpageflags has."""
        return np.frombuffer(self.flag_words, np.uint64)

    @property
    def counts(self) -> npt.NDArray[np.uint64]:
        """What kpagecount has."""
        return np.frombuffer(self.count_words, np.uint64)


class KPages:
    """The contents of both files.

    :ivar end: page frames that the files have
    :ivar claimed: page frames that the nodes span; more than ``end`` if those at the end have no ``struct page``,
        which no healthy kernel has: the files end before them, so that their size is that of something
    :ivar absent: PFNs whose ``struct page`` is not in the image; the files have zeros there
    :param by: how pages are sorted, if not by what is fastest here
    :param reuse: each piece is good until the next is asked for, which is faster
    """

    def __init__(self, dump: Dump, by: Rows | None = None, *, reuse: bool = False) -> None:
        form = PageFormat(dump.layout)
        self.end = _end(dump)
        self.array = PageArray(dump, self.end)
        self.claimed, self.end = self.end, min(self.end, _whole(dump, self.array.mapped.end))
        self._there = _there(dump, self.end).intersection(self.array.mapped)
        self.absent = self._there.difference(self.array.present)
        self._nopage = int(KPF.NOPAGE) if dump.release < (6, 16) else 0
        self._rules = Rules(dump, form, self.array)
        self._reuse = reuse
        self._room: tuple[memoryview, memoryview] | None = None
        self._rows = rows(dump, form, min(PIECE, max(self.end, 1))) if by is None else by

    def __iter__(self) -> Iterator[Piece]:
        """All page frames, in ascending pieces."""
        known = self._there.intersection(self.array.present)
        for start in range(0, self.end, PIECE):
            count = min(PIECE, self.end - start)
            # Memory that the system gives is slow until it has been touched.
            if self._room is None or not self._reuse:
                self._room = anonymous(count, "Q"), anonymous(count, "Q")
            flags, counts = (each[:count] for each in self._room)
            if not known.covers(start, start + count):
                flags.cast("B")[:] = self._nopage.to_bytes(8, "little") * count
                counts.cast("B")[:] = bytes(8 * count)
                for first, last in self._there.clip(start, start + count):
                    flags[first - start : last - start] = memoryview(bytes(8 * (last - first))).cast("Q")
            for first, last in known.clip(start, start + count):
                where = slice(first - start, last - start)
                self._rows.tell(self._rules.of(self._rows.sort(self.array, first, last)), flags[where], counts[where])
            if self._rules.zero_page - start in range(count) and self._rules.zero_page in known:
                flags[self._rules.zero_page - start] |= int(KPF.ZERO_PAGE)
            yield Piece(start, flags, counts)


def _end(dump: Dump) -> int:
    """One past the last page frame of the files: since 5.7 all of the last section."""
    return _whole(dump, dump.max_pfn) if dump.release >= (5, 7) else dump.max_pfn


def _whole(dump: Dump, end: int) -> int:
    """Up to the end of a section, if there are any."""
    if "mem_section" not in dump.symbols:
        return end
    return -(-end // dump.layout.constant("PAGES_PER_SECTION")) * dump.layout.constant("PAGES_PER_SECTION")


def _there(dump: Dump, end: int) -> Ranges:
    """The page frames in sections that are online (pfn_to_online_page, pfn_valid)."""
    if "mem_section" not in dump.symbols:
        return Ranges([(0, end)])
    try:
        shift = dump.layout.constant("PFN_SECTION_SHIFT")
        return Ranges((nr << shift, min(nr + 1 << shift, end)) for nr in online_sections(dump))
    except PhysmemError:
        return Ranges([(0, end)])

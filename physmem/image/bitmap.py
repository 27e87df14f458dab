# SPDX-License-Identifier: GPL-2.0-only
"""Which pages an image has, as one bit a page: how kdump files say it.

Three questions are asked of the bitmap: is the page there, how many are there
below it (which is the number of its descriptor), and where does a run of pages
end.  Each takes the time of looking at a few hundred bytes, whatever the size
of the machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from physmem.ranges import Ranges

__all__ = ["PageBitmap", "PageRanges"]

_PAGE_SHIFT = 12
# Set bits are counted once for each block of so many bytes.
_BLOCK_SHIFT = 9
_BLOCK = 1 << _BLOCK_SHIFT
# Bytes of a bitmap that are taken apart at a time.
_SLICE = 1 << 18
# Pages of a bitmap whose runs are listed at a time.
_WINDOW = 1 << 20


class PageBitmap:
    """A set of page frames.

    :param bits: bit n, counted from the lowest of the first byte, is page n
    :param pages: how many bits count; what is behind them is ignored, what is missing is 0
    :ivar total: number of pages in the set
    """

    def __init__(self, bits: bytes, pages: int) -> None:
        bits = bits[: -(-pages // 8)]
        if pages < 8 * len(bits):
            bits = bits[:-1] + bytes([bits[-1] & ((1 << pages % 8) - 1)])
        self.bits = bits
        counts = (int.from_bytes(bits[i : i + _BLOCK], "little").bit_count() for i in range(0, len(bits), _BLOCK))
        self._below = np.fromiter(accumulate(counts, initial=0), np.int64)
        self.total = int(self._below[-1])

    def __contains__(self, pfn: int) -> bool:
        return 0 <= pfn < 8 * len(self.bits) and bool(self.bits[pfn >> 3] >> (pfn & 7) & 1)

    def rank(self, pfn: int) -> int:
        """How many pages of the set are below ``pfn``."""
        if pfn >= 8 * len(self.bits):
            return self.total
        block = pfn >> _BLOCK_SHIFT + 3
        start = block << _BLOCK_SHIFT
        word = int.from_bytes(self.bits[start : (pfn >> 3) + 1], "little")
        return int(self._below[block]) + (word & ((1 << pfn - 8 * start) - 1)).bit_count()

    @property
    def end(self) -> int:
        """One past the highest page of the set; 0 if it is empty."""
        # The first block from which on nothing is counted any more.
        block = int(np.searchsorted(self._below, self.total))
        if block == 0:
            return 0
        start = block - 1 << _BLOCK_SHIFT
        return 8 * start + int.from_bytes(self.bits[start : start + _BLOCK], "little").bit_length()

    def first_missing(self, start: int, end: int) -> int | None:
        """The lowest of the pages [start, end) that is not in the set, or None."""
        if start < 0 and start < end:
            return start
        while start < end:
            at = start >> 3
            word = int.from_bytes(self.bits[at : at + _BLOCK], "little") >> (start & 7)
            # Adding 1 carries through the run of ones that begins at bit 0.
            run = ((word + 1) & ~word).bit_length() - 1
            if run < 8 * _BLOCK - (start & 7):
                return start + run if start + run < end else None
            start += run
        return None

    def runs(self, start: int, end: int) -> npt.NDArray[np.int64]:
        """The runs of pages of the set inside [start, end): rows (first page, one past the last), ascending."""
        start, end = max(start, 0), min(end, 8 * len(self.bits))
        pieces = [np.empty((0, 2), np.int64)]
        for first in range(start >> 3, -(-end // 8), _SLICE):
            base = max(8 * first, start)
            upto = min(8 * (first + _SLICE), end)
            count = self.rank(upto) - self.rank(base)
            if count in (0, upto - base):
                edges = np.array([[base, upto]] if count else [], np.int64).reshape(-1, 2)
            else:
                octets = np.frombuffer(self.bits, np.uint8, -(-upto // 8) - first, first)
                bits = np.unpackbits(octets, bitorder="little")[base - 8 * first : upto - 8 * first]
                # A run begins and ends where a bit differs from the one before.
                edges = np.flatnonzero(np.diff(bits, prepend=0, append=0)).reshape(-1, 2) + base
            last = pieces[-1]
            if len(last) and len(edges) and last[-1, 1] == edges[0, 0]:
                edges[0, 0] = last[-1, 0]
                pieces[-1] = last[:-1]
            pieces.append(edges)
        return np.concatenate(pieces)


class PageRanges(Ranges):
    """The bytes of the pages of a bitmap, as ``Ranges``.

    A dump has millions of intervals, and hardly anybody asks for all of them: the lists that ``Ranges`` is made of
    come into being when something needs them, and the common questions do not.
    """

    __slots__ = ("_bitmap",)

    def __init__(self, bitmap: PageBitmap) -> None:
        self._bitmap = bitmap  # and no super().__init__(): see __getattr__

    def __getattr__(self, name: str) -> Any:
        # Only called for what is not there yet.
        if name not in ("_starts", "_ends"):
            raise AttributeError(name)
        runs = self._bitmap.runs(0, 8 * len(self._bitmap.bits)) << _PAGE_SHIFT
        self._starts = runs[:, 0].tolist()
        self._ends = runs[:, 1].tolist()
        return getattr(self, name)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        # Without the lists, which would be the size of the dump's page array.
        start = end = 0
        for first in range(0, 8 * len(self._bitmap.bits), _WINDOW):
            for begin, upto in self._bitmap.runs(first, first + _WINDOW).tolist():
                if begin != end and start < end:
                    yield start << _PAGE_SHIFT, end << _PAGE_SHIFT
                start, end = start if begin == end and start < end else begin, upto
        if start < end:
            yield start << _PAGE_SHIFT, end << _PAGE_SHIFT

    @property
    def end(self) -> int:
        return self._bitmap.end << _PAGE_SHIFT

    def total(self) -> int:
        return self._bitmap.total << _PAGE_SHIFT

    def __contains__(self, value: int) -> bool:
        return value >> _PAGE_SHIFT in self._bitmap

    def first_gap(self, start: int, end: int) -> int | None:
        if start >= end:
            return None
        missing = self._bitmap.first_missing(start >> _PAGE_SHIFT, -(-end >> _PAGE_SHIFT))
        return None if missing is None else max(start, missing << _PAGE_SHIFT)

    def clip(self, start: int, end: int) -> Ranges:
        if start >= end:
            return Ranges()
        runs = self._bitmap.runs(start >> _PAGE_SHIFT, -(-end >> _PAGE_SHIFT)) << _PAGE_SHIFT
        return Ranges((max(start, first), min(end, last)) for first, last in runs.tolist())

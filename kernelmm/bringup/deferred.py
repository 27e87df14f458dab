# SPDX-License-Identifier: GPL-2.0-only
"""A page array that is not written out before it is used.

A terabyte of memory has 16 GiB of ``struct page``, and at boot they all say the same: reserved, or free.
A :class:`DeferredRam` knows the parts of the page array where that can be told from next to nothing, and
leaves them as they are in memory that nobody has touched: zeros.  They are parts of whole *blocks*, as
many pages as the largest block of the buddy system has, inside one zone, and of one :class:`Span`: blocks
that were freed at boot in one go, or blocks that were not.  The rule is::

    the block's second entry is all zeros          the block is pristine, else it is as it is in memory
    a pristine block's first entry heads           all others are those of free pages
        a free block of the largest order
    a pristine block's first entry is all zeros    all of them are those of reserved pages; or, if the blocks
                                                   of this span were freed, it heads a free block that is in
                                                   its list between the block above it and the one below

An entry that was initialised is never all zeros: its list links, at first, and later its flags or counts,
are not.  So the state of every page is told by memory all the same; only how it is written differs from what
Linux does (as it does, somewhat later, with CONFIG_DEFERRED_STRUCT_PAGE_INIT).

Whoever reads this memory through :meth:`~DeferredRam.read` or :meth:`~DeferredRam.array` sees the entries
as they would be; a saved image has them.  The allocator's core reads memory directly, and calls
:meth:`~DeferredRam.write_out` before a block leaves its list.  That writes the first entries of the blocks
above and below as well, whose links are about to change.  So what is next to a list's head, and next to any
block that is written, is always in memory, and links never have to be looked for in what is not.
"""

from __future__ import annotations

import mmap
from bisect import bisect_right
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kernelmm.bringup.rounding import div_round_up
from physmem import abi
from physmem.errors import AddressError
from physmem.ram import Ram
from physmem.ranges import Ranges

__all__ = ["BLOCK", "DeferredRam", "Span", "fill", "fill_heads"]

#: Pages of a block of the largest order.
BLOCK = 1 << (abi.MAX_ORDER - 1)

_WORDS = abi.SIZEOF_PAGE // 8
_BLOCK_BYTES = BLOCK * abi.SIZEOF_PAGE
_RESERVED = 1 << abi.PG_reserved


class Span(NamedTuple):
    """Blocks of one zone whose entries are contiguous.

    :ivar phys: physical address of the first entry
    :ivar end: where the last one ends
    :ivar page: ``struct page *`` of the first
    :ivar flags: ``page->flags`` of a free page
    :ivar free: they were freed together, from low to high addresses: each was put in front of the one below it
    """

    phys: int
    end: int
    page: int
    flags: int
    free: bool = False

    def cut(self, start: int, end: int, free: bool) -> Span:
        """The part whose entries are at physical [start, end)."""
        return Span(start, end, self.page + start - self.phys, self.flags, free)


def fill(entries: npt.NDArray[np.uint64], page: npt.NDArray[np.uint64] | np.uint64, flags: int, count: int) -> None:
    """Write what ``memmap_init_zone`` writes: nobody maps the page, it is on no list, it has ``count`` references.

    :param entries: the struct pages, eight words each (the last dimension), all zeros
    :param page: their addresses
    """
    entries[..., abi.PAGE_FLAGS // 8] = flags
    # _mapcount, which counts from -1, is in the low half of the word.
    entries[..., abi.PAGE_MAPCOUNT // 8] = count << 32 | 0xFFFFFFFF
    entries[..., abi.PAGE_LRU // 8] = entries[..., abi.PAGE_LRU_PREV // 8] = page + np.uint64(abi.PAGE_LRU)


def fill_heads(entries: npt.NDArray[np.uint64], page: npt.NDArray[np.uint64] | np.uint64, flags: int) -> None:
    """Write the first entries of free blocks of the largest order, each in its list above the block below it.

    Bring-up has made all pageblocks movable.

    :param entries: the struct pages, eight words each (the last dimension), all zeros
    :param page: their addresses
    """
    entries[..., abi.PAGE_FLAGS // 8] = flags
    entries[..., abi.PAGE_INDEX // 8] = abi.MIGRATE_MOVABLE
    entries[..., abi.PAGE_MAPCOUNT // 8] = abi.PAGE_BUDDY_MAPCOUNT_VALUE & 0xFFFFFFFF
    entries[..., abi.PAGE_LRU // 8] = page + np.uint64(abi.PAGE_LRU) - np.uint64(_BLOCK_BYTES)
    entries[..., abi.PAGE_LRU_PREV // 8] = page + np.uint64(abi.PAGE_LRU) + np.uint64(_BLOCK_BYTES)
    entries[..., abi.PAGE_PRIVATE // 8] = abi.MAX_ORDER - 1


class DeferredRam(Ram):
    """Physical memory that holds a page array of which not everything is written out."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._spans: list[Span] = []
        self._starts: list[int] = []

    def defer(self, span: Span) -> None:
        """Leave a part of the page array, all zeros so far, until it is used: at first, all pages are reserved."""
        index = bisect_right(self._starts, span.phys)
        self._spans.insert(index, span)
        self._starts.insert(index, span.phys)
        # A huge page of the host's for every entry that is written would be as much memory as not deferring.
        first = span.phys & -mmap.PAGESIZE
        self.buffer.madvise(mmap.MADV_NOHUGEPAGE, first, span.end - first)

    def free(self, phys: int, blocks: int) -> None:
        """Blocks of one span, still reserved and pristine, are free from now on: each in its list above the one below.

        The first entries of the lowest and the highest are written: their other neighbours are for the caller to enter.

        :param phys: of the first entry of the lowest
        """
        whole, end = self.span(phys), phys + blocks * _BLOCK_BYTES
        assert whole is not None
        assert end <= whole.end
        parts = [
            part
            for part in (
                whole.cut(whole.phys, phys, whole.free),
                whole.cut(phys, end, True),
                whole.cut(end, whole.end, whole.free),
            )
            if part.phys < part.end
        ]
        index = bisect_right(self._starts, phys) - 1
        self._spans[index : index + 1] = parts
        self._starts[index : index + 1] = [part.phys for part in parts]
        for number in {0, blocks - 1}:
            self._write_head(whole.cut(phys, end, True), number)

    def span(self, phys: int) -> Span | None:
        """The span that the entry at ``phys`` is in, if it is in one."""
        index = bisect_right(self._starts, phys) - 1
        return self._spans[index] if index >= 0 and phys < self._spans[index].end else None

    def write_out(self, phys: int) -> None:
        """Initialise the entries of the block that the entry at ``phys`` is in, if that is still to be done.

        So that the block can leave its list, its neighbours' first entries are written too.
        """
        span = self.span(phys)
        if span is None:
            return
        number = (phys - span.phys) // _BLOCK_BYTES
        block = self._blocks(span, number, number + 1)
        if block[0, 1].any():
            return
        if span.free:
            last = (span.end - span.phys) // _BLOCK_BYTES - 1
            for each in range(max(number - 1, 0), min(number + 1, last) + 1):
                self._write_head(span, each)
        self._initialise(block, span, number)

    def heads_free_block(self, phys: int) -> bool:
        """Whether the entry at ``phys``, of which nothing is written, is a free block's first."""
        span = self.span(phys)
        if span is None or not span.free:
            return False
        number, rest = divmod(phys - span.phys, _BLOCK_BYTES)
        return rest == 0 and not self._blocks(span, number, number + 1)[0, :2].any()

    def _write_head(self, span: Span, number: int) -> None:
        """Write the first entry of a free block, the ``number``-th of its span, if that is still to be done."""
        head = self._blocks(span, number, number + 1)[0, 0]
        if not head.any():
            fill_heads(head, np.uint64(span.page + number * _BLOCK_BYTES), span.flags)

    def untouched(self) -> Ranges:
        # Who looks there does not see zeros.
        return super().untouched() - Ranges((span.phys, span.end) for span in self._spans)

    # -- whoever looks sees it initialised ------------------------------------

    def read(self, phys: int, size: int) -> bytes:
        spans = self._deferred(phys, phys + size)
        if not spans:
            return super().read(phys, size)
        self._check(phys, size)
        data = bytearray(self.as_u8[phys : phys + size])
        for span in spans:
            start, end = max(phys, span.phys), min(phys + size, span.end)
            first, last = (start - span.phys) // _BLOCK_BYTES, div_round_up(end - span.phys, _BLOCK_BYTES)
            blocks = self._blocks(span, first, last).copy()
            self._initialise(blocks, span, first)
            skip = start - span.phys - first * _BLOCK_BYTES
            data[start - phys : end - phys] = blocks.reshape(-1).view(np.uint8)[skip : skip + end - start].data
        return bytes(data)

    def array(self, phys: int, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        kind = np.dtype(dtype)
        if count < 0:
            raise AddressError(phys, f"an array of {count} elements")
        if not self._deferred(phys, phys + kind.itemsize * count):
            return super().array(phys, kind, count)
        return np.frombuffer(self.read(phys, kind.itemsize * count), kind)

    def _deferred(self, start: int, end: int) -> list[Span]:
        """The spans that overlap physical [start, end)."""
        if not self._spans or end <= self._spans[0].phys or start >= self._spans[-1].end:
            return []
        first = max(0, bisect_right(self._starts, start) - 1)
        last = bisect_right(self._starts, end - 1)
        return [span for span in self._spans[first:last] if start < span.end]

    def _blocks(self, span: Span, first: int, last: int) -> npt.NDArray[np.uint64]:
        """Blocks [first, last) of a span: the live words, by block, page and word."""
        count = (last - first) * BLOCK * _WORDS
        at = span.phys + first * _BLOCK_BYTES
        return np.frombuffer(self.as_u8, np.uint64, count, at).reshape(-1, BLOCK, _WORDS)

    def _initialise(self, blocks: npt.NDArray[np.uint64], span: Span, first: int) -> None:
        """Write the entries of the blocks that are pristine; ``first`` is the number of the first block in the span."""
        for i in np.flatnonzero(~blocks[:, 1].any(axis=1)):
            pages = np.uint64(span.page) + np.arange(
                (first + int(i)) * BLOCK, (first + int(i) + 1) * BLOCK, dtype=np.uint64
            ) * np.uint64(abi.SIZEOF_PAGE)
            if not blocks[i, 0].any() and not span.free:
                fill(blocks[i], pages, span.flags | _RESERVED, 1)
                continue
            if not blocks[i, 0].any():
                fill_heads(blocks[i, 0], pages[0], span.flags)
            fill(blocks[i, 1:], pages[1:], span.flags, 0)

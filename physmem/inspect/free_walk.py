# SPDX-License-Identifier: GPL-2.0-only
# room: compiled
"""The heads of free blocks, gathered in one pass over the page array, and the lists that they are on, followed."""

from __future__ import annotations

from physmem.ctype import s64, u32, u64, u64_const_view, u64_view

__all__ = ["FreeBlocks"]


class FreeBlocks:
    """Free blocks by their heads; places are in words of 8 bytes from the beginning of a ``struct page``.

    :ivar base: address of the links of PFN 0
    :ivar size: bytes of a ``struct page``
    :ivar pfns: of the heads, ascending; what is behind ``count`` means nothing
    :ivar next: their links; ``prev``: and those back
    :ivar wanted: PFNs whose flags are to be noted, ascending, each once
    :ivar flags: of each of these, as far as they were met
    """

    flags_at: u64
    mapcount_at: u64
    mapcount_shift: u32
    buddy_mask: u64
    buddy_value: u64
    next_at: u64
    prev_at: u64
    base: u64
    size: u64
    pfns: u64_view
    next: u64_view
    prev: u64_view
    wanted: u64_const_view
    flags: u64_view
    count: u64
    noted: u64

    def gather(self, words: u64_const_view, start: u64, pages: u64) -> None:
        """Look at pages from PFN ``start`` on, all of them above those that were looked at before."""
        stride: u64 = self.size >> 3
        mapcount_at: u64 = self.mapcount_at
        shift: u32 = self.mapcount_shift
        mask: u64 = self.buddy_mask
        value: u64 = self.buddy_value
        next_at: u64 = self.next_at
        prev_at: u64 = self.prev_at
        at: u64 = 0
        n: u64 = self.count
        i: u64
        noted: u64
        end: u64 = start + pages
        asked: u64 = len(self.wanted)
        for i in range(pages):
            if words[at + mapcount_at] >> shift & mask == value:
                self.pfns[n] = start + i
                self.next[n] = words[at + next_at]
                self.prev[n] = words[at + prev_at]
                n += 1
            at += stride
        self.count = n
        noted = self.noted
        while noted < asked and self.wanted[noted] < end:
            if self.wanted[noted] >= start:
                self.flags[noted] = words[(self.wanted[noted] - start) * stride + self.flags_at]
            noted += 1
        self.noted = noted

    def length(self, head: u64, first: u64, last: u64) -> s64:
        """The entries of a list, if each of them is the head of a free block and leads back; -1 otherwise.

        :param head: address of the list head, which leads to ``first`` and ``last``
        """
        at: u64 = first
        before: u64 = head
        found: s64 = 0
        low: u64
        high: u64
        middle: u64
        pfn: u64
        mask: u64 = 0xFFFFFFFFFFFFFFFF
        while at != head:
            pfn = (at - self.base) & mask
            if pfn % self.size != 0:
                return -1
            pfn //= self.size
            low = 0
            high = self.count
            while low < high:
                middle = (low + high) >> 1
                if self.pfns[middle] < pfn:
                    low = middle + 1
                else:
                    high = middle
            # No list is longer than there are blocks: one that leads back everywhere passes none of them twice.
            if low == self.count or self.pfns[low] != pfn or self.prev[low] != before:
                return -1
            before = at
            at = self.next[low]
            found += 1
        return found if before == last else -1

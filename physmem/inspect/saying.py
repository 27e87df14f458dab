# SPDX-License-Identifier: GPL-2.0-only
# room: compiled
"""The rules of /proc/kpageflags and /proc/kpagecount, applied: to each kind of page, run of tails, and compound page.

Which rules a kernel has, and where it has its fields, is data here (:mod:`physmem.inspect.kpage_rules` fills it in).
Places are in words of 8 bytes from the beginning of a ``struct page``, with a shift for what is less than a word; those
of ``second`` are in the page behind a head.  A mask of 0 is of a flag that the kernel has not.
"""

from __future__ import annotations

from physmem.ctype import s32_view, s64, s64_view, u8_view, u32, u32_view, u64, u64_const_view, u64_view

__all__ = ["Saying"]


class Saying:
    """What a kernel says.

    :ivar direct: until 4.3: what leads from a tail to the head is just its address
    :ivar bits: flags of ``page->flags`` that are copied, and ``copies``: what each becomes
    :ivar both_swap: since 6.10: both of these flags make SWAPCACHE, in any page
    :ivar by_head: since 6.10: the head of a compound page speaks for all of it
    :ivar type_masks: of types of pages that have a flag: bits of ``_mapcount``; ``type_values``, ``type_flags``
    :ivar least: a ``_mapcount`` below this is no count
    :ivar drop: flags that a part of a compound page has not of itself
    :ivar own: flags that a tail has all the same
    :ivar huge_word: where in the first page (``huge_first``) or the second hugetlb's mark is
    :ivar entire_word: where in the second page the mappings of the whole are counted
    :ivar large_word: and where those of all parts are, if anywhere
    """

    stride: u64
    direct: bool
    flags_at: u64
    mapping_at: u64
    mapcount_at: u64
    mapcount_shift: u32
    bits: u32_view
    copies: u64_view
    both_swap: u64
    by_head: bool
    all_ksm: bool
    slab_type: bool
    slab_mask: u64
    slab_value: u64
    slab_flag: u64
    backed: u64
    cached: u64
    cached_if_backed: bool
    idle: u64
    type_masks: u64_view
    type_values: u64_view
    type_flags: u64_view
    buddy_mask: u64
    buddy_value: u64
    least: s64
    head_mask: u64
    drop: u64
    own: u64
    poison: u64
    lru: u64
    double_map: u64
    rmappable: u64
    thp: bool
    types_of_all: bool
    one_owner: bool
    idle_of_all: bool
    swap_of_all: bool
    whole_counts: bool
    huge_zero: s64
    huge_first: bool
    huge_word: u64
    huge_shift: u32
    huge_mask: u64
    huge_value: u64
    has_entire: bool
    entire_word: u64
    entire_shift: u32
    has_large: bool
    large_word: u64
    large_shift: u32
    kpf_slab: u64
    kpf_buddy: u64
    kpf_mmap: u64
    kpf_anon: u64
    kpf_swapcache: u64
    kpf_head: u64
    kpf_tail: u64
    kpf_huge: u64
    kpf_hwpoison: u64
    kpf_ksm: u64
    kpf_thp: u64
    kpf_zero: u64
    kpf_idle: u64

    def copied(self, words: u64) -> u64:
        """The flags that a ``page->flags`` makes."""
        found: u64 = 0
        i: u64
        count: u64 = len(self.bits)
        for i in range(count):
            if words >> self.bits[i] & 1:
                found |= self.copies[i]
        if self.both_swap != 0 and words & self.both_swap == self.both_swap:
            found |= self.kpf_swapcache
        return found

    def ksm(self, mapping: u64) -> u64:
        """KSM, by the low bits of ``page->mapping``: both of them, or in some kernels either."""
        if mapping & 3 == 3 or (self.all_ksm and mapping & 1):
            return self.kpf_ksm
        return 0

    def types(self, mapcount: u64) -> u64:
        """The flags of the type that stands in the place of the mapcount."""
        found: u64 = 0
        i: u64
        count: u64 = len(self.type_masks)
        for i in range(count):
            if mapcount & self.type_masks[i] == self.type_values[i]:
                found |= self.type_flags[i]
        return found

    def kinds(self, keys: u64_const_view, table: u64_view) -> None:
        """Of each kind, by its key: flags, count, the bits of a count that are kept, and what it is: as ``tell``."""
        i: u64
        key: u64
        flags: u64
        words: u64
        mapping: u64
        mapcount: u64
        signed: s64
        is_tail: bool
        is_head: bool
        shared: bool
        none: bool
        what: u64
        own: u64
        count: u64 = len(keys)
        all_ones: u64 = 0xFFFFFFFFFFFFFFFF
        top: u64 = 0x80000000
        for i in range(count):
            key = keys[i]
            words = key & 0x1FFFFFFF
            mapping = key >> 29 & 3
            is_tail = key & top != 0
            mapcount = key >> 32
            signed = mapcount - ((mapcount & top) << 1)
            is_head = words & self.head_mask != 0 and not is_tail
            flags = self.copied(words)
            if signed >= 0:
                flags |= self.kpf_mmap
            if mapping & 1:
                flags |= self.kpf_anon
            flags |= self.ksm(mapping)
            if self.slab_type:
                if mapcount & self.slab_mask == self.slab_value:
                    flags |= self.kpf_slab
            elif flags & self.kpf_slab:
                # What SLUB has in the word is no count of mappings.
                flags &= ~self.kpf_mmap
            # Since 4.10 the flag is shared, and means this only in memory that swap stands behind.
            shared = self.cached_if_backed and words & self.backed == 0
            if not self.by_head and self.backed != 0 and words & self.cached != 0 and not shared:
                flags |= self.kpf_swapcache
            if words & self.idle:
                flags |= self.kpf_idle
            flags |= self.types(mapcount)
            # What has a type has no count.
            none = signed < self.least
            if not self.by_head and flags & self.kpf_slab:
                none = True
            table[4 * i + 1] = 0 if none else (signed + 1) & all_ones
            table[4 * i + 2] = 0 if none and not self.by_head else all_ones
            if is_tail:
                if self.by_head:
                    # Still its own: its type (until 6.16), and that the page itself is poisoned.
                    own = flags & self.own
                    if words & self.poison:
                        own |= self.kpf_hwpoison
                    flags = own
                else:
                    flags &= ~(self.kpf_head | self.drop)
                flags |= self.kpf_tail
            if is_head:
                flags &= ~self.drop
            what = 0
            if is_tail:
                what = 1
            elif is_head:
                what = 2
            if mapcount & self.buddy_mask == self.buddy_value:
                flags |= self.kpf_buddy
                what |= 4
            table[4 * i] = flags
            table[4 * i + 3] = what

    def heads_of(self, start: u64, lead: s64_view, head_at: u64_const_view, numbers: u32_view) -> u64:
        """Of each run of tails, which of the heads that are here it leads to: all ones if none of them.

        :param lead: the PFN that it leads to, -1 for nowhere
        :param head_at: positions of the heads, ascending, from PFN ``start`` on
        :returns: how many lead elsewhere
        """
        i: u64
        runs: u64 = len(lead)
        heads: u64 = len(head_at)
        low: u64
        high: u64
        middle: u64
        wanted: u64
        elsewhere: u64 = 0
        nowhere: u32 = 0xFFFFFFFF
        begin: s64 = start
        for i in range(runs):
            numbers[i] = nowhere
            if lead[i] >= begin:
                wanted = lead[i] - begin
                low = 0
                high = heads
                while low < high:
                    middle = (low + high) >> 1
                    if head_at[middle] < wanted:
                        low = middle + 1
                    else:
                        high = middle
                if low < heads and head_at[low] == wanted:
                    numbers[i] = low
            if numbers[i] == nowhere:
                elsewhere += 1
        return elsewhere

    def parts(self, high: s32_view, numbers: u32_view, rows: u64_const_view, heads: u64, mapped: u8_view) -> None:
        """Which compound pages have a part that is mapped by itself.

        :param high: of each run the highest mapcount; ``numbers``: its compound page
        :param rows: of each head that is here, its words and those of the page behind it
        """
        i: u64
        runs: u64 = len(high)
        word: u64
        top: u64 = 0x80000000
        for i in range(runs):
            if high[i] >= 0:
                mapped[numbers[i]] = 1
        for i in range(heads):
            word = rows[2 * i * self.stride + self.mapcount_at] >> self.mapcount_shift
            if word & top == 0:
                mapped[i] = 1

    def whole(
        self, rows: u64_const_view, known: u8_view, pfns: s64_view, mapped: u8_view, first: u64, table: u64_view
    ) -> None:
        """Of compound pages: what all of their pages have, what their tails have, what is added to a count, and kept.

        :param rows: of each, the words of its first two pages; zeros if it is not known
        :param mapped: whether a part is mapped by itself, from number ``first`` on
        """
        i: u64
        n: u64
        count: u64 = len(known)
        words: u64
        mapping: u64
        mapcount: u64
        second: u64
        found: u64
        tails: u64
        word: u64
        entire: s64
        large: s64
        whole: s64
        is_huge: bool
        special: bool
        all_ones: u64 = 0xFFFFFFFFFFFFFFFF
        low: u64 = 0xFFFFFFFF
        top: u64 = 0x80000000
        for i in range(count):
            n = 2 * i * self.stride
            words = rows[n + self.flags_at]
            mapping = rows[n + self.mapping_at]
            mapcount = rows[n + self.mapcount_at] >> self.mapcount_shift & low
            second = rows[n + self.stride + self.flags_at]
            entire = -1
            large = -1
            if self.has_entire:
                word = rows[n + self.stride + self.entire_word] >> self.entire_shift & low
                entire = word - ((word & top) << 1)
            if self.has_large:
                word = rows[n + self.stride + self.large_word] >> self.large_shift & low
                large = word - ((word & top) << 1)
            word = rows[n + self.huge_word if self.huge_first else n + self.stride + self.huge_word]
            is_huge = self.huge_mask != 0 and known[i] != 0
            is_huge = is_huge and word >> self.huge_shift & self.huge_mask == self.huge_value
            found = 0
            if self.by_head:
                special = second & self.rmappable != 0
                if large >= 0:
                    found |= self.kpf_mmap
                if self.types_of_all:
                    found |= self.types(mapcount)
                if mapping & 1:
                    found |= self.kpf_anon
                found |= self.ksm(mapping)
                if self.slab_type and mapcount & self.slab_mask == self.slab_value:
                    found |= self.kpf_slab
                if words & self.idle:
                    found |= self.kpf_idle
                if is_huge:
                    found |= self.kpf_huge
                    # A poisoned page of a huge page is one of all; else the head speaks for itself alone.
                    if words & self.poison:
                        found |= self.kpf_hwpoison
                elif special:
                    found |= self.kpf_thp
                if pfns[i] == self.huge_zero and not special:
                    found |= self.kpf_thp | self.kpf_zero
                tails = (found | self.copied(words)) & ~self.kpf_head
                whole = entire + 1
                word = all_ones
            else:
                special = mapping & 1 != 0 or words & self.lru != 0
                if is_huge:
                    found |= self.kpf_huge
                elif self.thp:
                    if special:
                        found |= self.kpf_thp
                    elif pfns[i] == self.huge_zero:
                        found |= self.kpf_thp | self.kpf_zero
                if self.one_owner:
                    # The head says whose memory it is, and if any page of all is mapped, all are.
                    if mapping & 1:
                        found |= self.kpf_anon
                    if mapping & 3 == 3:
                        found |= self.kpf_ksm
                    if words & self.slab_flag:
                        found |= self.kpf_slab
                    elif entire >= 0 or (mapped[first + i] != 0 and not is_huge):
                        found |= self.kpf_mmap
                    if self.idle_of_all and words & self.idle:
                        found |= self.kpf_idle
                if self.swap_of_all and words & self.backed == self.backed and words & self.cached == self.cached:
                    found |= self.kpf_swapcache
                tails = found
                whole = 0
                # Of a file's pages the page's own count has those of the whole in it.
                if mapping & 1 or is_huge:
                    whole = entire + 1
                    if second & self.double_map:
                        whole -= 1
                # A slab is no mapping's, though what it keeps in the word may look like one.
                word = 0 if found & self.kpf_slab else all_ones
            if not self.whole_counts:
                whole = 0
                word = all_ones
            table[4 * i] = found
            table[4 * i + 1] = tails
            table[4 * i + 2] = whole & all_ones
            table[4 * i + 3] = word

    def spread(self, numbers: u32_view, table: u64_const_view, column: u64, told: u64_view) -> None:
        """What is said of compound pages, for their runs or heads: flags, what to add to a count, what of it is kept.

        :param numbers: of each, the number of its compound page
        :param column: which of a compound page's flags: 0 for heads, 1 for tails
        """
        i: u64
        n: u64
        count: u64 = len(numbers)
        for i in range(count):
            n = 4 * numbers[i]
            told[3 * i] = table[n + column]
            told[3 * i + 1] = table[n + 2]
            told[3 * i + 2] = table[n + 3]

    def lead(
        self,
        start: u64,
        begin: u64_const_view,
        words: u64_const_view,
        base: u64,
        size: u64,
        end: u64,
        first: u64,
        lead: s64_view,
    ) -> None:
        """The PFN that each run of tails leads to, in a page array that is one; -1 for nowhere or no earlier page.

        :param begin: position of its first tail; ``words``: what leads to the head: its address plus one, or a mask
        :param base: address of the ``struct page`` of PFN 0
        :param size: bytes of one
        :param end: one past the last PFN that has one; ``first``: the first
        """
        i: u64
        count: u64 = len(begin)
        page: u64
        head: u64
        pfn: u64
        mask: u64 = 0xFFFFFFFFFFFFFFFF
        upper: u64 = 0xFFFFFFFF
        for i in range(count):
            pfn = start + begin[i]
            page = (base + pfn * size) & mask
            head = words[i]
            if not self.direct:
                if head >> 32 == upper:
                    head &= page
                else:
                    head = (head - 1) & mask
            head = (head - base) & mask
            lead[i] = -1
            if head % size == 0:
                head //= size
                if first <= head < end and head < pfn:
                    lead[i] = head

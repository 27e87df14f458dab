# SPDX-License-Identifier: GPL-2.0-only
# room: compiled
"""Pages that are alike: the page array in one pass, and what is told of them in another.

Of a ``struct page`` only some bits matter to /proc/kpageflags: its *key*.  There are a few hundred different keys in
a machine of any size.  :meth:`Sorter.sort` reads the page array once, gives each page the number of its *kind*, and
notes what is more than that: the runs of tails, the heads of compound pages with the page behind each, the orders of
free blocks.  What a kernel says of a kind, a run or a head is then decided once for each (``kpage_rules``), and
:meth:`Sorter.tell` makes it the flags and the counts of every page.

Where the fields are and which bits mean what is data of the kernel's version.
"""

from __future__ import annotations

from physmem.ctype import s32, s32_view, s64, u8_view, u32, u32_view, u64, u64_const_view, u64_view

__all__ = ["Sorter", "tally"]


class Sorter:
    """The kinds of some pages in a row, and what is found among them.

    Places are in words of 8 bytes from the beginning of a ``struct page``; a field of 4 bytes has a shift besides.
    Each of the arrays has room for what a row of pages can have at most; those behind ``kinds``, ``runs``, ``heads``
    and ``blocks`` mean nothing.

    :ivar kind: of each page the number of its kind, and the top bit: nobody has a reference
    :ivar keys: of each kind
    :ivar run_begin: of each run of tails that lead to the same head: position of the first
    :ivar run_word: how it leads there
    :ivar run_length: tails
    :ivar run_high: the highest mapcount of them
    :ivar head_at: position of each head
    :ivar rows: the words of each, and of the page behind it
    :ivar seconds: whether there is a page behind it, among those that were looked at
    :ivar orders: of each head of a free block
    """

    stride: u64
    flags_at: u64
    mapping_at: u64
    mapcount_at: u64
    mapcount_shift: u32
    count_at: u64
    count_shift: u32
    order_at: u64
    tail_at: u64
    tail_mask: u64
    lead_at: u64
    head_mask: u64
    buddy_mask: u64
    buddy_value: u64
    kind: u32_view
    keys: u64_view
    slots: u32_view
    run_begin: u64_view
    run_word: u64_view
    run_length: u64_view
    run_high: s32_view
    head_at: u64_view
    rows: u64_view
    seconds: u8_view
    orders: u8_view
    pages: u64
    kinds: u64
    runs: u64
    heads: u64
    blocks: u64
    behind: bool
    in_run: bool

    def begin(self) -> None:
        """Forget what was found; the slots have to be zeros."""
        self.pages = self.kinds = self.runs = self.heads = self.blocks = 0
        self.behind = self.in_run = False

    def sort(self, words: u64_const_view, count: u64) -> None:
        """Look at ``count`` pages more, those behind the last ones."""
        stride: u64 = self.stride
        flags_at: u64 = self.flags_at
        mapping_at: u64 = self.mapping_at
        mapcount_at: u64 = self.mapcount_at
        mapcount_shift: u32 = self.mapcount_shift
        count_at: u64 = self.count_at
        count_shift: u32 = self.count_shift
        tail_at: u64 = self.tail_at
        tail_mask: u64 = self.tail_mask
        head_mask: u64 = self.head_mask
        buddy_mask: u64 = self.buddy_mask
        buddy_value: u64 = self.buddy_value
        at: u64 = 0
        _i: u64
        j: u64
        flags: u64
        mapping: u64
        counted: u64
        referred: u64
        lead: u64
        last_flags: u64 = 0
        last_mapping: u64 = 0
        last_counted: u64 = 0
        last_referred: u64 = 0
        last_lead: u64 = 0
        last_kind: u32 = 0
        same: bool
        plain: bool = False
        tailing: bool = False
        mapcount: u64
        key: u64
        last: u64 = 0
        kind: u32 = 0
        known: bool = False
        free: u32
        word: u64
        n: u64
        high: s32
        position: u64 = self.pages
        none: u32 = 0x80000000
        low: u64 = 0xFFFFFFFF
        bits: u64 = 0x1FFFFFFF
        of_tail: u64 = 0x80000000  # and the sign of an int
        for _i in range(count):
            flags = words[at + flags_at]
            mapping = words[at + mapping_at] & 3
            counted = words[at + mapcount_at]
            referred = words[at + count_at]
            lead = words[at + tail_at]
            # Most pages are as the one before, and say nothing by themselves.
            same = flags == last_flags and counted == last_counted and referred == last_referred
            if same and mapping == last_mapping:
                if plain and lead & tail_mask == 0:
                    self.kind[position] = last_kind
                    position += 1
                    at += stride
                    continue
                if tailing and lead == last_lead:
                    self.run_length[self.runs - 1] += 1
                    self.kind[position] = last_kind
                    position += 1
                    at += stride
                    continue
            last_flags = flags
            last_mapping = mapping
            last_counted = counted
            last_referred = referred
            last_lead = lead
            plain = not self.behind
            tailing = False
            mapcount = counted >> mapcount_shift & low
            key = mapcount << 32 | mapping << 29 | flags & bits
            if self.behind:
                # The page behind a head has what did not fit into that.
                self.behind = False
                n = (2 * (self.heads - 1) + 1) * stride
                for j in range(stride):
                    self.rows[n + j] = words[at + j]
                self.seconds[self.heads - 1] = 1
            if lead & tail_mask:
                plain = False
                tailing = self.tail_at == self.lead_at
                key |= of_tail
                word = words[at + self.lead_at]
                high = mapcount - ((mapcount & of_tail) << 1)
                if self.in_run and self.run_word[self.runs - 1] == word:
                    n = self.runs - 1
                    self.run_length[n] += 1
                    if high > self.run_high[n]:
                        self.run_high[n] = high
                else:
                    n = self.runs
                    self.run_begin[n] = position
                    self.run_word[n] = word
                    self.run_length[n] = 1
                    self.run_high[n] = high
                    self.runs = n + 1
                    self.in_run = True
            else:
                self.in_run = False
                if flags & head_mask:
                    plain = False
                    n = 2 * self.heads * stride
                    for j in range(stride):
                        self.rows[n + j] = words[at + j]
                    self.head_at[self.heads] = position
                    self.seconds[self.heads] = 0
                    self.heads += 1
                    self.behind = True
            if mapcount & buddy_mask == buddy_value:
                plain = tailing = False
                word = words[at + self.order_at]
                self.orders[self.blocks] = word if word < 64 else 64
                self.blocks += 1
            if not known or key != last:
                kind = self.kind_of(key)
                last = key
                known = True
            free = none if referred >> count_shift & low == 0 else 0
            last_kind = kind | free
            self.kind[position] = last_kind
            position += 1
            at += stride
        self.pages = position

    def kind_of(self, key: u64) -> u32:
        """The number of a key, a new one if it has none; one that is hard to find may have two."""
        mixed: u64 = key
        mask: u64 = len(self.slots) - 1
        i: u32
        kind: u32
        # Enough to tell keys of real machines apart; a table that is full, or made to be, costs no more than this.
        mixed ^= mixed >> 29
        mixed ^= mixed >> 16
        for i in range(8):
            kind = self.slots[(mixed + i) & mask]
            if kind == 0:
                self.slots[(mixed + i) & mask] = self.kinds + 1
                break
            if self.keys[kind - 1] == key:
                return kind - 1
        self.keys[self.kinds] = key
        self.kinds += 1
        return self.kinds - 1

    def tell(
        self,
        start: u64,
        largest: u32,
        of_kind: u64_const_view,
        of_run: u64_const_view,
        of_head: u64_const_view,
        free: u64,
        flags: u64_view,
        counts: u64_view,
    ) -> None:
        """The flags and the count of each page.

        Of a kind: flags, count, which bits of a count are kept, and what it is (1 a tail, 2 a head, 4 the head of a
        free block); of a run or a head: flags to add, what to add to the count, which bits of it are kept.

        :param start: PFN of the first page
        :param largest: log2 of the largest free block
        :param free: the flags of pages inside a free block that have no reference
        """
        i: u64
        k: u64
        run: s64 = -1
        head: u64 = 0
        block: u64 = 0
        upto: u64 = 0
        until: u64 = 0
        what: u64
        found: u64 = 0
        count: u64 = 0
        inside: bool
        order: u32
        word: u32
        last: u32 = 0
        plain: bool = False
        pfn: u64
        one: u64 = 1
        none: u32 = 0x80000000
        low: u32 = 0x7FFFFFFF
        for i in range(self.pages):
            word = self.kind[i]
            if plain and word == last and i >= until:
                flags[i] = found
                counts[i] = count
                continue
            last = word
            k = (word & low) * 4
            found = of_kind[k]
            count = of_kind[k + 1]
            what = of_kind[k + 3]
            plain = what == 0
            inside = i < until and word & none != 0
            if what != 0:
                if what & 1:
                    if i >= upto:
                        run += 1
                        upto = i + self.run_length[run]
                    found |= of_run[3 * run]
                    count = (count + of_run[3 * run + 1]) & of_kind[k + 2] & of_run[3 * run + 2]
                elif what & 2:
                    found |= of_head[3 * head]
                    count = (count + of_head[3 * head + 1]) & of_kind[k + 2] & of_head[3 * head + 2]
                    head += 1
                if what & 4:
                    order = self.orders[block]
                    block += 1
                    if order > largest:
                        order = largest
                    pfn = start + i
                    # A block is no larger than its place allows.
                    while order > 0 and pfn & ((one << order) - 1) != 0:
                        order -= 1
                    if i + (one << order) > until:
                        until = i + (one << order)
            if inside:
                found |= free
                plain = False
            flags[i] = found
            counts[i] = count


def tally(values: u64_const_view, begin: u64, keys: u64_view, counts: u64_view) -> u64:
    """Count how often each value occurs, from position ``begin`` on, in a table that has zeros where it is empty.

    :returns: how far it came: all of it, or where the table had no room for a value
    """
    i: u64
    j: u32
    slot: u64 = 0
    mixed: u64
    value: u64
    last: u64 = 0
    known: bool = False
    found: bool
    mask: u64 = len(keys) - 1
    size: u64 = len(values)
    for i in range(begin, size):
        value = values[i]
        if not known or value != last:
            mixed = value ^ value >> 32
            mixed ^= mixed >> 15
            found = False
            for j in range(16):
                slot = (mixed + j) & mask
                if counts[slot] == 0:
                    keys[slot] = value
                if keys[slot] == value:
                    found = True
                    break
            if not found:
                return i
            last = value
            known = True
        counts[slot] += 1
    return size

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

The page array is read in pieces that are aligned, so that no free block is in two of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from physmem import paging
from physmem.dump import Dump
from physmem.errors import PhysmemError
from physmem.inspect.folios import Folios, Heads, Tails
from physmem.inspect.hugetlb import HugetlbFormat
from physmem.inspect.kpf import KPF, CopiedFlags
from physmem.inspect.memmap import CHUNK, PageArray
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.sections import online_sections
from physmem.ranges import Ranges

__all__ = ["KPages", "Piece"]

#: Pages at a time: a multiple of the largest free block, and few enough to stay in the processor's cache.
PIECE = 1 << 15

_ANON, _KSM = 1, 3
#: In a key: the flags (no kernel has more), the low bits of mapping, whether it is a tail; above, the mapcount.
_FLAGS, _MAPPING_SHIFT, _TAIL = (1 << 29) - 1, 29, 1 << 31
_U64 = np.uint64


class Piece(NamedTuple):
    """Some page frames in a row: the first PFN, and what both files have of each."""

    start: int
    flags: npt.NDArray[np.uint64]
    counts: npt.NDArray[np.uint64]


class KPages:
    """The contents of both files.

    :ivar end: page frames that the files have
    :ivar claimed: page frames that the nodes span; more than ``end`` if those at the end have no ``struct page``,
        which no healthy kernel has: the files end before them, so that their size is that of something
    :ivar absent: PFNs whose ``struct page`` is not in the image; the files have zeros there
    """

    def __init__(self, dump: Dump) -> None:
        form = PageFormat(dump.layout)
        self.end = _end(dump)
        chunks = dump.memmap if self.end <= dump.max_pfn else _chunks(dump, self.end)
        self.array = PageArray(dump, self.end, chunks)
        self.claimed, self.end = self.end, min(self.end, _whole(dump, self.array.mapped.end))
        self._there = _there(dump, self.end).intersection(self.array.mapped)
        self.absent = self._there.difference(self.array.present)
        self._nopage = _U64(KPF.NOPAGE if dump.release < (6, 16) else 0)
        self._rules = _Rules(dump, form, self.array)

    def __iter__(self) -> Iterator[Piece]:
        """All page frames, in ascending pieces."""
        for start in range(0, self.end, PIECE):
            count = min(PIECE, self.end - start)
            if self._there.covers(start, start + count) and self.array.present.covers(start, start + count):
                found = list(self.array.scan(self._rules.fields, start, start + count))
                if len(found) == 1:
                    yield Piece(start, *self._rules.of(*found[0]))
                    continue
            flags = np.full(count, self._nopage, np.uint64)
            counts = np.zeros(count, np.uint64)
            for first, last in self._there.clip(start, start + count):
                flags[first - start : last - start] = 0
            for first, pages in self.array.scan(self._rules.fields, start, start + count):
                where = slice(first - start, first - start + len(pages))
                both = self._rules.of(first, pages)
                is_page = flags[where] == 0
                flags[where] = np.where(is_page, both[0], flags[where])
                counts[where] = np.where(is_page, both[1], 0)
            yield Piece(start, flags, counts)


def _end(dump: Dump) -> int:
    """One past the last page frame of the files: since 5.7 all of the last section."""
    return _whole(dump, dump.max_pfn) if dump.release >= (5, 7) else dump.max_pfn


def _whole(dump: Dump, end: int) -> int:
    """Up to the end of a section, if there are any."""
    if "mem_section" not in dump.symbols:
        return end
    return -(-end // dump.layout.constant("PAGES_PER_SECTION")) * dump.layout.constant("PAGES_PER_SECTION")


def _chunks(dump: Dump, end: int) -> tuple[npt.NDArray[np.uint64], int]:
    size = end * dump.sizeof_page
    return paging.chunks(dump.tables, dump.pgd, dump.mem_map, dump.mem_map + size, dump.regions.levels)


def _there(dump: Dump, end: int) -> Ranges:
    """The page frames in sections that are online (pfn_to_online_page, pfn_valid)."""
    if "mem_section" not in dump.symbols:
        return Ranges([(0, end)])
    try:
        shift = dump.layout.constant("PFN_SECTION_SHIFT")
        return Ranges((nr << shift, min(nr + 1 << shift, end)) for nr in online_sections(dump))
    except PhysmemError:
        return Ranges([(0, end)])


class _Rules:
    """How a kernel fills the files."""

    def __init__(self, dump: Dump, form: PageFormat, array: PageArray) -> None:
        self.form = form
        self._release = dump.release
        self._dump = dump
        self._folios = Folios(dump, array, form)
        self._hugetlb = HugetlbFormat(dump, form)
        names = dict.fromkeys(["flags", "mapping", form.count, form.mapcount, form.order, *self._folios.fields])
        self.fields = list(names)
        self._dtype = dump.layout.dtype("page", self.fields)
        layout = dump.layout
        self._by_head = dump.release >= (6, 10)
        self._buffers: npt.NDArray[np.uint64] = np.empty(
            (2, CHUNK), np.uint64
        )  # that are not to be had from the system each time
        self._copied = CopiedFlags(layout, by_head=self._by_head)
        self._head = form.mask("PG_head")
        self._lru = form.mask("PG_lru")
        self._idle = _U64(form.mask("PG_idle"))
        self._swap = form.mask("PG_swapbacked"), form.mask("PG_swapcache")
        self._double = form.mask("PG_double_map")
        self._rmappable = form.mask("PG_large_rmappable")
        self._poison = _U64(form.mask("PG_hwpoison"))
        self._thp = "transparent_hugepage_flags" in dump.symbols
        self._types = [
            (name, bit)
            for name, bit in (("table", KPF.PGTABLE), ("offline", KPF.OFFLINE), ("balloon", KPF.OFFLINE))
            if name in form.types and (name != "table" or dump.release >= (4, 18))
        ]
        self._zero = _pfn(dump, "zero_pfn", "zero_page_pfn", struct="empty_zero_page")
        self._huge_zero = _huge_zero(dump)
        self._entire = _offset(dump, "_entire_mapcount", "compound_mapcount", "_compound_mapcount", "_total_mapcount")
        self._large = _offset(dump, "_large_mapcount")

    # -- one piece -----------------------------------------------------------------------------------

    def of(self, start: int, pages: npt.NDArray[Any]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        """Flags and counts of the pages from PFN ``start`` on.

        Neighbours are often alike in all that matters: each row of such pages is looked at once.
        """
        form = self.form
        key = self._keys(pages)
        at = np.flatnonzero(key[1:] != key[:-1])
        at += 1
        at = np.concatenate([np.zeros(1, at.dtype), at])
        length = np.diff(at, append=len(key))
        key = key[at]
        words, mapcount = key & _U64(_FLAGS), (key >> _U64(32)).astype(np.uint32).view(np.int32)
        mapping, is_tail = key >> _U64(_MAPPING_SHIFT) & _U64(_KSM), (key & _U64(_TAIL)) != 0
        tails = self._tails(start, pages, at, is_tail)
        heads = np.flatnonzero((words & _U64(self._head)) != 0)
        heads = heads[~is_tail[heads]]
        flags = self._copied(words)
        flags |= (mapcount >= 0).astype(np.uint64) << _U64(11)
        flags |= (mapping & _U64(_ANON)) << _U64(12)
        self._ksm(flags, mapping)
        if form.slab_type:
            flags[form.of_type(mapcount, "slab")] |= _U64(KPF.SLAB)
        else:
            # What SLUB has in the word is no count of mappings.
            flags &= ~((flags & _U64(KPF.SLAB)) << _U64(4))
        if not self._by_head and self._swap[0]:
            self._swap_cache(flags, words)
        if self._idle:
            flags[(words & self._idle) != 0] |= _U64(KPF.IDLE)
        for name, bit in self._types:
            flags[form.of_type(mapcount, name)] |= _U64(bit)
        count = self._counts(flags, mapcount)
        if len(heads) or len(tails.begin):
            self._compound(start, pages, at[heads] + start, words, mapcount, flags, count, tails, heads)
        buddy = form.of_type(mapcount, "buddy")
        flags[buddy] |= _U64(KPF.BUDDY)
        free = np.repeat(at[buddy] - (np.cumsum(length[buddy]) - length[buddy]), length[buddy])
        free += np.arange(len(free))
        flags, count = np.repeat(flags, length), np.repeat(count, length)
        self._free(start, pages, flags, free)
        if start <= self._zero < start + len(pages):
            flags[self._zero - start] |= _U64(KPF.ZERO_PAGE)
        return flags, count

    def _keys(self, pages: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
        """What matters of each page, in one word: mapcount, whether it is a tail, two bits of mapping, flags."""
        form = self.form
        key: npt.NDArray[np.uint64] = self._buffers[0][: len(pages)]
        part: npt.NDArray[np.uint64] = self._buffers[1][: len(pages)]
        np.bitwise_and(pages["flags"], _U64(_FLAGS), out=key)
        np.bitwise_and(pages["mapping"], _U64(_KSM), out=part)
        part <<= _U64(_MAPPING_SHIFT)
        key |= part
        if form.compound:
            np.bitwise_and(pages[form.compound], _U64(1), out=part)
            part <<= _U64(_TAIL.bit_length() - 1)
            key |= part
        else:
            key |= (pages["flags"] & _U64(form.bit("PG_tail")) != 0) * _U64(_TAIL)
        key.view(np.int32)[1::2] = pages[form.mapcount]
        return key

    def _tails(
        self, start: int, pages: npt.NDArray[Any], at: npt.NDArray[np.intp], is_tail: npt.NDArray[np.bool_]
    ) -> Tails:
        """The tails among rows of pages that begin at the positions ``at``: runs are of rows."""
        change = np.flatnonzero(np.diff(is_tail, prepend=False, append=False))
        first, last = change[::2], change[1::2]
        led = self._folios.tails_at(start, pages, at[first])
        return Tails(is_tail, at[first], last - first, led)

    def _ksm(self, flags: npt.NDArray[np.uint64], mapping: npt.NDArray[np.uint64]) -> None:
        if (6, 10) <= self._release < (6, 17):
            # These kernels ask whether either of the two bits is set, which of anonymous memory one is.
            flags |= (flags & _U64(KPF.ANON)) << _U64(9)
            return
        low = mapping & _U64(_KSM)
        if low.any():
            flags[low == _U64(_KSM)] |= _U64(KPF.KSM)

    def _swap_cache(self, flags: npt.NDArray[np.uint64], words: npt.NDArray[np.uint64]) -> None:
        """Since 4.10 the flag is shared, and means this only in memory that swap stands behind."""
        backed, cached = self._swap
        if self._release >= (4, 10):
            both = _U64(backed | cached)
            flags[(words & both) == both] |= _U64(KPF.SWAPCACHE)
        else:
            flags[(words & _U64(cached)) != 0] |= _U64(KPF.SWAPCACHE)

    def _counts(self, flags: npt.NDArray[np.uint64], mapcount: npt.NDArray[np.int32]) -> npt.NDArray[np.uint64]:
        """kpagecount of pages that are no part of compound pages."""
        count = mapcount.astype(np.int64) + 1
        if self._release >= (4, 18):
            # What has a type has no count: since 6.10 a type is whatever is less than -2^24, before that, than -128.
            count[mapcount < (-(1 << 24) if self._by_head else -128)] = 0
        if not self._by_head:
            count[(flags & _U64(KPF.SLAB)) != 0] = 0
        return count.view(np.uint64)

    def _free(
        self, start: int, pages: npt.NDArray[Any], flags: npt.NDArray[np.uint64], heads: npt.NDArray[np.intp]
    ) -> None:
        """KPF_BUDDY since 4.6: also of what is in a free block and has no reference."""
        form = self.form
        if self._release < (4, 6) or not len(heads):
            return
        orders = np.minimum(pages[form.order][heads], _U64(form.max_order - 1)).astype(np.int64)
        pfns = heads + start
        # A block is no larger than its place allows.
        size = np.minimum(1 << orders, np.where(pfns == 0, 1 << form.max_order, pfns & -pfns))
        size = np.minimum(size, len(pages) - heads)
        # In how many blocks each page is, behind their first.
        depth = np.zeros(len(pages) + 1, np.int32)
        depth[heads + 1] = 1
        np.subtract.at(depth, heads + size, 1)
        inside = np.cumsum(depth, out=depth)[:-1] > 0
        inside &= pages[form.count] == 0
        flags |= np.multiply(inside, _U64(KPF.BUDDY))

    # -- compound pages ------------------------------------------------------------------------------

    def _compound(
        self,
        start: int,
        pages: npt.NDArray[Any],
        pfns: npt.NDArray[np.int64],
        words: npt.NDArray[np.uint64],
        mapcount: npt.NDArray[np.int32],
        flags: npt.NDArray[np.uint64],
        count: npt.NDArray[np.uint64],
        tails: Tails,
        heads: npt.NDArray[np.intp],
    ) -> None:
        """What heads say of their pages; ``pfns`` are those of the heads that are here."""
        asked = self._folios.heads(np.concatenate([tails.head, pfns]), start, pages)
        of_heads = asked.rows.reshape(-1).view(self._dtype)
        second = asked.second
        huge = self._hugetlb.are(of_heads, second) & asked.known
        of_run, of_head = asked.at(tails.head), asked.at(pfns)
        if self._by_head:
            mapped = self._mapcounts(second, self._large) >= 0
            shared = self._shared(of_heads, second, huge, mapped, asked)
            whole = shared | self._copied(of_heads["flags"])
            own = self._own_tail(flags[tails.mask], words[tails.mask])
            flags[tails.mask] = tails.spread(whole[of_run] & ~_U64(KPF.COMPOUND_HEAD)) | own | _U64(KPF.COMPOUND_TAIL)
            flags[heads] = (flags[heads] & ~_U64(KPF.MMAP)) | shared[of_head]
        else:
            self._separately(flags, mapcount, tails, heads, asked, huge, of_run, of_head)
        if self._release >= (4, 5):
            self._compound_counts(flags, mapcount, count, tails, heads, asked, huge, of_run, of_head)

    def _own_tail(self, flags: npt.NDArray[np.uint64], words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """What a tail still says for itself: its type (until 6.16), and that the page itself is poisoned."""
        own = flags & _U64(KPF.OFFLINE | KPF.PGTABLE if self._release < (6, 16) else 0)
        if self._poison:
            own |= np.where(words & self._poison, _U64(KPF.HWPOISON), _U64(0))
        return own

    def _shared(
        self,
        of_heads: npt.NDArray[Any],
        second: npt.NDArray[np.uint8],
        huge: npt.NDArray[np.bool_],
        mapped: npt.NDArray[np.bool_],
        asked: Heads,
    ) -> npt.NDArray[np.uint64]:
        """What kernels since 6.10 say of all pages of a compound page."""
        form = self.form
        found = np.where(mapped, _U64(KPF.MMAP), _U64(0))
        self._types_of(found, of_heads)
        anon = (of_heads["mapping"] & _U64(_ANON)) != 0
        found[anon] |= _U64(KPF.ANON)
        self._ksm(found, of_heads["mapping"])
        if form.slab_type:
            found[form.is_type(of_heads, "slab")] |= _U64(KPF.SLAB)
        if self._idle:
            found[(of_heads["flags"] & self._idle) != 0] |= _U64(KPF.IDLE)
        found[huge] |= _U64(KPF.HUGE)
        at = self._dump.layout.offsetof("page", "flags")
        seconds = np.ascontiguousarray(second[:, at : at + 8]).view("<u8")[:, 0]
        rmappable = (seconds & _U64(self._rmappable)) != 0
        found[rmappable & ~huge] |= _U64(KPF.THP)
        zero = (asked.pfn == self._huge_zero) & ~rmappable
        found[zero] |= _U64(KPF.THP | KPF.ZERO_PAGE)
        # A poisoned page of a huge page is one of all; else the head speaks for itself alone.
        if self._poison:
            found[huge & ((of_heads["flags"] & self._poison) != 0)] |= _U64(KPF.HWPOISON)
        return found

    def _types_of(self, found: npt.NDArray[np.uint64], of_heads: npt.NDArray[Any]) -> None:
        if self._release < (6, 16):
            return
        for name, bit in self._types:
            found[self.form.is_type(of_heads, name)] |= _U64(bit)

    def _separately(
        self,
        flags: npt.NDArray[np.uint64],
        mapcount: npt.NDArray[np.int32],
        tails: Tails,
        heads: npt.NDArray[np.intp],
        asked: Heads,
        huge: npt.NDArray[np.bool_],
        of_run: npt.NDArray[np.intp],
        of_head: npt.NDArray[np.intp],
    ) -> None:
        """What kernels until 6.9 say: each page has flags of its own, the head has a word in some of them."""
        of_heads = asked.rows.reshape(-1).view(self._dtype)
        anon = (of_heads["mapping"] & _U64(_ANON)) != 0
        lru = (of_heads["flags"] & _U64(self._lru)) != 0
        slab = (of_heads["flags"] & _U64(self.form.mask("PG_slab"))) != 0
        found = np.where(huge, _U64(KPF.HUGE), _U64(0))
        if self._thp:
            found[(anon | lru) & ~huge] |= _U64(KPF.THP)
            zero = (asked.pfn == self._huge_zero) & ~(anon | lru | huge)
            found[zero] |= _U64(KPF.THP | KPF.ZERO_PAGE)
        drop = 0
        if self._release >= (4, 6):
            # The head says whose memory it is, and if any page of all is mapped, all are.
            drop = KPF.ANON | KPF.KSM | KPF.MMAP
            found[anon] |= _U64(KPF.ANON)
            found[(of_heads["mapping"] & _U64(_KSM)) == _U64(_KSM)] |= _U64(KPF.KSM)
            found[slab] |= _U64(KPF.SLAB)
            mapped = self._any_mapped(asked, huge, of_run, of_head, mapcount, tails, heads)
            found[mapped & ~slab] |= _U64(KPF.MMAP)
            if self._release >= (5, 16) and self._idle:
                drop |= KPF.IDLE
                found[(of_heads["flags"] & self._idle) != 0] |= _U64(KPF.IDLE)
        if self._release >= (4, 10):
            drop |= KPF.SWAPCACHE
            both = _U64(self._swap[0] | self._swap[1])
            found[(of_heads["flags"] & both) == both] |= _U64(KPF.SWAPCACHE)
        keep = ~_U64(drop)
        flags[tails.mask] = (
            (flags[tails.mask] & keep & ~_U64(KPF.COMPOUND_HEAD))
            | tails.spread(found[of_run])
            | _U64(KPF.COMPOUND_TAIL)
        )
        flags[heads] = (flags[heads] & keep) | found[of_head]

    def _any_mapped(
        self,
        asked: Heads,
        huge: npt.NDArray[np.bool_],
        of_run: npt.NDArray[np.intp],
        of_head: npt.NDArray[np.intp],
        mapcount: npt.NDArray[np.int32],
        tails: Tails,
        heads: npt.NDArray[np.intp],
    ) -> npt.NDArray[np.bool_]:
        """page_mapped: the whole or, unless it is hugetlb's, any page of it is mapped."""
        mapped = self._mapcounts(asked.second, self._entire) >= 0
        part = np.zeros(len(asked.pfn), bool)
        if len(tails.begin):
            firsts = np.cumsum(tails.length) - tails.length
            highest = np.maximum.reduceat(mapcount[tails.mask], firsts)
            np.logical_or.at(part, of_run, highest >= 0)
        np.logical_or.at(part, of_head, mapcount[heads] >= 0)
        found: npt.NDArray[np.bool_] = mapped | (part & ~huge)
        return found

    def _compound_counts(
        self,
        flags: npt.NDArray[np.uint64],
        mapcount: npt.NDArray[np.int32],
        count: npt.NDArray[np.uint64],
        tails: Tails,
        heads: npt.NDArray[np.intp],
        asked: Heads,
        huge: npt.NDArray[np.bool_],
        of_run: npt.NDArray[np.intp],
        of_head: npt.NDArray[np.intp],
    ) -> None:
        """page_mapcount: what maps the page, and what maps the whole of which it is a part."""
        of_heads = asked.rows.reshape(-1).view(self._dtype)
        entire = self._mapcounts(asked.second, self._entire).astype(np.int64) + 1
        if not self._by_head:
            # Of a file's pages the page's own count has those of the whole in it.
            anon = (of_heads["mapping"] & _U64(_ANON)) != 0
            at = self._dump.layout.offsetof("page", "flags")
            seconds = np.ascontiguousarray(asked.second[:, at : at + 8]).view("<u8")[:, 0]
            double = (seconds & _U64(self._double)) != 0 if self._double else np.zeros(len(huge), bool)
            entire = np.where(anon | huge, entire - double, 0)
        added = entire.view(np.uint64)
        count[tails.mask] += tails.spread(added[of_run])
        count[heads] += added[of_head]
        if not self._by_head:
            typeless = (mapcount < -128) | ((flags & _U64(KPF.SLAB)) != 0)
            count[typeless] = 0

    def _mapcounts(self, second: npt.NDArray[np.uint8], offset: int) -> npt.NDArray[np.int32]:
        """A counter in the second page of compound pages; -1 if the kernel has none."""
        if offset < 0:
            return np.full(len(second), -1, np.int32)
        return np.ascontiguousarray(second[:, offset : offset + 4]).view("<i4")[:, 0]


def _offset(dump: Dump, *names: str) -> int:
    """Where in the second page one of these fields is, of the folio or of the page; -1 if it is nowhere."""
    layout, size = dump.layout, dump.sizeof_page
    for name in names:
        if layout.has("page", name):
            return layout.offsetof("page", name)
        if layout.has("folio", name) and size <= layout.offsetof("folio", name) < 2 * size - 3:
            return layout.offsetof("folio", name) - size
    return -1


def _pfn(dump: Dump, *names: str, struct: str = "") -> int:
    """A PFN that the kernel keeps in a variable, or that of a variable itself; -1 if neither is known."""
    try:
        for name in names:
            if name in dump.symbols:
                value = dump.u64(dump.symbols[name])
                return value if value < 1 << 52 else -1
        return dump.virt_to_phys(dump.symbols[struct]) >> 12 if struct and struct in dump.symbols else -1
    except PhysmemError:
        return -1


def _huge_zero(dump: Dump) -> int:
    """The first PFN of the huge page of zeros; -1 if there is none."""
    found = _pfn(dump, "huge_zero_pfn")
    if found >= 0 or not any(name in dump.symbols for name in ("huge_zero_page", "huge_zero_folio")):
        return found
    page = _pfn(dump, "huge_zero_folio", "huge_zero_page")
    return (page - dump.mem_map) // dump.sizeof_page if page >= dump.mem_map else -1

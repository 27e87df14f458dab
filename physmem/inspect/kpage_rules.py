# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel says of a page in /proc/kpageflags and /proc/kpagecount: the rules of its version, for kinds of pages.

Pages that are alike are told of alike (:mod:`physmem.inspect.rows`): so a rule is applied to each kind of page once,
to each run of tails that lead to the same head, and to each head of a compound page.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from physmem.derived import sublevel_of
from physmem.dump import Dump
from physmem.errors import PhysmemError
from physmem.inspect.folios import Folios, Heads
from physmem.inspect.hugetlb import HugetlbFormat
from physmem.inspect.kpf import KPF, CopiedFlags
from physmem.inspect.memmap import PageArray
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.rows import FREE, HEAD, KEY_FLAGS, KEY_MAPPING, KEY_TAIL, TAIL, Found, Said

__all__ = ["Rules"]

_ANON, _KSM = 1, 3
_U64 = np.uint64
_ALL = _U64((1 << 64) - 1)

U64s = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]


class _Folios(NamedTuple):
    """The compound pages that have a part among some pages.

    :ivar heads: what their heads say
    :ivar first: the heads' ``struct page``, as a structured array
    :ivar huge: which are hugetlb's
    :ivar of_run: of each run of tails, the number of its head
    :ivar of_head: of each head that is here, its number
    """

    heads: Heads
    first: npt.NDArray[Any]
    huge: Bools
    of_run: npt.NDArray[np.intp]
    of_head: npt.NDArray[np.intp]


class Rules:
    """How a kernel fills the files.

    :ivar zero_page: the PFN of the page of zeros; -1 if it is not known
    """

    def __init__(self, dump: Dump, form: PageFormat, array: PageArray) -> None:
        self.form = form
        self._release = dump.release
        self._folios = Folios(dump, array, form)
        self._hugetlb = HugetlbFormat(dump, form)
        layout = dump.layout
        self._dtype = layout.dtype("page", ["flags", "mapping", form.mapcount])
        self._flags_at = layout.offsetof("page", "flags")
        self._by_head = dump.release >= (6, 10)
        self._copied = CopiedFlags(layout, by_head=self._by_head)
        self._head = form.mask("PG_head")
        self._lru = form.mask("PG_lru")
        self._idle = _U64(form.mask("PG_idle"))
        self._swap = form.mask("PG_swapbacked"), form.mask("PG_swapcache")
        self._double = form.mask("PG_double_map")
        self._rmappable = form.mask("PG_large_rmappable")
        self._poison = _U64(form.mask("PG_hwpoison"))
        self._thp = "transparent_hugepage_flags" in dump.symbols
        self._all_ksm = _all_ksm(dump.release, sublevel_of(dump.info))
        self._types = [
            (name, bit)
            for name, bit in (("table", KPF.PGTABLE), ("offline", KPF.OFFLINE), ("balloon", KPF.OFFLINE))
            if name in form.types and (name != "table" or dump.release >= (4, 18))
        ]
        self.zero_page = _pfn(dump, "zero_pfn", "zero_page_pfn", struct="empty_zero_page")
        self._huge_zero = _huge_zero(dump)
        self._entire = _offset(dump, "_entire_mapcount", "compound_mapcount", "_compound_mapcount", "_total_mapcount")
        self._large = _offset(dump, "_large_mapcount")

    def of(self, found: Found) -> Said:
        """What is said of each kind, run and head; since 4.6, pages in free blocks are KPF_BUDDY too."""
        form, key = self.form, found.keys
        words, mapcount = key & _U64(KEY_FLAGS), (key >> _U64(32)).astype(np.uint32).view(np.int32)
        mapping, is_tail = key >> _U64(KEY_MAPPING) & _U64(_KSM), (key & _U64(KEY_TAIL)) != 0
        is_head = ((words & _U64(self._head)) != 0) & ~is_tail
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
        count, keep = self._counts(flags, mapcount)
        runs, heads = (np.zeros((len(many), 3), np.uint64) for many in (found.run_begin, found.head_at))
        runs[:, 2] = heads[:, 2] = _ALL
        if len(runs) or len(heads):
            drop = self._compound(found, runs, heads)
            if self._by_head:
                flags[is_tail] = self._own_tail(flags[is_tail], words[is_tail])
            else:
                flags[is_tail] &= ~_U64(KPF.COMPOUND_HEAD)
                flags[is_tail] &= ~_U64(drop)
            flags[is_tail] |= _U64(KPF.COMPOUND_TAIL)
            flags[is_head] &= ~_U64(drop)
        buddy = form.of_type(mapcount, "buddy")
        flags[buddy] |= _U64(KPF.BUDDY)
        what = is_tail * _U64(TAIL) | is_head * _U64(HEAD) | buddy * _U64(FREE)
        kinds = np.stack([flags, count, keep, what], 1)
        return Said(kinds, runs, heads, int(KPF.BUDDY) if self._release >= (4, 6) else 0)

    # -- a page by itself ----------------------------------------------------------------------------

    def _ksm(self, flags: U64s, mapping: U64s) -> None:
        if self._all_ksm:
            flags |= (flags & _U64(KPF.ANON)) << _U64(9)
            return
        low = mapping & _U64(_KSM)
        if low.any():
            flags[low == _U64(_KSM)] |= _U64(KPF.KSM)

    def _swap_cache(self, flags: U64s, words: U64s) -> None:
        """Since 4.10 the flag is shared, and means this only in memory that swap stands behind."""
        backed, cached = self._swap
        if self._release >= (4, 10):
            both = _U64(backed | cached)
            flags[(words & both) == both] |= _U64(KPF.SWAPCACHE)
        else:
            flags[(words & _U64(cached)) != 0] |= _U64(KPF.SWAPCACHE)

    def _counts(self, flags: U64s, mapcount: npt.NDArray[np.int32]) -> tuple[U64s, U64s]:
        """kpagecount of pages that are no part of compound pages, and the bits that are kept of it in those."""
        none = np.zeros(len(mapcount), bool)
        if self._release >= (4, 18):
            # What has a type has no count: since 6.10 a type is whatever is less than -2^24, before that, than -128.
            none = mapcount < (-(1 << 24) if self._by_head else -128)
        if not self._by_head:
            none |= (flags & _U64(KPF.SLAB)) != 0
        count = np.where(none, 0, mapcount.astype(np.int64) + 1).view(np.uint64)
        keep = np.where(none & (not self._by_head), _U64(0), _ALL)
        return count, keep

    def _own_tail(self, flags: U64s, words: U64s) -> U64s:
        """What a tail still says for itself: its type (until 6.16), and that the page itself is poisoned."""
        own = flags & _U64(KPF.OFFLINE | KPF.PGTABLE if self._release < (6, 16) else 0)
        if self._poison:
            own |= np.where(words & self._poison, _U64(KPF.HWPOISON), _U64(0))
        return own

    # -- compound pages ------------------------------------------------------------------------------

    def _compound(self, found: Found, runs: U64s, heads: U64s) -> int:
        """What heads say of their pages, in both tables; gives the flags that those do not have of themselves."""
        led = self._folios.led(found.run_begin + found.start, found.run_word)
        asked = self._folios.heads_of(led, found.head_at + found.start, found.both, found.known)
        first = asked.rows.reshape(-1).view(self._dtype)
        huge = self._hugetlb.are(first, asked.second) & asked.known
        folios = _Folios(asked, first, huge, asked.at(led), asked.at(found.head_at + found.start))
        if self._by_head:
            drop = int(KPF.MMAP)
            of_all = self._shared(folios)
            runs[:, 0] = ((of_all | self._copied(first["flags"])) & ~_U64(KPF.COMPOUND_HEAD))[folios.of_run]
        else:
            of_all, drop = self._separately(folios, found)
            runs[:, 0] = of_all[folios.of_run]
        heads[:, 0] = of_all[folios.of_head]
        if self._release >= (4, 5):
            added = self._mapped_whole(folios).view(np.uint64)
            # A slab is no mapping's, though what it keeps in the word may look like one.
            kept = _ALL if self._by_head else np.where(of_all & _U64(KPF.SLAB), _U64(0), _ALL)
            both = np.stack([added, np.broadcast_to(kept, added.shape)], 1)
            runs[:, 1:], heads[:, 1:] = both[folios.of_run], both[folios.of_head]
        return drop

    def _shared(self, folios: _Folios) -> U64s:
        """What kernels since 6.10 say of all pages of a compound page."""
        form, first, second, huge = self.form, folios.first, folios.heads.second, folios.huge
        found = np.where(self._mapcounts(second, self._large) >= 0, _U64(KPF.MMAP), _U64(0))
        if self._release >= (6, 16):
            for name, bit in self._types:
                found[form.is_type(first, name)] |= _U64(bit)
        anon = (first["mapping"] & _U64(_ANON)) != 0
        found[anon] |= _U64(KPF.ANON)
        self._ksm(found, first["mapping"])
        if form.slab_type:
            found[form.is_type(first, "slab")] |= _U64(KPF.SLAB)
        if self._idle:
            found[(first["flags"] & self._idle) != 0] |= _U64(KPF.IDLE)
        found[huge] |= _U64(KPF.HUGE)
        rmappable = (self._second_flags(second) & _U64(self._rmappable)) != 0
        found[rmappable & ~huge] |= _U64(KPF.THP)
        zero = (folios.heads.pfn == self._huge_zero) & ~rmappable
        found[zero] |= _U64(KPF.THP | KPF.ZERO_PAGE)
        # A poisoned page of a huge page is one of all; else the head speaks for itself alone.
        if self._poison:
            found[huge & ((first["flags"] & self._poison) != 0)] |= _U64(KPF.HWPOISON)
        return found

    def _separately(self, folios: _Folios, found: Found) -> tuple[U64s, int]:
        """What kernels until 6.9 say: each page has flags of its own, the head has a word in some of them."""
        first, huge = folios.first, folios.huge
        anon = (first["mapping"] & _U64(_ANON)) != 0
        lru = (first["flags"] & _U64(self._lru)) != 0
        slab = (first["flags"] & _U64(self.form.mask("PG_slab"))) != 0
        said = np.where(huge, _U64(KPF.HUGE), _U64(0))
        if self._thp:
            said[(anon | lru) & ~huge] |= _U64(KPF.THP)
            zero = (folios.heads.pfn == self._huge_zero) & ~(anon | lru | huge)
            said[zero] |= _U64(KPF.THP | KPF.ZERO_PAGE)
        drop = 0
        if self._release >= (4, 6):
            # The head says whose memory it is, and if any page of all is mapped, all are.
            drop = int(KPF.ANON | KPF.KSM | KPF.MMAP)
            said[anon] |= _U64(KPF.ANON)
            said[(first["mapping"] & _U64(_KSM)) == _U64(_KSM)] |= _U64(KPF.KSM)
            said[slab] |= _U64(KPF.SLAB)
            said[self._any_mapped(folios, found) & ~slab] |= _U64(KPF.MMAP)
            if self._release >= (5, 16) and self._idle:
                drop |= KPF.IDLE
                said[(first["flags"] & self._idle) != 0] |= _U64(KPF.IDLE)
        if self._release >= (4, 10):
            drop |= KPF.SWAPCACHE
            both = _U64(self._swap[0] | self._swap[1])
            said[(first["flags"] & both) == both] |= _U64(KPF.SWAPCACHE)
        return said, drop

    def _any_mapped(self, folios: _Folios, found: Found) -> Bools:
        """page_mapped: the whole or, unless it is hugetlb's, any page of it is mapped."""
        mapped = self._mapcounts(folios.heads.second, self._entire) >= 0
        part = np.zeros(len(folios.huge), bool)
        np.logical_or.at(part, folios.of_run, found.run_high >= 0)
        own = np.ascontiguousarray(found.both[:, 0]).reshape(-1).view(self._dtype)[self.form.mapcount]
        np.logical_or.at(part, folios.of_head, own >= 0)
        answer: Bools = mapped | (part & ~folios.huge)
        return answer

    def _mapped_whole(self, folios: _Folios) -> npt.NDArray[np.int64]:
        """page_mapcount: what maps the whole of which a page is a part, beside what maps the page."""
        entire = self._mapcounts(folios.heads.second, self._entire).astype(np.int64) + 1
        if self._by_head:
            return entire
        # Of a file's pages the page's own count has those of the whole in it.
        anon = (folios.first["mapping"] & _U64(_ANON)) != 0
        double = (self._second_flags(folios.heads.second) & _U64(self._double)) != 0
        return np.where(anon | folios.huge, entire - double, 0)

    def _second_flags(self, second: npt.NDArray[np.uint8]) -> U64s:
        """The flags of the second page of compound pages."""
        return np.ascontiguousarray(second[:, self._flags_at : self._flags_at + 8]).view("<u8")[:, 0]

    def _mapcounts(self, second: npt.NDArray[np.uint8], offset: int) -> npt.NDArray[np.int32]:
        """A counter in the second page of compound pages; -1 if the kernel has none."""
        if offset < 0:
            return np.full(len(second), -1, np.int32)
        return np.ascontiguousarray(second[:, offset : offset + 4]).view("<i4")[:, 0]


def _all_ksm(release: tuple[int, int], sublevel: int) -> bool:
    """Whether a kernel asks if either of the two bits is set, which of anonymous memory one always is.

    From dee3d0bef2b0 (6.10) to 81401cebfc15 (7.2), which the stable releases 6.18.40 and 7.1.5 have too.
    """
    mended = {(6, 18): 40, (7, 1): 5}
    return (6, 10) <= release < (7, 2) and not sublevel >= mended.get(release, 1 << 16)


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
    return dump.page_map.pfn(page)

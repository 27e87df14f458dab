# SPDX-License-Identifier: GPL-2.0-only
"""The flags of ``/proc/kpageflags``, and those that are copied from ``page->flags``."""

from __future__ import annotations

from enum import IntFlag

import numpy as np
import numpy.typing as npt

from physmem.structs.layout import Layout

__all__ = ["KPF", "CopiedFlags"]


class KPF(IntFlag):
    """include/uapi/linux/kernel-page-flags.h, and include/linux/kernel-page-flags.h from bit 32 on."""

    LOCKED = 1 << 0
    ERROR = 1 << 1
    REFERENCED = 1 << 2
    UPTODATE = 1 << 3
    DIRTY = 1 << 4
    LRU = 1 << 5
    ACTIVE = 1 << 6
    SLAB = 1 << 7
    WRITEBACK = 1 << 8
    RECLAIM = 1 << 9
    BUDDY = 1 << 10
    MMAP = 1 << 11
    ANON = 1 << 12
    SWAPCACHE = 1 << 13
    SWAPBACKED = 1 << 14
    COMPOUND_HEAD = 1 << 15
    COMPOUND_TAIL = 1 << 16
    HUGE = 1 << 17
    UNEVICTABLE = 1 << 18
    HWPOISON = 1 << 19
    NOPAGE = 1 << 20
    KSM = 1 << 21
    THP = 1 << 22
    OFFLINE = 1 << 23
    ZERO_PAGE = 1 << 24
    IDLE = 1 << 25
    PGTABLE = 1 << 26
    RESERVED = 1 << 32
    MLOCKED = 1 << 33
    OWNER_2 = 1 << 34
    PRIVATE = 1 << 35
    PRIVATE_2 = 1 << 36
    OWNER_PRIVATE = 1 << 37
    ARCH = 1 << 38
    UNCACHED = 1 << 39
    SOFTDIRTY = 1 << 40
    ARCH_2 = 1 << 41
    ARCH_3 = 1 << 42
    # What page-types makes of flags that mean something else in some pages, and of page tables.
    ANON_EXCLUSIVE = 1 << 47
    READAHEAD = 1 << 48
    SLUB_FROZEN = 1 << 50
    SLUB_DEBUG = 1 << 51
    FILE = 1 << 61
    SWAP = 1 << 62
    MMAP_EXCLUSIVE = 1 << 63


#: Where each comes from.  MAPPEDTODISK is what OWNER_2 was called until 6.11.
_SOURCES = {
    **{f"PG_{flag.lower()}": KPF[flag] for flag in ("LOCKED", "ERROR", "REFERENCED", "UPTODATE", "DIRTY", "LRU")},
    **{f"PG_{flag.lower()}": KPF[flag] for flag in ("ACTIVE", "WRITEBACK", "RECLAIM", "SWAPBACKED", "UNEVICTABLE")},
    **{f"PG_{flag.lower()}": KPF[flag] for flag in ("HWPOISON", "RESERVED", "MLOCKED", "PRIVATE", "PRIVATE_2")},
    **{f"PG_{flag.lower()}": KPF[flag] for flag in ("UNCACHED", "SLAB")},
    "PG_owner_priv_1": KPF.OWNER_PRIVATE,
    "PG_arch_1": KPF.ARCH,
    "PG_arch_2": KPF.ARCH_2,
    "PG_arch_3": KPF.ARCH_3,
    "PG_head": KPF.COMPOUND_HEAD,
}
_BITS = 12
_HALF = (1 << _BITS) - 1


class CopiedFlags:
    """Copies flags, by two tables of 4096 words: one for each half of the 24 bits that flags have.

    Of kernels with more flags the rest is copied bit by bit.

    :param by_head: as since 6.10: SWAPCACHE among the others, and not HWPOISON
    """

    def __init__(self, layout: Layout, *, by_head: bool) -> None:
        flags = layout.enum("pageflags")
        sources = {name: kpf for name, kpf in _SOURCES.items() if name in flags}
        sources["PG_owner_2" if "PG_owner_2" in flags else "PG_mappedtodisk"] = KPF.OWNER_2
        pairs = [(flags[name], int(kpf)) for name, kpf in sources.items() if name in flags]
        self._tables = [_table(pairs, first) for first in (0, _BITS)]
        self._rest = [(bit, kpf) for bit, kpf in pairs if bit >= 2 * _BITS]
        self._swap = 0
        if by_head:
            self._swap = 1 << flags["PG_swapbacked"] | 1 << flags["PG_swapcache"]
            for first, table in zip((0, _BITS), self._tables, strict=True):
                both = self._swap >> first & _HALF
                if both << first == self._swap:
                    values = np.arange(1 << _BITS)
                    table[(values & both) == both] |= np.uint64(KPF.SWAPCACHE)
                    self._swap = 0

    def __call__(self, words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """The flags that ``page->flags`` of many pages make."""
        index = words.view(np.int64)
        found = self._tables[0].take(index & _HALF)
        found |= self._tables[1].take((index >> _BITS) & _HALF)
        for bit, kpf in self._rest:
            found |= (words >> np.uint64(bit) & np.uint64(1)) * np.uint64(kpf)
        if self._swap:
            both = np.uint64(self._swap)
            found[(words & both) == both] |= np.uint64(KPF.SWAPCACHE)
        return found


def _table(pairs: list[tuple[int, int]], first: int) -> npt.NDArray[np.uint64]:
    """What each value of 12 bits makes: with the highest of its bits, what it makes without that, and a flag more."""
    table = np.zeros(1 << _BITS, np.uint64)
    for bit in range(_BITS):
        more = sum(kpf for number, kpf in pairs if number == first + bit)
        table[1 << bit : 2 << bit] = table[: 1 << bit] | np.uint64(more)
    return table

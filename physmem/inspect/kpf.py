# SPDX-License-Identifier: GPL-2.0-only
"""The flags of ``/proc/kpageflags``, and those that are copied from ``page->flags``."""

from __future__ import annotations

from enum import IntFlag

from physmem.structs.layout import Layout

__all__ = ["KPF", "copied_flags"]


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


def copied_flags(layout: Layout) -> list[tuple[int, int]]:
    """Numbers of bits of ``page->flags`` that are copied, and what each becomes."""
    flags = layout.enum("pageflags")
    sources = dict(_SOURCES)
    sources["PG_owner_2" if "PG_owner_2" in flags else "PG_mappedtodisk"] = KPF.OWNER_2
    return [(flags[name], int(kpf)) for name, kpf in sources.items() if name in flags]

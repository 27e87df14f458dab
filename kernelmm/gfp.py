# SPDX-License-Identifier: GPL-2.0-only
# room: inline
"""``gfp_t``: what an allocation asks for (include/linux/gfp.h of Linux 4.0).

The bits, the composite masks callers use, which zone and which mobility a mask means,
and its name as the kernel's tracepoints print it.
"""

from __future__ import annotations

from physmem.ctype import s32, u32, u64

# Zone modifiers
__GFP_DMA = 0x01
__GFP_HIGHMEM = 0x02
__GFP_DMA32 = 0x04
__GFP_MOVABLE = 0x08
# What the allocator may do
__GFP_WAIT = 0x10
__GFP_HIGH = 0x20
__GFP_IO = 0x40
__GFP_FS = 0x80
__GFP_COLD = 0x100
__GFP_NOWARN = 0x200
__GFP_REPEAT = 0x400
__GFP_NOFAIL = 0x800
__GFP_NORETRY = 0x1000
__GFP_MEMALLOC = 0x2000
__GFP_COMP = 0x4000
__GFP_ZERO = 0x8000
__GFP_NOMEMALLOC = 0x10000
__GFP_HARDWALL = 0x20000
__GFP_THISNODE = 0x40000
__GFP_RECLAIMABLE = 0x80000
__GFP_NOTRACK = 0x200000
__GFP_NO_KSWAPD = 0x400000
__GFP_OTHER_NODE = 0x800000
__GFP_WRITE = 0x1000000

__GFP_BITS_SHIFT = 25
__GFP_BITS_MASK = (1 << 25) - 1

GFP_ATOMIC = __GFP_HIGH
GFP_NOWAIT = GFP_ATOMIC & ~__GFP_HIGH
GFP_NOIO = __GFP_WAIT
GFP_NOFS = __GFP_WAIT | __GFP_IO
GFP_KERNEL = __GFP_WAIT | __GFP_IO | __GFP_FS
GFP_TEMPORARY = GFP_KERNEL | __GFP_RECLAIMABLE
GFP_USER = GFP_KERNEL | __GFP_HARDWALL
GFP_HIGHUSER = GFP_USER | __GFP_HIGHMEM
GFP_HIGHUSER_MOVABLE = GFP_HIGHUSER | __GFP_MOVABLE
GFP_IOFS = __GFP_IO | __GFP_FS
GFP_TRANSHUGE = GFP_HIGHUSER_MOVABLE | __GFP_COMP | __GFP_NOMEMALLOC | __GFP_NORETRY | __GFP_NOWARN | __GFP_NO_KSWAPD
GFP_DMA = __GFP_DMA
GFP_DMA32 = __GFP_DMA32
#: On a NUMA kernel; without CONFIG_NUMA it is 0.
GFP_THISNODE = __GFP_THISNODE | __GFP_NOWARN | __GFP_NORETRY

GFP_MOVABLE_MASK = __GFP_RECLAIMABLE | __GFP_MOVABLE
GFP_ZONEMASK = __GFP_DMA | __GFP_HIGHMEM | __GFP_DMA32 | __GFP_MOVABLE
GFP_BOOT_MASK = __GFP_BITS_MASK & ~GFP_KERNEL

# enum zone_type of x86-64 with ZONE_DMA and ZONE_DMA32
ZONE_DMA = 0
ZONE_DMA32 = 1
ZONE_NORMAL = 2
ZONE_MOVABLE = 3
ZONES_SHIFT = 2

#: Two bits of zone number for each value of the four zone modifiers; HIGHMEM alone is NORMAL on 64 bits.
GFP_ZONE_TABLE = (
    ZONE_NORMAL << 0
    | ZONE_DMA << __GFP_DMA * ZONES_SHIFT
    | ZONE_NORMAL << __GFP_HIGHMEM * ZONES_SHIFT
    | ZONE_DMA32 << __GFP_DMA32 * ZONES_SHIFT
    | ZONE_NORMAL << __GFP_MOVABLE * ZONES_SHIFT
    | ZONE_DMA << (__GFP_MOVABLE | __GFP_DMA) * ZONES_SHIFT
    | ZONE_MOVABLE << (__GFP_MOVABLE | __GFP_HIGHMEM) * ZONES_SHIFT
    | ZONE_DMA32 << (__GFP_MOVABLE | __GFP_DMA32) * ZONES_SHIFT
)
#: One bit for each value of the four zone modifiers that means nothing.
GFP_ZONE_BAD = (
    1 << (__GFP_DMA | __GFP_HIGHMEM)
    | 1 << (__GFP_DMA | __GFP_DMA32)
    | 1 << (__GFP_DMA32 | __GFP_HIGHMEM)
    | 1 << (__GFP_DMA | __GFP_DMA32 | __GFP_HIGHMEM)
    | 1 << (__GFP_MOVABLE | __GFP_HIGHMEM | __GFP_DMA)
    | 1 << (__GFP_MOVABLE | __GFP_DMA32 | __GFP_DMA)
    | 1 << (__GFP_MOVABLE | __GFP_DMA32 | __GFP_HIGHMEM)
    | 1 << (__GFP_MOVABLE | __GFP_DMA32 | __GFP_DMA | __GFP_HIGHMEM)
)


def gfp_zone(flags: u32) -> s32:
    """Highest ``enum zone_type`` that the mask allows."""
    table: u64 = GFP_ZONE_TABLE
    return (table >> ((flags & GFP_ZONEMASK) * ZONES_SHIFT)) & 3


def gfpflags_to_migratetype(flags: u32, mobility_disabled: bool) -> s32:
    """``enum migratetype`` of the mask: movable, reclaimable or unmovable."""
    if mobility_disabled:
        return 0
    return ((flags & __GFP_MOVABLE) >> 2) | ((flags & __GFP_RECLAIMABLE) >> 19)


# -- names --------------------------------------------------------------------

#: As include/trace/events/gfpflags.h lists them: composites first, then bits; first match wins.
_TRACE_NAMES = (
    (GFP_TRANSHUGE, "GFP_TRANSHUGE"),
    (GFP_HIGHUSER_MOVABLE, "GFP_HIGHUSER_MOVABLE"),
    (GFP_HIGHUSER, "GFP_HIGHUSER"),
    (GFP_USER, "GFP_USER"),
    (GFP_TEMPORARY, "GFP_TEMPORARY"),
    (GFP_KERNEL, "GFP_KERNEL"),
    (GFP_NOFS, "GFP_NOFS"),
    (GFP_ATOMIC, "GFP_ATOMIC"),
    (GFP_NOIO, "GFP_NOIO"),
    (__GFP_HIGH, "GFP_HIGH"),
    (__GFP_WAIT, "GFP_WAIT"),
    (__GFP_IO, "GFP_IO"),
    (__GFP_COLD, "GFP_COLD"),
    (__GFP_NOWARN, "GFP_NOWARN"),
    (__GFP_REPEAT, "GFP_REPEAT"),
    (__GFP_NOFAIL, "GFP_NOFAIL"),
    (__GFP_NORETRY, "GFP_NORETRY"),
    (__GFP_COMP, "GFP_COMP"),
    (__GFP_ZERO, "GFP_ZERO"),
    (__GFP_NOMEMALLOC, "GFP_NOMEMALLOC"),
    (__GFP_MEMALLOC, "GFP_MEMALLOC"),
    (__GFP_HARDWALL, "GFP_HARDWALL"),
    (__GFP_THISNODE, "GFP_THISNODE"),
    (__GFP_RECLAIMABLE, "GFP_RECLAIMABLE"),
    (__GFP_MOVABLE, "GFP_MOVABLE"),
    (__GFP_NOTRACK, "GFP_NOTRACK"),
    (__GFP_NO_KSWAPD, "GFP_NO_KSWAPD"),
    (__GFP_OTHER_NODE, "GFP_OTHER_NODE"),
)


def gfp_names(flags: int) -> str:
    """The mask as the kmem tracepoints of 4.0 print it, e.g. ``GFP_KERNEL|GFP_ZERO``."""
    if not flags:
        return "GFP_NOWAIT"
    names = []
    for mask, name in _TRACE_NAMES:
        if flags & mask == mask:
            names.append(name)
            flags &= ~mask
    if flags:
        names.append(f"{flags:#x}")
    return "|".join(names)

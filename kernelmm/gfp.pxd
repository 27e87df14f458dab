# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from gfp.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
cdef enum:
    __GFP_DMA = 1
cdef enum:
    __GFP_HIGHMEM = 2
cdef enum:
    __GFP_DMA32 = 4
cdef enum:
    __GFP_MOVABLE = 8
cdef enum:
    __GFP_WAIT = 16
cdef enum:
    __GFP_HIGH = 32
cdef enum:
    __GFP_IO = 64
cdef enum:
    __GFP_FS = 128
cdef enum:
    __GFP_COLD = 256
cdef enum:
    __GFP_NOWARN = 512
cdef enum:
    __GFP_REPEAT = 1024
cdef enum:
    __GFP_NOFAIL = 2048
cdef enum:
    __GFP_NORETRY = 4096
cdef enum:
    __GFP_MEMALLOC = 8192
cdef enum:
    __GFP_COMP = 16384
cdef enum:
    __GFP_ZERO = 32768
cdef enum:
    __GFP_NOMEMALLOC = 65536
cdef enum:
    __GFP_HARDWALL = 131072
cdef enum:
    __GFP_THISNODE = 262144
cdef enum:
    __GFP_RECLAIMABLE = 524288
cdef enum:
    __GFP_NOTRACK = 2097152
cdef enum:
    __GFP_NO_KSWAPD = 4194304
cdef enum:
    __GFP_OTHER_NODE = 8388608
cdef enum:
    __GFP_WRITE = 16777216
cdef enum:
    __GFP_BITS_SHIFT = 25
cdef enum:
    __GFP_BITS_MASK = 33554431
cdef enum:
    GFP_ATOMIC = 32
cdef enum:
    GFP_NOWAIT = 0
cdef enum:
    GFP_NOIO = 16
cdef enum:
    GFP_NOFS = 80
cdef enum:
    GFP_KERNEL = 208
cdef enum:
    GFP_TEMPORARY = 524496
cdef enum:
    GFP_USER = 131280
cdef enum:
    GFP_HIGHUSER = 131282
cdef enum:
    GFP_HIGHUSER_MOVABLE = 131290
cdef enum:
    GFP_IOFS = 192
cdef enum:
    GFP_TRANSHUGE = 4412122
cdef enum:
    GFP_DMA = 1
cdef enum:
    GFP_DMA32 = 4
cdef enum:
    GFP_THISNODE = 266752
cdef enum:
    GFP_MOVABLE_MASK = 524296
cdef enum:
    GFP_ZONEMASK = 15
cdef enum:
    GFP_BOOT_MASK = 33554223
cdef enum:
    ZONE_DMA = 0
cdef enum:
    ZONE_DMA32 = 1
cdef enum:
    ZONE_NORMAL = 2
cdef enum:
    ZONE_MOVABLE = 3
cdef enum:
    ZONES_SHIFT = 2
cdef enum:
    GFP_ZONE_TABLE = 20054306
cdef enum:
    GFP_ZONE_BAD = 59624

cdef inline int32_t gfp_zone(uint32_t flags) noexcept:
    cdef uint64_t table
    with cython.boundscheck(False):
        table = GFP_ZONE_TABLE
        return table >> (flags & GFP_ZONEMASK) * ZONES_SHIFT & 3

cdef inline int32_t gfpflags_to_migratetype(uint32_t flags, bint mobility_disabled) noexcept:
    with cython.boundscheck(False):
        if mobility_disabled:
            return 0
        return (flags & __GFP_MOVABLE) >> 2 | (flags & __GFP_RECLAIMABLE) >> 19

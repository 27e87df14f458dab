# SPDX-License-Identifier: GPL-2.0-only
"""``struct memblock``, the memory map of early boot (include/linux/memblock.h), and ``struct cma`` (mm/cma.h)."""

from __future__ import annotations

from functools import cache

from physmem.structs.cdecl import Aggregate, bool_, int_, ptr, struct, typedef, unsigned_int, unsigned_long
from physmem.structs.linux_4_0.basic import mutex
from physmem.structs.linux_4_0.config import Config

__all__ = ["cma", "memblock", "memblock_region", "memblock_type"]

_phys_addr_t = typedef("phys_addr_t", unsigned_long)

memblock_region = struct(
    "memblock_region",
    "base" / _phys_addr_t,
    "size" / _phys_addr_t,
    "flags" / unsigned_long * "1: can be hot-unplugged",
    "nid" / int_,
)

memblock_type = struct(
    "memblock_type",
    "cnt" / unsigned_long * "regions",
    "max" / unsigned_long * "regions there is room for",
    "total_size" / _phys_addr_t * "bytes in all regions",
    "regions" / ptr("struct memblock_region") * "sorted, disjoint",
)

memblock = struct(
    "memblock",
    "bottom_up" / bool_ * "allocate from low addresses",
    "current_limit" / _phys_addr_t * "allocate below",
    "memory" / memblock_type,
    "reserved" / memblock_type,
)


@cache
def cma(c: Config) -> Aggregate:
    """``struct cma``: a range kept for contiguous allocations; its pageblocks are MIGRATE_CMA."""
    return struct(
        "cma",
        "base_pfn" / unsigned_long,
        "count" / unsigned_long * "pages",
        "bitmap" / ptr("unsigned long") * "of allocated pages",
        "order_per_bit" / unsigned_int * "each bit stands for 2^this pages",
        "lock" / mutex(c),
    )

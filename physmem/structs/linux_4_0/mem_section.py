# SPDX-License-Identifier: GPL-2.0-only
"""``struct mem_section``: 128 MiB of a sparse memory map (include/linux/mmzone.h)."""

from __future__ import annotations

from functools import cache

from physmem.structs.cdecl import Aggregate, ptr, struct, unsigned_long, when
from physmem.structs.linux_4_0.config import Config

__all__ = ["mem_section"]


@cache
def mem_section(c: Config) -> Aggregate:
    """``struct mem_section``; its size is a power of two, which section numbers are split by."""
    return struct(
        "mem_section",
        "section_mem_map" / unsigned_long * "page array of pfn 0 if it began here, SECTION_* bits below",
        "pageblock_flags" / ptr("unsigned long") * "4 bits a pageblock",
        *when(c.page_extension, "page_ext" / ptr("struct page_ext"), "pad" / unsigned_long),
    )

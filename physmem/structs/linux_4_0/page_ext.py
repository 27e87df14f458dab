# SPDX-License-Identifier: GPL-2.0-only
"""``struct page_ext``: what debugging aids know about a page (include/linux/page_ext.h).

An array of them for each section, of which ``mem_section.page_ext`` points to where the entry of PFN 0 would be.
"""

from __future__ import annotations

from functools import cache

from physmem.structs.cdecl import Aggregate, struct, unsigned_int, unsigned_long, when
from physmem.structs.linux_4_0.config import Config

__all__ = ["page_ext"]


@cache
def page_ext(c: Config) -> Aggregate:
    """``struct page_ext``; a kernel without CONFIG_PAGE_EXTENSION has none."""
    return struct(
        "page_ext",
        "flags" / unsigned_long * "PAGE_EXT_* bits",
        *when(
            c.page_owner,
            "order" / unsigned_int * "of the allocation",
            "gfp_mask" / unsigned_int,
            "nr_entries" / unsigned_int * "of the stack trace",
            "trace_entries" / unsigned_long[8] * "return addresses, innermost first",
        ),
    )

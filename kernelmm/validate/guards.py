# SPDX-License-Identifier: GPL-2.0-only
"""Guard pages: blocks that debug_guardpage_minorder keeps free, and on no list, beside each small one in use.

Until 4.17 they are marked in ``page_ext``, an array of each section's; since then by their type.
"""

from __future__ import annotations

from contextlib import suppress

from physmem.dump import Dump
from physmem.errors import PhysmemError

__all__ = ["is_marked"]

_U64 = (1 << 64) - 1


def is_marked(dump: Dump, pfn: int) -> bool:
    """Whether the flags of a page's ``struct page_ext`` say that it is a guard page; False where there is none."""
    bit = dump.layout.enums.get("page_ext_flags", {}).get("PAGE_EXT_DEBUG_GUARD")
    if bit is None or not dump.layout.has("mem_section", "page_ext") or "mem_section" not in dump.symbols:
        return False
    layout = dump.layout
    root, rest = divmod(pfn >> layout.constant("PFN_SECTION_SHIFT"), layout.constant("SECTIONS_PER_ROOT"))
    with suppress(PhysmemError):
        first = dump.u64(dump.symbols["mem_section"] + 8 * root)
        if first:
            section = first + rest * layout.sizeof("mem_section")
            array = dump.field(section, "mem_section", "page_ext")
            if array:
                return bool(dump.u64(array + pfn * layout.sizeof("page_ext") & _U64) >> bit & 1)
    return False

# SPDX-License-Identifier: GPL-2.0-only
"""``struct page``: 64 bytes for every page frame (include/linux/mm_types.h).

Nearly all of it is unions: the same words are the page cache's, the slab
allocators', the head's and the tails' of a compound page, and, while the page
is free, the page allocator's - ``lru`` links it into a free list or a per-cpu
list, ``private`` holds the order of the free block it heads, ``index`` the
migratetype of the list it was last put on, ``_mapcount`` marks it as Buddy.
"""

from __future__ import annotations

from functools import cache

from physmem.structs.cdecl import (
    Aggregate,
    bits,
    bool_,
    int_,
    ptr,
    struct,
    typedef,
    union,
    unsigned_int,
    unsigned_long,
    when,
)
from physmem.structs.linux_4_0.basic import atomic_t, list_head, spinlock_t
from physmem.structs.linux_4_0.config import Config
from physmem.structs.linux_4_0.constants import page_flags

__all__ = ["page"]

_callback_head = struct(
    "callback_head",
    "next" / ptr("struct callback_head"),
    "func" / ptr("void (struct callback_head *)", "void (*)(struct callback_head *)"),
)


@cache
def page(c: Config) -> Aggregate:
    """``struct page``, aligned to two words so that a cmpxchg16b can take freelist and counters at once."""
    flags = page_flags(c)
    last_cpupid_outside = flags["LAST_CPUPID_WIDTH"] < flags["LAST_CPUPID_SHIFT"]
    users = union(
        None,
        "_mapcount" / atomic_t * "page table entries that map it, less one; -128: heads a free block",
        struct(
            None,
            "inuse" / bits(unsigned_int, 16) * "SLUB: objects in use",
            "objects" / bits(unsigned_int, 15) * "SLUB: objects in all",
            "frozen" / bits(unsigned_int, 1) * "SLUB: the slab is a CPU's own",
        ),
        "units" / int_ * "SLOB",
    )
    return struct(
        "page",
        "flags" / unsigned_long * "PG_* bits; from the top: section, node, zone, last_cpupid",
        union(
            None,
            "mapping" / ptr("struct address_space") * "whose page it is; bit 0: an anon_vma",
            "s_mem" / ptr("void") * "slab: first object",
        ),
        struct(
            None,
            union(
                None,
                "index" / unsigned_long * "offset in the mapping; of a free page: its migratetype",
                "freelist" / ptr("void") * "slab: first free object",
                "pfmemalloc" / bool_ * "allocated from the reserves (low byte of index)",
            ),
            union(
                None,
                "counters" / unsigned_long * "SLUB: the two words below as one",
                struct(None, users, "_count" / atomic_t * "references; 0: free"),
                "active" / unsigned_int * "SLAB: objects in use",
            ),
        ),
        union(
            None,
            "lru" / list_head * "links of an LRU list, a free list or a per-cpu list",
            struct(
                None,
                "next" / ptr("struct page") * "SLUB: next partial slab of a CPU",
                "pages" / int_,
                "pobjects" / int_,
            ),
            "slab_page" / ptr("struct slab"),
            "callback_head" / _callback_head * "to be freed after a grace period",
            struct(
                None,
                "compound_dtor" / ptr("compound_page_dtor") * "first tail: what frees the compound page",
                "compound_order" / unsigned_long * "first tail: order of the compound page",
            ),
            *when(
                c.transparent_hugepage and c.split_pmd_ptlocks,
                "pmd_huge_pte" / typedef("pgtable_t", ptr("struct page")) * "page table kept for a huge page's split",
            ),
        ),
        union(
            None,
            "private" / unsigned_long * "the owner's; of the head of a free block: its order",
            *when(c.split_ptlocks, "ptl" / spinlock_t(c) * "page table: its lock"),
            "slab_cache" / ptr("struct kmem_cache"),
            "first_page" / ptr("struct page") * "tail: the compound page's head",
        ),
        *when(c.memcg, "mem_cgroup" / ptr("struct mem_cgroup") * "who is charged for it"),
        *when(c.kmemcheck, "shadow" / ptr("void") * "which of its bytes were written: a byte for each"),
        *when(last_cpupid_outside, "_last_cpupid" / int_ * "CPU and process that used it last"),
        align=16,
    )

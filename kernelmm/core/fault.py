# SPDX-License-Identifier: GPL-2.0-only
# room: inline
"""Fault injection: make some allocations fail on purpose (lib/fault-inject.c, mm/page_alloc.c).

The attributes of ``fail_page_alloc`` are a variable of the kernel, in emulated memory:
how likely (percent), every how many candidates, how often at most (-1: no limit), after how many
pages, and which requests are left alone.
"""

from __future__ import annotations

from kernelmm import gfp
from kernelmm.core.mm import Mm
from physmem import word
from physmem.ctype import s32, u32, u64

# struct { struct fault_attr attr; u32 ignore_gfp_highmem, ignore_gfp_wait, min_order; }
PROBABILITY = 0
INTERVAL = 8
TIMES = 16
SPACE = 20
VERBOSE = 24
TASK_FILTER = 32
STACKTRACE_DEPTH = 40
REQUIRE_START = 48
REQUIRE_END = 56
REJECT_START = 64
REJECT_END = 72
COUNT = 80
RATELIMIT = 88
# on a kernel whose spinlocks have no bytes, all that follows is 8 bytes less
DNAME = 120
IGNORE_GFP_HIGHMEM = 128
IGNORE_GFP_WAIT = 132
MIN_ORDER = 136
SIZE = 140


def should_fail(mm: Mm, attr: u64, size: s32) -> bool:
    """``should_fail``: whether this candidate is the one; ``attr`` is the physical address of the attributes."""
    probability: u64 = mm.as_u64[(attr + PROBABILITY) >> 3]
    interval: u64 = mm.as_u64[(attr + INTERVAL) >> 3]
    times: s32 = mm.as_s32[(attr + TIMES) >> 2]
    if probability == 0:
        return False
    if mm.as_u32[(attr + TASK_FILTER) >> 2] != 0 and not mm.fail_task():
        return False
    if times == 0:
        return False
    if mm.as_s32[(attr + SPACE) >> 2] > size:
        word.add_s32(mm, attr + SPACE, -size)
        return False
    if interval > 1:
        word.add_u64(mm, attr + COUNT, 1)
        if mm.as_u64[(attr + COUNT) >> 3] % interval != 0:
            return False
    if (probability < 100 or mm.percpu_net_rand_state != 0) and probability <= mm.prandom_u32() % 100:
        return False
    mm.fail_dump(attr)
    if times != -1:
        word.add_s32(mm, attr + TIMES, -1)
    return True


def should_fail_alloc_page(mm: Mm, gfp_mask: u32, order: u32) -> bool:
    """``should_fail_alloc_page``: nothing without CONFIG_FAIL_PAGE_ALLOC, or while its probability is 0."""
    attr: u64 = mm.var_fail_page_alloc
    pages: s32 = word.bit(order)
    tail: u64
    if attr == 0 or mm.as_u64[(attr + PROBABILITY) >> 3] == 0:
        return False
    tail = attr if mm.smp else attr - 8
    if order < mm.as_u32[(tail + MIN_ORDER) >> 2] or gfp_mask & gfp.__GFP_NOFAIL:
        return False
    if gfp_mask & gfp.__GFP_HIGHMEM and mm.as_u32[(tail + IGNORE_GFP_HIGHMEM) >> 2] != 0:
        return False
    if gfp_mask & gfp.__GFP_WAIT and mm.as_u32[(tail + IGNORE_GFP_WAIT) >> 2] != 0:
        return False
    return should_fail(mm, attr, pages)

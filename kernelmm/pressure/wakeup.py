# SPDX-License-Identifier: GPL-2.0-only
# room: compiled
"""Is there work for kswapd or for compaction, and waking kswapd (mm/vmscan.c, mm/compaction.c, mm/vmstat.c).

Waking takes the waiter off the node's wait queue; kswapd runs when somebody lets it
(:mod:`kernelmm.pressure.kswapd`).
"""

from __future__ import annotations

from kernelmm import gfp
from kernelmm.core import cpuset, mmzone, watermark
from kernelmm.core.mm import Mm
from kernelmm.pressure import codes
from physmem import abi, address, list_head, word
from physmem.ctype import s32, s64, u32, u64


def fragmentation_index(mm: Mm, z: u64, order: u32) -> s32:
    """``fragmentation_index``: why a block of ``order`` cannot be had: towards 0 memory is short, towards 1000 it
    is in pieces; -1000 if there is such a block.
    """
    free_pages: s64 = 0
    blocks: s64 = 0
    per_block: s64
    o: u32
    for o in range(abi.MAX_ORDER):
        blocks += mmzone.nr_free(mm, z, o)
        free_pages += mmzone.nr_free(mm, z, o) << o
        if o >= order and mmzone.nr_free(mm, z, o) != 0:
            return -1000
    if blocks == 0:
        return 0
    per_block = (free_pages * 1000) >> order
    return 1000 - (1000 + per_block) // blocks


def __compaction_suitable(mm: Mm, z: u64, order: u32, alloc_flags: u32, classzone_idx: s32) -> s32:
    """``__compaction_suitable``: of what :func:`compaction_suitable` skips, one kind has a name of its own."""
    low: s64 = watermark.wmark_pages(mm, z, watermark.WMARK_LOW)
    index: s32
    if watermark.zone_watermark_ok(mm, z, order, low, classzone_idx, alloc_flags):
        return codes.COMPACT_PARTIAL
    if not watermark.zone_watermark_ok(mm, z, 0, low + word.bit(order + 1), classzone_idx, alloc_flags):
        return codes.COMPACT_SKIPPED
    index = fragmentation_index(mm, z, order)
    if index >= 0 and index <= codes.EXTFRAG_THRESHOLD:
        return codes.COMPACT_NOT_SUITABLE_ZONE
    return codes.COMPACT_CONTINUE


def compaction_suitable(mm: Mm, z: u64, order: u32, alloc_flags: u32, classzone_idx: s32) -> s32:
    """``compaction_suitable``: COMPACT_PARTIAL if the block can be had without, COMPACT_SKIPPED if it would not
    help (too few free pages to move pages to, or too few in pieces), COMPACT_CONTINUE if it should run.
    """
    suitable: s32 = __compaction_suitable(mm, z, order, alloc_flags, classzone_idx)
    if mm.tracing:
        mm.tracer.mm_compaction_suitable(mm, z, order, suitable)
    if suitable == codes.COMPACT_NOT_SUITABLE_ZONE:
        return codes.COMPACT_SKIPPED
    return suitable


def zone_balanced(mm: Mm, z: u64, order: u32, balance_gap: u64, classzone_idx: s32) -> bool:
    """``zone_balanced``: kswapd has nothing to do here; ``balance_gap`` is what it wants above the high mark."""
    high: s64 = watermark.wmark_pages(mm, z, watermark.WMARK_HIGH) + balance_gap
    if not watermark.zone_watermark_ok_safe(mm, z, order, high, classzone_idx, 0):
        return False
    if mm.compaction and order != 0:
        return compaction_suitable(mm, z, order, 0, classzone_idx) != codes.COMPACT_SKIPPED
    return True


def wait_lock(mm: Mm, pgdat: u64) -> None:
    """Take and release the lock of ``pgdat->kswapd_wait``; ``pgdat`` is a physical address."""
    if mm.smp:
        word.add_u8(mm, pgdat + mm.pgdat_kswapd_wait_lock + 1, mm.ticket_lock_inc)
        word.add_u8(mm, pgdat + mm.pgdat_kswapd_wait_lock, mm.ticket_lock_inc)


def wakeup_kswapd(mm: Mm, zone: u64, order: u32, classzone_idx: u32) -> None:
    """``wakeup_kswapd``: leave word of what is wanted, and wake the node's kswapd if the zone is low."""
    z: u64 = mmzone.zone_off(mm, zone)
    pgdat: u64 = address.struct_off(mm, mmzone.pgdat_of(mm, z), mm.sizeof_pgdat)
    head: u64 = mmzone.pgdat_of(mm, z) + mm.pgdat_kswapd_wait_task_list
    head_at: u64 = pgdat + mm.pgdat_kswapd_wait_task_list
    wanted: s32 = order
    if not mmzone.populated(mm, z) or not cpuset.node_allowed(
        mm, mmzone.zone_nid(mm, z), gfp.GFP_KERNEL | gfp.__GFP_HARDWALL
    ):
        return
    if mm.as_s32[(pgdat + mm.pgdat_kswapd_max_order) >> 2] < wanted:
        mm.as_s32[(pgdat + mm.pgdat_kswapd_max_order) >> 2] = wanted
        if mm.as_u32[(pgdat + mm.pgdat_classzone_idx) >> 2] > classzone_idx:
            mm.as_u32[(pgdat + mm.pgdat_classzone_idx) >> 2] = classzone_idx
    if list_head.list_empty(mm, head, head_at) or zone_balanced(mm, z, order, 0, 0):
        return
    if mm.tracing:
        mm.tracer.mm_vmscan_wakeup_kswapd(mm, mmzone.zone_nid(mm, z), mmzone.zone_idx(mm, zone, z), order)
    wait_lock(mm, pgdat)
    if list_head.first(mm, head_at) != list_head.last(mm, head_at):
        mm.unsupported("more than one task waiting on kswapd_wait")
    # The waiter lives on kswapd's stack, which an image need not have: empty the queue from its head.
    list_head.init_list_head(mm, head, head_at)
